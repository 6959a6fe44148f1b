"""The bench: one model, one store, and runs of the one recorded into the other."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from workbench.address import integers
from workbench.analysis import RunDiff
from workbench.anatomy import Anatomy
from workbench.errors import PlanError, PromptError, WorkbenchError
from workbench.interventions import Plan, reroute
from workbench.interventions.edit import Edit
from workbench.runtime.arena import Arena
from workbench.runtime.artefacts import Artefact
from workbench.runtime.attach import Attachment, KernelPath
from workbench.runtime.batch import batches_of, check_coupled
from workbench.runtime.blobs import load_blobs, write_blobs
from workbench.runtime.conditions import check_condition
from workbench.runtime.counterfactual import counterfactual
from workbench.runtime.crossed import Crossed, crossed
from workbench.runtime.dataset import Recorded, TokenLabels, record_dataset
from workbench.runtime.diff import compare
from workbench.runtime.forward import as_tensor, forward
from workbench.runtime.generate import Sampling, generate
from workbench.runtime.history import History
from workbench.runtime.instrument import Session
from workbench.runtime.labels import labels_of, plain
from workbench.runtime.live import Live
from workbench.runtime.loading import fingerprint
from workbench.runtime.param import Param, ParamSite
from workbench.runtime.passes import check_causal, check_tokens, check_whole_prompt, rows_of
from workbench.runtime.prompts import Prompt, token_ids
from workbench.runtime.record import Record
from workbench.runtime.recorder import Recorder
from workbench.runtime.run import Done, Run, Step
from workbench.runtime.run_rows import Ended, digest_runs
from workbench.runtime.running import Running
from workbench.runtime.sae import load_sae
from workbench.runtime.sources import Sources
from workbench.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyRelation

_DEFAULT = Record()
PLAIN = 8
"""Sessions without edits that a bench keeps, one for each way to record."""


class Bench:
    """A model with its store; made by :func:`workbench.open`, closed by :meth:`close` or ``with``."""

    # The panel as a widget for a notebook cell; given by workbench/__init__, because the panel stands above the runtime.
    panel: Callable[[], Any]

    def __init__(
        self, model: Any, tokenizer: Any | None, anatomy: Anatomy, store: Store, attachment: Attachment,
        name: str, revision: str | None, arity: Mapping[nn.Module, int],
    ) -> None:  # fmt: skip
        self.model = model
        self.tokenizer = tokenizer
        self.anatomy = anatomy
        self.store = store
        self.name = name
        self._attachment = attachment
        self.revision = revision
        self.arity = arity
        self.checkpoint = fingerprint(model)
        # A bench that is let go without being closed leaves the model as it was, too.
        self._release = weakref.finalize(self, attachment.release)
        self._release.atexit = False
        sparse = (anatomy.layer(layer).moe for layer in anatomy.moe_layers)
        self._choices_a_token = sum(moe.top_k for moe in sparse if moe is not None)
        self._arena = Arena()
        self._plain: dict[Record | None, Session] = {}
        self._texts: dict[int, str] = {}
        self._blobs: set[str] = set()
        self._closed = False

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        sparse = len(self.anatomy.moe_layers)
        layers = (
            f"{self.anatomy.num_layers} layers, {sparse} with experts"
            if sparse
            else f"{self.anatomy.num_layers} layers"
        )
        store = str(self.store.path or ":memory:")
        return f"Bench({self.name!r}, {layers}, kernels={self.kernels!r}, store={store!r})"

    @property
    def kernels(self) -> str:
        """The backend of our kernels in use: ``cpu`` or ``reference``; ``model`` where only the model's own run."""
        return self._attachment.kernels

    @property
    def isa(self) -> str:
        """The instruction set of the kernels; empty for the model's own."""
        return self._attachment.isa

    @property
    def kernels_reason(self) -> str:
        """Why the model runs on its own kernels, where all of it does."""
        return self._attachment.reason

    @property
    def kernel_paths(self) -> list[KernelPath]:
        """What runs the experts, the attention and the dense MLP of each layer, and why it is not our kernel where not."""
        return self._attachment.paths

    @property
    def context(self) -> int | None:
        """The longest sequence the model takes, in tokens."""
        return self.anatomy.context

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._closed

    def token_text(self, token: int) -> str:
        """The text of one token; its number without a tokenizer."""
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = (
                str(token) if self.tokenizer is None else self.tokenizer.decode([token])
            )
        return text

    def run(
        self,
        prompt: Prompt | Sequence[Prompt],
        plan: Plan | Edit | None = None,
        plans: Sequence[Plan | Edit | None] | None = None,
        record: Record | None = _DEFAULT,
        labels: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """Read a prompt in one forward pass; a list of prompts gives a list of runs.

        Parameters
        ----------
        prompt
            Text or token ids, or a list of prompts (one run each).
        plan
            The plan of every prompt; or ``plans``, one for each.
        record
            What to record; ``None`` records nothing. By default ``wb.Record()``.
        labels
            Kept with the run; SQL groups by them. One mapping for all prompts, or one for each.

        Returns
        -------
        Run or list of Run
            Its rows are visible to SQL when this returns.
        """
        many = isinstance(prompt, list | tuple) and bool(prompt) and not isinstance(prompt[0], Integral)
        prompts: list[Any] = list(prompt) if many else [prompt]
        if plan is not None and plans is not None:
            raise PlanError(
                "Both plan and plans were given.", "Give one plan for all prompts, or one for each."
            )
        if plans is not None and len(plans) != len(prompts):
            raise PlanError(
                f"There are {len(plans)} plans for {len(prompts)} prompts.", "Give one plan for each prompt."
            )
        each = [Plan.of(p) for p in plans] if plans is not None else [Plan.of(plan)] * len(prompts)
        each = rows_of(each)
        told = labels_of(labels, len(prompts))
        ids = [self.token_ids(p) for p in prompts]
        for one, tokens, known in zip(each, ids, told, strict=True):
            self.check(one, len(tokens), len(tokens), known)
        trains = any(plan.trained for plan in each)
        chosen = None if trains and record is _DEFAULT else record
        if trains and chosen is not None:
            raise PlanError(
                "A run under a plan in training cannot be recorded.",
                "Put param.freeze() in its place, or record=None.",
            )
        runs: list[Run | None] = [None] * len(prompts)
        with self.running(gradients=trains):
            batches = batches_of(ids, each, self.anatomy)
            check_coupled(each, batches)
            for rows in batches:
                made = forward(
                    self, [ids[r] for r in rows], [each[r] for r in rows], chosen, [told[r] for r in rows]
                )
                for row, run in zip(rows, made, strict=True):
                    runs[row] = run
        return runs if many else runs[0]

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = 64,
        plan: Plan | Edit | None = None,
        record: Record | None = _DEFAULT,
        on_step: Callable[[Step], Any] | None = None,
        labels: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        prefill: int | None = None,
    ) -> Run:
        """Continue a prompt token by token with the cache, greedily unless ``temperature`` is above 0.

        ``prefill`` reads the prompt that many tokens a pass instead of at once; logits and rows are the same up to rounding,
        but for what is said of a whole pass: ranks of attention maps are those of the first piece.

        ``on_step`` is called with every new token as a :class:`Step`; returning ``False`` stops. Generation also stops
        at the model's end-of-sequence token and at the end of its context.
        """
        if max_new_tokens < 1:
            raise PromptError(f"{max_new_tokens} new tokens cannot be generated.", "Ask for at least one.")
        if prefill is not None and prefill < 1:
            raise PromptError(f"A prompt cannot be read {prefill} tokens a pass.", "Ask for at least one.")
        ids = self.token_ids(prompt)
        chosen_plan, told = rows_of([Plan.of(plan)])[0], plain(labels)
        if self.context is not None:
            if len(ids) >= self.context:
                raise PromptError(
                    f"The prompt fills the model's context of {self.context} tokens.",
                    "Shorten it to leave room.",
                )
            max_new_tokens = min(max_new_tokens, self.context - len(ids))
        if chosen_plan.trained:
            raise PlanError(
                "A generation has no gradients.", "Put param.freeze() in the plan, or use bench.run."
            )
        self.check(chosen_plan, len(ids), len(ids) + max_new_tokens - 1, told)
        if prefill is not None and prefill < len(ids):
            check_whole_prompt(chosen_plan)
        with self.running():
            sampling = Sampling(temperature, seed)
            return generate(self, ids, max_new_tokens, chosen_plan, record, on_step, told, sampling, prefill)

    def live(
        self,
        prompt: Prompt,
        plan: Plan | Edit | None = None,
        record: Record | None = _DEFAULT,
        labels: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Live:
        """Start a generation that is stepped by hand, edited between steps, rewound and branched; see :class:`Live`."""
        ids = self.token_ids(prompt)
        return Live(self, ids, Plan.of(plan), record, plain(labels), Sampling(temperature, seed))

    def record(
        self,
        dataset: Iterable[Any],
        tokens: int | None = None,
        plan: Plan | Edit | None = None,
        record: Record | None = None,
        token_labels: TokenLabels | None = None,
        progress: bool = False,
    ) -> Recorded:
        """Stream a data set through the model and record it, one run a document, until ``tokens`` tokens are spent.

        Parameters
        ----------
        dataset
            Prompts; or mappings (rows of a data frame) with ``text``, ``tokens`` or ``prompt``, whose other fields and
            ``labels`` label the run, and whose ``token_labels`` give one value a token by name. Documents longer than the
            context become several runs; the labels ``document`` and ``part`` number them.
        token_labels
            Labels of a document's tokens from their texts: rows of ``token_label``.
        record
            What to record; ``wb.Record()`` unless told otherwise.
        progress
            Show a progress bar.

        Memory stays bounded: logits are let go as soon as their rows are made.
        """
        return record_dataset(
            self, dataset, tokens=tokens, plan=Plan.of(plan), record=record or Record(), token_labels=token_labels,
            progress=progress,
        )  # fmt: skip

    def evaluate(
        self,
        items: pd.DataFrame,
        plans: Sequence[Plan | Edit | None | Sequence[Plan | Edit | None]] = (None,),
        score: Literal["choices"] = "choices",
        progress: bool = False,
    ) -> pd.DataFrame:
        """Score ``items`` (prompt, answer, choices) under every plan; see :func:`workbench.runtime.evaluate.evaluate`.

        In place of a plan for all items there may be a list of one plan per item.
        """
        from workbench.runtime.evaluate import evaluate

        chosen = [
            Plan.of(plan) if plan is None or isinstance(plan, Plan | Edit) else [Plan.of(one) for one in plan]
            for plan in plans
        ]
        return evaluate(self, items, chosen, score, progress)

    def counterfactual(
        self, run: Run, token: int, layers: int | Sequence[int], target: int | None = None
    ) -> pd.DataFrame:
        """Every other expert at a cell: see :func:`workbench.runtime.counterfactual.counterfactual`."""
        return counterfactual(self, run, token, list(integers(layers, "layer")), target)

    def crossed(
        self, a: Run, b: Run, metric: Callable[[Run], float] | int, layers: reroute.Where = "all",
        token_map: Mapping[int, int] | None = None,
    ) -> Crossed:  # fmt: skip
        """Cross two recorded runs: the routes of each on the input of the other.

        ``metric`` gives a number of a run, or is a token id whose log-probability after the last token is the number.
        ``token_map`` ({position in a: position in b}) aligns prompts of different lengths. Returns the four runs with the
        router, expert and interaction effect: see :class:`workbench.runtime.crossed.Crossed`.
        """
        return crossed(self, a, b, metric, layers, dict(token_map or {}))

    def param(self, site: ParamSite, layers: int | Sequence[int], tokens: Any = "all", **scope: Any) -> Param:
        """A trainable edit: zeros added at ``site`` in ``layers``; see :class:`workbench.runtime.param.Param`.

        ``site`` is ``router_logits``, ``scores`` (for choice and weights alike), ``expert_weights``, or one of
        ``resid_pre``, ``attn_out``, ``mlp_out``, ``resid_post``. Where ``tokens`` are positions each has numbers of its
        own. A run under a plan with ``param.edit()`` has logits that carry gradients to ``param.tensor``, and to nothing
        else.
        """
        return Param(self, site, layers, tokens, **scope)

    def diff(
        self, base: Run | int, run: Run | int, noise: tuple[Run | int, Run | int] | None = None
    ) -> RunDiff:
        """Compare two recorded runs: flips with their causes, first divergent layer and expert, KL, text.

        ``noise`` names two runs of one text that differ by precision or implementation alone, as ``base`` and ``run`` do;
        flips that such noise explains are then told from real ones. All four need ``wb.Record(scores=True)``.
        """
        return compare(self.store, base, run, noise)

    def sql(self, query: str, params: Sequence[Any] | None = None) -> DuckDBPyRelation:
        """Run SQL over the store on a cursor of its own; rows of finished runs are visible."""
        return self.store.sql(query, params)

    def snapshot(self, path: str | Path) -> None:
        """Write a consistent copy of the store to a new file, for any other DuckDB client."""
        self.store.snapshot(str(path))

    def import_routes(self, tokens: Prompt, routes: Any, **options: Any) -> int:
        """Make a run of routes that vLLM, SGLang or Megatron recorded; see
        :func:`workbench.runtime.imports.import_routes`. ``reroute.replay`` with the id it returns runs them here."""
        from workbench.runtime.imports import import_routes

        return import_routes(self, tokens, routes, **options)

    def write_into(self, traced: Any, plan: Plan | Edit, prompt: Prompt) -> None:
        """Write ``plan`` into a running nnsight trace; see :func:`workbench.runtime.trace.write`."""
        from workbench.runtime.trace import write

        write(self, plan, traced, prompt)

    def close(self) -> None:
        """Give the model back its own kernels and close the store; the model's weights were never touched."""
        if not self._closed:
            self._closed = True
            self._release()
            self.store.close()

    def add(self, artefact: Artefact | str | Path) -> str:
        """Make tensors that plans name (a calibration, a trained router, masks), or the file of them, known; gives the hash
        by which plans name them. A folder is read as a sparse autoencoder in the format of SAELens."""
        if not isinstance(artefact, Artefact | str | Path):
            raise PlanError(
                f"A value of type {type(artefact).__name__} is no file.", "Give a path, or an Artefact."
            )
        if not isinstance(artefact, Artefact):
            folder = Path(artefact).is_dir()
            artefact = load_sae(artefact).artefact() if folder else Artefact.load(artefact)
        return artefact.hash

    def calibrate(self, prompts: Sequence[Prompt], seed: int = 0) -> str:
        """Measure what units do on ``prompts``, for masks that need means, samples, thresholds or norms; gives the hash by
        which plans name it (:func:`workbench.runtime.calibrate.calibrate`)."""
        from workbench.runtime.calibrate import calibrate

        return self.add(calibrate(self, prompts, seed))

    @property
    def ops(self) -> str:
        """The backend to name in a direct call of :mod:`routing_kernels` on this model's tensors."""
        return self._attachment.ops

    # Prompts and plans

    def token_ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, checked against vocabulary and context."""
        return token_ids(prompt, self.tokenizer, context=self.context, vocab_size=self.anatomy.vocab_size)

    def check(
        self, plan: Plan, prompt_tokens: int, total_tokens: int, labels: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse a plan that cannot act on this model, or in a run of so many prompt tokens and computed tokens."""
        load_blobs(self.store, plan)
        plan.check(self.anatomy)
        for edit in plan.active:
            check_tokens(edit, prompt_tokens, total_tokens)
            check_causal(edit, prompt_tokens, total_tokens)
            check_condition(edit, labels or {}, self.tokenizer is not None)
        for line in plan.collisions():
            warnings.warn(line, stacklevel=3)

    # Passes

    def running(self, gradients: bool = False) -> Running:
        """A context in which passes run: one at a time, in evaluation mode, and with gradients only where asked for."""
        if self._closed:
            raise WorkbenchError("This bench is closed.", "Open the model again with wb.open().")
        return Running(self.model, self._attachment.lock, gradients)

    def session(
        self, plans: Sequence[Plan], record: Record | None, labels: Sequence[Mapping[str, Any]],
        manage_depth: bool = False, history: History | None = None, anatomy: Anatomy | None = None,
    ) -> Session:  # fmt: skip
        """The hooks of one run, or of a batch with one plan and the labels of one run per row.

        ``history`` is what earlier passes left, where another session made them. ``anatomy`` has the modules the hooks are
        set on, in place of the model's own. A session that edits nothing is made once and opened again.
        """
        if record is not None and not isinstance(record, Record):
            raise PlanError(
                f"A value of type {type(record).__name__} is not a Record.",
                "Give wb.Record(...), or None to record nothing.",
            )
        plain = not manage_depth and history is None and anatomy is None
        if plain and not any(plan.active for plan in plans):
            kept = self._plain.get(record)
            if kept is None or kept.open:
                if len(self._plain) >= PLAIN:
                    self._plain.clear()
                # It must not keep its bench in turn, which would then no longer go when it is let go.
                kept = self._session(weakref.proxy(self), [Plan()], record, [], False, None, self.anatomy)
                self._plain[record] = kept
            return kept
        return self._session(self, plans, record, labels, manage_depth, history, anatomy or self.anatomy)

    def _session(
        self, bench: Bench, plans: Sequence[Plan], record: Record | None, labels: Sequence[Mapping[str, Any]],
        manage_depth: bool, history: History | None, anatomy: Anatomy,
    ) -> Session:  # fmt: skip
        if record is not None:
            record.check(self.anatomy.num_layers)
        sources = Sources(bench, plans)
        return Session(
            anatomy, self._attachment, plans, record, self._arena, sources.routes, sources.values, self.arity, labels,
            lambda token: bench.token_text(token), manage_depth, history,
        )  # fmt: skip

    def recorder(self, record: Record, runs: list[int]) -> Recorder:
        """What writes the rows of ``runs``."""
        return Recorder(self.store, self._arena, record, self.anatomy, runs, self.kernels, self.isa)

    def finish(self, done: Done, logits: Tensor, record: Record | None) -> Run:
        """Make the :class:`Run` of what was ``done`` and write the rows that describe it."""
        run = Run(
            done.run,
            as_tensor(done.tokens),
            logits,
            done.plan,
            done.prompt_tokens,
            self,
            done.labels,
        )
        if record is not None:
            write_blobs(self.store, [plan for _, plan in done.plans] or [done.plan], self._blobs)
            self.store.describe(
                digest_runs, Ended(self, done, run.logprob.numpy(), run.loss, record, done.dropped)
            )
            self.store.soon()
            self.store.ended(len(done.tokens) * self._choices_a_token)
        return run
