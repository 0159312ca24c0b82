"""The paging that the options of a command and an image's registers select."""

import argparse

import msgspec

from engine.arch.faults import EntryFailure
from engine.arch.paging import Paging, bind
from engine.arch.registers import RFLAGS_AC, Features, Registers, Vendor, with_pdptes
from engine.arch.second_stage import SecondStage, ept, npt
from engine.errors import InputError
from engine.memory.image import Image

REGISTERS = ("cr0", "cr3", "cr4", "efer", "pkru", "pkrs", "rflags")
OVERRIDES = (*REGISTERS, "cpl")
HOST_OVERRIDES = ("cr0", "cr4", "efer")


def one_stage(options: argparse.Namespace, image: Image) -> Paging:
    """The paging of a CPU of ``image``, with what the options give in place of its registers."""
    given = _given(options)
    if not image.cpus and not {"cr0", "cr3"} <= given.keys():
        raise InputError("This image holds no registers: give at least --cr0 and --cr3, and --cr4 and --efer if not 0.")
    registers = with_pdptes(msgspec.structs.replace(_of_cpu(options, image), **given), image)
    return bind(registers, Features(vendor=Vendor(options.vendor), maxphyaddr=options.maxphyaddr))


def two_stages(options: argparse.Namespace, image: Image) -> tuple[Paging, SecondStage]:
    """A guest's paging and the second stage it goes through, where ``image`` is the host's memory.

    The image's registers are the host's, so the guest's are only those that options give; none: no paging.
    """
    amd = options.npt is not None
    features = Features(vendor=Vendor.AMD if amd else Vendor.INTEL, maxphyaddr=options.maxphyaddr)
    if amd:
        second = npt(_of_host(options, image), features, options.npt)
    else:
        second = ept(options.eptp, options.maxphyaddr)
    if isinstance(second, EntryFailure):
        raise InputError(f"The guest cannot be entered: {second.reason}.")
    return bind(msgspec.structs.replace(Registers(), **_given(options)), features, pdptes_from_memory=amd), second


def assumed(options: argparse.Namespace, image: Image) -> list[str]:
    """The registers that a walk rests on although neither the image nor an option gives them, such as EFER.NXE."""
    if options.eptp is not None or not image.cpus:
        return []
    prefix = "host_" if options.npt is not None else ""
    names = image.cpus[options.cpu or 0].assumed
    return [name for name in names if getattr(options, prefix + name.partition(".")[0].lower(), 0) is None]


def _given(options: argparse.Namespace) -> dict[str, int]:
    given = {name: value for name in OVERRIDES if (value := getattr(options, name)) is not None}
    return {**given, "rflags": given.get("rflags", Registers().rflags) | RFLAGS_AC} if options.ac else given


def _of_host(options: argparse.Namespace, image: Image) -> Registers:
    given = {name: value for name in HOST_OVERRIDES if (value := getattr(options, f"host_{name}")) is not None}
    if not image.cpus and len(given) < len(HOST_OVERRIDES):
        raise InputError("This image holds no registers: give --host-cr0, --host-cr4 and --host-efer.")
    return msgspec.structs.replace(_of_cpu(options, image), **given)


def _of_cpu(options: argparse.Namespace, image: Image) -> Registers:
    """Those of the CPU that is asked for; of an image without registers, those of a processor at reset."""
    cpus = image.cpus
    if options.cpu is not None and options.cpu >= len(cpus):
        raise InputError(f"There is no CPU {options.cpu}: the image has the registers of {len(cpus)}.")
    return cpus[options.cpu or 0].registers if cpus else Registers()
