"""Depth plans that are known before the run: skips, repeats, aliases, and a whole path."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts, in_order, scopes_disjoint
from workbench.interventions.skip.base import UNITS, RepeatKv, Skip, SkipKv, Unit, needs_attention
from workbench.said import Said, numbers, said


class Removal(Skip):
    """Base of the three skips that name their unit."""

    def leaves_out(self, layer: int, num_layers: int) -> bool:
        return self.layers == "all" or layer in self.layers

    def commutes(self, other: Edit) -> bool:
        """Skips of one unit with one policy commute: what both leave out is the union."""
        same = isinstance(other, Removal) and self.kind == other.kind
        return (same and getattr(self, "kv", None) == getattr(other, "kv", None)) or super().commutes(other)

    def _what(self) -> Said:
        return said("skip the %1", UNITS[self.acts_on])


class Block(Removal):
    """Leave whole blocks out: the residual stream passes unchanged and nothing of the block runs.

    For every token of a run (the default) nobody ever attends in the block, whatever ``kv`` says. Where only some tokens
    are in scope, ``kv`` says what the others see of them (:class:`~workbench.interventions.skip.base.Skip`).
    """

    kind: Literal["skip.block"] = "skip.block"
    kv: SkipKv = Field("absent", description="what later tokens find in a layer that did not run")

    def check(self, facts: Facts) -> None:
        super().check(facts)
        self._check_kv(facts, self.kv)
        if self.whole_run and len(self.layers_in(facts)) == facts.num_layers:
            raise EditRefused("skip.block would leave no block of the model.", "Keep at least one layer.")

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        if not self.whole_run:
            needs_attention(self.kind, layer, block)


class Attention(Removal):
    """Leave attention sublayers out: they add nothing to the residual stream, and neither projection nor softmax runs."""

    kind: Literal["skip.attention"] = "skip.attention"
    kv: SkipKv = Field("absent", description="what later tokens find in a layer that did not run")
    site: ClassVar[str] = "attn"

    @property
    def acts_on(self) -> Unit:
        return "attention"

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).attention is not None)

    def check(self, facts: Facts) -> None:
        super().check(facts)
        self._check_kv(facts, self.kv)


class Mlp(Removal):
    """Leave MLP sublayers out, router and experts included: they add nothing to the residual stream."""

    kind: Literal["skip.mlp"] = "skip.mlp"
    site: ClassVar[str] = "mlp"

    @property
    def acts_on(self) -> Unit:
        return "mlp"


class Repeat(Skip):
    """Run a block, or one of its sublayers, ``times`` in a row.

    Attributes
    ----------
    unit
        ``block``; ``attention`` (the attention runs ``times``, then the MLP once); ``mlp`` (attention once, then the MLP
        ``times``).
    kv
        ``per-visit``: each visit has keys and values of its own and attends to those of the same visit. ``share-first``:
        later visits attend to the keys and values of the first. ``overwrite``: a later visit replaces what the one before
        left, and later tokens find the last; tokens then go through the block one by one, as in decoding, since a token's
        first visit must see the last visit of those before it.
    """

    kind: Literal["skip.repeat"] = "skip.repeat"
    times: int = Field(2, ge=1, le=16, description="how often it runs")
    unit: Unit = Field("block", description="block, attention or MLP")
    kv: RepeatKv = Field("per-visit", description="keys and values of the visits of a repeated block")

    @property
    def acts_on(self) -> Unit:
        return self.unit

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        needs_attention(self.kind, layer, block)

    def _what(self) -> Said:
        return said("run the %1 %2 times", UNITS[self.unit], self.times)


class Alias(Skip):
    """Run the block, attention or MLP of layer ``source`` in place of the layer's own, with keys and values of its own."""

    kind: Literal["skip.alias"] = "skip.alias"
    source: int = Field(ge=0, description="the layer that runs in its place")
    unit: Unit = Field("block", description="block, attention or MLP")

    @property
    def acts_on(self) -> Unit:
        return self.unit

    def check(self, facts: Facts) -> None:
        super().check(facts)
        if not self.whole_run:
            raise EditRefused(
                "skip.alias holds for all tokens of a run: one place runs one block.",
                "Remove the token scope and the phase of this edit.",
            )
        source = facts.layer(self.source)
        for layer in self.layers_in(facts):
            block = facts.layer(layer)
            differs = (block.attention is None) != (source.attention is None)
            if block.attention is not None and source.attention is not None:
                differs = block.attention.num_heads != source.attention.num_heads
            if (differs and self.unit != "mlp") or not facts.uniform:
                raise EditRefused(
                    f"Layer {self.source} cannot stand in for layer {layer}: their attention is of different kinds.",
                    "Choose a source of the same kind.",
                )

    def _what(self) -> Said:
        return said("run the %1 of layer %2", UNITS[self.unit], self.source)


class Path(Skip):
    """Run the blocks in the order of ``path``: skipping, repeating and reordering at will.

    ``kv`` is that of the repeated blocks (:class:`Repeat`). Blocks that the path leaves out do not run at all. The path
    holds for all tokens of a run, and no other edit of whole blocks may stand beside it.
    """

    kind: Literal["skip.path"] = "skip.path"
    path: tuple[int, ...] = Field(description="the blocks in the order in which they run")
    kv: RepeatKv = Field("per-visit", description="keys and values of the visits of a repeated block")

    @field_validator("path", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return in_order(value, "layer")

    def check(self, facts: Facts) -> None:
        if self.layers != "all" or not self.whole_run:
            raise EditRefused(
                "skip.path holds for all layers and all tokens of a run.",
                "Remove the scope of this edit; leave layers out of the path instead.",
            )
        super().check(facts)
        for layer in self.path:
            needs_attention(self.kind, layer, facts.layer(layer))
        if not facts.uniform:
            raise EditRefused(
                "The layers of this model attend in different ways, so they cannot change places.",
                "Use skip.block and skip.repeat, which keep every block in its place.",
            )

    def leaves_out(self, layer: int, num_layers: int) -> bool:
        return layer not in self.path

    def commutes(self, other: Edit) -> bool:
        return not isinstance(other, Skip) or (other.acts_on != "block" and scopes_disjoint(self, other))

    def _what(self) -> Said:
        return said("run the blocks %1", numbers(self.path))
