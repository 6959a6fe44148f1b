"""What a run records: a frozen choice of signals, layers and tokens."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workbench.errors import PlanError
from workbench.interventions.edit import plan_error, sorted_units


class Record(BaseModel):
    """Which signals of a run become rows.

    Attributes
    ----------
    routing
        Choices, weights, margins, entropy, ties, the native choice where an edit changed it, and sums by expert.
    scores
        The router's full logits and selection scores: of every token (large: experts x 8 bytes a token and layer), or of
        a share of them between 0 and 1, drawn by hash; the rows carry that share, and 1 / share weighs them.
    contribution
        Relative norms and cosines of attention, MLP and block, and block influence.
    sparsity
        Zero share, share below ``threshold`` and Hoyer sparsity of the neuron activations.
    attention_rank
        ARank, stable rank, effective rank and entropy of every head's attention map, on the passes that read more than
        one token; maps of more than ``rank_tokens`` tokens are sampled (the rows say so).
    attention_map
        Entropy, sink mass, local mass, mean distance and decay of the same sampled rows of every head's attention map.
    rank_sketch
        Columns of a random sketch from which the stable rank of whole maps of any length is found (16 is a good number);
        ``None`` for none. Four calls of the attention kernel, or a pass over the rows of the map on the model's own
        kernels, in bounded memory. It is never too small; on the demo model 16 columns are 0.2 % too large in the middle,
        but up to a half where the stable rank itself exceeds the number of columns (``benchmarks/attention_rank.py``).
    logit_lens
        KL of what each layer would predict to what the model predicts. The head runs once a layer.
    logit_effect
        What the embedding and every attention, MLP, head and selected expert add directly to the logit of the token that
        comes next. Selected experts run once more.
    census
        How often, how much and how far at most each neuron is active, over the tokens of a pass; of experts too, whose
        neurons are computed once more. With it, for dense MLPs, how many neurons 8 consecutive tokens use together.
    layers
        The layers to record; ``None`` for all.
    every
        Only tokens at positions that this number divides get rows of their own. Sums by expert are over all tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    routing: bool = True
    scores: bool | float = False
    contribution: bool = True
    sparsity: bool = True
    attention_rank: bool = True
    attention_map: bool = False
    rank_sketch: int | None = Field(None, ge=1)
    logit_lens: bool = False
    logit_effect: bool = False
    census: bool = False
    layers: tuple[int, ...] | None = None
    every: int = Field(1, ge=1)
    threshold: float = Field(0.01, gt=0)
    rank_tokens: int = Field(64, ge=2, le=256)
    rank_tolerance: float = Field(0.01, gt=0, lt=1)

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        return None if value is None else sorted_units(value, "layer")

    @field_validator("scores")
    @classmethod
    def _share(cls, value: bool | float) -> bool | float:
        if not isinstance(value, bool) and not 0 < value <= 1:
            raise ValueError("a share of tokens is greater than 0 and at most 1")
        return value

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise plan_error(error, "This Record is not valid", "Correct that field of the Record.") from None

    @property
    def wants_scores(self) -> bool:
        """Whether any full score vectors are recorded."""
        return self.scores is not False

    @property
    def needs_parts(self) -> bool:
        """Whether the parts of every block are kept until the head has run."""
        return self.logit_lens or self.logit_effect

    @property
    def wants_attention(self) -> bool:
        """Whether queries and keys are looked at."""
        return self.attention_rank or self.attention_map or self.rank_sketch is not None

    def check(self, num_layers: int) -> None:
        """Refuse layers that a model of ``num_layers`` does not have: nothing of them would be recorded."""
        beyond = [layer for layer in self.layers or () if layer >= num_layers]
        if beyond:
            raise PlanError(
                f"This Record names layer {beyond[0]}, but the model has layers 0 to {num_layers - 1}.",
                "Name layers that exist; they count from 0.",
            )

    def has_layer(self, layer: int) -> bool:
        """Whether ``layer`` is among the recorded ones."""
        return self.layers is None or layer in self.layers
