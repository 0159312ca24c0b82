"""kvm_init: what KVM captures when its module loads, each value with the function, the moment and the pCPU.

The host's paging mode is read once, by whoever runs module init; no later step reads it again to choose a depth.
Sources: svm_hardware_setup(), vmx_hardware_setup(), kvm_configure_mmu(), kvm_mmu_reset_all_pte_masks(),
kvm_mmu_set_ept_masks() (reference page, section 1).
"""

import msgspec

from engine.arch.registers import CR4, EFER, Vendor
from engine.host.machine import Host, Pcpu
from engine.kvm.kernels import Kernel, LevelSource
from engine.kvm.spte import SpteFormat, ept_format, npt_format

NOT_FORCED = 0


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Module parameters. ``tdp_mmu`` None: the version's default. ``nx_huge_pages``: huge pages are not executable."""

    npt: bool = True
    ept: bool = True
    tdp_mmu: bool | None = None
    nested: bool = True
    nx_huge_pages: bool = False
    allow_smaller_maxphyaddr: bool = False
    mmio_caching: bool = True


class Captured(msgspec.Struct, frozen=True):
    """A value as KVM keeps it. ``function``: who read it; ``depends``: what a later change of it would come from."""

    name: str
    value: int | str | bool
    function: str
    depends: str


class Refused(msgspec.Struct, frozen=True):
    """The module does not load: the reason in a sentence, and the function that refuses."""

    reason: str
    function: str


class Module(msgspec.Struct, frozen=True):
    """KVM loaded. ``pcpu``: the one that ran module init. ``tdp_root_level`` is 0 where no level is forced."""

    kernel: Kernel
    parameters: Parameters
    vendor: Vendor
    pcpu: int
    tdp_enabled: bool
    tdp_mmu: bool
    tdp_root_level: int
    max_tdp_level: int
    max_huge_page_level: int
    ad_bits: bool
    spte: SpteFormat
    captured: tuple[Captured, ...]


def kvm_init(host: Host, kernel: Kernel, parameters: Parameters, index: int) -> Module | Refused:
    """Load KVM on pCPU ``index`` of ``host``."""
    pcpu = host.pcpus[index]
    if pcpu.lost or not pcpu.online:
        return Refused(f"pCPU {index} cannot run module init: it is {'lost' if pcpu.lost else 'offline'}.", "")
    if host.vendor is Vendor.AMD:
        return _amd(host, kernel, parameters, pcpu)
    return _intel(host, kernel, parameters, pcpu)


def npt_level(kernel: Kernel, host: Host, pcpu: Pcpu) -> int:
    """The NPT depth that this version of kvm_amd works out when it runs on ``pcpu``."""
    five = {
        LevelSource.CONSTANT_4: False,
        LevelSource.CR4_PER_CALL: bool(pcpu.registers.cr4 & CR4.LA57),
        LevelSource.CR4_AT_LOAD: bool(pcpu.registers.cr4 & CR4.LA57),
        LevelSource.KERNEL: host.levels == 5,
    }[kernel.level_source]
    return 5 if five else 4


_NEEDS_SHADOW = "without {0}KVM would need shadow paging, which Walkscope does not model yet: load it with {1}."


def _amd(host: Host, kernel: Kernel, parameters: Parameters, pcpu: Pcpu) -> Module | Refused:
    if kernel.refuses_5level and host.levels == 5:
        reason = "KVM doesn't yet support 5-level paging on AMD SVM: this version refuses to load on a 5-level kernel."
        return Refused(reason, "has_svm()")
    if not pcpu.features.nx:
        return Refused("kvm_amd needs NX.", "svm_hardware_setup()")
    if not (parameters.npt and pcpu.setup.npt):
        return Refused("NPT is off: " + _NEEDS_SHADOW.format("it ", "npt=1"), "svm_hardware_setup()")
    level = npt_level(kernel, host, pcpu)
    spte = npt_format(kernel, pcpu.features.maxphyaddr, parameters.mmio_caching)
    return _loaded(host, kernel, parameters, pcpu, level if kernel.forced else NOT_FORCED, level, 3, True, spte)


