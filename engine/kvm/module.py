"""kvm_init: what KVM captures when its module loads, each value with the function, the moment and the pCPU.

The host's paging mode is read once, by whoever runs module init; no later step reads it again to choose a depth.
Sources: svm_hardware_setup(), vmx_hardware_setup(), kvm_configure_mmu(), kvm_mmu_reset_all_pte_masks(),
kvm_mmu_set_ept_masks(), kvm_x86_check_processor_compatibility() (reference page, sections 1, 2.1 and 9.1).
"""

import msgspec

from engine.arch.registers import CR4, EFER, Vendor
from engine.host.machine import Host, Pcpu
from engine.kvm.kernels import Bug, Kernel, LevelSource
from engine.kvm.spte import SpteFormat, ept_format, legacy_format

NOT_FORCED = 0


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Module parameters. ``tdp_mmu`` None: the version's default. ``nx_huge_pages``: huge pages are not executable (its
    automatic mode is off here: no pCPU has the bug that it is for). ``eptad``: A/D flags of EPT. ``bugs``: see `Bug`.
    """

    npt: bool = True
    ept: bool = True
    eptad: bool = True
    tdp_mmu: bool | None = None
    nested: bool = True
    nx_huge_pages: bool = False
    allow_smaller_maxphyaddr: bool = False
    mmio_caching: bool = True
    bugs: tuple[Bug, ...] = ()


class Captured(msgspec.Struct, frozen=True):
    """A value as KVM keeps it. ``function``: who read it, on pCPU ``pcpu``, ``when``; ``depends``: what a later change
    of it would come from."""

    name: str
    value: int | str | bool
    function: str
    depends: str
    when: str = "module load"
    pcpu: int = 0


class Refused(msgspec.Struct, frozen=True):
    """The module does not load: the reason in a sentence, and the function that refuses."""

    reason: str
    function: str


class Module(msgspec.Struct, frozen=True):
    """KVM loaded. ``pcpu``: the one that ran module init. ``tdp_root_level`` is 0 where no level is forced.

    ``maxphyaddr``: of the host (shadow_phys_bits); ``page1gb``: its CPUs know 1-GiB pages; ``smaller_maxphyaddr``:
    allow_smaller_maxphyaddr as it is in force.
    """

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
    maxphyaddr: int
    page1gb: bool
    smaller_maxphyaddr: bool
    spte: SpteFormat
    captured: tuple[Captured, ...] = ()


def kvm_init(host: Host, kernel: Kernel, parameters: Parameters, index: int) -> Module | Refused:
    """Load KVM on pCPU ``index`` of ``host``."""
    pcpu = host.pcpus[index]
    if pcpu.unusable:
        return Refused(f"pCPU {index} cannot run module init: it is {'lost' if pcpu.lost else 'offline'}.", "")
    if unknown := [bug for bug in parameters.bugs if bug not in kernel.switches]:
        return Refused(f"{kernel.label} never had this: {unknown[0].value}.", "")
    made = _amd(host, kernel, parameters, pcpu) if host.vendor is Vendor.AMD else _intel(host, kernel, parameters, pcpu)
    if isinstance(made, Refused):
        return made
    refused = _incompatible(host, pcpu, made.tdp_enabled)
    return refused or msgspec.structs.replace(made, captured=_captured(made, host, pcpu))


def npt_level(kernel: Kernel, host: Host, pcpu: Pcpu) -> int:
    """The NPT depth that this version of kvm_amd works out when it runs on ``pcpu``.

    CR4 is read through cr4_read_shadow(): what the kernel wrote there itself.
    """
    five = {
        LevelSource.CONSTANT_4: False,
        LevelSource.CR4_PER_CALL: bool(pcpu.cr4_shadow & CR4.LA57),
        LevelSource.CR4_AT_LOAD: bool(pcpu.cr4_shadow & CR4.LA57),
        LevelSource.KERNEL: host.levels == 5,
    }[kernel.level_source]
    return 5 if five else 4


def _amd(host: Host, kernel: Kernel, parameters: Parameters, pcpu: Pcpu) -> Module | Refused:
    online = [p for p in host.pcpus if p.online]
    for lacking in (p for p in online if not p.setup.virtualization):
        return Refused(f"SVM is not supported by pCPU {lacking.index}.", "has_svm()")
    if kernel.refuses_5level and host.levels == 5:
        reason = "KVM doesn't yet support 5-level paging on AMD SVM: this version refuses to load on a 5-level kernel."
        return Refused(reason, "has_svm()")
    if not all(p.features.nx for p in online):
        return Refused("kvm_amd needs NX.", "svm_hardware_setup()")
    npt = parameters.npt and all(p.setup.npt for p in online)
    level = npt_level(kernel, host, pcpu)
    return Module(
        kernel=kernel, parameters=parameters, vendor=Vendor.AMD, pcpu=pcpu.index, tdp_enabled=npt,
        tdp_mmu=npt and _tdp_mmu(kernel, parameters), tdp_root_level=level if kernel.forced else NOT_FORCED,
        max_tdp_level=level, max_huge_page_level=3 if npt else _largest(pcpu), ad_bits=True,
        maxphyaddr=pcpu.features.maxphyaddr, page1gb=pcpu.features.page1gb, smaller_maxphyaddr=not npt,
        spte=legacy_format(kernel, pcpu.features.maxphyaddr, parameters.mmio_caching),
    )  # fmt: skip


def _largest(pcpu: Pcpu) -> int:
    """max_huge_page_level of shadow paging."""
    return 3 if pcpu.features.page1gb else 2


def _intel(host: Host, kernel: Kernel, parameters: Parameters, pcpu: Pcpu) -> Module | Refused:
    ept = pcpu.setup.ept
    if not pcpu.setup.virtualization:
        return Refused(f"VMX is not supported by pCPU {pcpu.index}.", "kvm_is_vmx_supported()")
    max_level = 5 if ept is not None and ept.walk5 else 4
    if not parameters.ept or ept is None or not ept.walk4 or not ept.write_back:
        if not pcpu.features.nx:
            return Refused("Without EPT kvm_intel needs NX.", "vmx_hardware_setup()")
        return Module(
            kernel=kernel, parameters=parameters, vendor=Vendor.INTEL, pcpu=pcpu.index, tdp_enabled=False,
            tdp_mmu=False, tdp_root_level=NOT_FORCED, max_tdp_level=max_level, max_huge_page_level=_largest(pcpu),
            ad_bits=True, maxphyaddr=pcpu.features.maxphyaddr, page1gb=pcpu.features.page1gb,
            smaller_maxphyaddr=parameters.allow_smaller_maxphyaddr,
            spte=legacy_format(kernel, pcpu.features.maxphyaddr, parameters.mmio_caching),
        )  # fmt: skip
    ad = parameters.eptad and ept.accessed_dirty
    return Module(
        kernel=kernel, parameters=parameters, vendor=Vendor.INTEL, pcpu=pcpu.index, tdp_enabled=True,
        tdp_mmu=_tdp_mmu(kernel, parameters), tdp_root_level=NOT_FORCED, max_tdp_level=max_level,
        max_huge_page_level=3 if ept.page1gb else 2 if ept.page2mb else 1, ad_bits=ad,
        maxphyaddr=pcpu.features.maxphyaddr, page1gb=pcpu.features.page1gb,
        smaller_maxphyaddr=parameters.allow_smaller_maxphyaddr,
        spte=ept_format(kernel, ad, ept.execute_only, parameters.mmio_caching),
    )  # fmt: skip


def _tdp_mmu(kernel: Kernel, parameters: Parameters) -> bool:
    return kernel.tdp_mmu_default if parameters.tdp_mmu is None else parameters.tdp_mmu


_MODE = {
    LevelSource.CONSTANT_4: "nothing: a constant",
    LevelSource.CR4_PER_CALL: "CR4.LA57 of the pCPU that initialises an MMU",
    LevelSource.CR4_AT_LOAD: "CR4.LA57 of the pCPU that loads the module",
    LevelSource.KERNEL: "the depth that the kernel boots with",
}
_CR4_FEATURES = ("la57", "pcid", "smep", "smap", "pku", "pks", "cet", "lass", "lam")


def _incompatible(host: Host, loader: Pcpu, tdp: bool) -> Refused | None:
    """kvm_x86_check_processor_compatibility() on every online pCPU: it compares what CPUID allows in CR4, not CR4.

    A 4-level kernel has cleared the LA57 flag everywhere, so there nobody can lack it. VMX compares the controls that
    can be set; the bits of IA32_VMX_EPT_VPID_CAP, such as 5-level EPT, are no part of that.
    """
    for pcpu in host.pcpus:
        if not pcpu.online:
            continue
        for name in _CR4_FEATURES:
            if name == "la57" and host.levels == 4:
                continue
            if getattr(pcpu.features, name) != getattr(loader.features, name):
                reason = f"pCPU {pcpu.index} and pCPU {loader.index} differ in {name.upper()}: -EIO."
                return Refused(reason, "kvm_x86_check_processor_compatibility()")
        able = pcpu.setup.virtualization and (pcpu.setup.ept is not None or not tdp)
        if host.vendor is Vendor.INTEL and not able:
            reason = f"pCPU {pcpu.index} lacks VMX or EPT, which pCPU {loader.index} has: -EIO."
            return Refused(reason, "vmx_check_processor_compat()")
    return None


def _captured(module: Module, host: Host, pcpu: Pcpu) -> tuple[Captured, ...]:
    amd = module.vendor is Vendor.AMD
    setup = "svm_hardware_setup()" if amd else "vmx_hardware_setup()"
    source = module.kernel.level_source.value if amd else "vmx_get_max_ept_level(): IA32_VMX_EPT_VPID_CAP, not CR4"
    configure = f"kvm_configure_mmu() from {setup}"
    mode = _MODE[module.kernel.level_source] if amd else "nothing: a capability MSR"
    per_call = amd and module.kernel.level_source is LevelSource.CR4_PER_CALL
    masks = "kvm_mmu_set_ept_masks()" if not amd and module.tdp_enabled else "kvm_mmu_reset_all_pte_masks()"
    smaller = "!npt_enabled" if amd else "module parameter"
    p, spte = module.parameters, module.spte
    rows: list[tuple[str, int | str | bool, str, str]] = [
        ("tdp_enabled", module.tdp_enabled, configure, "nothing"),
        ("tdp_root_level", module.tdp_root_level, f"{configure}; {source}", mode if amd else "nothing"),
        ("max_tdp_level", module.max_tdp_level, f"{configure}; {source}", mode),
        ("max_huge_page_level", module.max_huge_page_level, configure, "nothing"),
        ("tdp_mmu_enabled", module.tdp_mmu, configure, "nothing"),
        ("host EFER", hex(pcpu.registers.efer), "kvm_arch_hardware_setup()", "the host's EFER"),
        ("host MAXPHYADDR", module.maxphyaddr, "kvm_mmu_spte_module_init()", "nothing"),
        ("pgtable_l5_enabled()", host.levels == 5, "the kernel's boot", "nothing: fixed at boot"),
        ("A/D bits", module.ad_bits, setup, "nothing"),
        ("EFER.NXE", bool(pcpu.registers.efer & EFER.NXE), setup, "the host's EFER"),
        ("shadow_present_mask", hex(spte.present), masks, "nothing"),
        ("shadow_mmio_value", hex(spte.mmio_value), masks, "nothing"),
        ("nx_huge_pages", p.nx_huge_pages, "kvm_mmu_x86_module_init()", "a write to the module parameter"),
        ("allow_smaller_maxphyaddr", module.smaller_maxphyaddr, f"{setup}: {smaller}", "nothing"),
        ("nested", p.nested, setup, "nothing"),
    ]
    if module.kernel.guest_phys_bits:
        bits = module.maxphyaddr if module.max_tdp_level == 5 else min(48, module.maxphyaddr)
        rows.append(("GuestPhysBits", bits, "KVM_GET_SUPPORTED_CPUID: kvm_mmu_get_max_tdp_level()", mode))
    if not amd:
        every = "vmx_set_constant_host_state(), again at every vmx_vcpu_run()"
        rows.append(("HOST_CR4", hex(pcpu.cr4_shadow), every, "the host's CR4, read anew at every entry"))
    when = {"pgtable_l5_enabled()": "the kernel's boot", "HOST_CR4": "every entry"}
    if per_call:
        when |= dict.fromkeys(("max_tdp_level", "tdp_root_level"), "every MMU initialisation")
    return tuple(Captured(*row, when=when.get(row[0], "module load"), pcpu=pcpu.index) for row in rows)


# --- captured beside actual


def would_capture(module: Module, host: Host, index: int) -> dict[str, int | str | bool]:
    """What loading the same module on pCPU ``index`` now would capture, by name; empty where it would refuse."""
    now = kvm_init(host, module.kernel, module.parameters, index)
    return {} if isinstance(now, Refused) else {c.name: c.value for c in now.captured}


def actual(module: Module, host: Host, index: int) -> dict[str, int | str | bool]:
    """What the hardware of pCPU ``index`` goes by now, by the name of the captured value that stands for it.

    A kernel that reads its own depth would capture the same again; the hardware still walks as CR4 says.
    """
    pcpu = host.pcpus[index]
    found: dict[str, int | str | bool] = {
        "host EFER": hex(pcpu.registers.efer),
        "EFER.NXE": bool(pcpu.registers.efer & EFER.NXE),
        "host MAXPHYADDR": pcpu.features.maxphyaddr,
        "pgtable_l5_enabled()": pcpu.la57,
    }
    if module.vendor is Vendor.AMD:
        found["max_tdp_level"] = pcpu.levels
        if module.tdp_root_level:
            found["tdp_root_level"] = pcpu.levels
    else:
        ept = pcpu.setup.ept
        found["max_tdp_level"] = 0 if ept is None else 5 if ept.walk5 else 4
        found["HOST_CR4"] = hex(pcpu.registers.cr4)
    return found


def tdp_level(module: Module, host: Host, pcpu: Pcpu, guest_maxphyaddr: int) -> int:
    """kvm_mmu_get_tdp_level(): the depth of a vCPU's direct tables (reference page, 2.1)."""
    if module.tdp_root_level:
        return module.tdp_root_level
    if module.kernel.level_source is LevelSource.CR4_PER_CALL and module.vendor is Vendor.AMD:
        return npt_level(module.kernel, host, pcpu)
    if module.max_tdp_level == 5 and guest_maxphyaddr <= 48:
        return 4
    return module.max_tdp_level
