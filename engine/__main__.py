"""The command line: ``python -m engine walk | translate | map | cases | run | effects | report``.

A walk that faults is an answer: exit code 0. Bad input is exit code 2 and one sentence on standard error.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from engine.arch.addresses import parse_address
from engine.arch.registers import Vendor
from engine.cli import commands
from engine.cli.pipe import Pipe
from engine.cli.source import HOST_OVERRIDES, REGISTERS
from engine.errors import InputError

ROOTS = {
    "npt": "nCR3: SOURCE is the memory of a host by AMD; the guest's registers are those given, none: no paging",
    "eptp": "EPTP: the same with a host by Intel",
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}; --help tells what can be given.")


def hexadecimal(text: str) -> int:
    try:
        return parse_address(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def address_bits(text: str) -> int:
    if not text.isdecimal() or not 32 <= int(text) <= 52:
        raise argparse.ArgumentTypeError(f"{text[:40]} is not a number of bits from 32 to 52")
    return int(text)


def number_of(what: str) -> Callable[[str], int]:
    """Reads the number of a ``what``, from 0."""

    def number(text: str) -> int:
        if not text.isdecimal() or len(text) > 9:
            raise argparse.ArgumentTypeError(f"{text[:40]} is not the number of a {what}")
        return int(text)

    return number


cpu_number, vm_number, step_number = map(number_of, ("CPU", "VM", "step"))


def build_parser() -> Parser:
    about = "x86 page tables, of a memory image and under KVM."
    parser = Parser(prog="python -m engine", allow_abbrev=False, description=about)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: commands.Command, text: str, *parents: Parser) -> Parser:
        added = subparsers.add_parser(name, help=text, description=text, parents=parents, allow_abbrev=False)
        added.set_defaults(run=run)
        return added

    source = _source_options()
    walk = command("walk", commands.walk, "Walk one address: every reference, the outcome, what is written.", source)
    walk.add_argument("address", metavar="ADDRESS", type=hexadecimal, help="linear address in hex")
    walk.add_argument("--access", choices=commands.ACCESS, default="r", help="read, write or fetch (default: r)")
    walk.add_argument("--size", type=int, choices=(1, 2, 4, 8), default=1, help="bytes accessed (default: 1)")
    root = walk.add_mutually_exclusive_group()
    for name, text in ROOTS.items():
        root.add_argument(f"--{name}", type=hexadecimal, metavar="HEX", help=text)
    for name in HOST_OVERRIDES:
        text = "of the host at VMRUN (default: the image's)"
        walk.add_argument(f"--host-{name}", type=hexadecimal, metavar="HEX", help=text)
    walk.add_argument("--json", action="store_true", help="the walk as JSON; one line for each page that is touched")
    command("translate", commands.translate, "Hex addresses on standard input, a line each, to JSON Lines.", source)
    mappings = command("map", commands.map_, "Every mapping, coalesced, sorted by address.", source)
    mappings.add_argument("--json", action="store_true", help="JSON Lines instead of a table")
    command("cases", commands.cases, "Cases as JSON Lines on standard input to their answers.")
    run = command("run", commands.run, "A scenario, event by event: outcomes, and the kernel functions involved.")
    run.add_argument("scenario", metavar="SCENARIO.json", help="a scenario in its JSON form")
    form = run.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a line of JSON for each event, with every walk")
    form.add_argument("--walks", action="store_true", help="text with every reference of the hardware's walks")
    _add_effects(command("effects", commands.effects, "What translates differently at another step, or pCPU."))
    _add_report(command("report", commands.report, "A report of a scenario: text to send by mail, or one HTML page."))
    return parser


def _add_report(report: Parser) -> None:
    report.add_argument("scenario", metavar="SCENARIO.json", help="a scenario in its JSON form; - is standard input")
    report.add_argument("--format", choices=("txt", "html"), default="txt", help="default: txt, of 72 columns")
    report.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    _add_sides(report, required=False)


def _add_effects(effects: Parser) -> None:
    effects.add_argument("scenario", metavar="SCENARIO.json", help="a scenario in its JSON form")
    _add_sides(effects, required=True)
    effects.add_argument("--access", choices=commands.ACCESS, default="r", help="that KVM answers to (default: r)")
    effects.add_argument("--json", action="store_true", help="one JSON object")


def _add_sides(effects: Parser, required: bool) -> None:
    """Which two moments are compared."""
    usual = "" if required else " (default: around the last change of mode)"
    for side, name in (("from", "A"), ("to", "B")):
        text = f"side {name}: the state after that many events{usual}"
        effects.add_argument(
            f"--{side}", dest=f"{side}_step", type=step_number, required=required, metavar=name, help=text
        )
        text = f"whose hardware walks on side {name} (default: the pCPU that the vCPU is on)"
        effects.add_argument(f"--{side}-pcpu", type=cpu_number, metavar="N", help=text)
    effects.add_argument("--vm", type=vm_number, default=0, metavar="N", help="from 0 (default: 0)")
    effects.add_argument("--vcpu", type=cpu_number, default=0, metavar="N", help="from 0 (default: 0)")


def _source_options() -> Parser:
    options = Parser(add_help=False, allow_abbrev=False)
    options.add_argument("source", metavar="SOURCE", help="memory image: ELF core (also gzip, xz) or raw memory")
    options.add_argument("--cpu", type=cpu_number, metavar="N", help="CPU of the image, from 0 (default: 0)")
    for name in REGISTERS:
        options.add_argument(f"--{name}", type=hexadecimal, metavar="HEX", help="overrides the image's value")
    options.add_argument("--ac", action="store_true", help="RFLAGS.AC = 1")
    options.add_argument("--cpl", type=int, choices=range(4), help="privilege level (default: the image's)")
    options.add_argument("--maxphyaddr", type=address_bits, default=52, metavar="BITS", help="32 to 52 (default: 52)")
    vendors = [vendor.value for vendor in Vendor]
    options.add_argument("--vendor", choices=vendors, default=Vendor.INTEL.value, help="default: intel")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    try:
        options = build_parser().parse_args(arguments)
        if sys.stdin is None or sys.stdout is None:
            raise InputError("Standard input and standard output must be open.")
        pipe = Pipe(sys.stdin.buffer, sys.stdout.buffer, sys.stdout.encoding)
        try:
            options.run(options, pipe)
        finally:
            pipe.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain when it flushes the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"The results cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
