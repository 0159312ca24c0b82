"""Who is told of a fault in a walk of tables that KVM has made in the image of others: KVM first, and then who?"""

from PySide6.QtCore import QCoreApplication

from engine.arch.faults import PageFault
from engine.arch.walk import Walk
from engine.machine import Refusal, State
from engine.machine.look import Place

translate = QCoreApplication.translate


def whose_fault(state: State, place: Place, walk: Walk) -> str:
    """A sentence on what becomes of the outcome of ``walk``, which the hardware makes at ``place``; '' where nobody
    else's tables are mirrored, or nothing faults."""
    if walk.ok or walk.host is not None or state.module is None or place.pcpu is not None:
        return ""
    found = state.vcpu(place.vm, place.vcpu)
    if isinstance(found, Refusal):
        return ""
    if not state.module.tdp_enabled:
        return translate(
            "WhoseFault",
            "These are KVM's tables, so the #PF is an exit: KVM walks the guest's own tables, and maps the page or "
            "gives the guest a #PF of its own.",
        )
    if state.l1_stage(found[1]) is None or isinstance(walk.outcome, PageFault):
        return ""
    return translate(
        "WhoseFault",
        "L0 gets this exit: it walks L1's tables, and maps the page where they have it, or gives L1 the exit.",
    )
