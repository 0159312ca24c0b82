"""The outcomes of a translation: what it gave, or the fault it raised, with codes, encoders and decoders.

An outcome is a value with a reason and its evidence, never a bool, None or a string. *Bytes that the memory does not
know* are an outcome of their own (Unknown) and are never taken for zero.
"""

from enum import Enum

import msgspec

from engine.arch.basis import Basis
from engine.arch.bits import bit, field


class Reason(Enum):
    """Why a walk stopped at an entry."""

    NOT_PRESENT = "not present"
    RESERVED = "reserved bit"
    RIGHTS = "rights"
    MISCONFIGURED = "misconfigured"
    OUT_OF_RANGE = "address out of range"
    UNKNOWN = "bytes unknown"


class Violation(Enum):
    """A right that an access lacks; all that apply are merged into one fault."""

    SUPERVISOR_PAGE = "user access to a supervisor page (U/S = 0)"
    READ_ONLY = "write to a read-only page (R/W = 0)"
    NO_EXECUTE = "instruction fetch from a no-execute page (XD = 1)"
    SMEP = "supervisor fetch from a user page (CR4.SMEP)"
    SMAP = "supervisor access to a user page (CR4.SMAP)"
    PROTECTION_KEY = "protection key denies the access"
    NOT_SHADOW_STACK = "shadow-stack access to a page that is not one"
    GMET = "supervisor fetch from a nested user page (GMET)"
    EPT_READ = "EPT denies the read (R = 0)"
    EPT_WRITE = "EPT denies the write (W = 0)"
    EPT_EXECUTE = "EPT denies the fetch (X = 0)"


class Rights(msgspec.Struct, frozen=True, gc=False):
    """What a translation allows, over all entries used. ``key``: protection key of the leaf, if it has one."""

    read: bool
    write: bool
    execute: bool
    user: bool
    key: int | None = None
    global_: bool = False

    def letters(self) -> str:
        flags = ((self.read, "R"), (self.write, "W"), (self.execute, "X"), (self.user, "U"))
        return " ".join(letter if on else "–" for on, letter in flags)


class CodeBit(msgspec.Struct, frozen=True):
    """One bit of an error code, as decoded: its name, what 0 and 1 mean."""

    bit: int
    name: str
    zero: str
    one: str


PF_BITS = (
    CodeBit(0, "P", "an entry was not present", "the entries were present"),
    CodeBit(1, "W/R", "the access was a read", "the access was a write"),
    CodeBit(2, "U/S", "a supervisor access", "a user access"),
    CodeBit(3, "RSVD", "no reserved bit", "a reserved bit was set in an entry"),
    CodeBit(4, "I/D", "not reported as a fetch", "an instruction fetch"),
    CodeBit(5, "PK", "no protection-key violation", "a protection key denied it"),
    CodeBit(6, "SS", "not a shadow-stack access", "a shadow-stack access"),
)
"""#PF error code (SDM vol. 3A, 4.7)."""


def decode_code(code: int, table: tuple[CodeBit, ...]) -> list[tuple[CodeBit, int, str]]:
    """Each bit of ``table`` with its value in ``code`` and what that value means."""
    return [(b, value, b.one if value else b.zero) for b in table for value in (field(code, b.bit, b.bit),)]


def pf_code(
    reason: Reason, *, write: bool, user: bool, fetch: bool, key: bool = False, shadow_stack: bool = False
) -> int:
    """The #PF error code (SDM vol. 3A, 4.7). ``fetch`` only where fetches are told apart (NXE with PAE, or SMEP)."""
    return (
        (reason is not Reason.NOT_PRESENT) * bit(0)
        | write * bit(1)
        | user * bit(2)
        | (reason is Reason.RESERVED) * bit(3)
        | fetch * bit(4)
        | key * bit(5)
        | shadow_stack * bit(6)
    )


class Translated(msgspec.Struct, frozen=True, gc=False):
    """The access goes through. ``address``: physical byte address; ``page_size`` in bytes (0: no paging)."""

    address: int
    page_size: int
    rights: Rights


class PageFault(msgspec.Struct, frozen=True):
    """#PF (vector 14) with what CR2 holds. ``reserved``: the offending bits where the reason is RESERVED."""

    error_code: int
    cr2: int
    reason: Reason
    basis: Basis
    violations: tuple[Violation, ...] = ()
    reserved: int = 0
    vector: int = 14


