"""Walks in words: names, verdicts, and why a step is what it is. Everything is read off the Walk; nothing is worked out
anew, and every sentence is one translatable text with places for the values.
"""

from collections.abc import Iterator

from PySide6.QtCore import QCoreApplication

from engine.arch.addresses import grouped, size_name
from engine.arch.bits import bit_names, mask
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
    Translated,
    Unknown,
    Violation,
)
from engine.arch.formats import Role
from engine.arch.memory_type import memory_type
from engine.arch.paging import Level
from engine.arch.second_stage import Kind2
from engine.arch.walk import Rule, Stage, Step, Update, Walk
from gui import three_stages

translate = QCoreApplication.translate


def engine_text(text: str) -> str:
    """A text that the engine made, in the user's language."""
    return translate("engine", text)


# --- names


def entry_title(stage: Stage, level: Level, index: int, walk: Walk | None = None) -> str:
    """``walk``: the one that is looked at, which says whose the stages are where it has three."""
    if walk is not None and walk.host is not None and stage is not Stage.ONE:
        return three_stages.entry_title(walk, stage, level, index)
    title = {
        Stage.ONE: translate("Explain", "{table} entry {index}"),
        Stage.GUEST: translate("Explain", "Guest {table} entry {index}"),
        Stage.NESTED: translate("Explain", "Nested {table} entry {index}"),
        Stage.HOST: translate("Explain", "Host {table} entry {index}"),
    }[stage]
    return title.format(table=level.name, index=index)


def verdict(rule: Rule, page_shift: int = 0) -> str:
    """What an entry is, in a word or two. ``page_shift``: log2 of the page's bytes, for a leaf."""
    if rule is Rule.PAGE:
        return translate("Explain", "{size} page").format(size=size_name(1 << page_shift))
    return {
        Rule.TABLE: translate("Explain", "table"),
        Rule.DENIED: translate("Explain", "not allowed"),
        Rule.NOT_PRESENT: translate("Explain", "not present"),
        Rule.RESERVED: translate("Explain", "reserved bit"),
        Rule.MISCONFIGURED: translate("Explain", "misconfigured"),
        Rule.UNKNOWN: translate("Explain", "not in image"),
    }[rule]


def step_verdict(step: Step) -> str:
    return verdict(step.rule, step.entry.page_shift if step.is_leaf else 0)


_LETTERS = {"R/W": "W", "U/S": "U", "XD": "NX"}
_LETTER_ROLES = (Role.PRESENT, Role.RIGHT, Role.ACCESSED, Role.GLOBAL)


def letters(step: Step) -> str:
    """The entry's flags at a glance: a letter where one is set, a dot where it is not. Empty where nothing counts."""
    if step.value is None or step.rule is Rule.NOT_PRESENT:
        return ""
    flags = [field for field in step.decoded() if field.hi == field.lo and field.role in _LETTER_ROLES]
    return " ".join(_LETTERS.get(field.name, field.name) if field.value else "·" for field in flags)


def question(walk: Walk) -> str:
    """Who does what: "user read"."""
    user = walk.access.is_user(walk.paging.registers.cpl)
    who = translate("Explain", "user {access}") if user else translate("Explain", "supervisor {access}")
    return who.format(access=engine_text(walk.access.kind.value))


def references(count: int, of: int | None = None) -> str:
    """ "5 references", or "2 of 5 references"."""
    if of is not None:
        return translate("Explain", "{number} of {count} references").format(number=count, count=of)
    if count == 1:
        return translate("Explain", "1 reference")
    return translate("Explain", "{count} references").format(count=count)


# --- outcomes


def outcome_title(outcome: Outcome) -> str:
    """The outcome in a few characters: an address, or the name of the fault with its code."""
    match outcome:
        case Translated():
            return grouped(outcome.address)
        case PageFault():
            return f"#PF {outcome.error_code:#x}"
        case NestedPageFault():
            return f"#NPF {grouped(outcome.exitinfo1)}"
        case EptViolation():
            return translate("Explain", "EPT violation {code}").format(code=f"{outcome.qualification:#x}")
    return outcome_name(outcome)


def outcome_name(outcome: Outcome) -> str:
    """The name of a fault, without its code."""
    match outcome:
        case Translated():
            return translate("Explain", "translated")
        case PageFault():
            return "#PF"
        case NestedPageFault():
            return "#NPF"
        case EptViolation():
            return translate("Explain", "EPT violation")
        case EptMisconfiguration():
            return translate("Explain", "EPT misconfiguration")
        case GeneralProtection():
            return "#GP(0)" if outcome.vector == 13 else "#SS(0)"
        case Unknown():
            return translate("Explain", "not in image")


