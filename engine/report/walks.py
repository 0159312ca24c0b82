"""A walk as JSON and as text: two views of the same record, in which nothing is worked out anew.

In the JSON, addresses, entries and masks are hex strings with 0x; sizes, levels, slots and error codes are integers.
The text is a table of at most 100 columns, one line a reference, with the outcome decoded below it.
"""

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from engine.arch.addresses import grouped, size_name
from engine.arch.bits import bit_names
from engine.arch.faults import (
    EPT_VIOLATION_BITS,
    NPF_BITS,
    PF_BITS,
    CodeBit,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    NestedPageFault,
    Outcome,
    PageFault,
    Rights,
    Translated,
    Unknown,
    Violation,
    decode_code,
)
from engine.arch.formats import Decoded, Role
from engine.arch.paging import Paging
from engine.arch.second_stage import SecondStage
from engine.arch.walk import Rule, Stage, Step, Update, Walk

# --- JSON ------------------------------------------------------------------------------------------------------------


def walk_json(walk: Walk) -> dict[str, Any]:
    """Everything that ``walk`` holds, ready for any JSON encoder."""
    return {
        "address": hex(walk.address),
        "linear": hex(walk.linear),
        "access": _access_json(walk),
        "paging": _paging_json(walk.paging),
        "second": _second_json(walk.second) if walk.second else None,
        "host": _second_json(walk.host) if walk.host else None,
        "gpa": _hex(walk.gpa),
        "steps": [_step_json(number, step) for number, step in numbered(walk)],
        "outcome": outcome_json(walk.outcome),
        "stopped_by": walk.stopped_by.value if walk.stopped_by else None,
        "updates": [_update_json(update) for update in walk.updates],
        "references": walk.references,
        "cache_lines": walk.cache_lines,
    }


def numbered(walk: Walk) -> Iterator[tuple[int | None, Step]]:
    """The steps with their numbers among the memory references, from 1; a register's step has none."""
    number = 0
    for step in walk.steps:
        number += step.address is not None
        yield (number if step.address is not None else None), step


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """``outcome`` with its codes decoded bit by bit; ``kind`` tells which one it is."""
    match outcome:
        case Translated():
            return {
                "kind": "translated",
                "pa": hex(outcome.address),
                "page_size": outcome.page_size,
                "rights": _rights_json(outcome.rights),
            }
        case PageFault():
            return {
                "kind": "page fault",
                "vector": outcome.vector,
                "error_code": outcome.error_code,
                "cr2": hex(outcome.cr2),
                "decoded": _code_json(outcome.error_code, PF_BITS),
                **_reasons_json(outcome),
                "reserved": hex(outcome.reserved),
            }
        case GeneralProtection():
            return {
                "kind": "general protection" if outcome.vector == 13 else "stack fault",
                "vector": outcome.vector,
                "error_code": 0,
                "reason": outcome.reason,
                "when": outcome.when,
                "basis": str(outcome.basis),
            }
        case Unknown():
            return {"kind": "unknown", "address": hex(outcome.address)}
        case NestedPageFault():
            return {
                "kind": "nested page fault",
                "exitinfo1": hex(outcome.exitinfo1),
                "exitinfo2": hex(outcome.exitinfo2),
                "decoded": _code_json(outcome.exitinfo1, NPF_BITS),
                **_reasons_json(outcome),
                "reserved": hex(outcome.reserved),
            }
        case EptViolation():
            return {
                "kind": "EPT violation",
                "qualification": hex(outcome.qualification),
                "gpa": hex(outcome.gpa),
                "gla": _hex(outcome.gla),
                "decoded": _code_json(outcome.qualification, EPT_VIOLATION_BITS),
                **_reasons_json(outcome),
            }
        case EptMisconfiguration():
            return {
                "kind": "EPT misconfiguration",
                "gpa": hex(outcome.gpa),
                "why": outcome.why,
                "basis": str(outcome.basis),
            }


def _reasons_json(outcome: PageFault | NestedPageFault | EptViolation) -> dict[str, Any]:
    return {
        "reason": outcome.reason.value,
        "violations": [violation.value for violation in outcome.violations],
        "basis": str(outcome.basis),
    }


def _access_json(walk: Walk) -> dict[str, Any]:
    access, cpl = walk.access, walk.paging.registers.cpl
    return {
        "kind": access.kind.value,
        "size": access.size,
        "cpl": cpl,
        "user": access.is_user(cpl),
        "implicit": access.implicit,
    }


