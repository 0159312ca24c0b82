"""The array walker against the same walks in C, on one image and in one run, with equal results.

The floors are own C: one walk after another, sixteen interleaved with prefetch, and a depth-first enumeration.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec
import numpy as np

from engine.arch.bulk import Translations, translate
from engine.arch.bulk_nested import translate_nested
from engine.arch.mappings import Mappings, mappings
from engine.arch.paging import Paging, bind
from engine.arch.registers import Features, Registers
from engine.arch.rights import READ
from engine.arch.walk import walk
from engine.memory.image import Image, open_image
from tests.bench import native
from tests.bench.lines import Line, best
from tests.bench.native import Native
from tests.bench.synthetic import FRAMES, MAXPHYADDR, Synthetic, U, build, build_nested

ROUNDS = 4
"""Ours and C's runs alternate, so that both meet the same neighbours; of each the best counts."""


def lines() -> Iterator[Line]:
    program = native.build()
    if program is None:
        print("arrays: no C compiler here, so without floors and their goals")
    for levels in (4, 5):
        with TemporaryDirectory() as folder:
            yield from _one_stage(program, build(levels), Path(folder))
    with TemporaryDirectory() as folder:
        yield from _two_stages(program, build_nested(), Path(folder))
    with TemporaryDirectory() as folder:
        yield from _sparse(Path(folder))


def _one_stage(program: Path | None, made: Synthetic, folder: Path) -> Iterator[Line]:
    files, paging, levels = made.save(folder), made.paging, len(made.paging.levels)
    name = f"{levels}-level"
    with open_image(files[0]) as image:
        translated, listed = translate(image, paging, made.addresses), mappings(image, paging)
        ours: dict[str, float] = {}
        floors: dict[str, Native] = {}
        for _ in range(ROUNDS):
            _keep_best(ours, "translate", lambda: translate(image, paging, made.addresses))
            _keep_best(ours, "enumerate", lambda: mappings(image, paging))
            if program is not None:
                _run(floors, program, files, levels, paging)
        count = len(made.addresses) / 1e6
        if floors:
            assert floors["c16"].checksum == floors["c1"].checksum == _checksum(translated)
            assert floors["enumerate"].checksum == _checksum_of_ranges(listed)
        c1, c16, c_enumerate = (floors[key].seconds if floors else None for key in ("c1", "c16", "enumerate"))
        rate = count / ours["translate"]
        yield Line(f"translate a million, {name}, to C16", rate, "M/s", c16 and count / c16, ">= 0.8" if c16 else "")
        yield Line(f"translate a million, {name}, to C1", rate, "M/s", c1 and count / c1)
        told, goal = f"enumerate {made.leaves / 1e6:.1f} M leaves, {name}", "<= 10" if c_enumerate else ""
        yield Line(told, ours["enumerate"] * 1e3, "ms", c_enumerate and c_enumerate * 1e3, goal)
        yield Line(f"longest wait for a cancel, {name}", _longest_wait(image, made) * 1e3, "ms", goal="<= 100")
    answered = best(lambda: _first_answer(files[0], made), 20)
    yield Line(f"open to first answer, {name}", answered * 1e3, "ms", goal="<= 1")
    yield Line(f"memory of translating and enumerating, {name}", _peak(files, made), "MiB")


def _two_stages(program: Path | None, made: Synthetic, folder: Path) -> Iterator[Line]:
    files, paging, second = made.save(folder, FRAMES + 512), made.paging, made.second
    assert second is not None
    with open_image(files[0]) as image:
        translated = translate_nested(image, paging, second, made.addresses)
        ranges = len(mappings(image, paging, second))
        ours: dict[str, float] = {}
        floors: dict[str, Native] = {}
        for _ in range(ROUNDS):
            _keep_best(ours, "translate", lambda: translate_nested(image, paging, second, made.addresses))
            _keep_best(ours, "enumerate", lambda: mappings(image, paging, second))
            if program is not None:
                _run(floors, program, files, 4, paging, 4, second.paging.root)
        if floors:
            assert floors["nested"].checksum == _checksum(translated)
        count, floor = len(made.addresses) / 1e6, floors["nested"].seconds if floors else None
        rate, goal = count / ours["translate"], ">= 2" if floor else ""
        yield Line("translate a million, two stages, to C1", rate, "M/s", floor and count / floor, goal)
        yield Line("longest wait for a cancel, two stages", _longest_wait(image, made) * 1e3, "ms", goal="<= 100")
        told = f"enumerate {made.leaves / 1e6:.1f} M leaves into {ranges / 1e6:.1f} M ranges, two stages"
        yield Line(told, ours["enumerate"] * 1e3, "ms")


