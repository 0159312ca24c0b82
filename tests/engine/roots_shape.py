"""The roots that a vCPU has loaded, told from the bytes of them."""

from engine.kvm.spte import ADDRESS
from engine.machine import State
from tests.engine.kvm_fixture import vcpu, vm


def shape(state: State) -> str:
    """The root that is loaded, as its bytes say: special tables by name, KVM's pages as SP(level, guest frame)."""
    cpu = vcpu(state)
    root = cpu.root
    assert root is not None
    names = {
        cpu.special.pae_root: "pae_root", cpu.special.pml4_root: "pml4_root", cpu.special.pml5_root: "pml5_root",
    }  # fmt: skip
    at, parts = root.hpa, []
    while at in names:
        parts.append(names[at])
        word = state.memory.word(at)
        assert word is not None
        if names[at] == "pae_root":
            words = [state.memory.word(at + n * 8) or 0 for n in range(4)]
            parts.append("[" + ", ".join(page(state, w & ADDRESS) if w else "-" for w in words) + "]")
            break
        at = word & ADDRESS
    return " > ".join(parts) or page(state, root.hpa)


def page(state: State, table: int) -> str:
    found = vm(state).shadow.page(table)
    if found is None:
        return f"TDP root, level {next(r.role.level for r in vm(state).roots if r.hpa == table)}"
    role = found.role
    extra = f" q{role.quadrant}" if role.quadrant else ""
    extra += " direct" if role.direct else " passthrough" if role.passthrough else ""
    return f"SP({role.level}, {found.gfn:#x}){extra}"
