"""The panel's state for one bench: prompt, base run, edited run, plan and selected cell, shared by all its views.

It lives in the kernel, so a reloaded page finds everything again. Requests of the ``control`` lane arrive on another
thread than forward passes: they touch only what the lock guards, and read the store through cursors of their own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from weakref import ReferenceType

import numpy as np

from workbench.errors import EditRefused, PromptError, SetupError, WorkbenchError
from workbench.interventions import Plan
from workbench.panel import answers, calibration, changes, probes, replies, requests, tiles, views
from workbench.panel.history import History
from workbench.panel.live import Timeline, Timelines
from workbench.panel.ran import Ran, fresh, generated, number, plan_of, recorded
from workbench.panel.screen import Now, Screen
from workbench.said import Said, said

if TYPE_CHECKING:
    from workbench.panel.connection import Connection

_keys = itertools.count(1)


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
        self.screen = Screen(self._now)
        self._lock = threading.RLock()
        self._computing = threading.Lock()
        self._history = History()
        self._ran_version = 0
        self._prompt = ""
        self._base: Ran | None = None
        self._edited: Ran | None = None
        self._selected: replies.Cell | None = None
        self._next: int | None = None
        self._lines: Timelines | None = None
        self._live: replies.LiveCard | None = None  # the generation as it was after its last step
        self._base_side = False
        self._failed = False
        self._shelf = changes.Shelf()
        self._ranges: dict[tuple[int, str], tuple[float, float] | None] = {}

    @property
    def bench(self) -> Any:
        """The bench; raises when it has been dropped or closed."""
        bench = self._bench()
        if bench is None or bench.closed:
            raise SetupError(
                said("The bench of this panel is closed."),
                said("Open a model again, or choose another bench."),
            )
        return bench

    def holds(self, bench: Any) -> bool:
        """Whether this is the state of ``bench``, and not of one that was dropped and whose number came free."""
        return self._bench() is bench

    # --- requests -------------------------------------------------------------------------------------------------

    def handle(self, request: requests.Request, view: Connection) -> None:
        """Carry out a request that concerns this bench."""
        match request:
            case requests.Run():
                self.run(request.prompt)
            case requests.Recompute():
                self.recompute()
            case requests.Step():
                if not (request.ahead and self._halted):
                    self.step()
            case requests.Rewind():
                self._steer(said("rewinding"), lambda lines: lines.now.rewind(request.position))
            case requests.Branch():
                self._steer(said("branching"), lambda lines: lines.branch())
            case requests.Timeline():
                self._steer(said("changing the branch"), lambda lines: lines.choose(request.index))
            case requests.Try():
                view.tell(self.trials(request.layer, request.position))
            case requests.EffectsOf():
                view.tell(self.effects())
            case requests.HeadsOf():
                view.tell(*self.heads(request.layer))
            case requests.ContributionsOf():
                view.tell(self.contributions(request.layer, request.position))
            case requests.Calibrate():
                view.tell(self.calibrated(request.seq, request.texts))
            case requests.Side():
                self.show_side(request.base)
            case requests.Show():
                self.show_run(
                    number(request.run), None if request.base is None else number(request.base), request.plan
                )
            case requests.Select():
                self.select(request.layer, request.position)
            case requests.Next():
                self.show_next(request.position)
            case _:
                self._change(request)

    def _change(self, request: requests.Request) -> None:
        with self._lock:
            history = self._history
            match request:
                case requests.KeepPlan() | requests.RecallPlan() | requests.ForgetPlan():
                    self._shelf.handle(request, history.plan, self._push)
                case requests.Imitate():
                    edits = changes.imitation(request.layer, request.position, self._route(request))
                    self._push(history.plan + Plan(edits))
                case _:
                    plan = changes.change(history, request)
                    if plan is not None:
                        self._push(plan)
            if (
                not history.plan.active
                and self._base is not None
                and not self._base.past
                and self._lines is None
            ):
                # Nothing to compute: without an active edit the edited side is the base run itself.
                self._edited = None
                self._ran_version = history.version
        self.screen.tell_all()

    def _route(self, request: requests.Imitate) -> list[tuple[int, float]]:
        """Experts and weights of the token to imitate, in the run in view."""
        ran = self._edited or self._base
        if ran is None:
            raise PromptError(said("No prompt has been run."), said("Run one, then choose a cell."))
        rows = self.bench.sql(
            "SELECT expert, weight FROM routing WHERE run = ? AND layer = ? AND position = ? ORDER BY weight DESC, expert",
            [ran.id, request.layer, request.source],
        ).fetchall()
        return [(int(expert), float(weight)) for expert, weight in rows]

    def take_plan(self, text: str) -> None:
        """Take up a plan that a view had kept (JSON text), as one change."""
        plan = Plan.from_json(text)
        with self._lock:
            if plan.edits:
                self._push(plan)
        self.screen.tell_all()

    def _push(self, plan: Plan) -> None:
        plan.check(self.bench.anatomy)
        self._history.push(plan)

    def select(self, layer: int, position: int) -> None:
        """Inspect a cell."""
        with self._lock:
            self._selected = replies.Cell(layer=layer, position=position)
        self.screen.tell_state()
        self.screen.tell_cell()

    def show_next(self, position: int | None) -> None:
        """Show the next-token table after ``position`` (``None``: after the last token)."""
        with self._lock:
            self._next = position
        self.screen.tell_next()

    def show_side(self, base: bool) -> None:
        """Show the map of the base run, or of the edited one."""
        with self._lock:
            self._base_side = base
        self.screen.tell_map()

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, prompt: str) -> None:
        """Run ``prompt`` without and, where the plan has an active edit, with the plan."""
        if not prompt.strip():
            raise PromptError(said("The prompt is empty."), said("Type some text and run it again."))
        with self._computing, _Busy(self, said("running the prompt")):
            base = self._forward(prompt, Plan())
            with self._lock:
                lines, self._lines = self._lines, None
                self._prompt, self._base, self._edited = prompt, base, None
                self._base_side = False
                self._ran_version = self._history.version
                self._keep_selection(len(base.texts))
                pending = bool(self._history.plan.active)
                if pending:
                    self._ran_version = -1
            if lines is not None:
                lines.finish()
            self.screen.tell_all(fresh=not pending)
            if pending:
                self._run_edited()

    def recompute(self) -> None:
        """Run the edited side if the plan has changed since it last ran."""
        with self._lock:
            if not self._stale():
                return
            past = self._base is not None and self._base.past
        if past:
            # The store keeps no logits, and the run may be of another model: both sides are computed anew.
            self.run(self._prompt)
            return
        with self._computing, _Busy(self, said("re-running with the plan")):
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
                self._edited, self._ran_version, self._base_side = edited, version, False
                if version == self._history.version:
                    self._history.prove()
            break
        self.screen.tell_all(fresh=True)
        if refusal is not None:
            raise refusal

    def _forward(self, prompt: str, plan: Plan) -> Ran:
        from workbench.runtime.record import Record

        run = self.bench.run(prompt, plan=plan if plan.active else None, record=Record(scores=True))
        asked = self.bench.sql("SELECT coalesce(max(rank) + 1, 0) FROM routing WHERE run = ?", [run.id])
        (slots,) = asked.fetchone()
        return fresh(
            self.bench,
            int(run.id),
            [int(token) for token in run.tokens],
            len(run.texts),
            np.asarray(run.logits, dtype=np.float32),
            [str(text) for text in run.texts],
            plan,
            int(slots),
        )

    def step(self) -> None:
        """Generate one token under the plan that holds now; the first step starts from the prompt in view."""
        with self._computing, _Busy(self, said("generating"), quietly=True):
            self._failed = True
            with self._lock:
                version, plan, lines = self._history.version, self._history.plan, self._lines
            if lines is None:
                lines = self._start_lines()
            try:
                lines.now.step(plan)
            except EditRefused:
                with self._lock:
                    if self._history.version == version:
                        self._history.retract()
                self.screen.tell_all()
                raise
            with self._lock:
                if self._history.version == version:
                    self._history.prove()
            self._take_lines(lines)
            self._failed = False

    @property
    def _halted(self) -> bool:
        """Whether the last step has failed, or ended the text."""
        lines = self._lines
        return self._failed or (lines is not None and lines.now.main.ended)

    def _steer(self, what: Said, move: Callable[[Timelines], None]) -> None:
        """Change the generation under way by ``move``."""
        with self._computing, _Busy(self, what):
            lines = self._lines
            if lines is None:
                raise PromptError(said("Nothing is being generated."), said("Press Generate or Step first."))
            move(lines)
            self._take_lines(lines)

    def _start_lines(self) -> Timelines:
        from workbench.runtime.record import Record

        if self._base is None:
            raise PromptError(said("No prompt has been run."), said("Run one, then generate from it."))
        if self._base.model != str(self.bench.name):
            raise PromptError(
                said(
                    "This run was recorded with %1, whose tokens mean others to the open model.",
                    self._base.model,
                ),
                said("Press Run to read its prompt with the open model, then generate."),
            )
        live = self.bench.live(self._base.tokens, record=Record(scores=True))
        return Timelines(Timeline(live), self.bench.token_text)

    def _take_lines(self, lines: Timelines) -> None:
        """Show the generation: its text under the plan as the edited run, and the one without as the base run."""
        line = lines.now
        main = generated(lines, self.bench, line.main)
        base = main if line.base is None else generated(lines, self.bench, line.base)
        card = lines.card()
        with self._lock:
            self._lines, self._live, self._base = lines, card, base
            self._edited = None if line.base is None else main
            self._ran_version = self._history.version
            self._keep_selection(len(main.texts))
        self.screen.tell_growth()

    def trials(self, layer: int, position: int) -> replies.Trials:
        """What every exchange of one chosen expert of a cell would have changed, in the run in view."""
        with self._computing, _Busy(self, said("trying every expert")):
            return probes.trials(self.bench, self._computed(one_plan=True), layer, position)

    def heads(self, layer: int) -> tuple[answers.Heads, list[memoryview]]:
        """The attention patterns of one layer in the run in view."""
        with self._computing, _Busy(self, said("reading the attention")):
            return probes.heads(self.bench, self._computed(one_plan=True), layer)

    def contributions(self, layer: int, position: int) -> answers.Contributions:
        """What the parts of a cell add to the logit of the token that follows it, in the run in view."""
        with self._computing, _Busy(self, said("measuring contributions")):
            return probes.contributions(self.bench, self._computed(one_plan=True), layer, position)

    def calibrated(self, seq: int, texts: Literal["prompt", "runs"]) -> answers.Calibrated:
        """What units do on the prompt in view, or on the newest runs of the model in the store."""
        with self._computing, _Busy(self, said("measuring activations")):
            prompt = None
            if texts == "prompt":
                ran = self._computed(one_plan=False)
                prompt = ran.tokens[: ran.prompt_tokens]
            return calibration.calibrated(seq, self.bench, prompt)

    def effects(self) -> answers.Effects:
        """What every enabled edit of the plan does, by leaving it out."""
        with self._computing, _Busy(self, said("leaving out one edit at a time")):
            with self._lock:
                version, plan, base = self._history.version, self._history.plan, self._base
            edited = self._computed(one_plan=True)
            assert base is not None
            if edited.plan.hash != plan.hash:
                raise PromptError(
                    said("The plan has not been run yet."), said("Wait for the run, then ask again.")
                )
            tell = partial(self.screen.set_busy, said("leaving out one edit at a time"))
            return probes.effects(self.bench, version, plan, base, edited, tell)

    def _computed(self, one_plan: bool) -> Ran:
        """The run in view with its logits; with ``one_plan`` only if one plan held for all of it."""
        with self._lock:
            ran, lines = self._edited or self._base, self._lines
        if ran is None:
            raise PromptError(said("No prompt has been run."), said("Run one, then choose a cell."))
        if ran.past:
            raise PromptError(
                said("This run was taken from the store, where logits and activations are not kept."),
                said("Press Run to compute its prompt again."),
            )
        if one_plan and lines is not None and not lines.now.one_plan:
            raise PromptError(
                said(
                    "This text was generated under more than one plan, so one exchange cannot be told apart."
                ),
                said("Run the prompt again, or generate it under one plan."),
            )
        return ran

    def show_run(self, run: int, base: int | None, with_plan: bool) -> None:
        """Put a recorded run into view, with ``base`` as its base run, and with its plan if that is wanted."""
        cursor = self.bench.store.cursor()
        shown = recorded(cursor, run)
        before = None if base is None else recorded(cursor, base)
        plan = plan_of(cursor, run) if with_plan else None
        prompt = cursor.execute("SELECT coalesce(prompt, '') FROM run WHERE run = ?", [run]).fetchone()[0]
        with self._lock:
            if plan is not None:
                self._push(plan)
            lines, self._lines = self._lines, None
            self._prompt = prompt
            self._base, self._edited = (shown, None) if before is None else (before, shown)
            self._base_side = False
            self._ran_version = self._history.version
            self._selected = None
            self._keep_selection(len(shown.texts))
        if lines is not None:
            lines.finish()
        self.screen.tell_run()

    # --- reading (any thread) -------------------------------------------------------------------------------------

    def pair(self, run: int, base: int) -> tuple[Ran, Ran] | None:
        """The run and the base run of a map in view; ``None`` if the view speaks of runs that are not there any more."""
        with self._lock:
            known = {ran.id: ran for ran in (self._base, self._edited) if ran is not None}
        return (known[run], known[base]) if run in known and base in known else None

    @property
    def generating(self) -> bool:
        """Whether what is in view is a generation under way, paused or not."""
        with self._lock:
            return self._lines is not None

    def in_view(self) -> list[int]:
        """Numbers of the base run and the edited run in view."""
        with self._lock:
            return [ran.id for ran in (self._base, self._edited) if ran is not None]

    def tile(
        self, cursor: Any, request: requests.TileOf
    ) -> tuple[replies.TileMessage, list[memoryview]] | None:
        """A piece of the map in view; ``None`` if it is not in view any more."""
        found = self.pair(number(request.run), number(request.base))
        if found is None:
            return None
        ran, base = found
        piece, buffers = tiles.tile(
            cursor, ran.shape, base.id, ran.id if request.edited else None, ran.texts, request.colour, request.first,
            request.bucket, request.layer,
        )  # fmt: skip
        key = (ran.id, request.colour)
        if key not in self._ranges:
            self._ranges[key] = tiles.colour_range(cursor, *key)
        piece = piece.model_copy(
            update={"range": None if self._ranges[key] is None else list(self._ranges[key] or ())}
        )
        message = replies.TileMessage(run=request.run, base=request.base, edited=request.edited, tile=piece)
        return message, buffers

    def preview(self, seq: int, data: dict[str, Any]) -> answers.Previewed:
        """What an edit would do on top of the plan, in words."""
        with self._lock:
            plan = self._history.plan
        return changes.preview(seq, data, plan, self.bench.anatomy)

    def _keep_selection(self, tokens: int) -> None:
        facts = self.bench.anatomy
        layers = facts.moe_layers or tuple(range(facts.num_layers))
        ran = self._edited or self._base
        if ran is not None and ran.past:
            layers = tuple(range(ran.shape.layers)) or (0,)
        if self._selected is None:
            self._selected = replies.Cell(layer=layers[len(layers) // 2], position=tokens - 1)
        elif self._selected.position >= tokens:
            self._selected = replies.Cell(layer=self._selected.layer, position=tokens - 1)
        if self._next is not None and self._next >= tokens:
            self._next = None

    # --- telling --------------------------------------------------------------------------------------------------

    def _now(self) -> Now:
        with self._lock:
            plan, cell, lines = self._history.plan, self._selected, self._lines
            live, ran_under = None, None
            if lines is not None and self._live is not None:
                live = self._live.model_copy(update={"pending": lines.now.pending(plan)})
                ran_under = None if cell is None else lines.now.plan_at(cell.position)
            return Now(
                bench=self.bench, key=self.key, prompt=self._prompt,
                card=views.plan_card(self._history, self._shelf.names), plan=plan if ran_under is None else ran_under,
                base=self._base, edited=self._edited, base_side=self._base_side, stale=self._stale(), selected=cell,
                next=self._next, live=live,
            )  # fmt: skip

    def _stale(self) -> bool:
        return self._lines is None and self._base is not None and self._ran_version != self._history.version


class _Busy:
    """Marks the session busy for the length of a ``with`` block."""

    def __init__(self, session: Session, what: Said, quietly: bool = False) -> None:
        self._session, self._what, self._quietly = session, what, quietly

    def __enter__(self) -> None:
        self._session.screen.set_busy(self._what, quietly=self._quietly)

    def __exit__(self, *exc: object) -> None:
        self._session.screen.set_busy(None)
