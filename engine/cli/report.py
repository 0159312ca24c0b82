"""``report``: a scenario told as text or as one HTML page."""

import argparse
from pathlib import PurePath

from engine.cli.run import STANDARD, read_scenario
from engine.errors import InputError
from engine.report import html, text
from engine.report.compose import Asked, report
from engine.report.effects import Moment

RENDERERS = {"txt": text.render, "html": html.render}


def report_bytes(options: argparse.Namespace) -> bytes:
    """The report in the form that ``options`` ask for. Raises InputError where that cannot be."""
    scenario, images = read_scenario(options.scenario)
    first, last = options.from_step, options.to_step
    if (first is None) != (last is None):
        raise InputError("Give both --from and --to, or neither.")
    if first is None and (options.from_pcpu, options.to_pcpu) != (None, None):
        raise InputError("--from-pcpu and --to-pcpu say whose hardware walks at a step: give --from and --to too.")
    count = len(scenario.events)
    for name, step in (("--from", first), ("--to", last)):
        if step is not None and step > count:
            raise InputError(f"{name} {step}: the scenario has steps 0 to {count}.")
    moments = None if first is None else (Moment(first, options.from_pcpu), Moment(last, options.to_pcpu))
    name = "standard input" if options.scenario == STANDARD else PurePath(options.scenario).name
    made = report(scenario, images, Asked(name, moments, options.vm, options.vcpu))
    return RENDERERS[options.format](made).encode()
