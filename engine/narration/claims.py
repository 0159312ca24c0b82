"""Claims as people write them, one a line: ``references = 24``, ``rights contains W``, ``levels < {first.levels}``."""

import re
from typing import get_args

from engine.demo import Claim, Relation
from engine.errors import InputError

_RELATIONS = sorted(get_args(Relation), key=len, reverse=True)
_LINE = re.compile(rf"(\S+)\s+({'|'.join(map(re.escape, _RELATIONS))})\s+(.+)")


def claim_of(line: str) -> Claim:
    """The claim that a line makes. Raises InputError with a sentence."""
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise InputError(f"“{line.strip()[:60]}” is no claim: write a field, a relation ({_NAMES}) and a value.")
    field, relation, right = found.groups()
    if right.startswith("{") and right.endswith("}"):
        return Claim(field, relation, other=right[1:-1].strip())  # type: ignore[arg-type]
    try:
        return Claim(field, relation, int(right.replace("_", ""), 0))  # type: ignore[arg-type]
    except ValueError:
        return Claim(field, relation, right)  # type: ignore[arg-type]


_NAMES = " ".join(get_args(Relation))


def claims_of(text: str) -> tuple[Claim, ...]:
    """The claims that the lines of a text make. Raises InputError with a sentence."""
    return tuple(claim_of(line) for line in text.splitlines() if line.strip())


def text_of(claims: tuple[Claim, ...]) -> str:
    return "\n".join(map(_line, claims))


def _line(claim: Claim) -> str:
    right = f"{{{claim.other}}}" if claim.other else claim.expected
    return f"{claim.field} {claim.relation} {right}"
