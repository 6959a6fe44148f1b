"""Trained depth routers: small networks on the residual stream that decide for each token whether a unit runs.

Two forms. ``linear``: ``sigmoid(w . rms(h) + b)`` is the probability that a unit runs (Router-Tuning: He et al. 2024, arXiv
2410.13184). ``classes``: a linear map, GELU, a linear map to the three classes skip, run, repeat (Dr.LLM: Heakl et al. 2025,
arXiv 2510.12773, without its windows: every token decides for itself, so that decoding decides as a whole pass does).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.runtime.artefacts import Artefact


@dataclass(frozen=True)
class DepthRouter:
    """Routers of several layers.

    ``form`` is ``linear`` or ``classes``; ``weights`` maps ``layer.name`` to tensors: for ``linear`` ``weight`` [H] and
    ``bias`` [1]; for ``classes`` ``first`` [D, H], ``first_bias`` [D], ``last`` [3, D], ``last_bias`` [3]. ``threshold`` is
    the probability above which a unit runs.
    """

    form: str
    weights: dict[str, Tensor]
    threshold: float = 0.5

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a router."""
        return tuple(sorted({int(name.split(".")[0]) for name in self.weights}))

    def artefact(self) -> Artefact:
        """The router as what a plan can name."""
        tensors = {name: value.detach().float() for name, value in self.weights.items()}
        return Artefact("router", tensors, {"form": self.form, "threshold": self.threshold})

    @classmethod
    def of(cls, artefact: Artefact) -> DepthRouter:
        """The inverse of :meth:`artefact`."""
        return cls(artefact.meta["form"], artefact.tensors, artefact.meta["threshold"])

    def probability(self, layer: int, hidden: Tensor) -> Tensor:
        """The probability [...] that a token with residual ``hidden`` [..., H] runs; 1 where the layer has no router."""
        if layer not in self.layers:
            return torch.ones(hidden.shape[:-1], device=hidden.device)
        logits = self.logits(layer, hidden)
        return torch.sigmoid(logits) if self.form == "linear" else 1 - logits.softmax(-1)[..., 0]

    def logits(self, layer: int, hidden: Tensor) -> Tensor:
        """The router's output in ``layer``: [...] for ``linear``, [..., 3] for ``classes``."""
        given = normalised(hidden)
        part = {
            name.split(".", 1)[1]: value.to(given.device)
            for name, value in self.weights.items()
            if name.startswith(f"{layer}.")
        }
        if self.form == "linear":
            return given @ part["weight"] + part["bias"]
        inner = F.gelu(F.linear(given, part["first"], part["first_bias"]))
        return F.linear(inner, part["last"], part["last_bias"])

    def visits(self, layer: int, hidden: Tensor) -> Tensor:
        """How often each token runs the unit of ``layer``, int64 [...]: 0, 1, and for ``classes`` also 2."""
        if layer not in self.layers:
            return torch.ones(hidden.shape[:-1], dtype=torch.int64, device=hidden.device)
        if self.form == "linear":
            return (self.probability(layer, hidden) > self.threshold).long()
        return self.logits(layer, hidden).argmax(-1)


def normalised(hidden: Tensor) -> Tensor:
    """``hidden`` [..., H] over its root mean square, float32."""
    hidden = hidden.float()
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + 1e-6)