def _sparse(folder: Path) -> Iterator[Line]:
    spread = (64 << 18) // FRAMES
    made = build(4, leaf_tables=500, spread=spread)
    image_file, _ = made.save(folder, FRAMES * spread)
    with open_image(image_file) as image:
        before, began = _bytes_read(), perf_counter()
        mappings(image, made.paging)
        took, read = perf_counter() - began, _bytes_read() - before
    yield Line("enumerate a sparse image of 64 GiB: read", read / 2**20, "MiB", made.words.nbytes / 2**20, "<= 1.1")
    yield Line("enumerate a sparse image of 64 GiB: time", took * 1e3, "ms")


def _run(
    floors: dict[str, Native], program: Path, files: tuple[Path, Path], levels: int, paging: Paging, *more: object
) -> None:
    need = 0b100  # a read at CPL 3 needs U/S in every entry
    found = native.run(program, files[0], levels, paging.root, need, MAXPHYADDR, files[1], 3, *more)
    for name, one in found.items():
        if name not in floors or one.seconds < floors[name].seconds:
            floors[name] = one


def _keep_best(times: dict[str, float], name: str, work: Callable[[], object]) -> None:
    times[name] = min(times.get(name, 1e9), best(work, 3))


def _first_answer(file: Path, made: Synthetic) -> None:
    with open_image(file) as image:
        walk(image, made.paging, int(made.addresses[0]), READ)


def _longest_wait(image: Image, made: Synthetic) -> float:
    """The longest time in seconds between two calls of ``progress``, at each of which a raise would end the work."""
    waits, last = [0.0], perf_counter()

    def progress(done: float) -> None:
        nonlocal last
        now = perf_counter()
        waits.append(now - last)
        last = now

    def translating() -> object:
        if made.second is None:
            return translate(image, made.paging, made.addresses, progress=progress)
        return translate_nested(image, made.paging, made.second, made.addresses, progress=progress)

    for work in (translating, lambda: mappings(image, made.paging, made.second, progress=progress)):
        last = perf_counter()
        work()
    return max(waits)


def _peak(files: tuple[Path, Path], made: Synthetic) -> float:
    """MiB that a process of its own needs beyond its imports and the addresses."""
    told = [msgspec.json.encode(part).decode() for part in (made.paging.registers, made.paging.features)]
    code = "import sys; from tests.bench.arrays import alone; alone(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(files[0]), str(files[1]), *told]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def alone(image_file: str, addresses_file: str, registers: str, features: str) -> None:
    """Translate and enumerate; print by how many KiB the peak of this process grew."""
    paging = bind(msgspec.json.decode(registers, type=Registers), msgspec.json.decode(features, type=Features))
    addresses = np.fromfile(addresses_file, np.uint64)
    before = _peak_so_far()
    with open_image(image_file) as image:
        translate(image, paging, addresses)
        mappings(image, paging)
    print(_peak_so_far() - before)


def _peak_so_far() -> int:
    """KiB. Not from getrusage, which counts what the parent had when it forked."""
    rows = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    return int(rows["VmHWM"].split()[0])


def _bytes_read() -> int:
    counters = dict(row.split(": ") for row in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def _checksum(found: Translations) -> int:
    rows = found.physical + U(3) * found.page_shift + U(5) * found.rights + U(7) * found.code
    return int((rows * np.arange(1, len(found) + 1, dtype=U)).sum())


def _checksum_of_ranges(found: Mappings) -> int:
    rows = found.va + U(3) * found.pa + U(5) * found.size + U(7) * found.rights + U(11) * found.page_shift
    return int((rows * np.arange(1, len(found) + 1, dtype=U)).sum())
