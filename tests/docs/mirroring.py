"""Fields of mirroring-l1.md: each row a scenario, in which a hypervisor in a guest (L1) runs a guest of its own
(L2)."""

from functools import cache

from engine import events as ev
from engine.arch.faults import EntryFailure, Translated
from engine.arch.rights import READ as LOOK
from engine.arch.rights import Kind
from engine.host.machine import PcpuSetup
from engine.kvm.kernels import KERNELS, Bug
from engine.kvm.vm import Vm
from engine.machine import Refusal, State
from engine.machine.access import physical_store
from engine.machine.look import Place, look, look_logical
from engine.report.events import counted
from tests.docs.tables import table
from tests.engine.kvm_fixture import MIB, VM, after, amd, booted, guest, intel, play, slot, to, vcpu, vm
from tests.engine.roots_shape import shape

L1_CR3, ROOT, TABLES, L2_AT, SIZE = 0x1000, 0x20_0000, 0x21_0000, 0x100_0000, 0x200_0000
CR3, L2_TABLES, ADDRESS, TARGET = 0x1000, 0x2000, 0x4000_0000, 0x20_0000
L1_MODES = ("32-bit", "PAE", "4-level", "5-level")
READS = ev.GuestAccess(ADDRESS)


@cache
def inside(
    l1: str, five: bool, kernel: str = "latest", setup: str = "amd", levels: int = 4, bugs: tuple[Bug, ...] = ()
) -> State:
    """L2 has been entered. L1 has mapped 32 MiB for it in 4-KiB pages, and has its own memory mapped by L0."""
    machine: PcpuSetup = amd() if setup == "amd" else intel(48)
    state = play(*booted(machine, five=five, kernel=kernel, bugs=bugs), *VM, slot(0, 64 * MIB))
    return after(
        state, ev.SetGuestRegisters(guest(l1, L1_CR3)), ev.Populate(),
        ev.LoadNestedKvm(ROOT, TABLES, levels=levels), ev.MapNestedPages(0, L2_AT, SIZE),  # type: ignore[arg-type]
        ev.MapL2Pages(CR3, L2_TABLES, ADDRESS, TARGET, 16 * 0x1000), ev.EnterNested(guest("4-level", CR3)),
    )  # fmt: skip


def tables_of_l1(state: State) -> int:
    module = vm(state).nested
    assert module is not None
    return 1 + (module.free - TABLES) // 0x1000


def tables_of_l0(found: Vm) -> tuple[int, int]:
    """(tables that mirror one of L1's, tables that do not: special roots and passthrough)."""
    pages = [found.shadow.pages.get(pfn) for pfn in found.shadow.pages]
    mirrors = sum(page is not None and page.role.has_gptes for page in pages)
    extra = sum(page is not None and page.role.passthrough for page in pages)
    return mirrors, extra + len(found.vcpus[0].special.tables)


def matrix_row(l1: str, five: bool) -> list[str]:
    state = after(inside(l1, five), READS)
    cpu = vcpu(state)
    logical, made = look_logical(state, ADDRESS, LOOK, Place()), look(state, ADDRESS, LOOK, Place())
    assert not isinstance(logical, Refusal)
    assert not isinstance(made, Refusal)
    mirrors, extra = tables_of_l0(vm(state))
    return [
        l1, "5" if five else "4", f"`{shape(state)}`", f"{cpu.role.word:#x}", str(tables_of_l1(state)), str(mirrors),
        str(extra), str(made.references), str(logical.references),
    ]  # fmt: skip


def matrix() -> str:
    head = [
        "L1's mode", "L0's depth", "root of L0's tables for L2", "role word", "tables of L1", "mirrors of them",
        "extra tables", "references of an access of L2", "its logical walk",
    ]  # fmt: skip
    return table(head, [matrix_row(l1, five) for five in (False, True) for l1 in L1_MODES], words=4)


def ept_matrix() -> str:
    rows = []
    for levels in (4, 5):
        for five in (False, True):
            state = after(inside("4-level", five, setup="intel", levels=levels), READS)
            made, logical = look(state, ADDRESS, LOOK, Place()), look_logical(state, ADDRESS, LOOK, Place())
            assert not isinstance(made, Refusal)
            assert not isinstance(logical, Refusal)
            mirrors, extra = tables_of_l0(vm(state))
            rows.append([
                str(levels), "5" if five else "4", f"`{shape(state)}`", str(mirrors), str(extra), str(made.references),
                str(logical.references),
            ])  # fmt: skip
    head = [
        "walk length in L1's EPTP", "L0's own paging", "root of L0's tables for L2", "mirrors", "extra tables",
        "references of an access of L2", "its logical walk",
    ]  # fmt: skip
    return table(head, rows, words=3)


# --- kernels


def versions() -> str:
    """What becomes of L2 under each kernel: its first access, and where that differs the one after another VMRUN."""
    columns = [(KERNELS[key], ()) for key in ("5.12", "5.15", "5.19", "latest")]
    columns.insert(2, (KERNELS["5.15"], (Bug.SPECIAL_ROOTS, Bug.WALK_START)))
    head = ["L1's mode", "L0's depth", *(f"{k.label}{', with its first faults' * bool(bugs)}" for k, bugs in columns)]
    rows = [
        [l1, "5" if five else "4", *(_became(l1, five, kernel.key, bugs) for kernel, bugs in columns)]
        for five in (False, True)
        for l1 in L1_MODES
    ]
    return table(head, rows)


