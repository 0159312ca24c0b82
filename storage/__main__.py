"""The command line: ``python -m storage export FILE.wscope [OUT.json]`` and ``import IN.json FILE.wscope``.

``-`` is standard input or output. Bad input is exit code 2 and one sentence on standard error.
"""

import argparse
import os
import sys
from typing import NoReturn

from engine import codec
from engine.errors import InputError
from storage import disk, files, images
from storage.content import Content
from storage.errors import Problem, StorageError, named, of_os, printable

STANDARD = "-"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}; --help tells what can be given.")


def build_parser() -> Parser:
    parser = Parser(prog="python -m storage", allow_abbrev=False, description="Scenario files to JSON and back.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    text = "Write the scenario in a file as the engine's JSON. Paths of images are relative to OUT's folder."
    out = commands.add_parser("export", help=text, description=text, allow_abbrev=False)
    out.add_argument("file", metavar="FILE.wscope")
    out.add_argument("out", metavar="OUT.json", nargs="?", default=STANDARD, help="default: standard output")
    out.set_defaults(run=lambda options: export(options.file, options.out))

    text = "Make a scenario file of the engine's JSON. Paths of images are relative to IN's folder."
    into = commands.add_parser("import", help=text, description=text, allow_abbrev=False)
    into.add_argument("source", metavar="IN.json", help="- is standard input")
    into.add_argument("file", metavar="FILE.wscope")
    into.add_argument("--force", action="store_true", help="replace FILE.wscope if it is there")
    into.set_defaults(run=lambda options: import_(options.source, options.file, options.force))
    return parser


def export(path: str, out: str) -> None:
    content = files.open_file(path).content
    with named(out, writing=True):
        text = codec.encode_scenario(images.relative(content, _folder(out)).scenario).encode()
        if out != STANDARD:
            disk.replace(os.path.abspath(out), text, None, files.same_as(text))
            return
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def import_(source: str, path: str, force: bool) -> None:
    with named(source):
        text = sys.stdin.buffer.read(codec.MAX_BYTES + 1) if source == STANDARD else disk.read(source)[0]
        folder = _folder(source)
    content = images.resolved(Content(scenario=codec.decode_scenario(text)), folder)
    if not force and os.path.lexists(path):
        raise StorageError(Problem.CHANGED, f"{printable(path)}: it is there already; --force replaces it.")
    files.save(content, path)


def _folder(path: str) -> str:
    return os.getcwd() if path == STANDARD else files.folder_of(path)


def main(arguments: list[str] | None = None) -> int:
    try:
        options = build_parser().parse_args(arguments)
        options.run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that nothing is flushed into it at exit
    except OSError as error:
        print(f"The scenario cannot be written: {of_os(error, writing=True)}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
