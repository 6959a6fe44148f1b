"""The panel's state for one bench: prompt, base run, edited run, plan and selected cell, shared by all its views.

It lives in the kernel, so a reloaded page finds everything again. Requests of the ``control`` lane arrive on another
thread than forward passes: they touch only what the lock guards, and read the store through cursors of their own.
"""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

import numpy as np

from workbench.errors import EditRefused, PromptError, SetupError, WorkbenchError
from workbench.interventions import Edit, Plan
from workbench.panel import protocol, views
from workbench.panel.history import History

if TYPE_CHECKING:
    from workbench.panel.connection import Connection

_keys = itertools.count(1)


@dataclass(frozen=True)
class Ran:
    """What the panel keeps of a run: ``logits`` [S, V] fp32 and the plan that was in force. All else is in the store."""

    id: int
    logits: np.ndarray
    texts: list[str]
    plan: Plan


class Session:
    """Panel state of one bench.

    Parameters
    ----------
    bench
        Weak, so that a panel never keeps a model alive that the notebook has dropped.
    """

    def __init__(self, bench: ReferenceType[Any]) -> None:
        self._bench = bench
        self.key = f"bench-{next(_keys)}"
        self.name = str(self.bench.name)
        self.views: set[Connection] = set()
        self._lock = threading.RLock()
        self._computing = threading.Lock()
        self._history = History()
        self._ran_version = 0
        self._prompt = ""
        self._base: Ran | None = None
        self._edited: Ran | None = None
        self._selected: protocol.Cell | None = None
        self._next: int | None = None
        self._busy: str | None = None

    @property
    def bench(self) -> Any:
        """The bench; raises when it has been dropped or closed."""
        bench = self._bench()
        if bench is None or bench.closed:
            raise SetupError(
                "The bench of this panel is closed.", "Open a model again, or choose another bench."
            )
        return bench

    def holds(self, bench: Any) -> bool:
        """Whether this is the state of ``bench``, and not of one that was dropped and whose number came free."""
        return self._bench() is bench

    # --- requests -------------------------------------------------------------------------------------------------

    def handle(self, request: protocol.Request, view: Connection) -> None:
        """Carry out a request that concerns this bench."""
        match request:
            case protocol.Run():
                self.run(request.prompt)
            case protocol.Recompute():
                self.recompute()
            case protocol.Select():
                self.select(request.layer, request.position)
            case protocol.Next():
                self.show_next(request.position)
            case _:
                self._change(request)

    def _change(self, request: protocol.Request) -> None:
        with self._lock:
            history = self._history
            match request:
                case protocol.Undo():
                    history.undo()
                case protocol.Redo():
                    history.redo()
                case protocol.Clear():
                    if history.plan.edits:
                        history.push(Plan())
                case protocol.AddEdit():
                    self._push(history.plan + _edit(request.edit))
                case protocol.ReplaceEdit():
                    history.expect(request.version)
                    history.edit(request.index)
                    self._push(history.plan.replace(request.index, _edit(request.edit)))
                case protocol.RemoveEdit():
                    history.expect(request.version)
                    history.edit(request.index)
                    self._push(history.plan.without(request.index))
                case protocol.EnableEdit():
                    history.expect(request.version)
                    edit = history.edit(request.index).model_copy(update={"enabled": request.enabled})
                    self._push(history.plan.replace(request.index, edit))
                case _:
                    raise TypeError(f"no handler for {type(request).__name__}")
            if not history.plan.active and self._base is not None:
                # Nothing to compute: without an active edit the edited side is the base run itself.
                self._edited = None
                self._ran_version = history.version
        self._tell_all()

    def take_plan(self, text: str) -> None:
        """Take up a plan that a view had kept (JSON text), as one change."""
        plan = Plan.from_json(text)
        with self._lock:
            if plan.edits:
                self._push(plan)
        self._tell_all()

    def _push(self, plan: Plan) -> None:
        plan.check(self.bench.anatomy)
        self._history.push(plan)

    def select(self, layer: int, position: int) -> None:
        """Inspect a cell."""
        with self._lock:
            self._selected = protocol.Cell(layer=layer, position=position)
        for view in self._watching():
            self._tell_state(view)
            self._tell_cell(view)

    def show_next(self, position: int | None) -> None:
        """Show the next-token table after ``position`` (``None``: after the last token)."""
        with self._lock:
            self._next = position
        for view in self._watching():
            self._tell_next(view)

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, prompt: str) -> None:
        """Run ``prompt`` without and, where the plan has an active edit, with the plan."""
        if not prompt.strip():
            raise PromptError("The prompt is empty.", "Type some text and run it again.")
        with self._computing, _Busy(self, "running the prompt"):
            base = self._forward(prompt, Plan())
            with self._lock:
                self._prompt, self._base, self._edited = prompt, base, None
                self._ran_version = self._history.version
                self._keep_selection(len(base.texts))
                pending = bool(self._history.plan.active)
                if pending:
                    self._ran_version = -1
            self._tell_all(fresh=not pending)
            if pending:
                self._run_edited()

    def recompute(self) -> None:
        """Run the edited side if the plan has changed since it last ran."""
        with self._lock:
            if self._base is None or self._ran_version == self._history.version:
                return
        with self._computing, _Busy(self, "re-running with the plan"):
            self._run_edited()

    def _run_edited(self) -> None:
        """Run the plan that holds now; a plan that the model refuses is taken back if it has never run before."""
        refusal: WorkbenchError | None = None
        while True:
            with self._lock:
                version, plan, prompt = self._history.version, self._history.plan, self._prompt
            try:
                edited = self._forward(prompt, plan) if plan.active else None
            except WorkbenchError as error:
                refusal = refusal or error
                with self._lock:
                    if self._history.version == version and self._history.retract():
                        continue
                    self._edited, self._ran_version = None, version
                break
            with self._lock:
                self._edited, self._ran_version = edited, version
                if version == self._history.version:
                    self._history.prove()
            break
        self._tell_all(fresh=True)
        if refusal is not None:
            raise refusal

    def _forward(self, prompt: str, plan: Plan) -> Ran:
        from workbench.runtime.record import Record

        run = self.bench.run(prompt, plan=plan if plan.active else None, record=Record(scores=True))
        return Ran(
            int(run.id), np.asarray(run.logits, dtype=np.float32), [str(text) for text in run.texts], plan
        )

    def _keep_selection(self, tokens: int) -> None:
        facts = self.bench.anatomy
        layers = facts.moe_layers or tuple(range(facts.num_layers))
        if self._selected is None:
            self._selected = protocol.Cell(layer=layers[len(layers) // 2], position=tokens - 1)
        elif self._selected.position >= tokens:
            self._selected = protocol.Cell(layer=self._selected.layer, position=tokens - 1)
        if self._next is not None and self._next >= tokens:
            self._next = None

    # --- telling --------------------------------------------------------------------------------------------------

    def show(self, view: Connection) -> None:
        """Send everything to one view."""
        if not view.visible:
            return
        view.tell(protocol.Busy(what=self._busy))
        self._tell_state(view)
        self._tell_map(view)
        self._tell_cell(view)
        self._tell_next(view)

    def set_busy(self, what: str | None) -> None:
        """Tell every view what is being computed."""
        self._busy = what
        for view in list(self.views):
            view.tell(protocol.Busy(what=what))

    def _watching(self) -> list[Connection]:
        return [view for view in list(self.views) if view.visible]

    def _tell_all(self, fresh: bool = False) -> None:
        """State and cell to every view that is seen; with ``fresh`` results also map and next tokens."""
        settled = not self._stale()
        for view in self._watching():
            # The cell first: when the plan's new hash is on the screen, so is what the plan says of every expert.
            self._tell_cell(view)
            self._tell_state(view)
            if fresh or settled:
                self._tell_map(view)
                self._tell_next(view)

    def _stale(self) -> bool:
        return self._base is not None and self._ran_version != self._history.version

    def _tell_state(self, view: Connection) -> None:
        with self._lock:
            message = protocol.State(
                bench=views.bench_facts(self.key, self.bench),
                prompt=self._prompt,
                plan=views.plan_card(self._history),
                base=_card(self._base),
                edited=_card(self._edited),
                stale=self._stale(),
                selected=self._selected,
            )
        view.tell(message)

    def _tell_map(self, view: Connection) -> None:
        base, edited = self._base, self._edited
        if base is None:
            return
        message, buffers = views.routing_map(
            self.bench, base.id, None if edited is None else edited.id, base.texts
        )
        view.tell(message, buffers)

    def _tell_cell(self, view: Connection) -> None:
        with self._lock:
            base, edited, cell, plan = self._base, self._edited, self._selected, self._history.plan
        if base is None or cell is None:
            return
        view.tell(views.inspect(self.bench, base, edited, plan, cell))

    def _tell_next(self, view: Connection) -> None:
        base, edited, position = self._base, self._edited, self._next
        if base is not None:
            view.tell(views.next_tokens(self.bench, base, edited, position))


class _Busy:
    """Marks the session busy for the length of a ``with`` block."""

    def __init__(self, session: Session, what: str) -> None:
        self._session, self._what = session, what

    def __enter__(self) -> None:
        self._session.set_busy(self._what)

    def __exit__(self, *exc: object) -> None:
        self._session.set_busy(None)


def _card(ran: Ran | None) -> protocol.RunCard | None:
    return (
        None if ran is None else protocol.RunCard(id=str(ran.id), plan=ran.plan.hash, tokens=len(ran.texts))
    )


def _edit(data: dict[str, Any]) -> Edit:
    edits = Plan.from_json(json.dumps({"version": 1, "edits": [data]})).edits
    if not edits:
        raise EditRefused("The panel sent no edit.", "Click once more.")
    return edits[0]