def _became(l1: str, five: bool, kernel: str, bugs: tuple[Bug, ...]) -> str:
    if kernel == "5.12" and five:
        return "no guest runs"  # its 4-level tables are read as 5-level ones
    first = after(inside(l1, five, kernel, bugs=bugs), READS)
    again = after(first, ev.LeaveNested(), ev.EnterNested(guest("4-level", CR3)), READS)
    told, then = came_to(first).split(",")[0], came_to(again).split(",")[0]
    return told if told == then else f"{told}; after another VMRUN {then}"


def came_to(state: State) -> str:
    effect = state.effect
    if isinstance(effect.fault, EntryFailure):
        return "KVM_RUN returns -EIO" if "-EIO" in effect.fault.reason else effect.fault.reason
    if effect.livelock is not None:
        return f"endless {effect.exits[-1].reaction.result}"
    if effect.exits and not effect.exits[-1].reaction.resumes and effect.reflected is None:
        unknown = effect.exits[-1].reaction.result == "unknown"
        return "reads a guest frame that was never found" if unknown else effect.exits[-1].reaction.result
    if effect.reflected is not None:
        return f"{effect.reflected.name} for L1"
    return f"goes through, {counted(len(effect.exits), 'exit')}"


# --- what changes cost


def costs() -> dict[str, str]:
    """Exits of L2's first access, and of L1's writes to its tables once L0 mirrors them."""
    state = inside("4-level", True)
    first = after(state, READS)
    again = after(first, READS)
    outside = after(first, ev.LeaveNested())
    directory = _mapped_again(outside, TABLES + 0x1000)
    page_table = _mapped_again(outside, TABLES + 0x2000)
    return {
        "first_exits": str(len(first.effect.exits)),
        "again_exits": str(len(again.effect.exits)),
        "directory_write": directory,
        "page_table_write": page_table,
    }


def _mapped_again(state: State, gpa: int) -> str:
    """L1 stores 0 into the first entry of the table at ``gpa``."""
    event = ev.GuestAccess(gpa, Kind.WRITE, 8, 0)
    done = physical_store(state, vm(state), vcpu(state), event)
    kinds = ", ".join(dict.fromkeys(exit_.reaction.result for exit_ in done.effect.exits))
    emulated = "emulated" if done.effect.emulated is not None else "made by the processor"
    twice = physical_store(done, vm(done), vcpu(done), event)
    first, second = (counted(len(each.effect.exits), "exit") for each in (done, twice))
    return f"{first} ({kinds}), {emulated}; the next one {second}"


# --- modes that change


def changes() -> str:
    """L1 changes its mode after its own kvm_init; L0 changes under it."""
    rows = []
    for five in (False, True):
        for l1, later in (("4-level", "5-level"), ("5-level", "4-level"), ("PAE", "4-level")):
            if l1 == "5-level" and not five:
                continue
            state = after(inside(l1, five), READS)
            changed = after(
                state,
                ev.LeaveNested(),
                ev.SetGuestRegisters(guest(later, L1_CR3)),
                ev.EnterNested(guest("4-level", CR3)),
            )
            seen, new = after(changed, READS), after(changed, ev.GuestAccess(ADDRESS + 0x9000))
            rows.append(["5" if five else "4", l1, later, came_to(seen), came_to(new)])
    head = ["L0's depth", "L1 built its tables in", "and goes on in", "L2 reads a page it had read", "and another page"]
    return table(head, rows)


def drops() -> str:
    """A host that changes under special roots and passthrough: which tables the walk of L2-physical 0 reads."""
    rows = []
    for l1 in ("32-bit", "PAE", "4-level"):
        state = after(inside(l1, True), READS)
        odd = after(state, to(False), ev.MoveVcpu(1))
        found = look(odd, 0, LOOK, Place(physical=True))
        assert not isinstance(found, Refusal)
        names = " > ".join(_name(odd, step.address or 0) for step in found.steps)
        assert isinstance(found.outcome, Translated)
        rows.append([l1, f"`{names}`", f"`{_name(odd, found.outcome.address)}`"])
    return table(["L1's mode", "read as PML4, PDPT, PD, PT", "what L2-physical 0 then is"], rows)


def _name(state: State, hpa: int) -> str:
    special = vcpu(state).special
    names = {special.pae_root: "pae_root", special.pml4_root: "pml4_root", special.pml5_root: "pml5_root"}
    page = vm(state).shadow.page(hpa)
    kind = " passthrough" if page is not None and page.role.passthrough else ""
    return names.get(hpa & ~0xFFF) or (f"SP({page.role.level}){kind}" if page else "")


def fields() -> dict[str, str]:
    return {
        "matrix": matrix(), "ept_matrix": ept_matrix(), "versions": versions(), "changes": changes(), "drops": drops(),
        **costs(),
    }  # fmt: skip
