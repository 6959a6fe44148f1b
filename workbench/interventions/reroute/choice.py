"""Edits of the choice itself: how many experts, which ones, and the routes of another run."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import Edit, MoeFacts
from workbench.interventions.patch import recorded
from workbench.interventions.reroute.base import ExpertsEdit, Reroute, Stage
from workbench.said import Said, said


class Policy(Reroute):
    """Base of the edits that decide how many and which experts a token gets; one at most may hold for a token."""

    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.POLICY


class TopK(Policy):
    """Use the ``k`` best experts by the family's own rule, with the family's own weights for that set."""

    kind: Literal["reroute.top_k"] = "reroute.top_k"
    k: int = Field(ge=1, title="k", description="experts a token uses")

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        if self.k > moe.choosable:
            raise EditRefused(
                f"{self.kind} asks for {self.k} experts, but layer {layer} has {_choosable(moe)}.",
                f"Ask for at most {moe.choosable}.",
            )

    def _what(self) -> Said:
        return said("use the %1 best experts", self.k)


class TopP(Policy):
    """Use the best experts until their share of the router's distribution reaches ``p`` (Huang et al. 2024).

    The distribution is the family's own scores divided by their sum; at least one expert is used, at most ``max_k``, and
    none outside the groups that the family's rule selects.
    """

    kind: Literal["reroute.top_p"] = "reroute.top_p"
    p: float = Field(gt=0, le=1, title="p", description="share of the distribution to reach")
    max_k: int | None = Field(None, ge=1, title="At most", description="experts a token may use")

    def _what(self) -> Said:
        return said("use experts up to a share of %1", f"{self.p:g}")


class Threshold(Policy):
    """Use the experts whose share of the router's distribution is at least ``tau``; at least one, at most ``max_k``, and
    none outside the groups that the family's rule selects."""

    kind: Literal["reroute.threshold"] = "reroute.threshold"
    tau: float = Field(ge=0, le=1, title="tau", description="least share of the distribution")
    max_k: int | None = Field(None, ge=1, title="At most", description="experts a token may use")

    def _what(self) -> Said:
        return said("use experts with a share of at least %1", f"{self.tau:g}")


class RankOffset(Policy):
    """Leave the ``shift`` best experts out and use the next ones by the family's own rule, group limits included: a contrast
    that keeps everything but the best match."""

    kind: Literal["reroute.rank_offset"] = "reroute.rank_offset"
    shift: int = Field(ge=0, title="Shift", description="how many of the best are left out")

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        if self.shift + moe.top_k > moe.choosable:
            raise EditRefused(
                f"{self.kind} leaves out {self.shift} of the experts of layer {layer}, which has {_choosable(moe)}: fewer "
                f"than the {moe.top_k} each token needs remain.",
                f"Shift by at most {moe.choosable - moe.top_k}.",
            )

    def _what(self) -> Said:
        return said("leave out the %1 best experts", self.shift)


def _choosable(moe: MoeFacts) -> str:
    """How many experts there are to choose from, in words."""
    if moe.choosable == moe.num_experts:
        return str(moe.num_experts)
    return f"{moe.num_experts}, {moe.choosable} of them in the groups that a token may choose from"


class Random(Policy):
    """Use experts drawn at random, as many as the model uses, with the family's own weights for them.

    The draw depends on ``seed``, layer and absolute position alone, so that cached and uncached passes agree. Banned
    experts are not drawn; group limits do not hold, because nothing is ranked.
    """

    kind: Literal["reroute.random"] = "reroute.random"
    seed: int = Field(0, ge=0, lt=2**31, title="Seed", description="of the draw")

    def _what(self) -> Said:
        return said("random experts (seed %1)", self.seed)


class Force(ExpertsEdit):
    """Always choose ``experts``, in place of the lowest-scored of the other choices.

    Their weight is the family's own for the resulting set, or ``weight`` where given (the others keep theirs).
    """

    kind: Literal["reroute.force"] = "reroute.force"
    weight: float | None = Field(
        None, allow_inf_nan=False, title="Weight", description="an explicit weight; else the family's own"
    )
    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.FORCE

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        if len(self.experts) > moe.top_k:
            raise EditRefused(
                f"{self.kind} names {len(self.experts)} experts, but a token of layer {layer} uses {moe.top_k}.",
                f"Force at most {moe.top_k}.",
            )

    def commutes(self, other: Edit) -> bool:
        if isinstance(other, Reroute) and other.stage == Stage.SCORES:
            return other.commutes(self)  # a ban or an allow-list may collide with a force
        return super().commutes(other)

    def _what(self) -> Said:
        if self.weight is None:
            return said("force %1", self._named())
        return said("force %1 at weight %2", self._named(), f"{self.weight:g}")


class Permute(Reroute):
    """Exchange experts after the choice: where the token would use expert ``e`` it uses ``map[e]``, at the same weight.

    ``map`` is a permutation of all experts, so that no expert is used twice.
    """

    kind: Literal["reroute.permute"] = "reroute.permute"
    map: tuple[int, ...] = Field(title="Map", description="for each expert the one that takes its place")
    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.PERMUTE

    @field_validator("map")
    @classmethod
    def _valid(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if sorted(value) != list(range(len(value))):
            raise ValueError("it is not a permutation of the experts 0 to n - 1")
        return value

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        if len(self.map) != moe.num_experts:
            raise EditRefused(
                f"{self.kind} maps {len(self.map)} experts, but layer {layer} has {moe.num_experts}.",
                "Give one number per expert.",
            )

    def _what(self) -> Said:
        return said("permute experts (%1 exchanged)", sum(n != e for n, e in enumerate(self.map)))


class Replay(Reroute):
    """Use the experts and weights that another run used at the same position and layer.

    ``run`` is the id of a run in the same store. ``token_map`` says from which position of that run a token takes its route
    and ``layer_map`` from which layer; what they do not name stays the same. Positions that the other run did not record
    keep their own routes; a run that has no route at all for a layer in scope is refused.
    """

    kind: Literal["reroute.replay"] = "reroute.replay"
    run: int = Field(ge=0, title="Run", description="whose routes are used")
    token_map: dict[int, int] = Field(
        {}, title="Token map", description="position here: position in the other run"
    )
    layer_map: dict[int, int] = Field({}, title="Layer map", description="layer here: layer of the other run")
    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.REPLAY

    @field_validator("run", mode="before")
    @classmethod
    def _run(cls, value: Any) -> Any:
        return recorded(value)

    def _what(self) -> Said:
        return said("replay the routes of run %1", str(self.run))