def _paging_json(paging: Paging) -> dict[str, Any]:
    r = paging.registers
    return {
        "mode": paging.mode.value,
        "root": hex(paging.root),
        "cr0": hex(r.cr0),
        "cr3": hex(r.cr3),
        "cr4": hex(r.cr4),
        "efer": hex(r.efer),
        "pkru": hex(r.pkru),
        "pkrs": hex(r.pkrs),
        "rflags": hex(r.rflags),
        "vendor": paging.features.vendor.value,
        "maxphyaddr": paging.features.maxphyaddr,
    }


def _second_json(second: SecondStage) -> dict[str, Any]:
    return {"kind": second.kind.value, "mode": second.paging.name, "root": hex(second.paging.root)}


def _step_json(number: int | None, step: Step) -> dict[str, Any]:
    return {
        "number": number,
        "stage": step.stage.value,
        "row": step.row,
        "level": step.level.level,
        "table": step.level.name,
        "table_address": _hex(step.table),
        "index": step.index,
        "entry": step.entry.name,
        "address": _hex(step.address),
        "target": _hex(step.target),
        "column": step.column,
        "middle": _hex(step.middle),
        "value": _hex(step.value),
        "fields": [_field_json(field) for field in step.decoded()],
        "base": _hex(step.base),
        "verdict": step.rule.name.lower(),
        "rule": step.rule.value,
        "basis": str(step.rule.basis),
    }


def _field_json(field: Decoded) -> dict[str, Any]:
    return {
        "name": field.name,
        "hi": field.hi,
        "lo": field.lo,
        "value": hex(field.value),
        "role": field.role.value,
        "meaning": field.meaning,
        "why": field.why,
    }


def _rights_json(rights: Rights) -> dict[str, Any]:
    return {
        "read": rights.read,
        "write": rights.write,
        "execute": rights.execute,
        "user": rights.user,
        "key": rights.key,
        "global": rights.global_,
    }


def _code_json(code: int, table: tuple[CodeBit, ...]) -> list[dict[str, Any]]:
    return [
        {"bit": bit.bit, "name": bit.name, "value": value, "meaning": meaning}
        for bit, value, meaning in decode_code(code, table)
    ]


def _update_json(update: Update) -> dict[str, Any]:
    return {"address": hex(update.address), "size": update.size, "old": hex(update.old), "new": hex(update.new)}


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


# --- text ------------------------------------------------------------------------------------------------------------

VERDICTS = {
    Rule.TABLE: "table",
    Rule.PAGE: "page",
    Rule.DENIED: "denied",
    Rule.NOT_PRESENT: "not present",
    Rule.RESERVED: "reserved",
    Rule.MISCONFIGURED: "illegal",
    Rule.UNKNOWN: "not in image",
}
HEADINGS = ("#", "entry", "read at", "value", "flags", "verdict")
SHORT = {"R/W": "RW", "U/S": "US", "key": "K", "memory type": "MT", "suppress #VE": "SVE"}
UNTOLD = (Role.SIZE, Role.ADDRESS, Role.IGNORED, Role.RESERVED)
"""Roles of fields that the other columns tell of, or that say nothing."""
GUEST_COLUMN = 0
"""Of the grid: no level of the second stage has this number."""
Number = Callable[[int], str]
PREFIX = {Stage.ONE: "", Stage.GUEST: "g", Stage.NESTED: "n"}
LAYER = {Stage.GUEST: "L2", Stage.NESTED: "L1", Stage.HOST: "L0"}
"""Whose tables the stages are, where there are three."""
TOLD = {
    Stage.GUEST: "L2's tables stopped it: a fault for L2",
    Stage.NESTED: "L1's tables stopped it: an exit to L1",
    Stage.HOST: "L0's tables stopped it: an exit that L0 handles",
}


def walk_text(walk: Walk) -> str:
    """``walk`` for a terminal: what was asked, a line a reference, the outcome, and what was written."""
    lines = [*_question(walk), ""]
    if walk.second is not None:
        lines += [*grid_text(walk), ""]
    lines += [*_steps_text(walk), *outcome_text(walk.outcome)]
    if walk.host is not None and walk.stopped_by is not None:
        lines.append(TOLD[walk.stopped_by])
    lines += [f"   {field.why}" for step in walk.steps[-1:] for field in step.decoded() if field.why]
    lines += [_update_text(update) for update in walk.updates]
    references, lines_read = _count(walk.references, "reference"), _count(walk.cache_lines, "cache line")
    return "\n".join([*lines, f"{references} to {lines_read}"])


