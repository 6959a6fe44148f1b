"""Edits of the combine weights: how much each chosen expert counts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from workbench.errors import EditRefused
from workbench.interventions.blob import Vector
from workbench.interventions.edit import MoeFacts
from workbench.interventions.reroute.base import Reroute, Stage, finite
from workbench.interventions.vectors import check_vector
from workbench.said import Said, listed, said

Normalise = Literal["as-is", "keep-sum", "one"]


class Uniform(Reroute):
    """Give all chosen experts of a token the same weight, keeping the sum."""

    kind: Literal["reroute.uniform"] = "reroute.uniform"
    site: ClassVar[str] = "expert_weights"
    stage: ClassVar[Stage] = Stage.WEIGHTS

    def _what(self) -> Said:
        return said("uniform weights")


class Weights(Reroute):
    """Re-mix the chosen experts: multiply their weights by ``scale``, add to them, or replace them by ``values``.

    ``scale`` is one factor for all, or a factor by expert (others keep theirs). ``add`` has one number per expert, added
    where the expert is chosen. ``values`` has one number per choice, largest weight first. ``normalise`` then leaves the
    weights (``as-is``), rescales them to the sum they had (``keep-sum``) or to one (``one``).
    """

    kind: Literal["reroute.weights"] = "reroute.weights"
    scale: float | dict[int, float] | None = Field(
        None, title="Scale", description="one factor for all weights, or one by expert"
    )
    values: tuple[float, ...] | None = Field(
        None, min_length=1, title="Values", description="explicit weights, largest first"
    )
    add: Vector | None = Field(
        None, title="Add", description="one number per expert, added where it is chosen"
    )
    normalise: Normalise = Field(
        "as-is", title="Normalise", description="leave the sum, keep the old one, or make it one"
    )
    site: ClassVar[str] = "expert_weights"
    stage: ClassVar[Stage] = Stage.WEIGHTS

    @model_validator(mode="after")
    def _one_of(self) -> Weights:
        if sum(value is not None for value in (self.scale, self.values, self.add)) != 1:
            raise ValueError("give one of scale, add and values")
        return self

    @field_validator("scale", "values")
    @classmethod
    def _valid(cls, value: object) -> object:
        if isinstance(value, dict):
            finite(value.values(), "use a finite factor")
            if value and min(value) < 0:
                raise ValueError("experts count from 0")
        elif isinstance(value, tuple):
            finite(value, "use finite weights")
        elif isinstance(value, float):
            finite([value], "use a finite factor")
        return value

    def named_experts(self) -> tuple[int, ...]:
        return tuple(sorted(self.scale)) if isinstance(self.scale, dict) else ()

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        if self.values is not None and len(self.values) != moe.top_k:
            raise EditRefused(
                f"{self.kind} gives {len(self.values)} weights, but a token of layer {layer} uses {moe.top_k} experts.",
                "Give one weight per choice.",
            )
        if self.add is not None:
            check_vector(self, self.add, moe.num_experts, f"experts in layer {layer}")

    def _what(self) -> Said:
        if self.add is not None:
            return said("add to the weights by expert")
        if self.values is not None:
            return said("weights %1", ", ".join(f"{value:g}" for value in self.values))
        if isinstance(self.scale, dict):
            scaled = [said("expert %1 by %2", e, f"{by:g}") for e, by in sorted(self.scale.items())]
            return said("scale the weight of %1", listed(scaled)) if scaled else said("scale no weight")
        return said("scale all weights by %1", f"{self.scale:g}")
