"""What every hook of a session shares: the model, who listens, the pass that runs, and what was captured in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.interventions.edit import Edit
from workbench.interventions.patch import Patch
from workbench.runtime.attach import Attachment
from workbench.runtime.capture import Capture
from workbench.runtime.conditions import facts
from workbench.runtime.history import History
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


@dataclass
class Scene:
    """Shared by the hooks of one session.

    Attributes
    ----------
    record
        What to keep, or ``None`` for nothing.
    lookup
        Where replayed routes come from.
    values
        Where patched values come from.
    tuple_blocks
        Layers whose block returns a tuple; a skipped block must return the same.
    labels
        The labels of the run in each row of the batch.
    token_text
        The text of a token id.
    history
        What earlier passes left.
    captures
        What the hooks saw in the running pass, by layer.
    """

    anatomy: Anatomy
    attachment: Attachment
    record: Record | None
    lookup: Lookup
    values: Values
    tuple_blocks: frozenset[int]
    labels: Sequence[Mapping[str, Any]]
    token_text: Callable[[int], str]
    history: History
    captures: dict[int, Capture] = field(default_factory=dict)
    current: Pass | None = None
    _masks: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

    def begin(self, now: Pass | None) -> None:
        """Start a pass; what the last one captured is let go."""
        self.current = now
        self.captures = {}
        self._masks = {}
        if now is not None:
            self.history.begin(int(now.positions[0, 0]), now.tokens)

    @property
    def now(self) -> Pass:
        """The pass that is running."""
        if self.current is None:
            raise RuntimeError("a hook ran outside a pass")
        return self.current

    def capture(self, layer: int) -> Capture:
        """What ``layer`` has captured so far in this pass."""
        return self.captures.setdefault(layer, Capture())

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
        # The same in every layer. What was planned outlives the pass, so that the ids stay theirs; two plans of a batch may
        # share an edit, each for its own rows.
        key = (id(edit), id(rows))
        if key not in self._masks:
            self._masks[key] = scope(edit, self.now, rows, facts(self, layer))
        return self._masks[key]
