"""Weight masks: entries of projections that count as zero; the weights themselves are never altered."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from workbench.address import Address
from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Edit, Facts
from workbench.said import Said, said

Shape: TypeAlias = Literal["unstructured", "n:m", "rows", "columns"]
By: TypeAlias = Literal["magnitude", "activation-weighted", "prune-and-grow", "random", "given"]
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "experts")


class WeightMask(Edit):
    """Mask entries of the linear projections of a layer, for all tokens of a run.

    Projections and experts run on the kernel for bit masks, which leaves masked entries out (``masked_matmul`` in the table
    ``cost``).

    Attributes
    ----------
    parts
        Names of projections in the block (``q_proj``, ..., ``down_proj``), and ``experts`` for the bank; empty: all.
    shape
        ``unstructured``: ``ratio`` of the entries of every output row; ``n:m``: all but ``n`` of every ``m`` neighbours in
        a row; ``rows`` and ``columns``: ``ratio`` of whole outputs or inputs.
    criterion
        What goes first: the smallest ``magnitude`` ``|w|``; ``activation-weighted`` ``|w| ||x||``, input norms from the
        calibration ``source`` (Wanda: Sun et al. 2023, arXiv 2306.11695); ``prune-and-grow``, that mask with pairs
        exchanged where this brings the expected output error of a row nearer to 0 (DSnoT: Zhang et al. 2023, arXiv
        2310.08915); ``random`` by ``seed``, layer and part, at the same ratio in every layer; ``given``, the masks of
        ``source``.
    """

    kind: Literal["mask.weights"] = "mask.weights"
    parts: tuple[str, ...] = ()
    shape: Shape = "unstructured"
    ratio: float | None = Field(None, ge=0, lt=1, description="share of the entries, rows or columns to mask")
    n: int | None = Field(None, ge=0, description="of every m neighbours this many stay")
    m: int | None = Field(None, ge=1, description="neighbours in a row")
    criterion: By = "magnitude"
    seed: int = Field(0, description="of what is drawn at random")
    source: str | None = Field(None, description="calibration, or the masks themselves: a content hash")
    site: ClassVar[str] = "block"
    files: ClassVar[tuple[str, ...]] = ("source",)

    @field_validator("parts", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        names = (value,) if isinstance(value, str) else tuple(value)
        wrong = next((name for name in names if name not in PARTS), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not one of {', '.join(PARTS)}")
        return tuple(sorted(set(names)))

    @model_validator(mode="after")
    def _own_parameters(self) -> WeightMask:
        grid = self.shape == "n:m"
        if self.criterion == "given":
            if self.ratio is not None or self.n is not None or self.m is not None:
                raise ValueError("given masks need neither ratio nor n:m")
        elif grid != (self.n is not None and self.m is not None) or grid == (self.ratio is not None):
            raise ValueError('give n and m with shape="n:m", and a ratio with any other shape')
        if grid and self.n is not None and self.m is not None and self.n > self.m:
            raise ValueError(f"{self.n} of every {self.m} cannot be kept")
        if self.criterion == "prune-and-grow" and self.shape in ("rows", "columns"):
            raise ValueError("prune-and-grow exchanges single entries: use unstructured or n:m")
        needs = self.criterion in ("activation-weighted", "prune-and-grow", "given")
        if needs != (self.source is not None):
            raise ValueError(
                f"the criterion {self.criterion} needs a source" if needs else "no source is needed here"
            )
        return self

    def check(self, facts: Facts) -> None:
        if not self.model_copy(update={"rows": "all"}).everywhere:
            raise EditRefused(
                "mask.weights holds for all tokens of a run: a projection has one mask.",
                "Scope this edit by layers and rows only.",
            )
        super().check(facts)
        for layer in self.layers_in(facts):
            facts.require(Address("block", layer), write=True)

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        if "experts" in self.parts and block.moe is None:
            raise EditRefused(
                f"Layer {layer} has no experts whose weights could be masked.", "Name other parts."
            )

    def commutes(self, other: Edit) -> bool:
        """Kept is what all masks keep, whatever their order; other edits do not touch weights."""
        return True

    def _what(self) -> Said:
        share = f"{self.n}:{self.m}" if self.shape == "n:m" else f"{self.ratio or 0:.0%} {self.shape}"
        if not self.parts:
            return said("mask weights of all projections (%1, %2)", share, self.criterion)
        return said("mask weights of %1 (%2, %3)", ", ".join(self.parts), share, self.criterion)
