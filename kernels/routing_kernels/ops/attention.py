"""Block-sparse attention: argument checks, schema, shape rule, gradient, and the call into the backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import attention as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, differentiable, undispatched
from routing_kernels.ops.moe import DTYPES

BLOCKS = (16, 32, 64, 128)


class BlockAttention(NamedTuple):
    """What :func:`block_attention` returns. B batch, N heads, Q queries, D value size, R extra columns, C kept blocks.

    Nothing but ``o`` is differentiable. Without ``extra`` the sketch, and without ``stats`` the last two, have size 0.
    """

    o: Tensor  # [B, N, Q, D] of q's dtype; zeros for a query that sees no key
    sketch: Tensor  # [B, N, Q, R] float32: the attention map times the extra columns
    lse: (
        Tensor  # [B, N, Q] float32: log of the sum of exponentials, sink included; -inf where nothing is seen
    )
    block_mass: Tensor  # [B, C] float32: probability in a kept block, summed over its queries
    executed: (
        Tensor  # [] int64: blocks computed, over batch and heads: kept, and some query sees some key of it
    )


def block_rows(kept: Tensor) -> tuple[Tensor, Tensor]:
    """The kept blocks of ``kept`` [N, query blocks, key blocks] (bool) as ``ptr`` [N, query blocks + 1] and ``col`` [C]."""
    if kept.dim() != 3 or kept.dtype != torch.bool:
        raise ArgumentError(
            f"The mask of blocks is {kept.dtype} {list(kept.shape)}.",
            "Give booleans [heads, query blocks, key blocks].",
        )
    ends = kept.sum(-1).flatten().cumsum(0).reshape(kept.shape[:2])
    starts = torch.cat([ends.new_zeros(1), ends[:-1, -1]]) if kept.shape[1] else ends.new_zeros(kept.shape[0])
    return torch.cat([starts[:, None], ends], dim=1), kept.nonzero()[:, 2].contiguous()


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int = 64,
    scale: float | None = None,
    causal: bool = True,
    lengths: Tensor | None = None,
    sinks: Tensor | None = None,
    extra: Tensor | None = None,
    window: int = 0,
    softcap: float = 0.0,
    starts: Tensor | None = None,
    stats: bool = False,
    backend: str = "auto",
) -> BlockAttention:
    """Attention over the kept blocks of its map: ``softmax(scale q k^T) v`` where what is not kept counts as -infinity.

    Parameters
    ----------
    q
        [B, N, Q, E] float32, bfloat16, float16; float64 runs on the reference.
    k, v
        [B, M, K, E] and [B, M, K, D] of q's dtype, where M divides N: head n reads the keys of head n // (N / M).
    ptr, col
        int64, the kept blocks row by row (compressed sparse rows): query block i of head n keeps the key blocks
        ``col[ptr[n, i] : ptr[n, i + 1]]``, ascending. ``ptr`` is [N, ceil(Q / block) + 1]; each head starts where the
        one before ends. :func:`block_rows` makes both from a mask.
    block
        Queries and keys of a block: 16, 32, 64 or 128. The last block may be short.
    scale
        Of the scores; None: 1 / sqrt(E).
    causal
        Whether a query sees no key after it; the last query stands at the last key.
    lengths
        [B] int64: keys from this position on are padding. None: there is none.
    sinks
        [N] floating point: one more score for each query of the head, with no value (gpt-oss).
    extra
        [K, R] floating point: more value columns, the same for every head, which go through in float32. With random
        columns the sketch holds the range of the attention map (Halko et al. 2011, arXiv 0909.4061).
    window
        A query sees its own position and the ``window - 1`` before it (Child et al. 2019, arXiv 1904.10509); 0: no limit.
    softcap
        c > 0: a score s counts as c tanh(s / c) (Gemma 2, arXiv 2408.00118); 0: as it is.
    starts
        [B] int64: keys before this position are padding. None: there is none.
    stats
        Whether to fill ``lse`` and ``block_mass``; ``o`` has the same bits either way.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float32 and rounded once, at the end. A block that is not kept, or that nobody may see, is neither read nor
    computed; a head that keeps none costs nothing, gives zeros, and changes no bit of the others. In float32 with nothing
    but causality to mask, the cpu backend without AVX-512 gives the heads to torch's dense attention where each keeps
    every block or none. Otherwise a query's row does not depend on the batch; the number of threads never matters.

    Raises
    ------
    ArgumentError
        A shape, dtype, device or block size that cannot be used, or rows that do not ascend.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, sinks) if t is not None)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    op = _op if learns else _inference_op
    return BlockAttention(
        *op(
            q, k, v, ptr, col, block, scale, causal, lengths, sinks, extra, window, softcap, starts, stats, backend
        )
    )  # fmt: skip


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int,
    lengths: Tensor | None,
    sinks: Tensor | None,
    extra: Tensor | None,
    window: int,
    softcap: float,
    starts: Tensor | None,
) -> None:
    if block not in BLOCKS:
        raise ArgumentError(
            f"There are no blocks of {block}.", f"Use one of {', '.join(str(b) for b in BLOCKS)}."
        )
    if window < 0 or not 0 <= softcap < float("inf"):
        raise ArgumentError(
            f"The window is {window} and the softcap {softcap}.", "Give 0 for none, else positive numbers."
        )
    if not q.dim() == k.dim() == v.dim() == 4 or ptr.dim() != 2 or col.dim() != 1:
        _refuse_shapes(q, k, v, ptr, col)
    (batch, heads, queries, depth), (kv_heads, keys) = q.shape, k.shape[1:3]
    fits = k.shape[0] == v.shape[0] == batch and k.shape[3] == depth and v.shape[1:3] == k.shape[1:3]
    if not fits or kv_heads == 0 or heads % kv_heads or tuple(ptr.shape) != (heads, -(-queries // block) + 1):
        _refuse_shapes(q, k, v, ptr, col)
    options = ((lengths, (batch,)), (sinks, (heads,)), (extra, (keys, None)), (starts, (batch,)))
    for name, (given, wanted) in zip(("lengths", "sinks", "extra", "starts"), options, strict=True):
        if given is None:
            continue
        if given.dim() != len(wanted) or given.shape[0] != wanted[0]:
            raise ArgumentError(
                f"{name} has shape {list(given.shape)}.",
                "Give lengths and starts as [B], sinks as [N] and extra as [K, R].",
            )
        if given.dtype != torch.int64 if name in ("lengths", "starts") else not given.dtype.is_floating_point:
            raise ArgumentError(
                f"{name} is {given.dtype}.",
                "Give lengths and starts as int64, sinks and extra as floating point.",
            )
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype:
        raise ArgumentError(
            f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}.",
            "Give all three one dtype: float32, bfloat16, float16 or float64.",
        )
    if ptr.dtype != torch.int64 or col.dtype != torch.int64:
        raise ArgumentError(f"ptr and col are {ptr.dtype} and {col.dtype}.", "Give both as int64.")
    if any(t.device != q.device for t in (k, v, ptr, col, lengths, sinks, extra, starts) if t is not None):
        raise ArgumentError("The arguments are on different devices.", f"Move all of them to {q.device}.")


def _refuse_shapes(*arguments: Tensor) -> None:
    given = ", ".join(
        f"{name} {list(a.shape)}" for name, a in zip(("q", "k", "v", "ptr", "col"), arguments, strict=True)
    )
    raise ArgumentError(
        f"The shapes do not fit together: {given}.",
        "Give q [B, N, Q, E], k [B, M, K, E] and v [B, M, K, D] where M divides N, "
        "ptr [N, ceil(Q / block) + 1] and col [C].",
    )


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int,
    scale: float,
    causal: bool,
    lengths: Tensor | None,
    sinks: Tensor | None,
    extra: Tensor | None,
    window: int,
    softcap: float,
    starts: Tensor | None,
    stats: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _check(q, k, v, ptr, col, block, lengths, sinks, extra, window, softcap, starts)
    arguments = (
        q,
        k,
        v,
        ptr,
        col,
        block,
        scale,
        causal,
        lengths,
        sinks,
        extra,
        window,
        softcap,
        starts,
        stats,
    )
    name, isa = resolve(backend, q.device, q.dtype)
    if name == "cpu":
        return cpu.block_attention(*arguments, isa)
    if name == "triton":
        from routing_kernels.triton import attention as triton

        return triton.block_attention(*arguments)
    return reference.block_attention(*arguments)


def _forward_shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int,
    scale: float,
    causal: bool,
    lengths: Tensor | None,
    sinks: Tensor | None,
    extra: Tensor | None,
    window: int,
    softcap: float,
    starts: Tensor | None,
    stats: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    _check(q, k, v, ptr, col, block, lengths, sinks, extra, window, softcap, starts)
    rows = q.shape[:3]

    def shaped(*shape: int) -> Tensor:
        return q.new_empty(shape, dtype=torch.float32)

    return (
        q.new_empty((*rows, v.shape[3])),
        shaped(0) if extra is None else shaped(*rows, extra.shape[1]),
        shaped(*rows) if stats else shaped(0),
        shaped(rows[0], col.shape[0]) if stats else shaped(0),
        q.new_empty((), dtype=torch.int64),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, ptr, col, *ctx.settings, lengths, sinks = inputs[:10]
    *ctx.limits, starts = inputs[11:14]
    ctx.save_for_backward(q, k, v, ptr, col, lengths, sinks, starts)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad
    needs = [wanted[0], wanted[1], wanted[2], wanted[9]]
    if grad is None or not any(needs):
        return (None,) * 16
    q, k, v, ptr, col, lengths, sinks, starts = ctx.saved_tensors
    found = _backward_op(grad, q, k, v, ptr, col, *ctx.settings, lengths, sinks, *ctx.limits, starts, needs)
    grads = [g if need else None for g, need in zip(found, needs, strict=True)]
    return (*grads[:3], *(None,) * 6, grads[3], *(None,) * 6)


def _backward_shapes(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ptr: Tensor,
    col: Tensor,
    block: int,
    scale: float,
    causal: bool,
    lengths: Tensor | None,
    sinks: Tensor | None,
    window: int,
    softcap: float,
    starts: Tensor | None,
    needs: list[bool],
) -> tuple[Tensor, ...]:
    shapes = [t.new_empty(t.shape if need else (0,)) for t, need in zip((q, k, v), needs[:3], strict=True)]
    return (*shapes, q.new_empty(0) if sinks is None or not needs[3] else sinks.new_empty(sinks.shape))


def _refuse_second_derivative(ctx: Any, *_: Tensor | None) -> None:
    raise ArgumentError(
        "Block attention has no second derivative.",
        "Differentiate it once, or run the model's own attention where a second derivative is needed.",
    )


_INPUTS = (
    "Tensor q, Tensor k, Tensor v, Tensor ptr, Tensor col, int block, float scale, bool causal, Tensor? lengths, "
    "Tensor? sinks"
)
_LIMITS = "int window, float softcap, Tensor? starts"
_FORWARD = (
    f"({_INPUTS}, Tensor? extra, {_LIMITS}, bool stats, str backend) -> "
    "(Tensor o, Tensor sketch, Tensor lse, Tensor block_mass, Tensor executed)"
)
_BACKWARD = f"(Tensor grad, {_INPUTS}, {_LIMITS}, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)"
_op = define("block_attention", _FORWARD, _forward, _forward_shapes)
differentiable("block_attention", _differentiate, _save_for_backward)
_inference_op = undispatched(
    define("block_attention_inference", _FORWARD, _forward, _forward_shapes), _forward
)
_backward_op = define(
    "block_attention_backward", _BACKWARD, reference.block_attention_backward, _backward_shapes
)
differentiable("block_attention_backward", _refuse_second_derivative)
