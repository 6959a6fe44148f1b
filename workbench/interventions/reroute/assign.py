"""Policies that assign tokens and experts to each other: capacity, the experts' own choice, balanced loads.

They decide over a pool of tokens: those of a ``sequence``, of one ``step`` of it (the prompt, then every generated token
alone), or of the whole ``batch``. Padding and tokens outside the edit's scope are in no pool.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import MoeFacts
from workbench.interventions.reroute.base import Reroute, Stage
from workbench.interventions.reroute.choice import Policy
from workbench.said import Said, listed, said

Pool = Literal["sequence", "batch", "step"]
Order = Literal["position", "score", "random"]


class Pooled(Reroute):
    """Base of the edits that decide over a pool of tokens."""

    factor: float = Field(
        1.0,
        gt=0,
        le=1e6,
        title="Factor",
        description="places of an expert, as a multiple of tokens x k / experts",
    )
    pool: Pool = Field("sequence", title="Pool", description="the tokens that share the places")
    couples_rows: bool = Field(
        False,
        title="Rows compete",
        description="let the sequences of a batch compete for the places (pool = batch)",
    )

    def by_step(self) -> bool:
        return self.pool == "step"

    def couples(self) -> bool:
        return self.pool == "batch"

    @model_validator(mode="after")
    def _batch_is_asked_for(self) -> Pooled:
        if self.couples_rows and self.pool != "batch":
            raise ValueError("rows compete only in the pool 'batch'")
        return self


class Capacity(Pooled):
    """Give each expert a limited number of places; a token that finds its expert full loses that choice.

    An expert has ceil(factor x k x tokens / experts) places (GShard, Lepikhin et al. 2021; Switch, Fedus et al. 2022).
    Tokens are served by ``order``: by position, by their best score (batch prioritised routing, Riquelme et al. 2021), or
    at random. With ``overflow="drop"`` the choice is dropped, and the token's other weights stay as they were; with
    ``"next"`` the family's own rule chooses again among the experts with places left, with its own weights.

    With ``causal`` (the default) the number of places grows with the tokens so far, so that no token's routing depends on
    later ones; only ``order="position"`` can be causal. ``causal=False`` counts the whole pool, as training does.
    """

    kind: Literal["reroute.capacity"] = "reroute.capacity"
    order: Order = Field("position", title="Order", description="in which order the tokens are served")
    overflow: Literal["drop", "next"] = Field(
        "drop", title="Overflow", description="drop the choice, or take the next best expert with a place"
    )
    causal: bool = Field(True, title="Causal", description="count only the tokens so far, not the whole pool")
    seed: int = Field(0, ge=0, lt=2**31, title="Seed", description="of the random order")
    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.CAPACITY

    @model_validator(mode="after")
    def _only_position_is_causal(self) -> Capacity:
        if self.causal and self.order != "position":
            raise ValueError(f"order {self.order!r} looks at later tokens; say causal=False")
        return self

    def _what(self) -> Said:
        order = {
            "position": said("in order"),
            "score": said("best score first"),
            "random": said("at random (seed %1)", self.seed),
        }
        return listed(
            [
                said("at most %1 x the mean load per %2", f"{self.factor:g}", self.pool),
                order[self.order],
                said("drop the rest") if self.overflow == "drop" else said("else the next best"),
            ]
        )


class ExpertChoice(Pooled, Policy):
    """Let each expert choose its tokens: those of the pool that score it highest (Zhou et al. 2022).

    An expert takes ceil(factor x k x tokens / experts) tokens, so that loads are equal and a token may get no expert or
    many. Weights are the family's own for the set that a token gets. Group limits do not hold, because no token
    chooses. It looks at the whole pool, later tokens included.
    """

    kind: Literal["reroute.expert_choice"] = "reroute.expert_choice"
    causal: Literal[False] = Field(False, description="it looks at the whole pool, later tokens included")

    def _what(self) -> Said:
        return said("experts choose tokens, %1 x the mean load each, per %2", f"{self.factor:g}", self.pool)


class Balanced(Pooled, Policy):
    """Assign k experts to each token so that no expert has more than ceil(factor x k x tokens / experts) tokens.

    ``method="exact"`` maximises the sum of selection scores under those loads, as a linear programme whose corners are whole
    assignments (BASE layers, Lewis et al. 2021); it takes seconds for thousands of tokens. ``"sinkhorn"`` scales
    exp(logits / tau) to equal row and column sums in log space and takes each token's k best of the result (Clark et al.
    2022): faster, and balanced only nearly. Tokens keep to the groups that the family's rule selects for them, so that a
    small factor may have no solution and is refused. It looks at the whole pool, later tokens included.
    """

    kind: Literal["reroute.balanced"] = "reroute.balanced"
    method: Literal["exact", "sinkhorn"] = Field(
        "exact", title="Method", description="exact loads, or nearly balanced"
    )
    tau: float = Field(1.0, gt=0, lt=1e6, title="Temperature", description="of the Sinkhorn scaling")
    iterations: int = Field(50, ge=1, le=10_000, title="Iterations", description="of the Sinkhorn scaling")
    causal: Literal[False] = Field(False, description="it looks at the whole pool, later tokens included")

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        if self.method == "exact" and self.factor < 1:
            raise EditRefused(
                f"{self.kind} with factor {self.factor:g} has fewer places than choices.",
                "Use a factor of at least 1.",
            )

    def _what(self) -> Said:
        return said(
            "balanced loads (%1, at most %2 x the mean) per %3", self.method, f"{self.factor:g}", self.pool
        )


POOLED: tuple[type[Any], ...] = (Capacity, ExpertChoice, Balanced)