def outcome_sentence(outcome: Outcome) -> str:
    """What the outcome means, in one sentence."""
    match outcome:
        case Translated(page_size=0):
            return translate("Explain", "Paging is off: the address is physical as it is.")
        case Translated():
            text = translate("Explain", "The access is allowed. It goes to {address}, in a {size} page.")
            return text.format(address=grouped(outcome.address), size=size_name(outcome.page_size))
        case PageFault() | NestedPageFault() | EptViolation():
            return _fault_sentence(outcome)
        case EptMisconfiguration():
            text = translate("Explain", "EPT misconfiguration at guest-physical {gpa}: {why}.")
            return text.format(gpa=grouped(outcome.gpa), why=engine_text(outcome.why))
        case GeneralProtection():
            text = translate("Explain", "The processor raises {fault} before it reads any table: {reason}.")
            if outcome.when:
                text = translate("Explain", "The processor raises {fault} when it loads the PDPTE registers: {reason}.")
            return text.format(fault=outcome_title(outcome), reason=engine_text(outcome.reason))
        case Unknown():
            text = translate(
                "Explain", "The image does not hold the entry at {address}, so nothing can be said about what follows."
            )
            return text.format(address=grouped(outcome.address))


def _fault_sentence(outcome: PageFault | NestedPageFault | EptViolation) -> str:
    match outcome:
        case PageFault():
            text, where = translate("Explain", "Page fault, CR2 {address}: {reason}."), outcome.cr2
        case NestedPageFault():
            text, where = (
                translate("Explain", "Nested page fault for guest-physical {address}: {reason}."),
                outcome.exitinfo2,
            )
        case EptViolation():
            text, where = translate("Explain", "EPT violation for guest-physical {address}: {reason}."), outcome.gpa
    reasons = [violation.value for violation in outcome.violations] or [outcome.reason.value]
    return text.format(address=grouped(where), reason="; ".join(map(engine_text, reasons)))


def fault_code(outcome: Outcome) -> tuple[int, tuple[CodeBit, ...]] | None:
    """The code of a fault and the table that decodes it; None where the outcome has none."""
    match outcome:
        case PageFault():
            return outcome.error_code, PF_BITS
        case NestedPageFault():
            return outcome.exitinfo1, NPF_BITS
        case EptViolation():
            return outcome.qualification, EPT_VIOLATION_BITS
    return None


# --- why


def why(walk: Walk, number: int) -> list[str]:
    """Sentences on step ``number`` (from 0) of ``walk``: where its entry came from, the rule, what is written."""
    step = walk.steps[number]
    return [*_origin(walk, number), *_rule(walk, step), *_flags(walk, step)]


def _origin(walk: Walk, number: int) -> Iterator[str]:
    step = walk.steps[number]
    level = step.level
    if walk.host is not None and step.address is not None:
        if level == _levels(walk, step)[0]:
            yield three_stages.origin(walk, step)
            yield from filter(None, [three_stages.for_a_write(walk, step)])
    elif step.stage is Stage.NESTED:
        if level == _levels(walk, step)[0]:
            yield _nested_origin(walk, step)
    elif step.address is None:
        text = translate(
            "Explain", "CR3 was written, which loaded the PDPTE registers: bits {bits} pick number {index}, at no cost."
        )
        yield text.format(bits=index_bits(level), index=step.index)
        return
    elif level == _levels(walk, step)[0]:
        text = translate("Explain", "CR3 names the {table} at {address}.")
        yield text.format(table=level.name, address=grouped(walk.paging.root))
    what = translate("Explain", "Bits {bits} of the address pick entry {index}.")
    yield what.format(bits=index_bits(level), index=step.index)


def _nested_origin(walk: Walk, step: Step) -> str:
    target = grouped(step.target or 0)
    if step.row == 0:
        text = translate("Explain", "Guest-physical {target}, the page, is translated for the access itself.")
        return text.format(target=target)
    text = translate("Explain", "The guest's {table} entry lies at guest-physical {target}: that is translated first.")
    if walk.second is not None and walk.second.table.writes:
        text = translate(
            "Explain",
            "The guest's {table} entry lies at guest-physical {target}: that is translated first, as for a write, "
            "since the processor may set A or D in it.",
        )
    return text.format(table=_guest_table(walk, step.row), target=target)


