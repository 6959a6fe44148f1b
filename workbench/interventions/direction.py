"""Directions in the residual stream: taken out, added, or set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Unpack

from pydantic import Field, model_validator

from workbench.errors import EditRefused
from workbench.interventions.blob import Vector
from workbench.interventions.edit import Facts, Layers, Scope, build
from workbench.interventions.site import SiteEdit
from workbench.interventions.vectors import check_vector, pick

if TYPE_CHECKING:
    from torch import Tensor

WideSite = Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]


class Direction(SiteEdit):
    """Write along a direction of the residual stream, at a site as wide as the model.

    ``ablate`` takes the component along ``vector`` out (Arditi et al. 2024); ``add`` adds ``value`` x ``vector`` (steering,
    Turner et al. 2023); ``clamp`` sets the component along the unit vector to ``value``.
    """

    kind: Literal["mask.direction"] = "mask.direction"
    site: WideSite = Field("resid_post", title="Site", description="what is written")  # type: ignore[misc]
    vector: Vector = Field(
        title="Vector", description="one number per channel, or per layer, token and channel"
    )
    op: Literal["ablate", "add", "clamp"] = Field(
        "ablate", title="Operation", description="what is done along it"
    )
    value: float = Field(
        1.0, allow_inf_nan=False, title="Value", description="factor of add, or component of clamp"
    )

    @model_validator(mode="after")
    def _value_means_something(self) -> Direction:
        if self.op == "ablate" and self.value != 1.0:
            raise ValueError("ablate takes no value")
        if self.op != "add" and isinstance(self.vector, tuple) and not any(self.vector):
            raise ValueError("a vector of zeros has no direction")
        return self

    def check(self, facts: Facts) -> None:
        super().check(facts)
        for layer in self.layers_in(facts):
            streams = facts.layer(layer).streams
            if streams > 1 and self.site in ("resid_pre", "resid_post"):
                raise EditRefused(
                    f"Layer {layer} hands on {streams} residual streams side by side, where a direction has no one place.",
                    "Write a function of all streams with @wb.edit, or patch them from another run.",
                )
        check_vector(self, self.vector, facts.hidden_size, "channels of the residual stream")

    def apply(self, stream: Tensor, layer: int, positions: Tensor) -> Tensor:
        """The edited ``stream`` [B, S, H]; ``positions`` [B, S]."""
        vector = pick(self, self.vector, layer, positions.reshape(-1), stream)
        if vector.ndim > 1:
            vector = vector.reshape(stream.shape)
        if self.op == "add":
            added: Tensor = stream + self.value * vector
            return added
        unit = vector / vector.norm(dim=-1, keepdim=True)
        along = (stream * unit).sum(-1, keepdim=True)
        wanted = 0.0 if self.op == "ablate" else self.value
        set_: Tensor = stream + (wanted - along) * unit
        return set_

    def _what(self) -> str:
        done = {"ablate": "ablate", "add": f"add {self.value:g} x", "clamp": f"clamp to {self.value:g}"}[
            self.op
        ]
        return f"{done} a direction of {self.site}"


def direction(layers: int | Iterable[int] | Layers, vector: Any, *, op: Literal["ablate", "add", "clamp"] = "ablate",
              value: float = 1.0, site: WideSite = "resid_post", **scope: Unpack[Scope]) -> Direction:  # fmt: skip
    """Write along a direction of the residual stream; see :class:`Direction`."""
    return build(Direction, layers=layers, vector=vector, op=op, value=value, site=site, **scope)