class GeneralProtection(msgspec.Struct, frozen=True, kw_only=True):
    """#GP(0), or #SS(0) for stack references (vector 12). ``when`` names a moment other than the access itself."""

    reason: str
    basis: Basis
    vector: int = 13
    when: str = ""


class Unknown(msgspec.Struct, frozen=True):
    """The entry at physical byte ``address`` is not in the memory at hand, so nothing can be said."""

    address: int


NPF_BITS = (
    CodeBit(0, "P", "a nested entry was not present", "the nested entries were present"),
    CodeBit(1, "W/R", "the nested access was a read", "the nested access was a write"),
    CodeBit(2, "U/S", "a supervisor access", "a user access, as nested accesses are"),
    CodeBit(3, "RSV", "no reserved bit", "a reserved bit was set in a nested entry"),
    CodeBit(4, "I/D", "not reported as a fetch", "an instruction fetch"),
    CodeBit(6, "SS", "not a shadow-stack access", "a shadow-stack access"),
    CodeBit(32, "final", "not for the page itself", "while the final guest-physical address was translated"),
    CodeBit(33, "table", "not for a guest table", "while an entry of the guest's tables was read"),
    CodeBit(37, "SSS", "not a supervisor shadow-stack page", "the leaf is a supervisor shadow-stack page"),
)
"""EXITINFO1 of #NPF (APM vol. 2, 15.25.6)."""

EPT_VIOLATION_BITS = (
    CodeBit(0, "read", "not a data read", "a data read"),
    CodeBit(1, "write", "not a data write", "a data write"),
    CodeBit(2, "fetch", "not a fetch", "an instruction fetch"),
    CodeBit(3, "R", "the EPT entries do not all allow reads", "the EPT entries allow reads"),
    CodeBit(4, "W", "the EPT entries do not all allow writes", "the EPT entries allow writes"),
    CodeBit(5, "X", "the EPT entries do not all allow fetches", "the EPT entries allow fetches"),
    CodeBit(6, "XU", "no user-mode fetches, or not told", "the EPT entries allow user-mode fetches"),
    CodeBit(7, "GLA valid", "no linear address", "the guest-linear address is valid"),
    CodeBit(8, "final", "for an entry of the guest's tables", "for the translation of the linear address"),
    CodeBit(9, "guest U", "guest: supervisor page, or not told", "guest: user page"),
    CodeBit(10, "guest W", "guest: read-only page, or not told", "guest: writable page"),
    CodeBit(11, "guest XD", "guest: executable page, or not told", "guest: no-execute page"),
    CodeBit(13, "SS", "not a shadow-stack access", "a shadow-stack access"),
    CodeBit(14, "SSS", "not a supervisor shadow-stack page", "the leaf is a supervisor shadow-stack page"),
)
"""Exit qualification of an EPT violation (SDM vol. 3C, 28.2.1, table 28-7)."""


class NestedPageFault(msgspec.Struct, frozen=True):
    """#NPF, exit code 400h. ``exitinfo2``: the guest-physical byte address that could not be translated."""

    exitinfo1: int
    exitinfo2: int
    reason: Reason
    basis: Basis
    violations: tuple[Violation, ...] = ()
    reserved: int = 0


class EptViolation(msgspec.Struct, frozen=True):
    """Exit reason 48. ``gpa``, ``gla``: guest-physical and guest-linear byte addresses (``gla``: None if not valid)."""

    qualification: int
    gpa: int
    gla: int | None
    reason: Reason
    basis: Basis
    violations: tuple[Violation, ...] = ()


class EptMisconfiguration(msgspec.Struct, frozen=True):
    """Exit reason 49: an entry that no processor accepts. ``why`` tells the rule it breaks."""

    gpa: int
    why: str
    basis: Basis


class EntryFailure(msgspec.Struct, frozen=True):
    """The guest cannot be entered at all: VMRUN gives VMEXIT_INVALID, or VM entry fails on a control field."""

    reason: str
    basis: Basis


Outcome = Translated | PageFault | GeneralProtection | Unknown | NestedPageFault | EptViolation | EptMisconfiguration
