"""What the views of a bench are told: state, map, inspected cell and next tokens; only those that somebody sees."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.interventions import Plan
from workbench.panel import replies, tiles, views
from workbench.panel.facts import Facts
from workbench.panel.grids import Kept
from workbench.panel.painter import Painter
from workbench.panel.replies import sentence
from workbench.said import Said

if TYPE_CHECKING:
    from workbench.panel.connection import Connection
    from workbench.panel.ran import Ran

_moments = itertools.count(1)


@dataclass(frozen=True)
class Now:
    """What there is to see at one moment.

    Attributes
    ----------
    plan
        The plan that the inspected cell is read by: the one that holds, or in a generation the one it ran under.
    base_side
        Whether the map is that of the base run although there is an edited one.
    next
        The token behind which next tokens are shown; ``None`` is the last one.
    moment
        Grows from one to the next: threads tell of what they have seen in any order.
    """

    bench: Any
    key: str
    prompt: str
    card: replies.PlanCard
    plan: Plan
    base: Ran | None
    edited: Ran | None
    base_side: bool
    stale: bool
    selected: replies.Cell | None
    next: int | None
    live: replies.LiveCard | None
    moment: int = field(default_factory=lambda: next(_moments))

    @cached_property
    def cursor(self) -> Any:
        """A cursor on the store as it is at this moment, for all that is told of it: each one made waits until the rows of
        the last token are written, which is a transaction of its own."""
        return self.bench.store.cursor()


class Screen:
    """The views of one bench, and what they are sent.

    Parameters
    ----------
    now
        What there is to see; called on any thread.
    """

    def __init__(self, now: Callable[[], Now]) -> None:
        self._now = now
        self.views: set[Connection] = set()
        self._kept, self._facts = Kept(), Facts()
        self._lock = threading.Lock()
        self._what: replies.Sentence | None = None
        self._busy = replies.Busy(what=None)
        self._painter = Painter(self._paint, self._painted)

    def show(self, view: Connection) -> None:
        """Send everything to one view."""
        if not view.visible:
            return
        with view.together():
            view.tell(self._busy)
            self._all(view, self._now())

    def set_busy(self, what: Said | None, share: float | None = None, quietly: bool = False) -> None:
        """Tell what is being computed, and how much of it is done where that is known. What has been computed is over once
        it has also been drawn. ``quietly``: with what it gives, or not at all if that is drawn at once."""
        with self._lock:
            self._what = None if what is None else sentence(what)
            if not quietly and (what is not None or not self._painter.busy):
                self._tell_busy(replies.Busy(what=self._what, share=share))

    def tell_all(self, fresh: bool = False) -> None:
        """State and cell; with ``fresh`` results, or where nothing is left to compute, also map and next tokens.

        In a generation a change of the plan changes nothing that has been computed.
        """
        now = self._now()
        for view in self._seen():
            with view.together():
                # The cell first: when the plan's new hash is on the screen, so is what the plan says of every expert.
                self._cell(view, now)
                self._state(view, now)
                if fresh or not (now.stale or now.live):
                    view.deliver()  # what answers a click does not wait for what takes longer
                    self._map(view, now)
                    self._next(view, now)

    def tell_run(self) -> None:
        """Everything of another run."""
        self._each(self._all)

    def tell_growth(self) -> None:
        """State and next tokens of a text that grows, now; cell and map as soon as the store has the rows of its tokens."""
        now, seen = self._now(), self._seen()
        if not seen:
            return
        with self._lock:
            busy = replies.Busy(what=self._what)
            new, self._busy = busy != self._busy, busy
        for view in seen:
            with view.together():
                if new:
                    view.tell(busy)
                self._state(view, now)
                self._next(view, now)
        self._painter.ask()

    def tell_state(self) -> None:
        """Everything small."""
        self._each(self._state)

    def tell_map(self) -> None:
        """The routing map."""
        self._each(self._map)

    def tell_cell(self) -> None:
        """The inspected cell."""
        self._each(self._cell)

    def tell_next(self) -> None:
        """The next-token table."""
        self._each(self._next)

    def settle(self) -> None:
        """Wait until everything has been drawn."""
        self._painter.settle()

    def _paint(self) -> None:
        try:
            now = self._now()
            for view in self._seen():
                with view.together():
                    self._cell(view, now)
                    self._map(view, now)
        except WorkbenchError as error:
            for view in self._seen():
                view.tell(
                    replies.Failure(seq=None, problem=sentence(error.problem), remedy=sentence(error.remedy))
                )

    def _painted(self) -> None:
        with self._lock:
            self._tell_busy(replies.Busy(what=self._what))

    def _tell_busy(self, busy: replies.Busy) -> None:
        if busy != self._busy:
            self._busy = busy
            for view in self._seen():
                view.tell(busy)

    def _all(self, view: Connection, now: Now) -> None:
        """The map before the cell: while a view asks for the pieces of a large one, it can draw the rest."""
        with view.together():
            self._state(view, now)
            self._map(view, now)
            view.deliver()
            self._cell(view, now)
            self._next(view, now)

    def _each(self, tell: Callable[[Connection, Now], None]) -> None:
        now = self._now()
        for view in self._seen():
            tell(view, now)

    def _seen(self) -> list[Connection]:
        return [view for view in list(self.views) if view.visible]

    def _state(self, view: Connection, now: Now) -> None:
        view.tell(
            replies.State(
                bench=views.bench_facts(now.key, now.bench),
                prompt=now.prompt,
                plan=now.card,
                base=None if now.base is None else now.base.card(),
                edited=None if now.edited is None else now.edited.card(),
                stale=now.stale,
                selected=now.selected,
                live=now.live,
            ),
            moment=now.moment,
        )

    def _map(self, view: Connection, now: Now) -> None:
        if now.base is not None:
            edited = None if now.base_side else now.edited
            message, buffers = tiles.routing_map(now.cursor, self._kept, now.base, edited)
            view.tell(message, buffers, now.moment)

    def _cell(self, view: Connection, now: Now) -> None:
        if now.base is not None and now.selected is not None:
            read = partial(self._facts.of, lambda: now.cursor)
            cell = views.inspect(now.bench, read, now.base, now.edited, now.plan, now.selected)
            view.tell(cell, moment=now.moment)

    def _next(self, view: Connection, now: Now) -> None:
        if now.base is not None and not now.base.past:
            view.tell(views.next_tokens(now.bench, now.base, now.edited, now.next), moment=now.moment)
