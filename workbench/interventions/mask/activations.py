"""Activation sparsity: inputs and neurons that are small at a token are left out of the products for that token."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts, scopes_disjoint, sorted_units
from workbench.said import Said, numbers, said

Method: TypeAlias = Literal["magnitude", "weight-informed", "rank-aware", "gate", "random", "given"]


class Activations(Edit):
    """Leave small activations of a gated MLP out, dense or of every chosen expert, token by token.

    Attributes
    ----------
    method
        * ``magnitude``: inputs and neurons with a small absolute value (TEAL: Liu et al. 2024, arXiv 2408.14690).
        * ``weight-informed``: with a small product of absolute value and norm of the weights that read it (WINA: Chen et
          al. 2025, arXiv 2505.19427).
        * ``rank-aware``: inputs and neurons as by magnitude, whose part goes through the first ``rank`` singular
          directions of the weights instead of vanishing (R-Sparse: Zhang et al. 2025, arXiv 2504.19449). Dense MLPs only.
        * ``gate``: neurons with a small gate; the gate is computed in full (CATS: Lee et al. 2024, arXiv 2404.08763).
        * ``random``: neurons by ``seed``, layer, position and number, the matched control.
        * ``given``: all neurons but those of ``neurons``.
    sparsity
        Share of the inputs and neurons to leave out, from the quantiles of the calibration ``source`` (layer by layer);
        of the neurons alone for ``gate`` and ``random``, where ``random`` needs no source.
    threshold
        In place of a share, the bound on the neurons' score. 0 leaves out exact zeros alone.
    input_threshold
        The same for the inputs.
    """

    kind: Literal["mask.activations"] = "mask.activations"
    method: Method = "magnitude"
    sparsity: float | None = Field(None, ge=0, lt=1)
    threshold: float | None = Field(None, ge=0)
    input_threshold: float | None = Field(None, ge=0)
    neurons: tuple[int, ...] | None = Field(None, description="the only ones that stay, for the method given")
    rank: int | None = Field(
        None, ge=1, description="singular directions that stay, for the method rank-aware"
    )
    seed: int = Field(0, description="of what is drawn at random")
    source: str | None = Field(None, description="calibration: the hash that bench.calibrate gives")
    site: ClassVar[str] = "mlp_act"
    files: ClassVar[tuple[str, ...]] = ("source",)

    @field_validator("neurons", mode="before")
    @classmethod
    def _neurons(cls, value: Any) -> Any:
        return None if value is None else sorted_units(value, "neuron")

    @model_validator(mode="after")
    def _own_parameters(self) -> Activations:
        given = self.method == "given"
        if given != (self.neurons is not None):
            raise ValueError('neurons go with method="given", and with no other')
        bounds = self.threshold is not None or self.input_threshold is not None
        if given and (self.sparsity is not None or bounds):
            raise ValueError("given neurons need neither sparsity nor thresholds")
        if not given and (self.sparsity is None) != bounds:
            raise ValueError("give either a sparsity or thresholds")
        if self.method == "random" and self.sparsity is None:
            raise ValueError("a random set needs a sparsity")
        needs = self.sparsity is not None and self.method != "random"
        if needs != (self.source is not None):
            raise ValueError(
                "a sparsity needs a source: the hash that bench.calibrate gives"
                if needs
                else "no source is needed here"
            )
        if (self.rank is not None) != (self.method == "rank-aware"):
            raise ValueError('a rank goes with method="rank-aware", and with no other')
        if self.method == "gate" and self.input_threshold is not None:
            raise ValueError("the gate method leaves out no inputs")
        return self

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(n for n in range(facts.num_layers) if facts.layer(n).mlp is not None)

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        assert block.mlp is not None  # Facts.require has refused a layer without an MLP
        for neuron in self.neurons or ():
            if neuron >= block.mlp.act_width:
                raise EditRefused(
                    f"mask.activations names neuron {neuron}, but layer {layer} has neurons 0 to {block.mlp.act_width - 1}.",
                    "Name a neuron that exists.",
                )
        if self.method == "rank-aware" and block.moe is not None:
            raise EditRefused(
                f"The rank-aware method is for dense MLPs; layer {layer} has experts.",
                'Use method="magnitude" or "weight-informed" there.',
            )

    def commutes(self, other: Edit) -> bool:
        """A layer has one criterion for a token: two edits may meet only in the order of the plan."""
        return not isinstance(other, Activations) or scopes_disjoint(self, other)

    def _what(self) -> Said:
        if self.neurons is not None:
            return said("leave out neurons %1", numbers(self.neurons))
        if self.sparsity is None:
            return said("leave out small ones of the activations (%1)", self.method)
        return said("leave out %1 of the activations (%2)", f"{self.sparsity:.0%}", self.method)
