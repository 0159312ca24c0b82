"""A stop of a demo on the screen, and the screen as a stop."""

from engine.arch.paging import Level
from engine.arch.rights import Access
from engine.arch.walk import Stage
from engine.demo import WHOLE, Entry, Look, Moment, Stop, View
from engine.machine import Refusal
from engine.machine.mirror import Mirror
from gui.document import Document, Query, Selection
from gui.pins import Pin


def show(document: Document, stop: Stop) -> None:
    """Bring ``document``, which has the demo's scenario open, to ``stop``, whatever it showed before."""
    document.go_to_step(stop.step)
    document.pin_a(*_place(stop.a, document.last_step))
    document.pin_b(*_place(stop.b, document.last_step))
    document.ask(_query(stop.look) if stop.look else None)
    document.show_logical(stop.logical)
    document.show_mirror(not stop.walked)
    if stop.look is None:
        document.select(None)
    walk = document.walk
    if walk is not None and walk.steps:
        last = len(walk.steps) - 1
        document.go_to_reference(last if stop.reference is None else stop.reference)
    if stop.entry is not None:
        selection = _selection(document, stop.entry)
        if selection is not None:
            document.select(selection)


def take(document: Document, view: View, zoom: int = WHOLE) -> Stop:
    """What ``document`` shows, and ``view`` zoomed so, as a stop without a word yet."""
    walk, lit, pinned = document.walk, document.reference, document.pinned
    is_last = walk is None or lit is None or lit == len(walk.steps) - 1
    return Stop(
        step=document.step,
        view=view,
        look=_look(document.query) if document.query else None,
        logical=document.is_logical,
        walked=isinstance(document.mirror, Mirror) and not document.wants_mirror,
        reference=None if is_last else lit,
        entry=_entry(document),
        a=_moment(pinned.a),
        b=_moment(pinned.b),
        zoom=zoom,
    )


def _place(moment: Moment | None, last: int) -> tuple[int | None, int | None]:
    return (min(moment.step, last), moment.pcpu) if moment else (None, None)


def _moment(pin: Pin | None) -> Moment | None:
    return Moment(pin.step, pin.pcpu) if pin else None


def _query(look: Look) -> Query:
    return Query(look.address, Access(look.kind, look.size), look.cpl, look.place)


def _look(query: Query) -> Look:
    size = query.access.size
    return Look(query.address, query.access.kind, size if size in (1, 2, 4, 8) else 1, query.cpl, query.place)  # type: ignore[arg-type]


def _selection(document: Document, entry: Entry) -> Selection | None:
    """None where no table of this kind is walked or mirrored at the stop."""
    level = _level(document, entry)
    return Selection(entry.stage, level, entry.table, entry.index) if level is not None else None


def _level(document: Document, entry: Entry) -> Level | None:
    """How the entry is read: tables of two sides of a mirror can be of two formats."""
    mirror, stages = document.mirror, document.stages
    if isinstance(mirror, Mirror):
        known = [(table.hpa, table.level) for table in mirror.guest]
        known += [(table.hpa, table.level) for table in mirror.shadow]
        found = next((level for hpa, level in known if (hpa, level.level) == (entry.table, entry.level)), None)
        if found is not None:
            return found
    if isinstance(stages, Refusal):
        return None
    nested = entry.stage is Stage.NESTED
    paging = stages.second.paging if nested and stages.second else stages.first
    return next((level for level in paging.levels if level.level == entry.level), None)


def _entry(document: Document) -> Entry | None:
    """The selected entry, where it is not the lit reference's."""
    selection, walk, lit = document.selection, document.walk, document.reference
    if selection is None:
        return None
    step = walk.steps[lit] if walk is not None and lit is not None else None
    if step is not None and (step.table, step.index, step.level) == (
        selection.table, selection.index, selection.level
    ):  # fmt: skip
        return None
    return Entry(selection.stage, selection.level.level, selection.table, selection.index)
