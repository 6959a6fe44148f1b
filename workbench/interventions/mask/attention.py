"""Attention masks in blocks of queries and keys: static patterns, estimators, and their controls."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts, scopes_disjoint, sorted_units
from workbench.said import Said, numbers, said

Pattern: TypeAlias = Literal[
    "window",
    "strided",
    "vertical-slash",
    "pooled",
    "channels",
    "clusters",
    "hierarchical",
    "random",
    "oracle",
    "explicit",
]
STATIC = ("window", "strided", "random", "explicit")
"""Patterns that do not look at queries and keys, so that a token's row depends on its position alone."""


class AttentionMask(Edit):
    """Keep some blocks of the attention map; the others are neither read nor computed.

    Blocks are counted from the first position, for queries and keys alike. The block on the diagonal and the first
    ``sinks`` keys always stay. An estimator ranks the blocks that a block of queries can see and keeps a share ``keep`` of
    them (rounded up), or the fewest whose estimated mass reaches ``mass``. Estimators look at all queries of a block, so
    that they are ``causal=False``: in generation they must be scoped to the prompt.

    Attributes
    ----------
    pattern
        * ``window``: keys within ``window`` positions before the query's block (Xiao et al. 2023, arXiv 2309.17453).
        * ``strided``: every ``stride``-th block of keys (Child et al. 2019, arXiv 1904.10509).
        * ``vertical-slash``: columns and diagonals of blocks with the most attention of the last ``last`` queries
          (MInference: Jiang et al. 2024, arXiv 2407.02490).
        * ``pooled``: softmax of the mean query and mean key of each block (MInference, SeerAttention's target).
        * ``channels``: scores from the ``channels`` head dimensions with the largest mean ``|q k|`` (Double Sparsity: Yang
          et al. 2024, arXiv 2408.07092).
        * ``clusters``: blocks of keys near the cluster that a block of queries is nearest to; ``clusters`` of them by
          k-means on mean keys (after Routing Transformer: Roy et al. 2020, arXiv 2003.05997).
        * ``hierarchical``: a search in which a block of queries scores the middle key of twice as many spans of blocks as it
          may keep, keeps the better half and halves its spans, until they are single blocks (HiP: Lee et al. 2024, arXiv
          2406.09827). It sees some keys only, and can miss what its spans do not show.
        * ``random``: blocks by ``seed``, layer, head and block, at the density ``keep``: the control.
        * ``oracle``: the exact mass of each block: what an estimator could reach at best.
        * ``explicit``: the pairs (query block, key block) of ``blocks``.
    heads
        The heads that are masked; ``None`` for all.
    """

    kind: Literal["mask.attention"] = "mask.attention"
    pattern: Pattern
    block: Literal[16, 32, 64, 128] = Field(64, description="tokens in a block, across and down")
    heads: tuple[int, ...] | None = None
    sinks: int = Field(1, ge=0, description="first keys that always stay")
    keep: float | None = Field(None, gt=0, le=1, description="share of the blocks to keep")
    mass: float | None = Field(None, gt=0, le=1, description="share of the attention to keep")
    window: int | None = Field(
        None, ge=1, description="positions before a block of queries, for the pattern window"
    )
    stride: int | None = Field(None, ge=1, description="every how many blocks, for the pattern strided")
    last: int = Field(64, ge=1, description="queries that are looked at, for the pattern vertical-slash")
    channels: int | None = Field(None, ge=1, description="dimensions of a head, for the pattern channels")
    clusters: int | None = Field(None, ge=1, description="how many, for the pattern clusters")
    blocks: tuple[tuple[int, int], ...] | None = Field(
        None, description="(query, key) pairs, for the pattern explicit"
    )
    seed: int = Field(0, description="of what is drawn at random")
    site: ClassVar[str] = "attn_mask"

    @field_validator("heads", mode="before")
    @classmethod
    def _heads(cls, value: Any) -> Any:
        return None if value is None else sorted_units(value, "head")

    @field_validator("blocks", mode="before")
    @classmethod
    def _blocks(cls, value: Any) -> Any:
        return None if value is None else sorted({tuple(pair) for pair in value})

    @model_validator(mode="after")
    def _own_parameters(self) -> AttentionMask:
        own = {
            "window": "window",
            "strided": "stride",
            "channels": "channels",
            "clusters": "clusters",
            "explicit": "blocks",
        }
        for pattern, name in own.items():
            if (getattr(self, name) is not None) != (pattern == self.pattern):
                raise ValueError(f"the pattern {pattern} and {name} go together")
        shares = (self.keep is not None) + (self.mass is not None)
        if self.pattern in ("window", "strided", "explicit"):
            if shares:
                raise ValueError(f"the pattern {self.pattern} needs neither keep nor mass")
        elif shares != 1:
            raise ValueError(f"the pattern {self.pattern} needs either keep or mass")
        if self.mass is not None and self.pattern in ("random", "vertical-slash", "clusters", "hierarchical"):
            raise ValueError(f"the pattern {self.pattern} has no mass of single blocks; give keep")
        return self

    @property
    def causal(self) -> bool:
        """Whether a token's row of the map depends on nothing after it."""
        return self.pattern in STATIC

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).attention is not None)

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        assert block.attention is not None  # Facts.require has refused a layer without attention
        for head in self.heads or ():
            if head >= block.attention.num_heads:
                raise EditRefused(
                    f"mask.attention names head {head}, but layer {layer} has heads 0 to {block.attention.num_heads - 1}.",
                    "Name a head that exists.",
                )

    def commutes(self, other: Edit) -> bool:
        """Kept is what all masks keep, whatever their order."""
        return isinstance(other, AttentionMask) or super().commutes(other) or scopes_disjoint(self, other)

    def _what(self) -> Said:
        if self.heads is None:
            return said("keep the %1 blocks", self.pattern)
        return said("keep the %1 blocks of heads %2", self.pattern, numbers(self.heads))
