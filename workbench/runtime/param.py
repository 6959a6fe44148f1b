"""Trainable edits: a tensor that a plan adds at a site, with gradients through the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import nn

from workbench.address import integers
from workbench.errors import AddressError, PlanError
from workbench.interventions import mask, reroute
from workbench.interventions.blob import Blob, blob, live_blob
from workbench.interventions.edit import Edit

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

ParamSite: TypeAlias = Literal[
    "router_logits", "scores", "expert_weights", "resid_pre", "attn_out", "mlp_out", "resid_post"
]
SITES: tuple[str, ...] = (
    "router_logits",
    "scores",
    "expert_weights",
    "resid_pre",
    "attn_out",
    "mlp_out",
    "resid_post",
)


class Param:
    """A tensor of zeros to be trained, added at a site; made by ``bench.param``.

    Attributes
    ----------
    tensor
        [L, size], or [L, P, size] where ``tokens`` are positions: L layers, P tokens, and one number per expert
        (``router_logits``, ``scores``, ``expert_weights``) or channel of the residual stream. fp64 for a model in fp64,
        else fp32. Give it to an optimiser.
    """

    def __init__(
        self, bench: Bench, site: ParamSite, layers: int | Iterable[int], tokens: Any, **scope: Any
    ) -> None:
        if site not in SITES:
            raise AddressError(f"Site {site!r} cannot be trained.", f"Choose one of {', '.join(SITES)}.")
        self._site = site
        self._scope = {"tokens": tokens, **scope}
        # The edit reads the scope first, so that positions are those it will keep: sorted, each once.
        place = self._make(integers(layers, "layer"), _Anything)
        assert place.layers != "all"
        self._layers = place.layers
        sizes = {self._width(bench, layer) for layer in self._layers}
        if len(sizes) > 1:
            raise PlanError(
                f"The layers {', '.join(map(str, self._layers))} differ in their number of experts.",
                "Make one parameter for each.",
            )
        positions = [len(place.tokens)] if isinstance(place.tokens, tuple) else []
        weights = next(bench.model.parameters())
        dtype = torch.float64 if weights.dtype == torch.float64 else torch.float32
        self.tensor = nn.Parameter(
            torch.zeros(len(self._layers), *positions, sizes.pop(), dtype=dtype, device=weights.device)
        )
        self.edit().check(bench.anatomy)

    def edit(self) -> Edit:
        """The edit that adds the tensor as it is at each pass; a plan with it carries gradients and cannot be saved."""
        return self._make(self._layers, live_blob(self.tensor))

    def freeze(self) -> Edit:
        """The same edit with the tensor's present numbers as data."""
        return self._make(self._layers, blob(self.tensor))

    def _make(self, layers: tuple[int, ...], numbers: Blob) -> Edit:
        if self._site == "router_logits":
            return reroute.bias(layers, numbers, at="logits", **self._scope)
        if self._site == "scores":
            return reroute.scores(layers, numbers, how="add", **self._scope)
        if self._site == "expert_weights":
            return reroute.weights(layers, add=numbers, **self._scope)
        return mask.direction(layers, numbers, op="add", site=self._site, **self._scope)

    def _width(self, bench: Bench, layer: int) -> int:
        block = bench.anatomy.layer(layer)
        if self._site not in ("router_logits", "scores", "expert_weights"):
            return bench.anatomy.hidden_size
        return (
            block.moe.num_experts if block.moe is not None else 1
        )  # a layer without a router is refused by the check

    def __repr__(self) -> str:
        return f"Param({self._site!r}, layers={list(self._layers)}, shape={list(self.tensor.shape)})"


_Anything = Blob(blob="0" * 32, dtype="float32", shape=(1,))
"""Stands for the numbers while only the scope is read."""
