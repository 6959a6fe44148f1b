"""What a block does to the residual stream: how much its parts add, in which direction, and how much it turns it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Contribution(NamedTuple):
    """One value per token, each of the shape of the residual stream without its last axis.

    The parts are ``None`` where only the whole block is known.
    """

    attn_norm: Tensor | None
    attn_cos: Tensor | None
    mlp_norm: Tensor | None
    mlp_cos: Tensor | None
    block_norm: Tensor
    influence: Tensor


def block(pre: Tensor, attn: Tensor, mid: Tensor, mlp: Tensor, post: Tensor) -> Contribution:
    """Contribution of one block, from its residual stream and what is added to it, each [..., H].

    * ``attn_norm`` = ||attn|| / ||pre||, ``attn_cos`` = cos(attn, pre);
    * ``mlp_norm`` = ||mlp|| / ||mid||, ``mlp_cos`` = cos(mlp, mid);
    * ``block_norm`` = ||post - pre|| / ||pre||;
    * ``influence`` = 1 - cos(pre, post), the block influence of ShortGPT (Men et al. 2024) before its mean over tokens.

    A ratio to a zero vector and a cosine with one are undefined: NaN.
    """
    pre, attn, mid, mlp, post = (
        x if x.dtype == torch.float64 else x.float() for x in (pre, attn, mid, mlp, post)
    )
    pre_norm, mid_norm = _norm(pre), _norm(mid)
    attn_norm, mlp_norm, post_norm = _norm(attn), _norm(mlp), _norm(post)
    return Contribution(
        attn_norm=_ratio(attn_norm, pre_norm),
        attn_cos=_cosine(attn, attn_norm, pre, pre_norm),
        mlp_norm=_ratio(mlp_norm, mid_norm),
        mlp_cos=_cosine(mlp, mlp_norm, mid, mid_norm),
        block_norm=_ratio(_norm(post - pre), pre_norm),
        influence=_turn(pre, pre_norm, post, post_norm),
    )


def whole_block(pre: Tensor, post: Tensor) -> Contribution:
    """``block_norm`` and ``influence`` of :func:`block` from the residual stream [..., H] alone, for a block whose parts
    do not simply add up."""
    pre, post = (x if x.dtype == torch.float64 else x.float() for x in (pre, post))
    pre_norm, post_norm = _norm(pre), _norm(post)
    change = _ratio(_norm(post - pre), pre_norm)
    return Contribution(None, None, None, None, change, _turn(pre, pre_norm, post, post_norm))


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, torch.nan)


def _cosine(a: Tensor, a_norm: Tensor, b: Tensor, b_norm: Tensor) -> Tensor:
    # Divided one after the other: the product of two small norms may underflow where neither does.
    cosine = (a * b).sum(-1) / a_norm / b_norm
    return torch.where((a_norm > 0) & (b_norm > 0), cosine.clamp(-1.0, 1.0), torch.nan)


def _turn(a: Tensor, a_norm: Tensor, b: Tensor, b_norm: Tensor) -> Tensor:
    # Half the squared distance of the unit vectors equals 1 - cos without its cancellation: blocks that change little
    # are the interesting ones, and there 1 - cos in fp32 is nothing but rounding.
    distance = _norm(a / a_norm.unsqueeze(-1) - b / b_norm.unsqueeze(-1))
    return torch.where((a_norm > 0) & (b_norm > 0), distance.square() / 2, torch.nan)
