"""What holds for every test: no display, no user settings, fixed seeds, and no warning goes unnoticed."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SLOW = os.environ.get("WALKSCOPE_SLOW") == "1"

# Patterns of log messages that may appear in any test, each with its reason. A test that provokes a warning
# on purpose says so with @pytest.mark.logs(pattern) instead.
ALLOWED_LOGS: tuple[str, ...] = ()

# Qt and the program read these when they start, hence before any import of them.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
_home = Path(tempfile.mkdtemp(prefix="walkscope-tests-"))
for _name in ("CONFIG_HOME", "DATA_HOME", "STATE_HOME", "CACHE_HOME", "RUNTIME_DIR"):
    _folder = _home / _name.lower()
    _folder.mkdir(mode=0o700)
    os.environ[f"XDG_{_name}"] = str(_folder)

# Shared machines stall for longer than any deadline; time is measured in tests/bench.
_common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _common, derandomize=True, max_examples=100)
settings.register_profile("slow", _common, print_blob=True, max_examples=2000)
settings.load_profile("slow" if SLOW else "default")


def scaled(full: int) -> int:
    """How many of `full` cases this run does: all in ``make test-slow``, else a twentieth, at least 1."""
    return full if SLOW else max(1, full // 20)


def pytest_report_header() -> str:
    seed = "random, a failure prints how to repeat it" if SLOW else "fixed, derived from each test"
    return f"hypothesis profile: {'slow' if SLOW else 'default'} (seed: {seed})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SLOW:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: runs in make test-slow"))


def pytest_unconfigure() -> None:
    shutil.rmtree(_home, ignore_errors=True)


class _Collector(logging.Handler):
    """Keeps the text of every record it is given."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.levelname} {record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def _no_log_warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test if anything was logged at WARNING or above that nobody allowed."""
    expected = tuple(pattern for mark in request.node.iter_markers("logs") for pattern in mark.args)
    collector = _Collector()
    logging.getLogger().addHandler(collector)
    yield
    logging.getLogger().removeHandler(collector)
    allowed = ALLOWED_LOGS + expected
    surprises = [text for text in collector.messages if not any(re.search(p, text) for p in allowed)]
    if surprises:
        pytest.fail("logged during the test:\n" + "\n".join(surprises))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of real-emulator answers, which lies beside the checkout and is too large to be in it."""
    folder = ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no ../shared/golden beside this checkout")
    return folder