def grid_text(walk: Walk) -> list[str]:
    """A two-dimensional walk as a grid: a row a guest level, a column a nested one, in a cell reference and slot.

    The reference at which the walk stopped is marked with an exclamation mark. Of three stages a cell has the entry of
    L1 or L2, which L0's references since the cell before lead to; or the last of these where they lead to none.
    """
    assert walk.second is not None
    columns = [lv.level for lv in walk.second.paging.levels]
    three, width = walk.host is not None, len(str(walk.references))
    rows: dict[int, dict[int, str]] = {}
    for number, step in numbered(walk):
        mark = "!" if step.rule.stops else ""
        at = f"{'–' if number is None else number:>{max(width, 2)}}"
        name = f"[{step.index}]" if step.stage is Stage.NESTED else step_name(step, walk)
        column = {Stage.NESTED: step.level.level, Stage.HOST: step.column}.get(step.stage, GUEST_COLUMN)
        rows.setdefault(step.row, {})[column] = f"{at} {name}{mark}"
    names = {lv.level: _table(walk, Stage.GUEST, lv.name) for lv in walk.paging.levels}
    headings = [_table(walk, Stage.NESTED, lv.name) for lv in walk.second.paging.levels]
    cells = [("for", *headings, "L2 entry" if three else "guest entry")]
    cells += [
        (names.get(row, "page"), *(found.get(column, "") for column in [*columns, GUEST_COLUMN]))
        for row, found in rows.items()
    ]
    return list(_columns(cells))


def _steps_text(walk: Walk) -> Iterator[str]:
    """The table of references; those for one address of the stage above under a line that names it."""
    if not walk.steps:
        return
    lines = _columns([HEADINGS, *(_row(walk, number, step) for number, step in numbered(walk))])
    yield next(lines)
    target = middle = None
    for line, step in zip(lines, walk.steps, strict=True):
        if step.target != target and step.target is not None:
            guest = next((lv for lv in walk.paging.levels if lv.level == step.row), None)
            what = f"{_table(walk, Stage.GUEST, guest.name)} entry" if guest else "page"
            yield f"{what} at {'L2 ' if walk.host else ''}GPA {grouped(step.target)}"
            middle = None
        if step.middle != middle and step.middle is not None and walk.second is not None:
            nested = next((lv for lv in walk.second.paging.levels if lv.level == step.column), None)
            what = f"{_table(walk, Stage.NESTED, nested.name)} entry" if nested else "which is"
            yield f"   {what} at L1 GPA {grouped(step.middle)}"
        target, middle = step.target, step.middle
        yield line
    yield ""


def outcome_text(outcome: Outcome, number: Number = grouped) -> list[str]:
    """The lines that say what a translation came to, its codes decoded bit by bit. ``number`` writes addresses."""
    match outcome:
        case Translated():
            page = f"{size_name(outcome.page_size)} page" if outcome.page_size else "no paging"
            return [f"-> {number(outcome.address)}   {page}   {_rights_text(outcome.rights)}"]
        case PageFault():
            title = f"#PF: {outcome.reason.value}, error code {outcome.error_code:#x}, CR2 {number(outcome.cr2)}"
            reasons = [*_violations_text(outcome.violations), *_reserved_text(outcome.reserved)]
            return [title, *reasons, *_code_text(outcome.error_code, PF_BITS)]
        case GeneralProtection():
            name = "#GP(0)" if outcome.vector == 13 else "#SS(0)"
            when = f" ({outcome.when})" if outcome.when else ""
            return [f"{name}{when}: {outcome.reason}"]
        case Unknown():
            return [f"unknown: the image does not hold the entry at {number(outcome.address)}"]
        case NestedPageFault():
            title = f"#NPF: {outcome.reason.value}, EXITINFO1 {outcome.exitinfo1:#x}, EXITINFO2 {outcome.exitinfo2:#x}"
            reasons = [*_violations_text(outcome.violations), *_reserved_text(outcome.reserved)]
            return [title, *reasons, *_code_text(outcome.exitinfo1, NPF_BITS)]
        case EptViolation():
            gla = "" if outcome.gla is None else f", GLA {number(outcome.gla)}"
            where = f"qualification {outcome.qualification:#x}, GPA {number(outcome.gpa)}{gla}"
            title = f"EPT violation: {outcome.reason.value}, {where}"
            return [
                title,
                *_violations_text(outcome.violations),
                *_code_text(outcome.qualification, EPT_VIOLATION_BITS),
            ]
        case EptMisconfiguration():
            return [f"EPT misconfiguration, GPA {number(outcome.gpa)}", f"   {outcome.why}"]


