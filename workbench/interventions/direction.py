"""Directions in the residual stream, and features of a sparse autoencoder: taken out, added, or set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

from pydantic import Field, field_validator, model_validator

from workbench.errors import EditRefused
from workbench.interventions.blob import Vector
from workbench.interventions.edit import Facts, Layers, Scope, build, sorted_units
from workbench.interventions.makes import makes
from workbench.interventions.site import SiteEdit
from workbench.interventions.vectors import check_vector, pick
from workbench.said import Said, numbers, said

if TYPE_CHECKING:
    from torch import Tensor

WideSite = Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]


class Direction(SiteEdit):
    """Write along a direction of the residual stream, at a site as wide as the model.

    ``ablate`` takes the component along ``vector`` out (Arditi et al. 2024); ``add`` adds ``value`` x ``vector`` (steering,
    Turner et al. 2023); ``clamp`` sets the component along the unit vector to ``value``.

    In place of a vector, ``sae`` names a sparse autoencoder by the hash that ``bench.add(folder)`` gave, and ``features``
    those of its features that are ablated, raised by ``value``, or set to it. What the autoencoder does not rebuild of the
    stream stays (Cunningham et al. 2023, arXiv 2309.08600; Marks et al. 2024, arXiv 2403.19647).
    """

    kind: Literal["mask.direction"] = "mask.direction"
    files: ClassVar[tuple[str, ...]] = ("sae",)
    site: WideSite = Field("resid_post", title="Site", description="what is written")  # type: ignore[misc]
    vector: Vector | None = Field(
        None, title="Vector", description="one number per channel, or per layer, token and channel"
    )
    sae: str | None = Field(None, title="Autoencoder", description="content hash of a sparse autoencoder")
    features: tuple[int, ...] | None = Field(
        None, title="Features", description="features of the autoencoder"
    )
    op: Literal["ablate", "add", "clamp"] = Field(
        "ablate", title="Operation", description="what is done along it"
    )
    value: float = Field(
        1.0, allow_inf_nan=False, title="Value", description="factor of add, or component of clamp"
    )

    @field_validator("features", mode="before")
    @classmethod
    def _features(cls, value: Any) -> Any:
        return None if value is None else sorted_units(value, "feature")

    @model_validator(mode="after")
    def _value_means_something(self) -> Direction:
        if (self.vector is None) == (self.sae is None):
            raise ValueError("give a vector, or an autoencoder and its features")
        if (self.sae is None) != (self.features is None):
            raise ValueError("an autoencoder and features go together")
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
        if self.vector is not None:
            check_vector(self, self.vector, facts.hidden_size, "channels of the residual stream")

    def apply(self, stream: Tensor, layer: int, positions: Tensor) -> Tensor:
        """The ``stream`` [B, S, H] edited along the vector; ``positions`` [B, S]."""
        assert self.vector is not None  # features are written by who has the autoencoder
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

    def _what(self) -> Said:
        done = {
            "ablate": said("ablate"),
            "add": said("add %1 x", f"{self.value:g}"),
            "clamp": said("clamp to %1", f"{self.value:g}"),
        }[self.op]
        if self.features is None:
            return said("%1 a direction of %2", done, self.site)
        named = numbers(self.features)
        if len(self.features) > 1:
            return said("%1 features %2 of %3", done, named, self.site)
        return said("%1 feature %2 of %3", done, named, self.site)


@makes(Direction)
def direction(layers: int | Iterable[int] | Layers, vector: Any = None, *, sae: str | None = None,
              features: int | Iterable[int] | None = None, op: Literal["ablate", "add", "clamp"] = "ablate",
              value: float = 1.0, site: WideSite = "resid_post", **scope: Unpack[Scope]) -> Direction:  # fmt: skip
    """Write along a direction of the residual stream, or to features of an autoencoder; see :class:`Direction`."""
    return build(Direction, layers=layers, vector=vector, sae=sae, features=features, op=op, value=value, site=site,
                 **scope)  # fmt: skip
