"""Sparse autoencoders of a model's stream, read from a folder in the format of SAELens, and edits of their features.

A feature is edited with the error term kept: what the autoencoder cannot rebuild of the stream stays as it is, so that
only the edited features move. For each token ``h' = h + s * sum_m (z'_m - z_m) d_m``, where ``z`` are its features, ``z'``
the wanted ones, ``d_m`` the rows of the decoder and ``s`` the scale by which the input was normalised.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import EditRefused, PlanError
from workbench.runtime.artefacts import Artefact

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_NEEDED: dict[str, tuple[str, ...]] = {
    "standard": ("b_enc",), "topk": ("b_enc",), "jumprelu": ("b_enc", "threshold"), "gated": ("b_gate", "b_mag", "r_mag"),
}  # fmt: skip
_SCALES = ("none", "layer_norm", "constant_norm_rescale")


@dataclass(frozen=True)
class Sae:
    """An autoencoder with ``M`` features of a stream of width ``H``, in float32.

    Attributes
    ----------
    architecture
        ``standard`` (ReLU), ``jumprelu`` (a feature below its threshold is 0), ``topk`` (all but the ``k`` largest are 0) or
        ``gated`` (one bias decides whether a feature is on, another how much).
    weights
        ``W_enc`` [H, M], ``W_dec`` [M, H], ``b_dec`` [H], and by architecture ``b_enc``, ``threshold``, ``b_gate``,
        ``b_mag``, ``r_mag`` [M].
    scale
        What is done to the stream before: nothing, its mean and deviation are taken out (``layer_norm``), or its norm is set
        to ``sqrt(H)`` (``constant_norm_rescale``).
    centred
        Whether ``b_dec`` is taken from the input.
    k
        Of ``topk``.
    hook
        Where it was trained, as SAELens names it.
    """

    architecture: str
    weights: dict[str, Tensor]
    scale: str = "none"
    centred: bool = False
    k: int = 0
    hook: str = ""

    @property
    def width(self) -> int:
        """Channels of the stream, ``H``."""
        return self.weights["W_enc"].shape[0]

    @property
    def features(self) -> int:
        """Number of features, ``M``."""
        return self.weights["W_enc"].shape[1]

    def artefact(self) -> Artefact:
        """The autoencoder as what a plan can name."""
        meta = {
            "architecture": self.architecture,
            "scale": self.scale,
            "centred": self.centred,
            "k": self.k,
            "hook": self.hook,
        }
        return Artefact("sae", self.weights, meta)

    @classmethod
    def of(cls, artefact: Artefact) -> Sae:
        """The inverse of :meth:`artefact`."""
        return cls(weights=artefact.tensors, **artefact.meta)

    def encode(self, stream: Tensor) -> Tensor:
        """Features [..., M] of a stream [..., H]; float32."""
        return self._encode(stream.float())[0]

    def decode(self, features: Tensor, stream: Tensor) -> Tensor:
        """What the features [..., M] of ``stream`` [..., H] rebuild of it; float32."""
        _, mean, size = self._encode(stream.float())
        rebuilt = features @ self._weight("W_dec", stream) + self._weight("b_dec", stream)
        return rebuilt * size + mean

    def written(self, stream: Tensor, features: tuple[int, ...], op: str, value: float) -> Tensor:
        """``stream`` [..., H] with ``features`` ablated (set to 0), raised by ``value`` (``add``) or set to it
        (``clamp``)."""
        found, _, size = self._encode(stream.float())
        at = list(features)
        if op == "add":
            change = torch.full_like(found[..., at], value)
        else:
            change = (0.0 if op == "ablate" else value) - found[..., at]
        return stream + (change @ self._weight("W_dec", stream)[at] * size).to(stream.dtype)

    def _weight(self, name: str, like: Tensor) -> Tensor:
        return self.weights[name].to(like.device, torch.float32)

    def _encode(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features, and the mean and the scale that were taken out of the stream."""
        mean, size = stream.new_zeros(1), stream.new_ones(1)
        given = stream
        if self.scale == "layer_norm":
            mean = stream.mean(-1, keepdim=True)
            size = stream.std(-1, keepdim=True)
            given = (stream - mean) / (size + 1e-5)
        elif self.scale == "constant_norm_rescale":
            size = stream.norm(dim=-1, keepdim=True) / self.width**0.5
            given = stream / size
        if self.centred:
            given = given - self._weight("b_dec", stream)
        drive = given @ self._weight("W_enc", stream)
        if self.architecture == "gated":
            on = drive + self._weight("b_gate", stream) > 0
            much = drive * self._weight("r_mag", stream).exp() + self._weight("b_mag", stream)
            return much.relu() * on, mean, size
        drive = drive + self._weight("b_enc", stream)
        if self.architecture == "topk":
            best = drive.topk(self.k, dim=-1)
            return torch.zeros_like(drive).scatter(-1, best.indices, best.values.relu()), mean, size
        on = drive > self._weight("threshold", stream) if self.architecture == "jumprelu" else drive > 0
        return drive.relu() * on, mean, size


