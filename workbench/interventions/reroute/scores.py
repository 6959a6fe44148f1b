"""Edits before the choice: of the router's logits, and of the scores that selection ranks by."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from workbench.errors import EditRefused
from workbench.interventions.blob import Blob, Vector
from workbench.interventions.edit import Edit, MoeFacts, scopes_disjoint
from workbench.interventions.reroute.base import ExpertsEdit, Reroute, Stage, finite
from workbench.interventions.reroute.choice import Force
from workbench.interventions.vectors import check_vector
from workbench.said import Said, listed, said


class Bias(Reroute):
    """Add ``delta`` (per expert) to the router logits, or with ``at="scores"`` to what selection ranks by."""

    kind: Literal["reroute.bias"] = "reroute.bias"
    delta: dict[int, float] | Vector = Field(
        title="Delta", description="what each expert gets, by expert or for all"
    )
    at: Literal["logits", "scores"] = Field(
        "logits", title="At", description="router logits, or what selection ranks by"
    )
    site: ClassVar[str] = "router_logits"
    stage: ClassVar[Stage] = Stage.LOGITS

    @field_validator("delta")
    @classmethod
    def _valid(
        cls, value: dict[int, float] | tuple[float, ...] | Blob
    ) -> dict[int, float] | tuple[float, ...] | Blob:
        if isinstance(value, Blob):
            return value
        if not value:
            raise ValueError("name at least one expert")
        finite(value.values() if isinstance(value, dict) else value, "to remove an expert use reroute.ban")
        if isinstance(value, dict) and min(value) < 0:
            raise ValueError("experts count from 0")
        return value

    def commutes(self, other: Edit) -> bool:
        # Adding in another order can differ in the last bit only where both touch the same expert.
        if isinstance(other, Bias) and isinstance(self.delta, dict) and isinstance(other.delta, dict):
            return self.at != other.at or not set(self.delta) & set(other.delta) or super().commutes(other)
        return super().commutes(other)

    def named_experts(self) -> tuple[int, ...]:
        return tuple(sorted(self.delta)) if isinstance(self.delta, dict) else ()

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        if not isinstance(self.delta, dict):
            check_vector(self, self.delta, moe.num_experts, f"experts in layer {layer}")

    def vector(self, num_experts: int) -> tuple[float, ...] | Blob:
        """``delta`` as one number per expert."""
        if not isinstance(self.delta, dict):
            return self.delta
        return tuple(self.delta.get(expert, 0.0) for expert in range(num_experts))

    def _what(self) -> Said:
        if isinstance(self.delta, dict):
            raised = [said("expert %1 by %2", e, f"{by:+g}") for e, by in sorted(self.delta.items())]
            return said("bias %1", listed(raised)) if raised else said("bias no expert")
        return said("bias all experts by a vector")


class Temperature(Reroute):
    """Divide the router logits by ``tau``: above 1 flattens the router's distribution, below 1 sharpens it."""

    kind: Literal["reroute.temperature"] = "reroute.temperature"
    tau: float = Field(gt=0, lt=1e6, title="Temperature", description="what logits are divided by")
    site: ClassVar[str] = "router_logits"
    stage: ClassVar[Stage] = Stage.LOGITS

    def _what(self) -> Said:
        return said("router temperature %1", f"{self.tau:g}")


class Ban(ExpertsEdit):
    """Never choose ``experts``: their selection score becomes minus infinity before group limits.

    The family's own rule then takes the next best; weights come from the unedited scores. With ``at="logits"`` the
    experts are removed from the softmax too, as if the router had no such rows. Where fewer experts are left than a token
    uses the edit is refused, or with ``short="shrink"`` the token uses those that are left.
    """

    kind: Literal["reroute.ban"] = "reroute.ban"
    at: Literal["scores", "logits"] = Field(
        "scores", title="At", description="scores: weights stay; logits: the softmax forgets the experts too"
    )
    short: Literal["refuse", "shrink"] = Field(
        "refuse", title="If too few are left", description="refuse, or use fewer experts"
    )
    site: ClassVar[str] = "expert_scores"
    stage: ClassVar[Stage] = Stage.SCORES

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        enough(self, moe.num_experts - len(self.experts), layer, moe)

    def commutes(self, other: Edit) -> bool:
        if isinstance(other, Ban | Allow | ScoreMix):
            return True  # minus infinity twice is minus infinity, and it holds whatever the mix
        if isinstance(other, Force):
            return not set(self.experts) & set(other.experts) or scopes_disjoint(self, other)
        return super().commutes(other)

    def _what(self) -> Said:
        return said("ban %1", self._named())


class Allow(ExpertsEdit):
    """Choose among ``experts`` only: a ban of all the others."""

    kind: Literal["reroute.allow"] = "reroute.allow"
    at: Literal["scores", "logits"] = Field(
        "scores", title="At", description="scores: weights stay; logits: the softmax forgets the experts too"
    )
    short: Literal["refuse", "shrink"] = Field(
        "refuse", title="If too few are left", description="refuse, or use fewer experts"
    )
    site: ClassVar[str] = "expert_scores"
    stage: ClassVar[Stage] = Stage.SCORES

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        enough(self, len(self.experts), layer, moe)

    def commutes(self, other: Edit) -> bool:
        if isinstance(other, Ban | Allow | ScoreMix):
            return True
        if isinstance(other, Force):
            return set(other.experts) <= set(self.experts) or scopes_disjoint(self, other)
        return super().commutes(other)

    def _what(self) -> Said:
        return said("allow only %1", self._named())


class ScoreMix(Reroute):
    """Mix the router's scores with given ones: (1 - alpha) x native + alpha x ``scores``, for choice and weights alike.

    With ``how="add"`` it is native + alpha x ``scores``. This is the quantity that pathway optimisation at test time
    searches over (C3PO, Li et al. 2025). A sigmoid router's correction bias is added after the mix.
    """

    kind: Literal["reroute.scores"] = "reroute.scores"
    scores: Vector = Field(
        title="Scores", description="one number per expert; or per layer, token and expert"
    )
    alpha: float = Field(1.0, ge=0, le=1, title="Alpha", description="share of the given scores")
    how: Literal["mix", "add"] = Field(
        "mix", title="How", description="mix with the router's scores, or add to them"
    )
    site: ClassVar[str] = "expert_scores"
    stage: ClassVar[Stage] = Stage.SCORES

    @field_validator("scores")
    @classmethod
    def _valid(cls, value: tuple[float, ...] | Blob) -> tuple[float, ...] | Blob:
        if not isinstance(value, Blob):
            finite(value, "to remove an expert use reroute.ban")
        return value

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        check_vector(self, self.scores, moe.num_experts, f"experts in layer {layer}")

    def commutes(self, other: Edit) -> bool:
        # A ban holds whatever the mix, and the weights come from the mix whatever the ban.
        return isinstance(other, Ban | Allow) or super().commutes(other)

    def _what(self) -> Said:
        if self.how == "add":
            return said("add given scores at %1", f"{self.alpha:g}")
        return said("mix scores with given ones at %1", f"{self.alpha:g}")


def enough(edit: Ban | Allow, left: int, layer: int, moe: MoeFacts) -> None:
    """Refuse an edit that leaves fewer experts than a token needs."""
    if left < (moe.top_k if edit.short == "refuse" else 1):
        raise EditRefused(
            f"{edit.kind} leaves {left} of {moe.num_experts} experts in layer {layer}, fewer than the {moe.top_k} each "
            "token needs.",
            "Leave more experts.",
        )
