"""Depth that is decided token by token: by a score against a threshold or a capacity, or by a policy over layers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Facts, sorted_units
from workbench.interventions.skip.base import UNITS, Skip, SkipKv, Unit, needs_attention
from workbench.said import Said, said

Score: TypeAlias = Literal["router", "norm", "attention", "position", "random"]
PolicyName: TypeAlias = Literal["uniform", "decay", "middle", "early_exit", "random", "learned"]


class Dynamic(Skip):
    """Base of token-wise depth."""

    unit: Unit = Field("block", description="what is skipped: block, attention or MLP")
    kv: SkipKv = Field("absent", description="what later tokens find in a layer that did not run")
    protect: tuple[int, ...] = Field((), description="positions that always run")

    @field_validator("protect", mode="before")
    @classmethod
    def _protect(cls, value: Any) -> Any:
        return () if isinstance(value, tuple | list) and not value else sorted_units(value, "token")

    @property
    def acts_on(self) -> Unit:
        return self.unit

    @property
    def decides(self) -> bool:
        return True

    def check(self, facts: Facts) -> None:
        super().check(facts)
        if self.unit != "mlp":
            self._check_kv(facts, self.kv)

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        if self.unit != "mlp":
            needs_attention(self.kind, layer, block)


class Tokens(Dynamic):
    """Send only some tokens through a block, attention or MLP (Mixture-of-Depths: Raposo et al. 2024, arXiv 2404.02258).

    Skipped tokens are taken out before the unit runs and put back behind it, so they cost nothing.

    Attributes
    ----------
    threshold
        A token runs if its score is above it; or
    capacity
        a token runs if its score is among the highest ``ceil(capacity * n)`` of the ``n`` tokens of the scope up to and
        including itself, so that later tokens change nothing. With ``causal=False``, among those of the whole pass, as
        in training; in generation such an edit must be scoped to the prefill.
    score
        ``router``: a trained linear router on the normalised residual (``router`` names its file by content hash), as a
        probability; ``norm``: the Euclidean norm of the residual entering the block; ``attention``: the mean attention
        that the token received in the layer before from the queries of the pass, which looks ahead (``causal=False``);
        ``position``: evenly spread positions, so that exactly a share of ``capacity`` runs; ``random``: uniform in 0..1
        by ``seed``, layer and position, the matched control.
    positions
        ``keep``: kept tokens keep their position ids; ``reindex``: they count from 0 among the kept of the layer, as the
        released code of gamma-MoD does (needs ``kv="absent"``).
    gate
        With ``score="router"``, what the probability multiplies: nothing, what the MLP adds, or what both sublayers add.
    protect
        Positions that always run.
    """

    kind: Literal["skip.tokens"] = "skip.tokens"
    threshold: float | None = None
    capacity: float | None = Field(None, gt=0, le=1)
    score: Score = "norm"
    causal: bool = Field(True, description="whether capacity looks at no later token")
    seed: int = Field(0, description="of what is drawn at random")
    positions: Literal["keep", "reindex"] = "keep"
    gate: Literal["none", "mlp", "both"] = "none"
    router: str | None = Field(None, description="content hash of a router file")
    files: ClassVar[tuple[str, ...]] = ("router",)

    @model_validator(mode="after")
    def _one_rule(self) -> Tokens:
        if (self.threshold is None) == (self.capacity is None):
            raise ValueError("give either a threshold or a capacity")
        if self.score == "position" and self.capacity is None:
            raise ValueError('score="position" needs a capacity')
        if (self.router is not None) != (self.score == "router"):
            raise ValueError('a router file goes with score="router" and with no other score')
        if self.gate != "none" and self.score != "router":
            raise ValueError('a gate needs the probability of score="router"')
        return self

    def check(self, facts: Facts) -> None:
        if self.score == "attention" and self.causal:
            raise EditRefused(
                "The attention that a token receives comes from later tokens, so this score looks ahead.",
                'Give causal=False, or choose another score ("norm", "random").',
            )
        if self.positions == "reindex" and (self.kv != "absent" or self.unit != "block"):
            raise EditRefused(
                "Positions can be counted anew only among the tokens that a block keeps alone.",
                'Use unit="block" and kv="absent" with positions="reindex".',
            )
        if self.gate == "mlp" and self.unit != "block":
            raise EditRefused(
                f"gate='mlp' scales the MLP of a block, but this edit skips the {self.unit}.",
                'Use gate="both", which scales what the unit adds.',
            )
        super().check(facts)
        for layer in self.layers_in(facts):
            if self.score == "attention" and (layer == 0 or facts.layer(layer - 1).attention is None):
                raise EditRefused(
                    f"Layer {layer} has no attention before it from which a score could come.",
                    "Start the scope at a later layer.",
                )

    def _what(self) -> Said:
        if self.capacity is None:
            rule = said("above %1", f"{self.threshold:g}")
        else:
            rule = said("in the top %1", f"{self.capacity:.0%}")
        return said("send only tokens %1 by %2 through the %3", rule, self.score, UNITS[self.unit])


class Policy(Dynamic):
    """A schedule of which layers run for which token. Exactly the parameter of the chosen policy is given.

    Attributes
    ----------
    policy
        * ``uniform``: ``round(L / speed_up)`` of the L layers, spread evenly, first and last among them (Unified Layer
          Skipping, Liu et al. 2024).
        * ``middle``: all but the layers within ``radius`` of the middle, ``|l - (L - 1) / 2| < radius``.
        * ``decay``: the i-th generated token runs ``max(min_layers, floor(L * alpha ** i))`` layers; what is left out
          starts at layer ``first`` (D^3: Fan et al. 2025), or with ``scattered`` is drawn for every token from the layers
          from ``first`` on, by ``seed``, the matched control. Prompt tokens run all.
        * ``early_exit``: once the cosine between the residual entering layer l and the one entering the layer before is
          above ``similarity``, the token leaves; layers up to ``first`` always run.
        * ``random``: each token and layer runs with probability ``share``, by ``seed``, the matched control.
        * ``learned``: a trained router (``router`` names its file by content hash) decides for every token of a layer
          whether to skip, run or repeat it.
    """

    kind: Literal["skip.policy"] = "skip.policy"
    policy: PolicyName
    speed_up: float | None = Field(None, ge=1, description="for uniform: how many times fewer layers")
    radius: float | None = Field(
        None, ge=0, description="for middle: layers this near to the middle are skipped"
    )
    alpha: float | None = Field(
        None, gt=0, le=1, description="for decay: share of layers kept from token to token"
    )
    similarity: float | None = Field(
        None, ge=-1, le=1, description="for early exit: cosine above which a token leaves"
    )
    share: float | None = Field(None, ge=0, le=1, description="for random: probability that a layer runs")
    router: str | None = Field(None, description="content hash of a router file")
    files: ClassVar[tuple[str, ...]] = ("router",)
    min_layers: int = Field(1, ge=1, description="for decay: layers that always run")
    scattered: bool = Field(False, description="for decay: draw the skipped layers at random")
    first: int = Field(1, ge=0, description="for decay and early exit: the first layer that may be skipped")
    seed: int = Field(0, description="of what is drawn at random")
    kv: SkipKv = Field("compute", description="what later tokens find in a layer that did not run")

    @model_validator(mode="after")
    def _own_parameter(self) -> Policy:
        for name, parameter in PARAMETER.items():
            given = getattr(self, parameter) is not None
            if given != (name == self.policy):
                raise ValueError(
                    f"the policy {self.policy} needs {PARAMETER[self.policy]}"
                    if not given
                    else f"{parameter} belongs to the policy {name}, not to {self.policy}"
                )
        if self.scattered and self.policy != "decay":
            raise ValueError("scattered belongs to the policy decay")
        if self.policy == "early_exit" and self.unit != "block":
            raise ValueError('a token that leaves early leaves whole blocks: use unit="block"')
        return self

    @property
    def decides(self) -> bool:
        return self.policy not in ("uniform", "middle")

    def check(self, facts: Facts) -> None:
        static = not self.decides and self.whole_run and self.unit == "block"
        if not static or self.layers != "all":
            super().check(facts)
        else:
            for layer in range(facts.num_layers):
                if self.leaves_out(layer, facts.num_layers):
                    self._check_handed_on(layer, facts.layer(layer))
        if not self.decides and all(self.leaves_out(n, facts.num_layers) for n in range(facts.num_layers)):
            raise EditRefused("This policy would leave no layer of the model.", "Keep at least one layer.")

    def _check_kv(self, facts: Facts, kv: str) -> None:
        """A copy in layer 0 is refused only where layer 0 can be left out."""
        if (
            kv == "copy-last"
            and self.policy in ("decay", "early_exit")
            and self.first >= 1
            and self.layers == "all"
        ):
            return
        super()._check_kv(facts, kv)

    def leaves_out(self, layer: int, num_layers: int) -> bool:
        if self.layers != "all" and layer not in self.layers:
            return False
        if self.policy == "uniform":
            return layer not in evenly(num_layers, self.speed_up or 1.0)
        if self.policy == "middle":
            return abs(layer - (num_layers - 1) / 2) < (self.radius or 0.0)
        return False

    def _what(self) -> Said:
        parameter = PARAMETER[self.policy]
        return said(
            "%1 skipping of the %2 (%3 %4)",
            self.policy,
            UNITS[self.unit],
            parameter,
            getattr(self, parameter),
        )


PARAMETER: dict[str, str] = {
    "uniform": "speed_up", "middle": "radius", "decay": "alpha", "early_exit": "similarity", "random": "share",
    "learned": "router",
}  # fmt: skip
"""The parameter that each policy needs."""


def evenly(num_layers: int, speed_up: float) -> frozenset[int]:
    """The layers that a uniform policy keeps: ``round(L / speed_up)`` of them, evenly spread, both ends included."""
    count = max(1, round(num_layers / speed_up))
    if count == 1:
        return frozenset({0})
    return frozenset(round(n * (num_layers - 1) / (count - 1)) for n in range(count))
