"""What a run records: a frozen choice of signals, layers and tokens."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

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

    def has_layer(self, layer: int) -> bool:
        """Whether ``layer`` is among the recorded ones."""
        return self.layers is None or layer in self.layers
