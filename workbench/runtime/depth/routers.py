"""Trained depth routers: small networks on the residual stream that decide for each token whether a unit runs.

Two forms. ``linear``: ``sigmoid(w . rms(h) + b)`` is the probability that a unit runs (Router-Tuning: He et al. 2024, arXiv
2410.13184). ``classes``: a linear map, GELU, a linear map to the three classes skip, run, repeat (Dr.LLM: Heakl et al. 2025,
arXiv 2510.12773, without its windows: every token decides for itself, so that decoding decides as a whole pass does).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.errors import PlanError

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class DepthRouter:
    """Routers of several layers.

    ``form`` is ``linear`` or ``classes``; ``weights`` maps ``layer.name`` to tensors: for ``linear`` ``weight`` [H] and
    ``bias`` []; for ``classes`` ``first`` [D, H], ``first_bias`` [D], ``last`` [3, D], ``last_bias`` [3]. ``threshold`` is
    the probability above which a unit runs.
    """

    form: str
    weights: dict[str, Tensor]
    threshold: float = 0.5

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a router."""
        return tuple(sorted({int(name.split(".")[0]) for name in self.weights}))

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of form, threshold and weights."""
        digest = hashlib.sha256(f"{self.form} {self.threshold!r}".encode())
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def probability(self, layer: int, hidden: Tensor) -> Tensor:
        """The probability [...] that a token with residual ``hidden`` [..., H] runs; 1 where the layer has no router."""
        return (
            torch.sigmoid(self.logits(layer, hidden))
            if layer in self.layers
            else hidden.new_ones(hidden.shape[:-1])
        )

    def logits(self, layer: int, hidden: Tensor) -> Tensor:
        """The router's output in ``layer``: [...] for ``linear``, [..., 3] for ``classes``."""
        given = normalised(hidden)
        part = {
            name.split(".", 1)[1]: value
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

    def save(self, folder: str | Path) -> Path:
        """Write the router to ``folder`` under its hash; gives the file."""
        from safetensors.torch import save_file

        path = Path(folder) / f"{self.hash}{_SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = {"router": json.dumps({"form": self.form, "threshold": self.threshold})}
        save_file(
            {name: value.detach().float().cpu().contiguous() for name, value in self.weights.items()},
            path,
            meta,
        )
        return path

    @classmethod
    def load(cls, path: str | Path) -> DepthRouter:
        """Read what :meth:`save` wrote; raises :class:`PlanError` for anything else or if its content has changed."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                meta: dict[str, Any] = json.loads((file.metadata() or {})["router"])
                found = cls(
                    meta["form"], {name: file.get_tensor(name) for name in file.keys()}, meta["threshold"]
                )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise PlanError(
                f"{path} is not a router file: {error}.", "Save one with DepthRouter.save."
            ) from None
        if Path(path).stem != found.hash:
            raise PlanError(
                f"{path} holds the router {found.hash}.", "Its name must be its hash: save it again."
            )
        return found


@dataclass
class Routers:
    """The routers a bench knows, by content hash."""

    known: dict[str, DepthRouter] = field(default_factory=dict)

    def add(self, router: DepthRouter) -> str:
        """Make ``router`` known; gives its hash, by which plans name it."""
        self.known[router.hash] = router
        return router.hash

    def open(self, name: str) -> DepthRouter:
        """The router with that hash; raises :class:`PlanError` where it is not known."""
        try:
            return self.known[name]
        except KeyError:
            raise PlanError(
                f"The router {name} is not known to this bench.", "Load its file with bench.add_router(path)."
            ) from None


def normalised(hidden: Tensor) -> Tensor:
    """``hidden`` [..., H] over its root mean square, float32."""
    hidden = hidden.float()
    return hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + 1e-6)
