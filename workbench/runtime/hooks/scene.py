"""What every hook of a session shares: the model, who listens, the pass that runs, and what was captured in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from torch import Tensor, nn

from workbench.anatomy import Anatomy, Block
from workbench.errors import EditRefused
from workbench.interventions.edit import Edit
from workbench.interventions.patch import Patch
from workbench.runtime.arena import Arena
from workbench.runtime.attach import Attachment
from workbench.runtime.capture import Capture, Captures
from workbench.runtime.conditions import facts
from workbench.runtime.history import History
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.passes import Pass, scope
from workbench.runtime.record import Record

E = TypeVar("E", bound=Edit)
Planned: TypeAlias = list[tuple[E, Tensor]]
"""Edits, each with the rows [B] bool that have it in their plan."""


@dataclass(frozen=True)
class SourceRoutes:
    """The routes of one layer of another run, by absolute position: ids and weights [P, k], known [P] bool."""

    ids: Tensor
    weights: Tensor
    known: Tensor


Lookup: TypeAlias = Callable[[int, int], SourceRoutes]
"""(run id, layer) -> its routes; raises :class:`EditRefused` where the run has none."""

Values: TypeAlias = Callable[[Patch, int], Tensor]
"""(patch, layer) -> the values [P, ...] it puts there, by position in the source run."""


@dataclass(frozen=True)
class DepthEvent:
    """What became of the tokens of a pass in one unit (``block``, ``attn`` or ``mlp``) of a layer.

    ``visits`` [B, S]: how often each ran; ``kv`` [B, S]: what one that did not run left behind; ``repeat_kv``: the policy
    of the repeats; ``chosen`` [B, S]: where the run itself decided, so that a single visit is worth a row; ``borrowed``:
    whether another layer's weights ran.
    """

    layer: int
    unit: str
    now: Pass
    visits: Tensor
    kv: Tensor
    repeat_kv: str
    chosen: Tensor | None
    borrowed: bool


@dataclass(frozen=True)
class Work:
    """Work that an edit left out in one call of ``op`` on ``backend``: units done, units left out, and of those done the
    ones whose result the edit threw away (``None``: none), [T] int64 by token of the pass, or [B] by row."""

    layer: int
    op: str
    backend: str
    now: Pass
    executed: Tensor
    skipped: Tensor
    masked: Tensor | None = None


@dataclass(frozen=True)
class MaskReport:
    """What a mask did to the attention of one row of the batch in a layer; arrays [N] float32.

    ``density`` is the share of the blocks it could see that were kept, ``recall`` the attention kept (mean over queries),
    ``error`` the relative error of the output. ``patterns`` names the masks, ``block`` their finest size.
    """

    layer: int
    row: int
    patterns: str
    block: int
    density: Tensor
    recall: Tensor
    error: Tensor


@dataclass(frozen=True)
class Part:
    """What there is to record of a pass, or of the tokens of it that ran alone; ``seconds`` is what a whole pass took."""

    now: Pass
    captures: dict[int, Capture]
    events: Sequence[DepthEvent] = ()
    work: Sequence[Work] = ()
    reports: Sequence[MaskReport] = ()
    seconds: float | None = None


Enter: TypeAlias = Callable[[Tensor], None]
Leave: TypeAlias = Callable[[Any], None]


@dataclass
class Scene:
    """Shared by the hooks of one session.

    Attributes
    ----------
    record
        What to keep, or ``None`` for nothing.
    arena
        Room for copies.
    lookup
        Where replayed routes come from.
    values
        Where patched values come from.
    arity
        How many things each block, attention and MLP returns in a tuple, 0 for a bare tensor.
    labels
        The labels of the run in each row of the batch.
    token_text
        The text of a token id.
    history
        What earlier passes left.
    managed
        Layers whose depth is edited; what listens to their blocks is called once per visit.
    captures
        What the hooks saw in the running pass, by layer; ``parts`` holds what they saw of tokens that were taken out of
        it, each with the pass of those tokens.
    entered
        The residual that entered each block, of the tokens that run.
    events
        Depth decisions of the running pass.
    work
        What edits of the running pass left out.
    reports
        What masks of attention did in the running pass.
    exits
        By early-exit edit: the residual [B, S, H] that entered the layer before, and which tokens have left [B, S].
    cache
        The cache of the running pass, where it has one.
    started
        When the running pass began, by the clock that counts seconds for all.
    """

    anatomy: Anatomy
    attachment: Attachment
    record: Record | None
    arena: Arena
    lookup: Lookup
    values: Values
    arity: Mapping[nn.Module, int]
    labels: Sequence[Mapping[str, Any]]
    token_text: Callable[[int], str]
    history: History
    managed: frozenset[int] = frozenset()
    captures: Captures = field(default_factory=Captures)
    parts: list[tuple[Pass, dict[int, Capture]]] = field(default_factory=list)
    entered: dict[int, Tensor] = field(default_factory=dict)
    events: list[DepthEvent] = field(default_factory=list)
    exits: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)
    reports: list[MaskReport] = field(default_factory=list)
    current: Pass | None = None
    cache: Any = None
    started: float = 0.0
    _around: dict[int, list[tuple[Enter, Leave]]] = field(default_factory=dict)
    _outer: list[tuple[Pass, dict[int, Capture]]] = field(default_factory=list)
    _masks: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

    def begin(self, now: Pass | None) -> None:
        """Start a pass; what the last one left is let go."""
        self.current, self.cache = now, None
        self.captures, self.parts, self.entered, self.events, self.exits = Captures(), [], {}, [], {}
        self._outer, self._masks, self.work, self.reports = [], {}, [], []
        self.started = time.perf_counter()
        if now is not None:
            self.history.begin(int(now.positions[0, 0]), now.tokens)

    @property
    def now(self) -> Pass:
        """The pass that is running."""
        if self.current is None:
            raise RuntimeError("a hook ran outside a pass")
        return self.current

    def recorded(self, layer: int) -> Record | None:
        """What to record of ``layer``, or ``None`` for nothing."""
        return self.record if self.record is not None and self.record.has_layer(layer) else None

    def scoped(self, edits: Planned[E], layer: int) -> Planned[E]:
        """The edits that hold for some token of this pass in ``layer``, each with those tokens [B, S] bool."""
        pairs = ((edit, self._mask(edit, rows, layer)) for edit, rows in edits)
        return [(edit, where) for edit, where in pairs if where is not None]

    def _mask(self, edit: Edit, rows: Tensor, layer: int) -> Tensor | None:
        if edit.signal_layers(layer):
            return scope(edit, self.now, rows, facts(self, layer))
        # The same in every layer. The planned edits outlive the pass, so that their ids stay theirs. Several plans of a
        # batch may share one edit, each for its own rows.
        key = id(edit), id(rows)
        if key not in self._masks:
            self._masks[key] = scope(edit, self.now, rows, facts(self, layer))
        return self._masks[key]

    def on_block(self, block: Block, enter: Enter, leave: Leave, mounts: Mounts) -> None:
        """Call ``enter`` with the residual that goes into ``block`` and ``leave`` with what it returns, for the tokens
        that really run."""
        if block.layer in self.managed:
            pair = (enter, leave)
            listeners = self._around.setdefault(block.layer, [])
            mounts.during(partial(listeners.append, pair), partial(listeners.remove, pair))
            return

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            enter(args[0] if args else kwargs["hidden_states"])

        def after(_: nn.Module, __: Any, output: Any) -> None:
            leave(output)

        mounts.before(block.module, before, with_kwargs=True)
        mounts.after(block.module, after)

    @contextmanager
    def around(self, layer: int | None, hidden: Tensor) -> Iterator[Leave]:
        """Tell who listens to a managed ``layer`` that ``hidden`` goes in; gives what to call with what comes out."""
        listeners = [] if layer is None else list(self._around.get(layer, ()))
        for enter, _ in listeners:
            enter(hidden)

        def leave(output: Any) -> None:
            for _, told in listeners:
                told(output)

        yield leave

    @contextmanager
    def seeing(self, part: Pass) -> Iterator[None]:
        """Let the edits see the pass ``part``."""
        outer = (self.current, self._masks)
        self.current, self._masks = part, {}
        try:
            yield
        finally:
            self.current, self._masks = outer

    @contextmanager
    def within(self, part: Pass, source: int, place: int, keep: bool) -> Iterator[None]:
        """Let edits and hooks see the pass ``part``. What ``source`` captures there is ``place``'s, if it is kept at all."""
        outer = (self.captures, self.entered)
        self._outer.append((self.now, self.captures))
        self.captures, self.entered = Captures(), dict(self.entered)
        try:
            with self.seeing(part):
                yield
            if keep and self.captures:
                found = {place if layer == source else layer: c for layer, c in self.captures.items()}
                self.parts.append((part, found))
        finally:
            self.captures, self.entered = outer
            self._outer.pop()

    @property
    def partial(self) -> bool:
        """Whether only some tokens of the pass are running."""
        return bool(self._outer)

    def captured(self, layer: int) -> list[tuple[Pass, Capture]]:
        """What ``layer`` has captured so far in this pass, with the pass of the tokens it is of."""
        found = [(self.now, self.captures), *self._outer, *self.parts]
        return [(part, captures[layer]) for part, captures in found if layer in captures]

    def rotary(self) -> Any:
        """The module that makes position encodings of (hidden, position ids)."""
        base = getattr(self.anatomy.model, self.anatomy.model.base_model_prefix, self.anatomy.model)
        found = getattr(base, "rotary_emb", None)
        if found is None:
            raise EditRefused(
                "Positions cannot be counted anew: this model has no rotary module at its base.",
                'Use positions="keep".',
            )
        return found
