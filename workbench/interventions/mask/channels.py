"""Masks of channels of the residual stream."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from workbench.errors import EditRefused
from workbench.interventions.edit import BlockFacts, Facts
from workbench.interventions.mask.base import UnitMask, not_identity, units
from workbench.interventions.site import SiteEdit
from workbench.said import Said, said

WideSite = Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]


class Channels(UnitMask, SiteEdit):
    """Replace channels of the residual stream (``resid_pre``, ``resid_post``), or of what attention or MLP adds to it.

    ``magnitude`` ranks a channel by the norm of the weights that write it: the output projection of the attention, the down
    projections of the MLP or of all experts, or both together at ``resid_pre`` and ``resid_post``.
    """

    kind: Literal["mask.channels"] = "mask.channels"
    site: WideSite = Field("resid_post", title="Site", description="where channels are replaced")  # type: ignore[misc]
    channels: tuple[int, ...] | None = Field(None, description="numbers of the channels")

    @field_validator("channels", mode="before")
    @classmethod
    def _channels(cls, value: Any) -> Any:
        return units(value, "channel")

    @field_validator("replacement")
    @classmethod
    def _replacement(cls, value: str) -> str:
        return not_identity(value, "channel")

    @property
    def named(self) -> tuple[int, ...] | None:
        return self.channels

    def units_of(self, block: BlockFacts) -> int:
        return block.hidden_size

    def check(self, facts: Facts) -> None:
        super().check(facts)
        for layer in self.layers_in(facts):
            streams = facts.layer(layer).streams
            if streams > 1 and self.site in ("resid_pre", "resid_post"):
                raise EditRefused(
                    f"Layer {layer} hands on {streams} residual streams side by side, where a channel has no one place.",
                    "Mask channels of attn_out or mlp_out there.",
                )

    def _what(self) -> Said:
        return self._instead(said("mask %1 of %2", self._chosen("channel"), self.site))
