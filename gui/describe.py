"""A line of the timeline: an event in plain words, and what it did."""

import msgspec
from PySide6.QtCore import QCoreApplication

from engine import events as ev
from engine.arch.faults import EntryFailure
from engine.kvm.nested import ExitField
from engine.machine import Effect, Refusal, State
from gui.explain import engine_text
from gui.outcomes import Mark, outcome
from gui.titles import TITLES

translate = QCoreApplication.translate


class Line(msgspec.Struct, frozen=True):
    """``icon``: one of `titles.ICONS`. ``tip``: all there is to say, a sentence a line; '' for nothing more."""

    icon: str
    title: str
    subtitle: str = ""
    mark: Mark = Mark.OK
    tip: str = ""


def describe(event: ev.Event, state: State, refusal: Refusal | None = None) -> Line:
    """``state``: the one after ``event``; where it was refused, the one that stayed."""
    icon, say = TITLES[type(event)]
    if refusal is not None:
        state = msgspec.structs.replace(state, effect=Effect())  # that of the event before
    title, subtitle = say(event, state, 0 if refusal else 1)
    if refusal is not None:
        reason = engine_text(refusal.reason)
        return Line(icon, title, reason, Mark.REFUSED, reason)
    mark, news = outcome(event, state)
    effect = state.effect
    tip = [engine_text(note) for note in effect.notes]
    if isinstance(effect.fault, EntryFailure):
        tip.append(engine_text(effect.fault.reason))
    if effect.reflected is not None:
        tip += [_field(field) for field in effect.reflected.fields]
    tip += [translate("Describe", "Assumed: {what}.").format(what=engine_text(what)) for what in effect.assumed]
    if mark is Mark.OK and effect.assumed:
        mark = Mark.ASSUMED
    return Line(icon, title, news or subtitle, mark, "\n".join(tip))


def _field(field: ExitField) -> str:
    """A field that L1 finds after an exit of its guest."""
    text = translate("Describe", "L1 finds {name} = {value}: {source}")
    return text.format(name=field.name, value=f"{field.value:#x}", source=engine_text(field.source))
