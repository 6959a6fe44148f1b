"""What all re-routing edits share: the layers that have a router, and the stage of routing at which each acts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, ClassVar

from pydantic import Field, field_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts, MoeFacts, scopes_disjoint, sorted_units
from workbench.said import Said, numbers, said


class Stage(IntEnum):
    """Where in routing an edit acts. Stages follow each other in this order, whatever the order of the plan; within one
    stage the plan's order holds. A policy decides how many and which experts a token gets; at most one may hold."""

    LOGITS = 0
    ACROSS = 1
    SCORES = 2
    POLICY = 3
    CAPACITY = 4
    FORCE = 5
    PERMUTE = 6
    MERGE = 7
    WEIGHTS = 8
    PSEUDO = 9
    REPLAY = 10


class Reroute(Edit):
    """Base of the re-routing edits."""

    stage: ClassVar[Stage]

    def acts_after_router(self) -> bool:
        return True

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return facts.moe_layers

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        assert block.moe is not None  # Facts.require has refused a layer without a router
        if not block.moe.proved:
            raise EditRefused(
                f"Layer {layer} cannot be re-routed: {block.moe.reason}.", "Read its routing, or skip it."
            )
        self._check_moe(layer, block.moe)

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        for expert in self.named_experts():
            if expert >= moe.num_experts:
                raise EditRefused(
                    f"{self.kind} names expert {expert}, but layer {layer} has experts 0 to {moe.num_experts - 1}.",
                    "Name an expert that exists.",
                )

    def named_experts(self) -> tuple[int, ...]:
        """Every expert id the edit mentions."""
        return ()

    def commutes(self, other: Edit) -> bool:
        if isinstance(other, Reroute):
            return self.stage != other.stage or scopes_disjoint(self, other)
        return other.site not in ("router_logits", "expert_scores") or scopes_disjoint(self, other)


class ExpertsEdit(Reroute):
    """Base of the edits that name a set of experts."""

    experts: tuple[int, ...] = Field(title="Experts", description="numbers of the experts")

    @field_validator("experts", mode="before")
    @classmethod
    def _sorted(cls, value: Any) -> Any:
        return sorted_units(value, "expert")

    def named_experts(self) -> tuple[int, ...]:
        return self.experts

    def _named(self) -> Said:
        named = numbers(self.experts)
        return said("experts %1", named) if len(self.experts) > 1 else said("expert %1", named)


def finite(values: Iterable[float], instead: str) -> None:
    """Raise ValueError for a number that is not finite, or too large to add without losing the rest."""
    for value in values:
        if not -1e30 < value < 1e30:
            raise ValueError(f"{value} is not a finite number; {instead}")
