"""Masking: silencing units while the rest of the model runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal, Unpack

from pydantic import field_validator

from workbench.errors import EditRefused
from workbench.interventions.direction import Direction, direction
from workbench.interventions.edit import BlockFacts, Edit, Facts, Layers, Scope, build, sorted_units

__all__ = ["KINDS", "Direction", "Heads", "direction", "heads"]


class Heads(Edit):
    """Replace the output of attention heads with zero, at the tokens that attend, before the output projection."""

    kind: Literal["mask.heads"] = "mask.heads"
    heads: tuple[int, ...]
    replacement: Literal["zero"] = "zero"
    site: ClassVar[str] = "attn_head_out"

    @field_validator("heads", mode="before")
    @classmethod
    def _heads(cls, value: Any) -> Any:
        return sorted_units(value, "head")

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).attention is not None)

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        assert block.attention is not None  # Facts.require has refused a layer without attention
        for head in self.heads:
            if head >= block.attention.num_heads:
                raise EditRefused(
                    f"mask.heads names head {head}, but layer {layer} has heads 0 to {block.attention.num_heads - 1}.",
                    "Name a head that exists.",
                )

    def commutes(self, other: Edit) -> bool:
        return isinstance(other, Heads) or super().commutes(other)

    def _what(self) -> str:
        return f"mask head{'s' if len(self.heads) > 1 else ''} {', '.join(map(str, self.heads))}"


KINDS: tuple[type[Edit], ...] = (Heads, Direction)


def heads(layers: int | Iterable[int] | Layers, heads: int | Iterable[int], **scope: Unpack[Scope]) -> Heads:
    """Mask attention heads; see :class:`Heads`."""
    return build(Heads, layers=layers, heads=heads, **scope)
