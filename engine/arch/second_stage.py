"""The second stage of translation, NPT and EPT: what differs from one stage, as data.

NPT is the paging of the *host*: nothing in the VMCB or in nCR3 says how many levels to walk, the pCPU's CR0, CR4 and
EFER at VMRUN do (AMD APM vol. 2, 15.25). EPT carries its walk length in the EPTP (Intel SDM vol. 3C, 25.6.11 and 29.3).
Either way the tables are walked by the same walker as everything else.
"""

from enum import Enum
from functools import lru_cache

import msgspec

from engine.arch import formats
from engine.arch.basis import assumed, manual
from engine.arch.bits import bit, bit_names, field, mask
from engine.arch.faults import EntryFailure, Violation
from engine.arch.formats import Setting
from engine.arch.paging import Paging, bind, bind_levels
from engine.arch.registers import CR0, CR4, EFER, Features, Mode, Registers
from engine.arch.rights import LINEAR_NAMES, RW, US, XD, Access, Check, Kind
from engine.arch.rules import DEFAULT, GpaHigh, Rules


class Kind2(Enum):
    NPT = "NPT"
    EPT = "EPT"


class SecondStage(msgspec.Struct, frozen=True, cache_hash=True):
    """A second stage ready to walk. ``paging`` translates guest-physical addresses.

    ``table``: what a use of a guest paging-structure entry needs. ``update_needs``: bits that must be set in all nested
    entries where, beyond that, an A/D flag of the guest is written. ``late_flags``: nested A/D flags are set once the
    rights suffice. ``reach``: bits of a guest-physical address beyond which nothing is mapped. ``restricts``: rights in
    its entries count; else it only tells where an address lies.
    """

    kind: Kind2
    paging: Paging
    table: Check
    update_needs: int = 0
    late_flags: bool = False
    reach: int = 64
    gmet: bool = False
    supervisor_shadow_stack: bool = False
    advanced_info: bool = False
    restricts: bool = True

    @property
    def name(self) -> str:
        return f"{self.paging.name} NPT" if self.kind is Kind2.NPT else self.paging.name


# --- NPT -------------------------------------------------------------------------------------------------------------


class NptControls(msgspec.Struct, frozen=True, cache_hash=True):
    """VMCB bits beside NP_ENABLE: guest-mode execute trap, supervisor shadow-stack check (APM vol. 2, 15.25.13)."""

    gmet: bool = False
    supervisor_shadow_stack: bool = False


NO_CONTROLS = NptControls()


@lru_cache(maxsize=1024)
def npt(
    host: Registers, features: Features, ncr3: int, rules: Rules = DEFAULT, controls: NptControls = NO_CONTROLS
) -> SecondStage | EntryFailure:
    """The nested paging of a VMRUN executed with registers ``host`` and root ``ncr3`` (APM vol. 2, 15.25.3 - 15.25.5).

    Every nested access is a user access and an access to a guest's table is a write, so U/S must be 1 everywhere, and
    R/W on the guest's tables. Host WP, PGE, SMEP, SMAP and protection keys restrict nothing.
    """
    if not host.cr0 & CR0.PG:
        reason = "VMRUN with nested paging needs the host's paging on (CR0.PG = 1)"
        return EntryFailure(reason=reason, basis=manual("AMD APM vol. 2, 15.25.3"))
    if host.mode.is_long and ncr3 & mask(63, features.maxphyaddr):
        reason = f"bits 63:{features.maxphyaddr} of nCR3 must be 0"
        return EntryFailure(reason=reason, basis=manual("AMD APM vol. 2, 15.25.4"))
    as_cr3 = msgspec.structs.replace(host, cr3=ncr3, pdptes=None)
    bound = bind(as_cr3, features, rules, pdptes_from_memory=True)
    paging = msgspec.structs.replace(bound, linear=False, setting=msgspec.structs.replace(bound.setting, keys=False))
    sss = controls.supervisor_shadow_stack and bool(host.cr4 & CR4.PAE) and bool(host.efer & EFER.NXE)
    limited = paging.mode is Mode.LEVEL4 and rules.npt_gpa_high is GpaHigh.NPF
    return SecondStage(
        kind=Kind2.NPT,
        paging=paging,
        table=Check(need=RW if controls.gmet else US | RW, names=LINEAR_NAMES, writes=True, user=True),
        reach=paging.width if limited else 64,
        gmet=controls.gmet,
        supervisor_shadow_stack=sss,
    )


