"""A generation under the hand: step, edit, rewind, branch.

Between two steps the cache holds every token but the last, so that each step computes exactly one token, the last one,
and chooses the next. An edit therefore acts on the token from which the next one is predicted. What earlier tokens saw is
never computed again: rewinding cuts the cache, and the token it stops at is the only one to run anew.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import EditRefused, PromptError
from workbench.interventions import Edit, Plan
from workbench.runtime.attach import device_of
from workbench.runtime.cache import keeps_all, new_cache
from workbench.runtime.depth.kv import touched
from workbench.runtime.generate import Sampling, end_tokens
from workbench.runtime.growing import empty
from workbench.runtime.history import History
from workbench.runtime.passes import Pass, rows_of
from workbench.runtime.record import Record
from workbench.runtime.run import Done, Run, Step
from workbench.store import new_run_id

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

_BY_POSITION = ("routing", "router", "router_scores", "contribution", "sparsity", "depth")
_BY_STEP = ("attention_rank", "attention_mask", "expert_stat", "cost")


class Live:
    """A running generation; made by ``bench.live``.

    Every timeline is a run of its own: :meth:`rewind` and :meth:`branch` start a new one, whose ``parent`` is the old, with
    the rows of the tokens they share. Rows of a step are visible when it returns; the run itself is written by
    :meth:`finish` (a rewind finishes the timeline it leaves).

    Attributes
    ----------
    tokens
        Token ids so far, prompt included.
    plan
        The plan of the next step.
    ended
        Whether the last token ends the text or fills the context.
    run
        Id of the current timeline; ``None`` if nothing is recorded.
    """

    def __init__(
        self, bench: Bench, prompt: list[int], plan: Plan, record: Record | None, labels: Mapping[str, Any],
        sampling: Sampling,
    ) -> None:  # fmt: skip

        self._bench = bench
        self._record = record
        self._labels = labels
        self._sampling = sampling
        self._ends = end_tokens(bench.model)
        self._cache: Any = new_cache(bench.model)
        self._history = History()
        self._logits = empty(bench.anatomy.vocab_size)
        self._seconds = 0.0
        self._step = 0
        self._slots = 0
        self._dropped: dict[str, int] = {}
        self._parent: int | None = None
        self._finished: Run | None = None
        self.tokens = list(prompt)
        self.prompt_tokens = len(prompt)
        self.run = new_run_id() if record is not None else None
        self.plan = Plan()
        self._plans: list[tuple[int, Plan]] = []
        self.edit(plan)

    def __repr__(self) -> str:
        state = "finished" if self._finished is not None else "ended" if self.ended else "open"
        return f"Live(run={self.run}, tokens={len(self.tokens)}, {state}, text={self.text!r})"

    @property
    def text(self) -> str:
        """The text so far; empty without a tokenizer."""
        return "" if self._bench.tokenizer is None else self._bench.tokenizer.decode(self.tokens)

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to generate."""
        full = self._bench.context is not None and len(self.tokens) >= self._bench.context
        return full or (len(self.tokens) > self.prompt_tokens and self.tokens[-1] in self._ends)

    @property
    def logits(self) -> Tensor:
        """Next-token logits [S, V] fp32 on the CPU of the tokens computed so far; later steps leave it as it is."""
        return self._logits.rows

    @property
    def slots(self) -> int:
        """The most choices that a token has made in a layer so far; 0 where none was recorded."""
        return self._slots

    def step(self) -> Step:
        """Compute one token (the first step reads the prompt up to its last token before) and choose the next."""
        self._check_running()
        if self.ended:
            raise PromptError("The text has ended.", "Rewind to go on from an earlier token.")
        started = time.perf_counter()
        computed = len(self._logits)
        with (
            self._bench.running(),
            self._bench.session(
                [self.plan], self._record, [self._labels], touched(self._cache), history=self._history
            ) as session,
        ):
            if computed < len(self.tokens) - 1:
                self._pass(session, computed, len(self.tokens) - 1)
            self._pass(session, len(self.tokens) - 1, len(self.tokens))
        position = len(self.tokens)
        token = self._sampling.choose(self.logits[-1], position)
        self.tokens.append(token)
        self._seconds += time.perf_counter() - started
        return Step(position - self.prompt_tokens, position, token, self._bench.token_text(token))

    def _pass(self, session: Any, start: int, stop: int) -> None:
        device = device_of(self._bench.model)
        fed = torch.tensor([self.tokens[start:stop]], device=device)
        now = Pass(
            self._step, torch.arange(start, stop, device=device).unsqueeze(0), None,
            torch.tensor([self.prompt_tokens], device=device), fed,
        )  # fmt: skip
        session.begin(now)
        output = self._bench.model(input_ids=fed, past_key_values=self._cache, use_cache=True)
        if self._record is not None and self.run is not None:
            recorder = self._bench.recorder(self._record, [self.run])
            recorder.take(session)
            self._slots = max(self._slots, recorder.slots)
            for table, rows in recorder.dropped.get(self.run, {}).items():
                self._dropped[table] = self._dropped.get(table, 0) + rows
            self._bench.store.soon()
        self._logits.append(output.logits[0].float().cpu())
        self._step += 1

    def edit(self, plan: Plan | Edit | None) -> None:
        """Use ``plan`` from the next step on. A block that runs again after it was skipped finds no keys and values of the
        tokens that skipped it, and they get no attention there."""
        self._check_running()
        chosen = rows_of([Plan.of(plan)])[0]
        self._bench.check(chosen, self.prompt_tokens, self._bench.context or 2**31, self._labels)
        if any(edit.looks_ahead() for edit in chosen.active):
            raise EditRefused(
                "This plan looks ahead (causal=False), but a live generation reads its tokens one after the other.",
                "Use bench.run, or bench.generate with the edit scoped to the prompt.",
            )
        self.plan = chosen
        self._plans = [(step, p) for step, p in self._plans if step < self._step] + [(self._step, chosen)]

    def rewind(self, count: int) -> None:
        """Take back the last ``count`` generated tokens. The timeline so far is kept as a finished run."""
        self._check_running()
        generated = len(self.tokens) - self.prompt_tokens
        if not 0 < count <= generated:
            raise PromptError(
                f"{count} tokens cannot be taken back.", f"There are {generated} generated tokens."
            )
        if len({plan.hash for _, plan in self._plans}) > 1 and not keeps_all(self._cache):
            raise EditRefused(
                "This model's cache cannot be cut, and reading the tokens again would not repeat the plans they ran under.",
                "Branch before an edit to be able to come back to that point.",
            )
        old = self._write()
        self._start_timeline(old.id, self.tokens[:-count])

    def branch(self) -> Live:
        """Another live generation that goes on from here; both go their own way from now on."""
        self._check_running()
        twin = copy.copy(self)
        twin._cache = copy.deepcopy(self._cache)
        twin._history = self._history.copy()
        twin._plans = list(self._plans)
        twin._start_timeline(self.run, list(self.tokens))
        return twin

    def finish(self) -> Run:
        """End the generation and give its run; calling it again gives the same run."""
        if self._finished is None:
            self._finished = self._write()
        return self._finished

    def _start_timeline(self, parent: int | None, tokens: list[int]) -> None:
        """Go on as a new run with ``tokens``, of which all but the last stay computed."""
        computed = min(len(tokens) - 1, len(self._logits))
        self._cut(computed)
        self.tokens = tokens
        self._logits = self._logits.head(computed)
        self._parent, self._seconds, self._dropped = parent, 0.0, {}
        if self._record is not None and parent is not None:
            self.run = new_run_id()
            self._copy_rows(parent, computed)

    def _cut(self, computed: int) -> None:
        """Shorten the cache to ``computed`` tokens, or read them again where a cache cannot be cut."""

        length = self._cache.get_seq_length()
        if computed == length:
            return
        if keeps_all(self._cache):
            self._cache.crop(computed - length)
            return
        self._cache = new_cache(self._bench.model)
        with (
            self._bench.running(),
            self._bench.session([self.plan], None, [self._labels], history=self._history) as session,
        ):
            device = device_of(self._bench.model)
            positions = torch.arange(computed, device=device).unsqueeze(0)
            prompt_tokens = torch.tensor([self.prompt_tokens], device=device)
            fed = torch.tensor([self.tokens[:computed]], device=device)
            session.begin(Pass(0, positions, None, prompt_tokens, fed))
            self._bench.model(input_ids=fed, past_key_values=self._cache, use_cache=True)

    def _copy_rows(self, parent: int, computed: int) -> None:
        """Give the new run the rows of the tokens it shares with ``parent``, and of the steps that computed them."""
        store = self._bench.store
        cursor = store.cursor()
        last = "(SELECT max(step) FROM routing WHERE run = $old AND position < $tokens)"
        for table in (*_BY_POSITION, *_BY_STEP):
            where = "position < $tokens" if table in _BY_POSITION else f"step <= {last}"
            cursor.execute(
                f"INSERT INTO {table} SELECT * REPLACE ($new::BIGINT AS run) FROM {table} WHERE run = $old AND {where}",
                {"new": self.run, "old": parent} | {"tokens": computed},
            )

    def _write(self) -> Run:
        if not len(self._logits):
            raise PromptError("Nothing has been generated.", "Step at least once.")
        done = Done(
            run=self.run, kind="generate", tokens=self.tokens, prompt_tokens=self.prompt_tokens, plan=self.plan,
            labels=self._labels, seconds=self._seconds, seed=self._sampling.recorded_seed, parent=self._parent,
            plans=tuple(self._plans), dropped=dict(self._dropped),
        )  # fmt: skip
        return self._bench.finish(done, self._logits.compact(), self._record)

    def _check_running(self) -> None:
        if self._finished is not None:
            raise PromptError("This generation is finished.", "Start another one with bench.live().")
