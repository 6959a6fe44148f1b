"""What a run records: a frozen choice of signals and layers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workbench.interventions.edit import plan_error, sorted_units


class Record(BaseModel):
    """Which signals of a run become rows.

    Attributes
    ----------
    routing
        Choices, weights, margins, entropy, ties, and the native choice where an edit changed it.
    scores
        The router's full logits and selection scores of every token (large: experts x 8 bytes a token and layer).
    contribution
        Relative norms and cosines of attention, MLP and block, and block influence.
    sparsity
        Zero share, share below ``threshold`` and Hoyer sparsity of the neuron activations.
    attention_rank
        ARank, stable rank, effective rank and entropy of every head's attention map, on the passes that read more than
        one token; maps of more than ``rank_tokens`` tokens are sampled (the rows say so).
    layers
        The layers to record; ``None`` for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    routing: bool = True
    scores: bool = False
    contribution: bool = True
    sparsity: bool = True
    attention_rank: bool = True
    layers: tuple[int, ...] | None = None
    threshold: float = Field(0.01, gt=0)
    rank_tokens: int = Field(64, ge=2, le=256)
    rank_tolerance: float = Field(0.01, gt=0, lt=1)

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        return None if value is None else sorted_units(value, "layer")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise plan_error(error, "This Record is not valid", "Correct that field of the Record.") from None

    def has_layer(self, layer: int) -> bool:
        """Whether ``layer`` is among the recorded ones."""
        return self.layers is None or layer in self.layers
