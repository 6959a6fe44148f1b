"""Edits of what the chosen experts are: several merged into one, or replaced by something that costs nothing."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from workbench.interventions.blob import Vector
from workbench.interventions.edit import Facts
from workbench.interventions.reroute.base import ExpertsEdit, Reroute, Stage
from workbench.interventions.vectors import check_vector
from workbench.said import Said, listed, said


class Merge(Reroute):
    """Let one expert stand for others: where the token would use expert e it uses ``map[e]``, and the weights of choices
    that fall together are added. Experts that are not named stand for themselves.
    """

    kind: Literal["reroute.merge"] = "reroute.merge"
    map: dict[int, int] = Field(min_length=1, title="Map", description="expert: the one that stands for it")
    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.MERGE

    @field_validator("map")
    @classmethod
    def _valid(cls, value: dict[int, int]) -> dict[int, int]:
        if min(min(value), min(value.values())) < 0:
            raise ValueError("experts count from 0")
        for expert, into in value.items():
            if value.get(into, into) != into:
                raise ValueError(f"expert {expert} is merged into {into}, which is itself merged away")
        return dict(sorted(value.items()))

    def named_experts(self) -> tuple[int, ...]:
        return tuple(sorted({*self.map, *self.map.values()}))

    def _what(self) -> Said:
        merged = [said("expert %1 into %2", e, into) for e, into in self.map.items() if e != into]
        return said("merge %1", listed(merged)) if merged else said("merge no experts")


class Pseudo(ExpertsEdit):
    """Replace experts by something that costs nothing (MoE++, Jin et al. 2024): where a token chooses one of ``experts``
    it runs no expert, and its weight counts for nothing (``zero``), for the token's own input (``copy``), or for
    ``vector`` (``constant``), which has the width of the model. The other weights stay.
    """

    kind: Literal["reroute.pseudo"] = "reroute.pseudo"
    output: Literal["zero", "copy", "constant"] = Field(
        "zero", title="Output", description="what stands for the expert"
    )
    vector: Vector | None = Field(None, title="Vector", description="the constant output")
    site: ClassVar[str] = "expert_out"
    stage: ClassVar[Stage] = Stage.PSEUDO

    @model_validator(mode="after")
    def _vector_of_a_constant(self) -> Pseudo:
        if (self.output == "constant") != (self.vector is not None):
            raise ValueError("give a vector with output='constant', and only there")
        return self

    def check(self, facts: Facts) -> None:
        super().check(facts)
        if self.vector is not None:
            check_vector(self, self.vector, facts.hidden_size, "channels of the residual stream")

    def _what(self) -> Said:
        return said("%1 output for %2", self.output, self._named())
