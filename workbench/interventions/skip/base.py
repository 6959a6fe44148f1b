"""What all skips share: the unit they act on, and what becomes of the keys and values of what is left out."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from workbench.address import Address
from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts, scopes_disjoint
from workbench.said import Said, said

Unit: TypeAlias = Literal["block", "attention", "mlp"]
UNITS: dict[str, Said] = {"block": said("block"), "attention": said("attention"), "mlp": said("MLP")}
"""What a unit is called."""

SkipKv: TypeAlias = Literal["absent", "compute", "copy-last"]
RepeatKv: TypeAlias = Literal["per-visit", "share-first", "overwrite"]

SITE_OF: dict[str, str] = {"block": "block", "attention": "attn", "mlp": "mlp"}


class Skip(Edit):
    """Base of the edits of depth.

    ``kv`` says what later tokens find in a skipped attention: nothing (``absent``: the key gets no attention at all), the
    keys and values that would have stood there (``compute``: only the norm before and the two projections run), or those
    of the same token in the layer before (``copy-last``).
    """

    site: ClassVar[str] = "block"

    @property
    def acts_on(self) -> Unit:
        """What is skipped or repeated."""
        return "block"

    @property
    def whole_run(self) -> bool:
        """Whether the edit holds for every token of a run, so that a skipped unit never runs at all."""
        return self.where is None and self.tokens == self.phase == self.steps == "all"

    @property
    def decides(self) -> bool:
        """Whether which tokens run depends on the run itself, so that what runs is worth a row as well."""
        return False

    def check(self, facts: Facts) -> None:
        super().check(facts)
        for layer in self.layers_in(facts):
            facts.require(Address(SITE_OF[self.acts_on], layer), write=True)
            self._check_handed_on(layer, facts.layer(layer))

    def _check_handed_on(self, layer: int, block: BlockFacts) -> None:
        """Refuse what would leave the next block without something that it takes over from this one."""
        if block.hands_on and self.acts_on != "mlp":
            raise EditRefused(
                f"The block after layer {layer} attends to the positions that layer {layer} chose, so that {self.kind} "
                "would leave it without any.",
                "Choose layers whose successor has an indexer of its own, or skip.mlp.",
            )
        removed = (
            self.whole_run and getattr(self, "kv", "absent") == "absent" and self.leaves_out(layer, layer + 1)
        )
        if block.streams > 1 and not removed:
            raise EditRefused(
                f"Layer {layer} hands on {block.streams} residual streams side by side, from which no token can be taken.",
                "Skip whole blocks for all tokens with skip.block.",
            )

    def commutes(self, other: Edit) -> bool:
        return not isinstance(other, Skip) or scopes_disjoint(self, other)

    def leaves_out(self, layer: int, num_layers: int) -> bool:
        """Whether the unit of ``layer`` never runs for a token of the scope, known without the run."""
        return False

    def _check_kv(self, facts: Facts, kv: str) -> None:
        """Refuse a policy of keys and values that a layer in scope cannot have."""
        for layer in self.layers_in(facts):
            if kv != "absent" and facts.layer(layer).attention is None:
                raise EditRefused(
                    f"{self.kind} with kv={kv!r} needs keys and values, but layer {layer} has no softmax attention.",
                    'Leave that layer out of the scope, or use kv="absent".',
                )
            if kv != "copy-last":
                continue
            before = facts.layer(layer - 1).attention if layer else None
            if before is None:
                raise EditRefused(
                    f"{self.kind} with kv='copy-last' copies from the layer before, but layer {layer} has none with "
                    "attention before it.",
                    "Start the scope at a later layer.",
                )


def needs_attention(kind: str, layer: int, block: BlockFacts) -> None:
    """Refuse token-wise depth where a block keeps a state that every token must pass through."""
    if block.attention is None:
        raise EditRefused(
            f"{kind} leaves out single tokens, but layer {layer} has no softmax attention: its state needs every token.",
            "Leave that layer out, or skip its block for all tokens.",
        )