def load_sae(folder: str | Path) -> Sae:
    """Read an autoencoder that SAELens wrote: ``cfg.json`` and ``sae_weights.safetensors``.

    Raises :class:`PlanError` for a folder without them, and for a form whose features cannot be computed here.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise PlanError(
            f"{folder} holds no sparse autoencoder: {error}.", f"Name a folder with {CONFIG} and {WEIGHTS}."
        ) from None
    architecture, k = _architecture(config)
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").float().exp()
    _refuse_unknown(folder, config, architecture)
    names = ("W_enc", "W_dec", "b_dec", *_NEEDED[architecture])
    missing = [name for name in names if name not in tensors]
    if missing:
        raise PlanError(
            f"The autoencoder of {folder} has no {missing[0]}, which the form {architecture} needs.",
            "Save it again with SAELens.",
        )
    weights = {name: tensors[name].float().contiguous() for name in names}
    hook = str(config.get("metadata", {}).get("hook_name") or config.get("hook_name") or "")
    scale = config.get("normalize_activations") or "none"
    return Sae(architecture, weights, scale, bool(config.get("apply_b_dec_to_input")), k, hook)


def _architecture(config: dict[str, Any]) -> tuple[str, int]:
    """The architecture, and the number of features that a token keeps; older files call the second an activation."""
    architecture = str(config.get("architecture") or "standard")
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    kept = config.get("k") or (config.get("activation_fn_kwargs") or {}).get("k") or 0
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    return architecture, int(kept) if architecture == "topk" else 0


def _refuse_unknown(folder: Path, config: dict[str, Any], architecture: str) -> None:
    scale = config.get("normalize_activations") or "none"
    reshape = config.get("reshape_activations") or "none"
    activation = config.get("activation_fn_str") or config.get("activation_fn") or "relu"
    for wrong, what in (
        (architecture not in _NEEDED, f"the architecture {architecture}"),
        (scale not in _SCALES, f"normalize_activations={scale!r}"),
        (reshape != "none", f"reshape_activations={reshape!r}"),
        (activation not in ("relu", "topk"), f"the activation {activation!r}"),
        (
            bool(config.get("rescale_acts_by_decoder_norm")),
            "features that are rescaled by the decoder's norm",
        ),
        (bool(config.get("finetuning_scaling_factor")), "a fine-tuned scaling of its features"),
    ):
        if wrong:
            raise PlanError(
                f"The autoencoder of {folder} has {what}, which is not known here.",
                "Fold it into the weights before saving, or choose another.",
            )


def check_features(sae: Sae, features: tuple[int, ...], width: int) -> None:
    """Refuse features that ``sae`` does not have, and a stream that is not as wide as its own."""
    if sae.width != width:
        raise EditRefused(
            f"The autoencoder reads {sae.width} channels, but the stream has {width}.",
            "Use one that was trained on this model.",
        )
    if features[-1] >= sae.features:
        raise EditRefused(
            f"mask.direction names feature {features[-1]}, but the autoencoder has features 0 to {sae.features - 1}.",
            "Name a feature that exists.",
        )