def _rule(walk: Walk, step: Step) -> Iterator[str]:
    match step.rule:
        case Rule.TABLE:
            text = translate("Explain", "It is present and points at the {table} at {address}.")
            yield text.format(table=_next_level(walk, step).name, address=grouped(step.base or 0))
            if step.address is None and any(True for _ in broken_rules(step)):
                yield translate("Explain", "Its reserved bits count only when CR3 is written, not now.")
        case Rule.PAGE:
            text = translate("Explain", "It maps a {size} page at {address}, and the access is allowed.")
            yield text.format(size=size_name(1 << step.entry.page_shift), address=grouped(step.base or 0))
        case Rule.DENIED:
            text = translate("Explain", "It maps a {size} page at {address}, but the access is not allowed.")
            yield text.format(size=size_name(1 << step.entry.page_shift), address=grouped(step.base or 0))
            yield from _denials(walk, step)
        case Rule.NOT_PRESENT:
            yield translate("Explain", "Its present bit is 0, so nothing else in it counts, and the walk stops here.")
        case Rule.RESERVED | Rule.MISCONFIGURED:
            yield from broken_rules(step)
        case Rule.UNKNOWN:
            text = translate("Explain", "The image does not hold the bytes at {address}: the walk cannot go on.")
            yield text.format(address=grouped(step.address or 0))


_WITHHOLDS = {
    Violation.SUPERVISOR_PAGE: ("U/S", 0),
    Violation.READ_ONLY: ("R/W", 0),
    Violation.NO_EXECUTE: ("XD", 1),
    Violation.SMEP: ("U/S", 1),
    Violation.SMAP: ("U/S", 1),
    Violation.EPT_READ: ("R", 0),
    Violation.EPT_WRITE: ("W", 0),
    Violation.EPT_EXECUTE: ("X", 0),
}
"""The field, and its value, by which an entry withholds a right."""


def _denials(walk: Walk, last: Step) -> Iterator[str]:
    """What the access lacks, and the entries of this descent that withhold it."""
    outcome = walk.outcome
    if not isinstance(outcome, PageFault | NestedPageFault | EptViolation):
        return
    descent = [step for step in walk.steps if step.descent == last.descent]
    for violation in outcome.violations:
        yield translate("Explain", "Denied: {violation}.").format(violation=engine_text(violation.value))
        name, value = _WITHHOLDS.get(violation, ("", 0))
        entries = [step for step in descent if any(f.name == name and f.value == value for f in step.decoded())]
        if entries:
            text = translate("Explain", "{field} is {value} in {entries}.")
            titles = ", ".join(entry_title(step.stage, step.level, step.index, walk) for step in entries)
            yield text.format(field=name, value=value, entries=titles)


def broken_rules(step: Step) -> Iterator[str]:
    """The rules that the entry breaks, each with the bits that do."""
    if step.value is None:
        return
    setting = step.level.setting
    for rule in step.entry.reserved:
        if bad := step.value & rule.bits(setting):
            text = translate("Explain", "Set, but reserved: {bits} ({why}).")
            yield text.format(bits=bit_names(bad), why=engine_text(rule.why))
    for illegal in step.level.page_illegal if step.is_leaf else step.level.table_illegal:
        if step.value & illegal.mask == illegal.value:
            yield translate("Explain", "Misconfigured: {why}.").format(why=engine_text(illegal.why))


def _flags(walk: Walk, step: Step) -> Iterator[str]:
    """What the walk writes back into the entry."""
    if step.rule.stops or step.address is None or not step.level.accessed:
        return
    update = next((update for update in walk.updates if update.address == step.address), None)
    if update is None:
        if step.value is not None and step.value & step.level.accessed:
            yield translate("Explain", "A is set already: nothing is written back.")
        else:
            yield translate("Explain", "The access faults, so A is not set.")
        return
    text = translate("Explain", "The processor sets {flags} here.")
    if walk.host is not None:  # which no processor walks
        text = translate("Explain", "The walk sets {flags} here.")
    yield text.format(flags=" + ".join(_flag_names(step, update)))


def _flag_names(step: Step, update: Update) -> Iterator[str]:
    changed = update.old ^ update.new
    for field in step.entry.fields:
        if field.mask & changed:
            yield field.name


# --- a reference, and the walk up to it


def reference_title(walk: Walk, number: int) -> str:
    """What step ``number`` (from 0) is, and what for: "Reference 17: Nested PDPT entry 4, for the guest's PT entry"."""
    step = walk.steps[number]
    entry = entry_title(step.stage, step.level, step.index, walk)
    if step.address is None:
        return translate("Explain", "PDPTE register: {entry}").format(entry=entry)
    count = sum(earlier.address is not None for earlier in walk.steps[: number + 1])
    if walk.host is not None:
        return three_stages.reference_title(walk, step, count)
    if step.stage is not Stage.NESTED:
        return translate("Explain", "Reference {number}: {entry}").format(number=count, entry=entry)
    text = translate("Explain", "Reference {number}: {entry}, for the page at GPA {target}")
    if step.row:
        text = translate("Explain", "Reference {number}: {entry}, for the guest's {table} entry at GPA {target}")
    target = grouped(step.target or 0)
    return text.format(number=count, entry=entry, table=_guest_table(walk, step.row), target=target)


