"""What the views of a bench are told: state, map, inspected cell and next tokens; only those that somebody sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.interventions import Plan
from workbench.panel import replies, tiles, views
from workbench.panel.facts import Facts
from workbench.panel.grids import Kept

if TYPE_CHECKING:
    from workbench.panel.connection import Connection
    from workbench.panel.ran import Ran


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
        self._busy: str | None = None
        self._kept, self._facts = Kept(), Facts()

    def show(self, view: Connection) -> None:
        """Send everything to one view."""
        if not view.visible:
            return
        view.tell(replies.Busy(what=self._busy))
        now = self._now()
        self._state(view, now)
        self._map(view, now)
        self._cell(view, now)
        self._next(view, now)

    def set_busy(self, what: str | None, share: float | None = None) -> None:
        """Tell what is being computed, and how much of it is done where that is known."""
        self._busy = what
        for view in self._seen():
            view.tell(replies.Busy(what=what, share=share))

    def tell_all(self, fresh: bool = False) -> None:
        """State and cell; with ``fresh`` results, or where nothing is left to compute, also map and next tokens."""
        now = self._now()
        for view in self._seen():
            # The cell first: when the plan's new hash is on the screen, so is what the plan says of every expert.
            self._cell(view, now)
            self._state(view, now)
            if fresh or not now.stale:
                self._map(view, now)
                self._next(view, now)

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
            )
        )

    def _map(self, view: Connection, now: Now) -> None:
        if now.base is not None:
            edited = None if now.base_side else now.edited
            view.tell(*tiles.routing_map(now.bench.store.cursor(), self._kept, now.base, edited))

    def _cell(self, view: Connection, now: Now) -> None:
        if now.base is not None and now.selected is not None:
            view.tell(views.inspect(now.bench, self._facts, now.base, now.edited, now.plan, now.selected))

    def _next(self, view: Connection, now: Now) -> None:
        if now.base is not None and not now.base.past:
            view.tell(views.next_tokens(now.bench, now.base, now.edited, now.next))
