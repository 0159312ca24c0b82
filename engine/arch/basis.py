"""What a statement of Walkscope rests on. Every outcome, effect and finding carries one."""

from enum import Enum

import msgspec


class Ground(Enum):
    ARCHITECTURE = "architecture"
    KERNEL = "kernel source"
    FIELD = "field report"
    ASSUMPTION = "assumption"


class Basis(msgspec.Struct, frozen=True):
    """``reference``: the manual's section, the kernel version and function, or the name of the assumption."""

    ground: Ground
    reference: str

    def __str__(self) -> str:
        return f"{self.ground.value}: {self.reference}"


def manual(reference: str) -> Basis:
    return Basis(Ground.ARCHITECTURE, reference)


def assumed(name: str) -> Basis:
    return Basis(Ground.ASSUMPTION, name)