# --- EPT -------------------------------------------------------------------------------------------------------------


class EptCapabilities(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, forbid_unknown_fields=True):
    """IA32_VMX_EPT_VPID_CAP (SDM vol. 3D, A.10), as far as a walk depends on it, and mode-based execute control."""

    execute_only: bool = True
    walk4: bool = True
    walk5: bool = True
    uncacheable: bool = True
    write_back: bool = True
    page2mb: bool = True
    page1gb: bool = True
    accessed_dirty: bool = True
    advanced_info: bool = False
    supervisor_shadow_stack: bool = True

    @classmethod
    def from_msr(cls, value: int) -> "EptCapabilities":
        return cls(**{name: bool(value >> at & 1) for name, at in _CAPABILITY_BITS.items()})

    def to_msr(self) -> int:
        return sum(bit(at) for name, at in _CAPABILITY_BITS.items() if getattr(self, name))


_CAPABILITY_BITS = {
    "execute_only": 0, "walk4": 6, "walk5": 7, "uncacheable": 8, "write_back": 14, "page2mb": 16, "page1gb": 17,
    "accessed_dirty": 21, "advanced_info": 22, "supervisor_shadow_stack": 23,
}  # fmt: skip

ALL_CAPABILITIES = EptCapabilities()
EPT_R, EPT_W, EPT_X, EPT_XU, EPT_SSS = bit(0), bit(1), bit(2), bit(10), bit(60)
EPT_NAMES = (
    (EPT_R, Violation.EPT_READ),
    (EPT_W, Violation.EPT_WRITE),
    (EPT_X, Violation.EPT_EXECUTE),
    (EPT_XU, Violation.EPT_EXECUTE),
)


class EptpField(msgspec.Struct, frozen=True):
    """A field of an EPTP with its value and what that says; ``bad`` is why VM entry refuses it."""

    name: str
    hi: int
    lo: int
    value: int
    meaning: str
    bad: str = ""


def decode_eptp(eptp: int, maxphyaddr: int, capabilities: EptCapabilities) -> list[EptpField]:
    """The fields of an EPTP, from bit 0 up (SDM vol. 3C, 25.6.11 and 27.2.1.1)."""
    c = capabilities
    types = {0: ("UC", c.uncacheable), 6: ("WB", c.write_back)}
    lengths = {3: ("4 levels", c.walk4), 4: ("5 levels", c.walk5)}

    def choice(name: str, hi: int, lo: int, table: dict[int, tuple[str, bool]]) -> EptpField:
        value = field(eptp, hi, lo)
        meaning, supported = table.get(value, ("", False))
        bad = "" if supported else f"{name} {value} is not supported"
        return EptpField(name, hi, lo, value, meaning, bad)

    def flag(name: str, at: int, supported: bool) -> EptpField:
        value = field(eptp, at, at)
        bad = f"{name} is not supported" if value and not supported else ""
        return EptpField(name, at, at, value, "on" if value else "off", bad)

    def zero(hi: int, lo: int) -> EptpField:
        value = field(eptp, hi, lo)
        bad = f"bits {bit_names(value << lo)} must be 0" if value else ""
        return EptpField("reserved", hi, lo, value, "must be 0", bad)

    top = [zero(63, maxphyaddr)]
    return [
        choice("memory type", 2, 0, types),
        choice("walk length - 1", 5, 3, lengths),
        flag("accessed and dirty flags", 6, c.accessed_dirty),
        flag("supervisor shadow-stack control", 7, c.supervisor_shadow_stack),
        zero(11, 8),
        EptpField("root table", maxphyaddr - 1, 12, field(eptp, maxphyaddr - 1, 12), "frame"),
        *top,
    ]


