"""What is built once for all slow tests: the bundle, the Debian package, and Debian systems without Python."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packaging.desktop import tool

BARE = ("libgl1", "libegl1", "libxcb1", "fontconfig-config", "fonts-dejavu-core")
"""What every desktop has: drivers, the connection to the display, and fonts. They cannot be in a bundle."""


def make(target: str) -> str:
    ended = subprocess.run(["make", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.fixture(scope="session")
def bundle() -> Path:
    make("build/bundle/walkscope/walkscope")
    return ROOT / "build" / "bundle" / "walkscope"


@pytest.fixture(scope="session")
def package(bundle: Path) -> Path:
    tool("dpkg-shlibdeps")
    return ROOT / make("deb").splitlines()[-1].partition(":")[0]


class System:
    """A Debian system in the folder ``root``, without Python."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def start(self, *command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """``command`` in the system; mounts end with it, and it ends where the caller gives up."""
        variables = {"HOME": "/root", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"} | environment
        own = [f"{name}={value}" for name, value in variables.items()]
        script = 'mount -t proc proc "$0/proc" && exec chroot "$0" env -i "$@"'
        inside = [tool("unshare"), "--mount", "--fork", "--kill-child", "sh", "-c", script, str(self.root), *own]
        with subprocess.Popen(
            [*inside, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        ) as started:
            try:
                yield started
            finally:
                started.kill()

    def run(self, *command: str, **environment: str) -> str:
        """What ``command`` prints; it must succeed."""
        with self.start(*command, **environment) as started:
            told, _ = started.communicate(timeout=300)
        assert started.returncode == 0, told
        return told

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}


@pytest.fixture(scope="session")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Make a system with the packages that are named, from those of Debian."""
    made: list[Path] = []

    def system(*packages: str) -> System:
        if os.geteuid() != 0:
            pytest.skip("only root can make a Debian system and start programs in it")
        root = tmp_path_factory.mktemp("system") / "root"
        made.append(root)
        release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        command = [tool("mmdebstrap"), "--quiet", "--variant=essential", f"--include={','.join(packages)}", release]
        ended = subprocess.run([*command, root], capture_output=True, text=True, check=False, timeout=600)
        if ended.returncode:
            pytest.skip(f"no Debian system can be made here: {ended.stderr.strip().splitlines()[-1]}")
        assert not list(root.glob("usr/bin/python3*"))
        return System(root)

    yield system
    for root in made:
        shutil.rmtree(root, ignore_errors=True)
