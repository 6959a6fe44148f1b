"""Routing that looks beyond the token's own router: at other tokens, at groups of tokens, at another layer."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from workbench.address import Address
from workbench.errors import EditRefused
from workbench.interventions.blob import Blob, Vector
from workbench.interventions.edit import Facts
from workbench.interventions.reroute.base import Reroute, Stage
from workbench.said import Said, said

SENTENCE_END = r"[.!?\n]\s*$"


class Mixed(Reroute):
    """Base of the edits that mix the scores of a sequence's tokens: (1 - alpha) x own + alpha x mixed, where the mixed
    scores of a token are a weighted mean of the scores of tokens, itself included. Choice and weights both follow.

    The scores mixed are the family's own after edits of the logits (for a router that takes the softmax after the choice,
    the logits); a correction bias is added afterwards.
    """

    alpha: float = Field(1.0, ge=0, le=1, title="Alpha", description="share of the mixed scores")
    site: ClassVar[str] = "expert_scores"
    stage: ClassVar[Stage] = Stage.ACROSS


class Smooth(Mixed):
    """Smooth the scores across tokens: by the layer's own attention, by a window, or by a matrix.

    ``by="attention"`` weighs by the attention probabilities of the token, mean over heads (graph-of-tokens routing, Nguyen
    et al. 2025); ``by="window"`` is the mean over the last ``window`` tokens; ``by="matrix"`` weighs by row ``position`` of
    ``matrix`` [S, S]. Rows are divided by their sum over the tokens there are; tokens beyond the matrix keep their own
    scores. A matrix with weights above its diagonal looks at later tokens and must be given with ``causal=False``.
    """

    kind: Literal["reroute.smooth"] = "reroute.smooth"
    by: Literal["attention", "window", "matrix"] = Field(
        "attention", title="By", description="what weighs the tokens"
    )
    window: int | None = Field(
        None, ge=1, title="Window", description="tokens of the mean, the token itself included"
    )
    matrix: Vector | None = Field(None, title="Matrix", description="weights [S, S] of tokens by position")
    causal: bool = Field(True, title="Causal", description="whether the matrix looks at no later token")

    @model_validator(mode="after")
    def _one_way(self) -> Smooth:
        if (self.by == "window") != (self.window is not None) or (self.by == "matrix") != (
            self.matrix is not None
        ):
            raise ValueError(
                "give window with by='window', matrix with by='matrix', and neither with by='attention'"
            )
        if self.matrix is None:
            return self
        shape = self.matrix.shape if isinstance(self.matrix, Blob) else ()
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(f"a matrix over tokens is square; this one has the shape {list(shape)}")
        if isinstance(self.matrix, Blob) and self.matrix.known:
            self._check_numbers(self.matrix.numbers)
        return self

    def _check_numbers(self, numbers: Any) -> None:
        if float(numbers.min()) < 0 or float(numbers.diagonal().min()) <= 0:
            raise ValueError("weights are not negative, and those on the diagonal are positive")
        if self.causal and any(numbers[row, row + 1 :].any() for row in range(len(numbers))):
            raise ValueError(
                "the matrix has weights above its diagonal, which look at later tokens; say causal=False"
            )

    def _what(self) -> Said:
        how = {
            "attention": said("attention"),
            "window": said("a window of %1 tokens", str(self.window)),
            "matrix": said("a matrix"),
        }[self.by]
        return said("smooth scores by %1 (alpha %2)", how, f"{self.alpha:g}")


class Group(Mixed):
    """Route a whole sentence or sample alike (sentence- and task-level routing, Kudugunta et al. 2021).

    ``take="first"`` gives all tokens of a group the scores of its first, ``"running"`` the mean over the group so far, and
    ``"mean"`` the mean over the whole group, which looks at later tokens. A sentence ends with a token whose text matches
    ``ends``; ``by="sample"`` is the whole sequence.
    """

    kind: Literal["reroute.group"] = "reroute.group"
    by: Literal["sentence", "sample"] = Field("sentence", title="By", description="what is routed alike")
    take: Literal["first", "running", "mean"] = Field(
        "running", title="Take", description="whose scores the group takes"
    )
    ends: str = Field(
        SENTENCE_END, max_length=200, title="Ends", description="pattern of a sentence's last token"
    )

    @field_validator("ends")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression: {error}") from None
        return value

    def looks_ahead(self) -> bool:
        return self.take == "mean"

    def needs_text(self) -> bool:
        return self.by == "sentence" or super().needs_text()

    def _what(self) -> Said:
        whose = {
            "first": said("its first token"),
            "running": said("its mean so far"),
            "mean": said("its mean"),
        }[self.take]
        return said("route each %1 by %2", self.by, whose)


class CopyLayer(Reroute):
    """Use the experts that the same token used in an earlier layer, as executed there.

    Their weights are those of the source layer, or with ``weights="own"`` the family's own from this layer's scores.
    """

    kind: Literal["reroute.copy_layer"] = "reroute.copy_layer"
    source: int = Field(ge=0, title="Source", description="the layer whose choice is used")
    weights: Literal["source", "own"] = Field(
        "source", title="Weights", description="of the source, or this layer's own"
    )
    site: ClassVar[str] = "expert_ids"
    stage: ClassVar[Stage] = Stage.REPLAY

    def asked_layers(self, layer: int) -> tuple[int, ...]:
        return tuple(sorted({self.source, *super().asked_layers(layer)}))

    def check(self, facts: Facts) -> None:
        super().check(facts)
        facts.require(Address("expert_ids", self.source))
        there = facts.layer(self.source).moe.num_experts
        for layer in self.layers_in(facts):
            if self.source >= layer:
                raise EditRefused(
                    f"{self.kind} takes layer {self.source} as the source of layer {layer}, which runs earlier.",
                    "Choose an earlier layer as the source.",
                )
            here = facts.layer(layer).moe.num_experts
            if here != there:
                raise EditRefused(
                    f"{self.kind} copies from a layer with {there} experts to layer {layer}, which has {here}.",
                    "Choose a source with as many experts.",
                )

    def _what(self) -> Said:
        if self.weights == "own":
            return said("copy the choice of layer %1 (own weights)", self.source)
        return said("copy the choice of layer %1 (source weights)", self.source)
