"""Masks of heads, neurons, experts and tokens."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from workbench.address import Address
from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts
from workbench.interventions.mask.base import UnitMask, not_identity, units
from workbench.said import Said, said


class Heads(UnitMask):
    """Replace the output of attention heads at the tokens that attend, before the output projection.

    Our attention kernel leaves a head out that is replaced at every token of a call; elsewhere it is computed and masked.
    The table ``cost`` says which (``attention_heads``: executed, skipped, masked).
    """

    kind: Literal["mask.heads"] = "mask.heads"
    heads: tuple[int, ...] | None = Field(None, description="numbers of the heads")
    site: ClassVar[str] = "attn_head_out"

    @field_validator("heads", mode="before")
    @classmethod
    def _heads(cls, value: Any) -> Any:
        return units(value, "head")

    @field_validator("replacement")
    @classmethod
    def _replacement(cls, value: str) -> str:
        return not_identity(value, "head")

    @property
    def named(self) -> tuple[int, ...] | None:
        return self.heads

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).attention is not None)

    def units_of(self, block: BlockFacts) -> int:
        assert block.attention is not None  # Facts.require has refused a layer without attention
        return block.attention.num_heads

    def _what(self) -> Said:
        return self._instead(said("mask %1", self._chosen("head")))


class Neurons(UnitMask):
    """Replace neurons of an MLP, or of each expert of a bank, before the down projection.

    Neurons that are masked with zero are left out by the sparse MLP kernel where it covers the layer. ``expert`` masks
    the neurons of one expert alone.
    """

    kind: Literal["mask.neurons"] = "mask.neurons"
    neurons: tuple[int, ...] | None = Field(None, description="numbers of the neurons")
    expert: int | None = Field(None, description="the expert whose neurons they are; else of all")
    site: ClassVar[str] = "mlp_act"

    @field_validator("neurons", mode="before")
    @classmethod
    def _neurons(cls, value: Any) -> Any:
        return units(value, "neuron")

    @field_validator("replacement")
    @classmethod
    def _replacement(cls, value: str) -> str:
        return not_identity(value, "neuron")

    @property
    def named(self) -> tuple[int, ...] | None:
        return self.neurons

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).mlp is not None)

    def units_of(self, block: BlockFacts) -> int:
        assert block.mlp is not None  # Facts.require has refused a layer without an MLP
        return block.mlp.act_width

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        super()._check_block(layer, block)
        if self.expert is not None and (block.moe is None or not 0 <= self.expert < block.moe.num_experts):
            raise EditRefused(
                f"mask.neurons names expert {self.expert}, which layer {layer} does not have.",
                "Name an expert that exists, or leave it out.",
            )
        if block.moe is not None and self.replacement != "zero":
            raise EditRefused(
                f"Neurons of experts can only be masked with zero, not with {self.replacement} (layer {layer}).",
                'Use replacement="zero", or mask whole experts.',
            )

    def _what(self) -> Said:
        chosen = self._chosen("neuron")
        if self.expert is None:
            return self._instead(said("mask %1", chosen))
        return self._instead(said("mask %1 of expert %2", chosen, self.expert))


class Experts(UnitMask):
    """Silence experts where they are chosen: the choice and the weights of the others stay as they are.

    Unlike a ban no other expert takes the place. ``identity`` gives the expert's input in place of its output. Our kernels
    leave the choice out; the model's own compute it and give it no weight. The table ``cost`` says which (``moe_experts``:
    executed, skipped, masked).
    """

    kind: Literal["mask.experts"] = "mask.experts"
    experts: tuple[int, ...] | None = Field(None, description="numbers of the experts")
    site: ClassVar[str] = "expert_out"

    @field_validator("experts", mode="before")
    @classmethod
    def _experts(cls, value: Any) -> Any:
        return units(value, "expert")

    @property
    def named(self) -> tuple[int, ...] | None:
        return self.experts

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return facts.moe_layers

    def units_of(self, block: BlockFacts) -> int:
        assert block.moe is not None  # Facts.require has refused a layer without experts
        return block.moe.num_experts

    def _what(self) -> Said:
        return self._instead(said("mask %1", self._chosen("expert")))


class TokenMask(Edit):
    """Hide tokens: in the layers of the scope no other token attends to them; each still attends to itself.

    Their keys are computed and masked; the table ``cost`` counts them (``attention_tokens``).
    """

    kind: Literal["mask.tokens"] = "mask.tokens"
    site: ClassVar[str] = "attn_mask"

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).attention is not None)

    def check(self, facts: Facts) -> None:
        super().check(facts)
        if self.everywhere:
            raise EditRefused(
                "mask.tokens hides all tokens from each other, so that no text is read.",
                "Scope it to the tokens to hide.",
            )
        for layer in self.layers_in(facts):
            facts.require(Address("attn_mask", layer), write=True)

    def commutes(self, other: Edit) -> bool:
        return isinstance(other, TokenMask) or super().commutes(other)

    def _what(self) -> Said:
        return said("hide from all others")
