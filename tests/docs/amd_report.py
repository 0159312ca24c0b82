"""The text report of the AMD case, as it would be sent to a mailing list."""

from engine.cli.run import read_scenario
from engine.report.compose import Asked, report
from engine.report.text import render
from tests.conftest import ROOT

SCENARIO = ROOT / "resources" / "scenarios" / "amd-4-to-5-after-kvm-init.json"


def fields() -> dict[str, str]:
    return {"report": render(report(*read_scenario(str(SCENARIO)), Asked(SCENARIO.name)))}
