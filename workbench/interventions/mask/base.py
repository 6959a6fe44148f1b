"""What masks of units share: which units they silence, by name or by a criterion, and what stands in their place."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, sorted_units
from workbench.said import Said, numbers, said

Criterion: TypeAlias = Literal["random", "magnitude", "activation"]
Replacement: TypeAlias = Literal["zero", "mean", "resample", "identity"]


class UnitMask(Edit):
    """Silence units of a layer.

    Either the units are named, or ``ratio`` of them are chosen by ``criterion``: ``random`` (by ``seed`` and layer: the
    matched control), the smallest by ``magnitude`` (norm of the weights that read the unit) or the least active by
    ``activation`` (mean absolute value in the calibration ``source``).

    ``replacement`` is what stands in their place: ``zero``; ``mean``, the unit's mean over the tokens of the calibration
    ``source``; ``resample``, its value at one of the sampled tokens of ``source``, drawn by ``seed`` and position;
    ``identity``, its own input, where unit and input have the same shape.
    """

    ratio: float | None = Field(None, ge=0, lt=1, description="share of the units, chosen by the criterion")
    criterion: Criterion = Field("random", description="how they are chosen where only a share is given")
    seed: int = Field(0, description="of what is drawn at random")
    replacement: Replacement = Field("zero", description="what stands in their place")
    source: str | None = Field(None, description="calibration: the hash that bench.calibrate gives")
    files: ClassVar[tuple[str, ...]] = ("source",)

    @property
    @abstractmethod
    def named(self) -> tuple[int, ...] | None:
        """The units by number, or ``None`` where a criterion chooses."""

    @model_validator(mode="after")
    def _one_choice(self) -> UnitMask:
        if (self.named is None) == (self.ratio is None):
            raise ValueError("name the units, or give the ratio of them to mask")
        needs = self.replacement in ("mean", "resample") or (
            self.ratio is not None and self.criterion == "activation"
        )
        if needs != (self.source is not None):
            raise ValueError(
                "a mean, a resampled value or the criterion activation needs a source: the hash that bench.calibrate gives"
                if needs
                else "nothing of this mask comes from a source"
            )
        return self

    @abstractmethod
    def units_of(self, block: BlockFacts) -> int:
        """How many units the layer has."""

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        count = self.units_of(block)
        for unit in self.named or ():
            if unit >= count:
                name = self.kind.removeprefix("mask.").removesuffix("s")
                raise EditRefused(
                    f"{self.kind} names {name} {unit}, but layer {layer} has {name}s 0 to {count - 1}.",
                    f"Name a {name} that exists.",
                )

    def commutes(self, other: Edit) -> bool:
        """Masks with one replacement commute: what both silence is the union."""
        alike = isinstance(other, UnitMask) and self.kind == other.kind
        if alike and isinstance(other, UnitMask) and self.replacement == other.replacement != "resample":
            return self.source == other.source
        return super().commutes(other)

    def _chosen(self, unit: Literal["head", "neuron", "expert", "channel"]) -> Said:
        one, more = _UNITS[unit]
        if self.named is not None:
            return said("%1 %2", more if len(self.named) > 1 else one, numbers(self.named))
        return said("%1 of the %2 by %3", f"{self.ratio:.0%}", more, self.criterion or "")

    def _instead(self, what: Said) -> Said:
        return what if self.replacement == "zero" else said("%1 with %2", what, self.replacement)


_UNITS = {
    "head": (said("head"), said("heads")),
    "neuron": (said("neuron"), said("neurons")),
    "expert": (said("expert"), said("experts")),
    "channel": (said("channel"), said("channels")),
}
"""A unit, and several of them, in words."""


def units(value: Any, name: str) -> Any:
    """Numbers as a sorted tuple, ``None`` as it is."""
    return None if value is None else sorted_units(value, name)


def not_identity(value: str, unit: str) -> str:
    """Refuse the replacement by the input where a unit has none of its shape."""
    if value == "identity":
        raise ValueError(f"a {unit} has no input of its own shape; use zero, mean or resample")
    return value
