"""What each part of the network adds to one logit directly, and what the stream would already predict.

The final stream is a sum of parts: the embedding and what every attention and MLP added. Under the final norm's scale at
that token, taken as given, a logit is linear in the stream, so it is a sum of one number a part. What a part changes by
way of later layers is not in it.
Source: direct logit attribution of Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); logit lens of
nostalgebraist 2020.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Direction(NamedTuple):
    """The linear form by which a stream [T, H] gives the logits of one target a token: ``stream . vector + constant``.

    ``vector`` is [T, H], ``constant`` [T]; both fp32 (fp64 for fp64).
    """

    vector: Tensor
    constant: Tensor


def direction(
    norm: nn.Module | None, final: Tensor, unembedding: Tensor, bias: Tensor | None = None
) -> Direction:
    """The direct path from the final stream to a logit, ``unembedding . norm(final) + bias``, with the norm's scale fixed.

    Parameters
    ----------
    norm
        The norm before the head: a layer norm or an RMS norm, whose gain is its weight or one plus its weight; ``None`` for
        none.
    final
        The stream [T, H] that enters it.
    unembedding
        The head's row [T, H] of each token's target, and its ``bias`` [T].

    Raises
    ------
    ValueError
        The norm is neither: a probe of it does not come out as computed.
    """
    wide = _wide(final)
    rows = unembedding.to(wide)
    constant = torch.zeros_like(wide[..., 0]) if bias is None else bias.to(wide)
    if norm is None:
        return Direction(rows, constant)
    centred, gain, shift = _form(norm, wide)
    vector = rows * gain * _scale(norm, wide, centred)
    if centred:
        vector = vector - vector.mean(-1, keepdim=True)  # the norm takes the mean of the stream away
    return Direction(vector, constant + rows @ shift)


def effect(part: Tensor, of: Direction) -> Tensor:
    """What a ``part`` [T, H] of the final stream adds to the logit [T]."""
    return (_wide(part) * of.vector.to(_wide(part))).sum(-1)


def head_effects(heads: Tensor, out_proj: Tensor, of: Direction, count: int) -> Tensor:
    """What each attention head adds [T, N], from the input [T, N x D] and the weight [H, N x D] of the output projection.

    They sum to the effect of attention less that of the projection's bias.
    """
    values = _wide(heads)
    seen = of.vector.to(values) @ out_proj.to(values)
    return (values * seen).unflatten(-1, (count, -1)).sum(-1)


def expert_effects(outputs: Tensor, weights: Tensor, of: Direction) -> Tensor:
    """What each selected expert adds [T, k], from its output before the weight [T, k, H] and the weights [T, k].

    They sum to the effect of the MLP less that of shared experts.
    """
    values = _wide(outputs)
    return torch.einsum("tkh,th->tk", values, of.vector.to(values)) * weights.to(values)


def lens_divergence(final: Tensor, early: Tensor) -> Tensor:
    """KL(final || early) [T] in nats between the next-token distributions of two sets of logits [T, V]."""
    log_final, log_early = (_wide(logits).log_softmax(-1) for logits in (final, early))
    return F.kl_div(log_early, log_final, reduction="none", log_target=True).sum(-1).clamp(min=0.0)


def _scale(norm: nn.Module, wide: Tensor, centred: bool) -> Tensor:
    """[T, 1] by which the norm multiplies a stream [T, H]."""
    spread = wide.var(-1, unbiased=False, keepdim=True) if centred else wide.square().mean(-1, keepdim=True)
    return (spread + _epsilon(norm)).rsqrt()


def _form(norm: nn.Module, wide: Tensor) -> tuple[bool, Tensor, Tensor]:
    """Whether the norm takes the mean away, its gain [H] and its shift [H], held to what it really does."""
    with torch.no_grad():
        probe = wide[:4]
        weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        parameter = next(norm.parameters(), None)
        dtype = wide.dtype if parameter is None else parameter.dtype
        wanted = _wide(norm.forward(probe.to(dtype)))  # a call would run the hooks at it
        one, none = torch.ones_like(wide[0]), torch.zeros_like(wide[0])
        tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 0.05
        gains = (one,) if weight is None else (weight.to(one), 1 + weight.to(one))
        shifts = (none,) if bias is None else (bias.to(one), none)
        for centred, gain, shift in itertools.product((False, True), gains, shifts):
            seen = probe - probe.mean(-1, keepdim=True) if centred else probe
            found = seen * _scale(norm, probe, centred) * gain + shift
            if torch.allclose(
                found, wanted, rtol=tolerance, atol=tolerance * float(wanted.abs().max() + 1e-9)
            ):
                return centred, gain, shift
    raise ValueError(
        f"The final norm {type(norm).__name__} is neither a layer norm nor an RMS norm with a plain gain."
    )


def _epsilon(norm: nn.Module) -> float:
    for name in ("variance_epsilon", "eps", "epsilon"):
        value = getattr(norm, name, None)
        if isinstance(value, float):
            return value
    return 0.0


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