def _intel(host: Host, kernel: Kernel, parameters: Parameters, pcpu: Pcpu) -> Module | Refused:
    ept = pcpu.setup.ept
    if not parameters.ept or ept is None or not ept.walk4 or not ept.write_back:
        return Refused("EPT is off: " + _NEEDS_SHADOW.format("it ", "ept=1"), "vmx_hardware_setup()")
    level = 5 if ept.walk5 else 4
    huge = 3 if ept.page1gb else 2 if ept.page2mb else 1
    spte = ept_format(kernel, ept.accessed_dirty, ept.execute_only, parameters.mmio_caching)
    return _loaded(host, kernel, parameters, pcpu, NOT_FORCED, level, huge, ept.accessed_dirty, spte)


def _loaded(
    host: Host, kernel: Kernel, parameters: Parameters, pcpu: Pcpu, forced: int, level: int, huge: int, ad: bool,
    spte: SpteFormat,
) -> Module:  # fmt: skip
    tdp_mmu = kernel.tdp_mmu_default if parameters.tdp_mmu is None else parameters.tdp_mmu
    module = Module(
        kernel=kernel, parameters=parameters, vendor=host.vendor, pcpu=pcpu.index, tdp_enabled=True, tdp_mmu=tdp_mmu,
        tdp_root_level=forced, max_tdp_level=level, max_huge_page_level=huge, ad_bits=ad, spte=spte, captured=(),
    )  # fmt: skip
    return msgspec.structs.replace(module, captured=_captured(module, host, pcpu))


def _captured(module: Module, host: Host, pcpu: Pcpu) -> tuple[Captured, ...]:
    amd = module.vendor is Vendor.AMD
    setup = "svm_hardware_setup()" if amd else "vmx_hardware_setup()"
    source = module.kernel.level_source.value if amd else "vmx_get_max_ept_level(): IA32_VMX_EPT_VPID_CAP, not CR4"
    configure = f"kvm_configure_mmu() from {setup}"
    mode = "the host's CR4.LA57" if amd else "nothing: a capability MSR"
    rows = (
        ("tdp_enabled", module.tdp_enabled, configure, "nothing"),
        ("tdp_root_level", module.tdp_root_level, f"{configure}; {source}", mode if amd else "nothing"),
        ("max_tdp_level", module.max_tdp_level, f"{configure}; {source}", mode),
        ("max_huge_page_level", module.max_huge_page_level, configure, "nothing"),
        ("tdp_mmu_enabled", module.tdp_mmu, configure, "nothing"),
        ("host EFER", hex(pcpu.registers.efer), "kvm_arch_hardware_setup()", "the host's EFER"),
        ("host MAXPHYADDR", pcpu.features.maxphyaddr, "kvm_mmu_spte_module_init()", "nothing"),
        ("pgtable_l5_enabled()", host.levels == 5, "the kernel's boot", "nothing: fixed at boot"),
        ("A/D bits", module.ad_bits, setup, "nothing"),
        ("EFER.NXE", bool(pcpu.registers.efer & EFER.NXE), setup, "the host's EFER"),
    )  # fmt: skip
    return tuple(Captured(*row) for row in rows)


def would_capture(module: Module, host: Host, index: int) -> dict[str, int | str | bool]:
    """What loading the same module on pCPU ``index`` now would capture, by name; empty where it would refuse."""
    now = kvm_init(host, module.kernel, module.parameters, index)
    if isinstance(now, Refused):
        return {}
    # A kernel that reads its own depth reads a constant; what the hardware does is the pCPU's CR4.
    return {c.name: c.value for c in now.captured}


def tdp_level(module: Module, host: Host, pcpu: Pcpu, guest_maxphyaddr: int) -> int:
    """kvm_mmu_get_tdp_level(): the depth of a vCPU's direct tables (reference page, 2.1)."""
    if module.tdp_root_level:
        return module.tdp_root_level
    maximum = module.max_tdp_level
    if module.kernel.level_source is LevelSource.CR4_PER_CALL and module.vendor is Vendor.AMD:
        return npt_level(module.kernel, host, pcpu)
    if maximum == 5 and guest_maxphyaddr <= 48:
        return 4
    return maximum
