"""Patching: the values that a site had in another run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Unpack

from pydantic import Field, field_validator

from workbench.interventions.edit import Edit, Layers, Scope, build
from workbench.interventions.makes import makes
from workbench.interventions.site import SiteEdit, StreamSite
from workbench.said import Said, said


class Patch(SiteEdit):
    """Put the values of ``site`` in another run in the place of this run's own (activation patching; Vig et al. 2020, Meng
    et al. 2022).

    ``run`` is the id of a run in the same store; it is computed again under its own plan. ``token_map`` says from which
    position of that run a token takes its value and ``layer_map`` from which layer; what they do not name stays the same.
    Tokens that the other run does not have keep their own. Values of experts are patched slot by slot, their neurons
    (``mlp_act``) only where both runs chose the same expert there. Routes are patched by ``reroute.replay``.
    """

    kind: Literal["patch"] = "patch"
    site: StreamSite = Field(title="Site", description="what is patched")  # type: ignore[misc]
    run: int = Field(ge=0, title="Run", description="whose values are used")
    token_map: dict[int, int] = Field(
        {}, title="Token map", description="position here: position in the other run"
    )
    layer_map: dict[int, int] = Field({}, title="Layer map", description="layer here: layer of the other run")

    @field_validator("run", mode="before")
    @classmethod
    def _run(cls, value: Any) -> Any:
        return recorded(value)

    def source_layer(self, layer: int) -> int:
        """The layer of the other run whose values ``layer`` gets."""
        return self.layer_map.get(layer, layer)

    def _what(self) -> Said:
        return said("patch %1 from run %2", self.site, str(self.run))


def recorded(run: Any) -> Any:
    """The id of ``run``, a Run or an id; raises ValueError for a run that was not recorded."""
    if hasattr(run, "id"):
        if run.id is None:
            raise ValueError("this run was not recorded; run it with record=wb.Record()")
        return run.id
    return run


KINDS: tuple[type[Edit], ...] = (Patch,)


@makes(Patch)
def patch(
    site: StreamSite, run: Any, layers: int | Iterable[int] | Layers = "all", *,
    token_map: Mapping[int, int] | None = None, layer_map: Mapping[int, int] | None = None, **scope: Unpack[Scope],
) -> Patch:  # fmt: skip
    """Patch ``site`` from ``run`` (a Run or its id); see :class:`Patch`."""
    return build(
        Patch, site=site, run=run, layers=layers, token_map=dict(token_map or {}), layer_map=dict(layer_map or {}), **scope
    )  # fmt: skip