def _question(walk: Walk) -> Iterator[str]:
    access, paging, second = walk.access, walk.paging, walk.second
    cpl = paging.registers.cpl
    who = "user" if access.is_user(cpl) else "supervisor"
    yield f"{access.kind.value} of {_count(access.size, 'byte')} at {grouped(walk.address)}, {who}, CPL {cpl}"
    if walk.linear != walk.address:
        yield f"walked: {grouped(walk.linear)}"
    root = f", root {grouped(paging.root)}" if paging.format else ""
    guest, host = ("L2: ", "L1: ") if walk.host else ("guest: ", "host: ") if second else ("", "")
    yield f"{guest}{paging.name}{root}"
    for name, stage in ((host, second), ("L0: ", walk.host)):
        if stage is not None:
            yield f"{name}{stage.name}, root {grouped(stage.paging.root)}"


def _table(walk: Walk | None, stage: Stage, name: str) -> str:
    """The name of a table with whose it is."""
    return f"{LAYER[stage]} {name}" if walk is not None and walk.host is not None else f"{PREFIX[stage]}{name}"


def step_name(step: Step, walk: Walk | None = None) -> str:
    """ "nPML4[254]": guest tables with a g, nested ones with an n; "L1 PML4[254]" where ``walk`` has three stages."""
    return f"{_table(walk, step.stage, step.level.name)}[{step.index}]"


def _row(walk: Walk, number: int | None, step: Step) -> tuple[str, ...]:
    digits = 2 << step.level.entry_shift
    return (
        "–" if number is None else str(number),
        step_name(step, walk),
        "register" if step.address is None else grouped(step.address),
        "?" if step.value is None else grouped(step.value, digits),
        " ".join(flags(step)),
        verdict(step),
    )


def verdict(step: Step) -> str:
    """What was decided at an entry, in a word or two."""
    return VERDICTS[step.rule] if step.rule is not Rule.PAGE else f"{size_name(1 << step.entry.page_shift)} page"


def flags(step: Step) -> Iterator[str]:
    """The fields that are set, by their short names; those of more than one bit with their value."""
    if step.rule in (Rule.NOT_PRESENT, Rule.UNKNOWN):
        return
    for field in step.decoded():
        hidden = field.name == "P" or field.role in UNTOLD or (field.role is Role.KEY and not step.level.setting.keys)
        if field.value and not hidden:
            name = SHORT.get(field.name, field.name)
            yield name if field.hi == field.lo else f"{name}{field.value}"


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Cells of equal width in each column, the first flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for number, *cells in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield f"{number:>{widths[0]}} {'  '.join(padded)}".rstrip()


def _rights_text(rights: Rights) -> str:
    key = f"   key {rights.key}" if rights.key is not None else ""
    return f"rights {rights.letters()}{'   global' if rights.global_ else ''}{key}"


def _violations_text(violations: tuple[Violation, ...]) -> list[str]:
    return [f"   {violation.value}" for violation in violations]


def _reserved_text(reserved: int) -> list[str]:
    text = f"reserved bits that are set: {bit_names(reserved)}"
    return textwrap.wrap(text, 100, initial_indent="   ", subsequent_indent="      ") if reserved else []


def _code_text(code: int, table: tuple[CodeBit, ...]) -> Iterator[str]:
    width = max(len(bit.name) for bit in table)
    for bit, value, meaning in decode_code(code, table):
        yield f"   bit {bit.bit:<2} {bit.name:<{width}} = {value}   {meaning}"


def _update_text(update: Update) -> str:
    digits = 2 * update.size
    return f"sets {grouped(update.address)}: {grouped(update.old, digits)} -> {grouped(update.new, digits)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