def _guest_table(walk: Walk, level: int) -> str:
    """The name of the guest's tables of ``level``."""
    return next((lv.name for lv in walk.paging.levels if lv.level == level), "")


def reads(step: Step) -> str:
    """What was read where."""
    if step.value is None:
        return translate("Explain", "reads {address}").format(address=grouped(step.address or 0))
    value = grouped(step.value, 2 << step.level.entry_shift)
    if step.address is None:
        return translate("Explain", "value {value}").format(value=value)
    return translate("Explain", "reads {address}   value {value}").format(address=grouped(step.address), value=value)


def so_far(walk: Walk, number: int) -> str:
    """The rights that are left and what the walk has cost, up to step ``number`` (from 0)."""
    addresses = [step.address for step in walk.steps[: number + 1] if step.address is not None]
    lines = len({address >> 6 for address in addresses})
    text = translate("Explain", "Rights so far: {rights}. Cost so far: {references}, {lines} cache lines.")
    if lines == 1:
        text = translate("Explain", "Rights so far: {rights}. Cost so far: {references}, 1 cache line.")
    return text.format(rights=walk.rights_after(number).letters(), references=references(len(addresses)), lines=lines)


def together(walk: Walk) -> list[str]:
    """What the stages make of rights and memory type together, for a walk that reached its page."""
    outcome = walk.outcome
    if not isinstance(outcome, Translated) or not walk.steps:
        return []
    if walk.host is not None:
        return [three_stages.rights(walk)]
    kind = memory_type(walk)
    assert kind is not None
    if walk.second is None:
        return [translate("Explain", "Memory type: {result}.").format(result=kind.result)]
    said = []
    guest = [number for number, step in enumerate(walk.steps) if step.stage is Stage.GUEST]
    if guest:
        text = translate(
            "Explain", "Rights: the guest's tables give {guest}, the nested ones {nested}; together {both}."
        )
        rights = (walk.rights_after(guest[-1]), walk.rights_after(len(walk.steps) - 1), outcome.rights)
        said.append(text.format(**dict(zip(("guest", "nested", "both"), (r.letters() for r in rights), strict=True))))
    text = translate("Explain", "Memory type: {guest} by the guest's PAT, {second} by the second stage: {result}.")
    said.append(text.format(guest=kind.guest, second=kind.second, result=kind.result))
    return said


def index_bits(level: Level) -> str:
    """The bits of an input address that pick a slot of ``level``: "29:21"."""
    return bit_names(mask(level.shift + level.index_mask.bit_length() - 1, level.shift))


def _levels(walk: Walk, step: Step) -> tuple[Level, ...]:
    return walk.stage(step.stage).levels


def _next_level(walk: Walk, step: Step) -> Level:
    levels = _levels(walk, step)
    return levels[levels.index(step.level) + 1]


def why_entry(stage: Stage, level: Level, value: int | None, rule: Rule) -> list[str]:
    """Sentences on an entry that the walk did not use."""
    step = Step(stage, level, 0, 0, value, rule, 0)
    said = [translate("Explain", "The walk does not use this entry.")]
    match rule:
        case Rule.TABLE:
            text = translate("Explain", "It points at a table at {address}, for {size} of addresses.")
            said.append(text.format(address=grouped(step.base or 0), size=size_name(level.span)))
        case Rule.PAGE:
            text = translate("Explain", "It maps a {size} page at {address}.")
            said.append(text.format(size=size_name(1 << step.entry.page_shift), address=grouped(step.base or 0)))
        case Rule.NOT_PRESENT if value:
            said.append(
                translate("Explain", "It is not present: the processor ignores its other bits, they are software's.")
            )
        case Rule.NOT_PRESENT:
            said.append(translate("Explain", "It is empty: addresses below it fault."))
        case Rule.UNKNOWN:
            said.append(translate("Explain", "The image does not hold its bytes."))
        case _:
            said += broken_rules(step)
            said.append(translate("Explain", "Any access through it faults."))
    return said


def stage_kind(walk: Walk) -> str:
    """The stages of a walk, as its heading names them."""
    if walk.second is None:
        return walk.paging.name
    if walk.host is not None:
        return three_stages.stage_kind(walk)
    if walk.second.kind is Kind2.NPT:
        text = translate("Explain", "guest {guest} × nested {nested}")
        return text.format(guest=walk.paging.name, nested=walk.second.paging.name)
    return translate("Explain", "guest {guest} × {nested}").format(guest=walk.paging.name, nested=walk.second.name)