@lru_cache(maxsize=1024)
def ept(
    eptp: int,
    maxphyaddr: int,
    capabilities: EptCapabilities = ALL_CAPABILITIES,
    rules: Rules = DEFAULT,
    *,
    mode_based_execute: bool = False,
) -> SecondStage | EntryFailure:
    """The EPT that ``eptp`` names: its walk length is its own, whatever any CR4 says (SDM vol. 3C, 29.3.2).

    With accessed and dirty flags a use of a guest's table is a write; without them it is a read, and only the update
    of a guest's A or D flag needs W.
    """
    bad = [f.bad for f in decode_eptp(eptp, maxphyaddr, capabilities) if f.bad]
    if bad:
        return EntryFailure(reason=f"EPTP: {'; '.join(bad)}", basis=manual("Intel SDM vol. 3C, 27.2.1.1"))
    flags_on = bool(eptp & bit(6))
    fmt, mode = {3: (formats.EPT4, Mode.LEVEL4), 4: (formats.EPT5, Mode.LEVEL5)}[field(eptp, 5, 3)]
    setting = Setting(
        maxphyaddr=maxphyaddr,
        execute_only=capabilities.execute_only,
        page2mb=capabilities.page2mb,
        page1gb=capabilities.page1gb,
        mbec=mode_based_execute,
        accessed_dirty=flags_on,
    )
    paging = Paging(
        mode=mode,
        format=fmt,
        root=eptp & mask(maxphyaddr - 1, 12),
        levels=bind_levels(fmt, setting),
        registers=Registers(),
        features=Features(maxphyaddr=maxphyaddr),
        rules=rules,
        setting=setting,
        width=fmt.width,
        linear=False,
    )
    return SecondStage(
        kind=Kind2.EPT,
        paging=paging,
        table=Check(need=EPT_R | EPT_W if flags_on else EPT_R, names=EPT_NAMES, writes=flags_on),
        update_needs=0 if flags_on else EPT_W,
        late_flags=True,
        reach=fmt.width,
        supervisor_shadow_stack=bool(eptp & bit(7)),
        advanced_info=capabilities.advanced_info,
    )


def addresses_only(second: SecondStage) -> SecondStage:
    """``second`` as software uses it that walks tables of the stage above for itself: where things lie, whatever
    rights.

    A hypervisor takes rights away from memory whose writes it wants to see, and gives the writer what it promised.
    """
    table = Check(need=0, names=second.table.names, user=second.table.user)
    return msgspec.structs.replace(second, table=table, update_needs=0, restricts=False)


# --- the access to the page itself -----------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def final_check(second: SecondStage, access: Access, cpl: int, user_page: bool) -> Check:
    """What the second stage must say for the access itself. ``user_page``: the guest maps it with U/S = 1."""
    kind, user = access.kind, access.is_user(cpl)
    fetch, writes = kind is Kind.FETCH, kind.writes
    if not second.restricts:
        return msgspec.structs.replace(second.table, writes=writes, fetch=fetch)
    special = kind.is_shadow_stack and not user and second.supervisor_shadow_stack
    if second.kind is Kind2.EPT:
        execute = EPT_XU if second.paging.setting.mbec and user_page else EPT_X
        need = EPT_R if special else execute if fetch else EPT_W if writes else EPT_R
        return Check(
            need=need, names=EPT_NAMES, writes=writes, fetch=fetch, user=user, shadow_stack=special,
            table_need=EPT_W if special else 0, leaf_need=EPT_SSS if special else 0,
        )  # fmt: skip
    nxe = second.paging.setting.nxe
    need = 0 if second.gmet else US
    if special:
        return Check(
            need=0, names=LINEAR_NAMES, deny_all=US, table_need=RW, leaf_need=XD, writes=writes, user=True,
            shadow_stack=True,
        )  # fmt: skip
    return Check(
        need=need | RW if writes else need,
        names=LINEAR_NAMES,
        deny_all=US if second.gmet and fetch and not user else 0,
        denies=Violation.GMET,
        deny_any=XD if fetch and nxe else 0,
        writes=writes,
        fetch=fetch,
        user=user if second.gmet and fetch else True,
    )


FETCH_BIT = assumed("npf_id: whether EXITINFO1 tells a fetch while the host's EFER.NXE is 0")
HIGH_GPA = assumed("npt_gpa_high: what a 4-level NPT does with GPA bits 51:48 is not documented")
