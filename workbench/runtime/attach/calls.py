"""What a call of attention or of a gated MLP was given, what may be asked of it, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from torch import Tensor

from workbench.runtime.attach.mask_rule import MaskRule, read_mask


@dataclass(frozen=True)
class AttentionCall:
    """What one attention call was given. B rows, N heads, Nkv key heads, Q queries, K keys, D head size.

    Attributes
    ----------
    query, key, value
        [B, N, Q, D], [B, Nkv, K, D] and [B, Nkv, K, Dv] after position encoding. The queries are the last Q of the K
        positions.
    mask
        The mask as the model made it: added to the scores, or boolean with True where attention is allowed; broadcasts
        to [B, N, Q, K]. ``None``: causal.
    scale, softcap, sinks
        The factor of q k^T; the cap c of c tanh(s / c), or ``None``; one more score a head [N] without a value, or
        ``None``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    softcap: float | None
    sinks: Tensor | None
    causal: bool = True

    @property
    def queries(self) -> int:
        """Q."""
        return self.query.shape[2]

    @property
    def keys(self) -> int:
        """K."""
        return self.key.shape[2]

    @property
    def first_query(self) -> int:
        """The key at which the first query stands."""
        return self.keys - self.queries

    def grid(self, block: int) -> tuple[int, int, int]:
        """Blocks are counted from the first key, for queries and keys alike, so that a cached pass and a whole one share
        them: (number of the first query's block, query blocks of this call, key blocks)."""
        first = self.first_query // block
        return first, -(-self.keys // block) - first, -(-self.keys // block)

    @cached_property
    def rule(self) -> MaskRule | None:
        """The mask as causality, window and padding; ``None`` where it is more than that."""
        return read_mask(self.mask, self.query.shape[0], self.queries, self.keys, self.causal)

    def rows(self, rows: Tensor) -> AttentionCall:
        """The same call of these rows [b] of the batch alone."""
        if len(rows) == self.query.shape[0]:
            return self
        mask = self.mask if self.mask is None or self.mask.shape[0] == 1 else self.mask[rows]
        return replace(self, query=self.query[rows], key=self.key[rows], value=self.value[rows], mask=mask)


@dataclass(frozen=True)
class AttentionReport:
    """What a call did. Tensors are ``None`` where they were not asked for, and float32.

    Attributes
    ----------
    sketch
        [B, N, Q, R]: the attention map times the asker's own extra values.
    lse
        [B, N, Q]: log of the sum of exponentials, sink included.
    block_mass
        [B, N, query blocks, key blocks] in the asker's own blocks: probability summed over the block's queries; 0 where a
        block is not kept.
    kernel
        What computed the output: a backend of our kernels, or the name of the model's own function.
    reason
        Why it was the model's own; else empty.
    executed, skipped
        Blocks (of the finest mask's size; 64 without one) computed for the output, over rows and heads, and blocks with
        something to see in them that were left out. The model's own function computes every block and masks: it skips none.
    ours
        bool [B]: the rows that our kernel computed, so that what they do not keep was left out.
    dropped
        bool [B, N]: heads that were left out whole, of those that the askers drop.
    """

    sketch: Tensor | None
    lse: Tensor | None
    block_mass: Tensor | None
    kernel: str
    reason: str
    executed: int
    skipped: int
    ours: Tensor
    dropped: Tensor


@dataclass(frozen=True)
class AttentionOptions:
    """What somebody asks of one attention call beside its output. The output has the same bits whatever is reported.

    Attributes
    ----------
    block_mask
        bool, True where a block is kept: [query blocks, key blocks], [N, query blocks, key blocks] or with the rows of the
        batch in front; the blocks of :meth:`AttentionCall.grid`. Several askers' masks are joined: kept is what all
        keep. A query left without any key gives zeros. ``None``, and a mask that keeps everything, change no bit.
    block
        16, 32, 64 or 128 positions.
    allowed
        bool [B or 1, N or 1, Q, K], True where a query may see a key: finer than blocks. With it the model's own function
        runs, which computes everything and masks. A query must keep a key.
    dropped
        bool [B, N], True where nobody reads what comes out of a head. Our kernel leaves such a head out and gives zeros; the
        model's own function computes it all the same, and so does ours for a report about the map. It never decides
        which of the two runs.
    extra_values
        [K, R] more value columns, the same for every head, for :attr:`AttentionReport.sketch`.
    want_lse, want_block_mass
        Whether the report has them. Masses come with the output in blocks of 64 (or the finest mask's); finer ones take
        a pass of their own.
    sink
        Takes the report, after the call.
    """

    block_mask: Tensor | None = None
    block: int = 64
    allowed: Tensor | None = None
    dropped: Tensor | None = None
    extra_values: Tensor | None = None
    want_lse: bool = False
    want_block_mass: bool = False
    sink: Callable[[AttentionReport], None] | None = None


AttentionAsker = Callable[[AttentionCall], AttentionOptions | None]


@dataclass(frozen=True)
class MlpCall:
    """What a gated MLP was given: hidden states [T, H], tokens of the batch in order."""

    hidden: Tensor


@dataclass(frozen=True)
class MlpReport:
    """What a call did. T tokens.

    Attributes
    ----------
    active_count, input_count
        [T] int32: neurons and inputs whose weights were read.
    kept_energy
        [T, 2] float32: see :class:`routing_kernels.SparseMlp`.
    kernel
        The backend of our kernels that ran.
    """

    active_count: Tensor
    input_count: Tensor
    kept_energy: Tensor
    kernel: str


@dataclass(frozen=True)
class MlpOptions:
    """What somebody asks of one call of a gated MLP: see :func:`routing_kernels.sparse_mlp` for the modes.

    Attributes
    ----------
    mode
        ``teal``, ``cats`` or ``neuron``.
    threshold, input_threshold
        Of the magnitudes; for ``teal`` and ``cats``.
    active
        For ``neuron``: bool [T, F] or [F].
    rows
        bool [T], the tokens that the edit holds for; the others keep every neuron. ``None``: all.
    sink
        Takes the report, after the call.
    """

    mode: Literal["teal", "cats", "neuron"]
    threshold: float = 0.0
    input_threshold: float = 0.0
    active: Tensor | None = None
    rows: Tensor | None = None
    sink: Callable[[MlpReport], None] | None = None


MlpAsker = Callable[[MlpCall], MlpOptions | None]
