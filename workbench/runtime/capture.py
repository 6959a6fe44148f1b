"""What the hooks of one layer saw in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from workbench.runtime.held import Held
from workbench.signals import attention_rank, sparsity


class ExpertStats(NamedTuple):
    """What the kernel counted while it ran the experts: :class:`routing_kernels.ExpertRows` says what the rows of norms
    [3, T, k] and tallies [2, T, k] are."""

    norms: Tensor
    tallies: Tensor


class AttentionSample(NamedTuple):
    """Queries of sampled rows and all keys of one run's attention, from which its maps are made later.

    Attributes
    ----------
    row
        Row of the batch.
    query, key
        Copies of [R, N, D] and [S, Nkv, D] after position encoding: tokens first, as the projections give them.
    mask
        What is added to the products of those rows, or where they are allowed; broadcasts to [N, R, S].
    rows
        The sampled positions [R]; ``None`` where they are all.
    length
        Tokens of the run.
    """

    row: int
    query: Held
    key: Held
    mask: Held
    rows: Tensor | None
    length: int
    scale: float
    softcap: float | None
    sinks: Held | None


class RowRanks(NamedTuple):
    """Ranks that were computed during the pass, of one row of the batch: [N] each, from maps of ``tokens`` rows."""

    row: int
    ranks: attention_rank.Ranks
    tokens: int
    length: int
    submatrix: str
    method: str
    dtype: str
    error: float | None


Value = TypeVar("Value", bound=Held)
"""What a signal is of: tensors where the hooks made it, copies where it waits for its rows."""


class Effects(NamedTuple, Generic[Value]):
    """Direct effects on the logit of each token's ``targets`` [T]: by unit, [T, units of that kind]."""

    targets: Value
    values: dict[str, Value]


class Census(NamedTuple, Generic[Value]):
    """What each neuron did over the tokens of each row of the batch: tokens [B, E] that reached it, and of each neuron
    [B, E, F] how many made it active, the sum of magnitudes and the largest. E is 1 for a dense MLP."""

    tokens: Value
    active: Value
    total: Value
    largest: Value


class Chunks(NamedTuple, Generic[Value]):
    """Neurons of a dense MLP that consecutive tokens use together, by row of the batch [B, C]: the position of the first
    token, the share of the neurons any of them uses, and the share expected of independent tokens."""

    start: Value
    union: Value
    expected: Value


@dataclass
class Capture:
    """What one layer did in one pass. T = B x S tokens, k choices, N heads; ``None`` where it was not asked for.
    ``seconds`` is what its experts took of the calling thread. ``unused`` [T, k] are slots that an edit left without an
    expert and that the model's own kernels, which know no unused slot, compute all the same.
    ``contribution`` has the fields of :class:`~workbench.signals.contribution.Contribution` as its last rows: all of them
    [6 or 11, T], or the last two [2, T] where the parts of the block are not known.
    ``attended`` [B, S, S'] is the attention map, mean over heads, for edits that weigh by it."""

    logits: Tensor | None = None
    selection: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None
    native_ids: Tensor | None = None
    native_weights: Tensor | None = None
    edited: Tensor | None = None
    unused: Tensor | None = None
    experts: ExpertStats | None = None
    seconds: float = 0.0
    contribution: Tensor | None = None
    activation: sparsity.Sparsity | None = None
    width: int = 0
    attention: list[AttentionSample] = field(default_factory=list)
    ranks: list[RowRanks] = field(default_factory=list)
    lens_kl: Tensor | None = None
    effects: Effects[Tensor] | None = None
    census: Census[Tensor] | None = None
    chunks: Chunks[Tensor] | None = None
    parts: dict[str, Tensor] = field(default_factory=dict)
    attended: Tensor | None = None
    stream: dict[str, Tensor] = field(default_factory=dict)


class Captures(dict[int, Capture]):
    """What the hooks saw in one forward pass, by layer; a layer that is asked for the first time has seen nothing yet."""

    def __missing__(self, layer: int) -> Capture:
        found = self[layer] = Capture()
        return found
