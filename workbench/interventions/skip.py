"""Skipping: leaving parts of the model out, and really saving their work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal, Unpack

from workbench.errors import EditRefused
from workbench.interventions.edit import Edit, Facts, Layers, Scope, build


class Block(Edit):
    """Leave whole blocks out for every token: the residual stream passes unchanged and nothing of the block runs.

    The block's keys and values are ``absent``: no token of the run ever attends in a skipped block, so cached decoding
    equals an uncached pass. Because of that the skip holds for all tokens and both phases.
    """

    kind: Literal["skip.block"] = "skip.block"
    kv: Literal["absent"] = "absent"
    site: ClassVar[str] = "block"

    def check(self, facts: Facts) -> None:
        if not self.model_copy(update={"rows": "all"}).everywhere:
            raise EditRefused(
                "skip.block holds for all tokens of a run, because the keys and values of a skipped block are absent.",
                "Scope this edit by layers and rows only.",
            )
        super().check(facts)
        if len(self.layers_in(facts)) == facts.num_layers:
            raise EditRefused("skip.block would leave no block of the model.", "Keep at least one layer.")

    def commutes(self, other: Edit) -> bool:
        return isinstance(other, Block) or super().commutes(other)

    def _what(self) -> str:
        return "skip the block"


KINDS: tuple[type[Edit], ...] = (Block,)


def block(layers: int | Iterable[int] | Layers, **scope: Unpack[Scope]) -> Block:
    """Skip whole blocks; see :class:`Block`."""
    return build(Block, layers=layers, **scope)
