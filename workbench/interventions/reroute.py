"""Re-routing: which experts a token uses and with what weight.

Edits act in the order in which routing happens, whatever their order in the plan: logits, then scores, then ids and
weights; within one site the plan's order holds. Weights always come from the scores as they were before a ban.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import (
    BlockFacts,
    Edit,
    Facts,
    Layers,
    MoeFacts,
    Phase,
    Tokens,
    build,
    scopes_disjoint,
    sorted_units,
)


class Reroute(Edit):
    """Base of the re-routing edits."""

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return facts.moe_layers

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        assert block.moe is not None  # Facts.require has refused a layer without a router
        if not block.moe.proved:
            raise EditRefused(
                f"Layer {layer} cannot be re-routed: {block.moe.reason}", "Read its routing, or skip it."
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


class _Experts(Reroute):
    experts: tuple[int, ...]

    @field_validator("experts", mode="before")
    @classmethod
    def _experts(cls, value: Any) -> Any:
        return sorted_units(value, "expert")

    def named_experts(self) -> tuple[int, ...]:
        return self.experts

    def _named(self) -> str:
        return f"expert{'s' if len(self.experts) > 1 else ''} {', '.join(map(str, self.experts))}"


class Ban(_Experts):
    """Never choose ``experts``: their selection score becomes minus infinity before group limits.

    The family's own rule then takes the next best; weights come from the unedited scores. With ``at="logits"`` the
    experts are removed from the softmax too, as if the router had no such rows.
    """

    kind: Literal["reroute.ban"] = "reroute.ban"
    at: Literal["scores", "logits"] = "scores"
    site: ClassVar[str] = "expert_scores"

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        left = moe.num_experts - len(self.experts)
        if left < moe.top_k:
            raise EditRefused(
                f"{self.kind} leaves {left} of {moe.num_experts} experts in layer {layer}, fewer than the {moe.top_k} "
                "each token needs.",
                "Ban fewer experts.",
            )

    def commutes(self, other: Edit) -> bool:
        if isinstance(other, Ban):
            return True  # minus infinity twice is minus infinity
        if isinstance(other, Force):
            return not set(self.experts) & set(other.experts) or scopes_disjoint(self, other)
        return super().commutes(other)

    def _what(self) -> str:
        return f"ban {self._named()}"


class Force(_Experts):
    """Always choose ``experts``, in place of the lowest-scored of the other choices.

    Their weight is the family's own for the resulting set, or ``weight`` where given (the others keep theirs).
    """

    kind: Literal["reroute.force"] = "reroute.force"
    weight: float | None = Field(None, allow_inf_nan=False)
    site: ClassVar[str] = "expert_ids"

    def _check_moe(self, layer: int, moe: MoeFacts) -> None:
        super()._check_moe(layer, moe)
        if len(self.experts) > moe.top_k:
            raise EditRefused(
                f"{self.kind} names {len(self.experts)} experts, but a token of layer {layer} uses {moe.top_k}.",
                f"Force at most {moe.top_k}.",
            )

    def commutes(self, other: Edit) -> bool:
        return other.commutes(self) if isinstance(other, Ban) else super().commutes(other)

    def _what(self) -> str:
        return f"force {self._named()}" + ("" if self.weight is None else f" at weight {self.weight:g}")


class Bias(Reroute):
    """Add ``delta`` (per expert) to the router logits, or with ``at="scores"`` to what selection ranks by."""

    kind: Literal["reroute.bias"] = "reroute.bias"
    delta: dict[int, float] | tuple[float, ...]
    at: Literal["logits", "scores"] = "logits"
    site: ClassVar[str] = "router_logits"

    @field_validator("delta")
    @classmethod
    def _finite(cls, value: dict[int, float] | tuple[float, ...]) -> dict[int, float] | tuple[float, ...]:
        numbers = value.values() if isinstance(value, dict) else value
        if not numbers:
            raise ValueError("name at least one expert")
        for number in numbers:
            if not -1e30 < number < 1e30:
                raise ValueError(f"{number} is not a finite bias; to remove an expert use reroute.ban")
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
        if not isinstance(self.delta, dict) and len(self.delta) != moe.num_experts:
            raise EditRefused(
                f"{self.kind} has {len(self.delta)} numbers, but layer {layer} has {moe.num_experts} experts.",
                "Give one number per expert, or a mapping from expert to number.",
            )

    def vector(self, num_experts: int) -> list[float]:
        """``delta`` as one number per expert."""
        if not isinstance(self.delta, dict):
            return list(self.delta)
        return [self.delta.get(expert, 0.0) for expert in range(num_experts)]

    def _what(self) -> str:
        if isinstance(self.delta, dict):
            return f"bias {', '.join(f'expert {e} by {d:+g}' for e, d in sorted(self.delta.items()))}"
        return "bias all experts by a vector"


class Replay(Reroute):
    """Use the experts and weights that another run used at the same position and layer.

    ``run`` is the id of a run in the same store. Positions that the other run did not record keep their own routes;
    a run that has no route at all for a layer in scope is refused.
    """

    kind: Literal["reroute.replay"] = "reroute.replay"
    run: int = Field(ge=0)
    site: ClassVar[str] = "expert_ids"

    @field_validator("run", mode="before")
    @classmethod
    def _run(cls, value: Any) -> Any:
        return value.id if hasattr(value, "id") else value

    def _what(self) -> str:
        return f"replay the routes of run {self.run}"


def ban(
    layers: int | Iterable[int] | Layers, experts: int | Iterable[int], *, at: Literal["scores", "logits"] = "scores",
    tokens: Tokens | slice | int | list[int] = "all", phase: Phase = "all",
) -> Ban:  # fmt: skip
    """Ban ``experts``; see :class:`Ban`."""
    return build(Ban, layers=layers, experts=experts, at=at, tokens=tokens, phase=phase)  # type: ignore[no-any-return]


def force(
    layers: int | Iterable[int] | Layers, experts: int | Iterable[int], *, weight: float | None = None,
    tokens: Tokens | slice | int | list[int] = "all", phase: Phase = "all",
) -> Force:  # fmt: skip
    """Force ``experts`` among the choices; see :class:`Force`."""
    return build(Force, layers=layers, experts=experts, weight=weight, tokens=tokens, phase=phase)  # type: ignore[no-any-return]


def bias(
    layers: int | Iterable[int] | Layers, delta: Mapping[int, float] | Iterable[float], *,
    at: Literal["logits", "scores"] = "logits", tokens: Tokens | slice | int | list[int] = "all", phase: Phase = "all",
) -> Bias:  # fmt: skip
    """Add ``delta`` to router logits or scores; see :class:`Bias`."""
    data = dict(delta) if isinstance(delta, Mapping) else tuple(delta)
    return build(Bias, layers=layers, delta=data, at=at, tokens=tokens, phase=phase)  # type: ignore[no-any-return]


def replay(
    run: Any, *, layers: int | Iterable[int] | Layers = "all",
    tokens: Tokens | slice | int | list[int] = "all", phase: Phase = "all",
) -> Replay:  # fmt: skip
    """Replay the routes of ``run`` (a Run or its id); see :class:`Replay`."""
    return build(Replay, run=run, layers=layers, tokens=tokens, phase=phase)  # type: ignore[no-any-return]
