"""The sparse gated MLP: argument checks, schema, shape rule, gradient, and the call into the backend."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from routing_kernels import reference
from routing_kernels.cpu import mlp as cpu
from routing_kernels.dispatch import resolve
from routing_kernels.errors import ArgumentError
from routing_kernels.library import define, differentiable, undispatched
from routing_kernels.ops.moe import ACTIVATIONS, DTYPES

MODES = tuple(cpu.MODES)


class SparseMlp(NamedTuple):
    """What :func:`sparse_mlp` returns. T tokens, D outputs; nothing but ``y`` is differentiable."""

    y: Tensor  # [T, D] of x's dtype
    active_count: Tensor  # [T] int32: neurons whose row of down_t was read
    input_count: Tensor  # [T] int32: inputs whose rows of gate and up were read; H but in mode "teal"
    # [T, 2] float32, zero size without stats: share of the input's squares that was kept (1 but in "teal"), and share
    # of the squares of what the neurons' threshold ranks; NaN in "neuron", where what is skipped is never computed.
    kept_energy: Tensor


def sparse_mlp(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    mode: str = "teal",
    threshold: float = 0.0,
    input_threshold: float = 0.0,
    active: Tensor | None = None,
    act: str = "silu",
    stats: bool = False,
    backend: str = "auto",
) -> SparseMlp:
    """A gated MLP, ``down (act(gate x) * (up x))``, that reads the weights of what is active alone.

    * ``"teal"`` (Liu et al. 2024, arXiv 2408.14690): inputs with ``|x| <= input_threshold`` and neurons with
      ``|act(gate x) * (up x)| <= threshold`` are dropped. Whole rows of all three matrices are skipped, so ``gate`` and
      ``up`` are given transposed.
    * ``"cats"`` (Lee et al. 2024, arXiv 2404.08763): neurons with ``|act(gate x)| <= threshold`` are dropped; ``gate``
      is read in full, ``up`` and ``down`` for the rest alone.
    * ``"neuron"`` (Deja Vu, Liu et al. 2023, arXiv 2310.17157): ``active`` names the neurons; nothing else is read.

    A threshold of 0 drops exact zeros alone. A NaN is never dropped.

    Parameters
    ----------
    x
        [T, H] float32, bfloat16, float16; float64 runs on the reference.
    gate, up
        [F, H] of x's dtype; in mode "teal" transposed, [H, F]. Any strides whose last is 1.
    down_t
        [F, D] of x's dtype: the down projection transposed, a row for each neuron. Any strides whose last is 1.
    mode
        "teal", "cats" or "neuron".
    threshold, input_threshold
        See above; not negative. ``input_threshold`` is for "teal" alone.
    active
        For "neuron" alone. Booleans, [T, F] or one row [F] for all tokens; or int64 neuron numbers, [T, n] or [n], where
        numbers outside 0..F-1 name nobody and repetitions count once.
    act
        One of ``ACTIVATIONS``.
    stats
        Whether to fill ``kept_energy``; ``y`` has the same bits either way.
    backend
        "auto", "reference", "cpu" or "triton" (see :func:`routing_kernels.resolve`).

    Sums are float32 and rounded once, at the end. On one backend and instruction set the result is deterministic, and
    a token's row does not depend on the other tokens of the call or on the number of threads.

    Raises
    ------
    ArgumentError
        A shape, dtype, device, layout, mode, threshold or activation that cannot be used.
    BackendError
        A backend or instruction set that was named and cannot be had.
    """
    mask = _mask(active, x, down_t) if active is not None else None
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (x, gate, up, down_t))
    op = _op if learns else _inference_op
    y, counts, energy = op(x, gate, up, down_t, mask, act, mode, threshold, input_threshold, stats, backend)
    return SparseMlp(y, counts[0], counts[1], energy)


def _mask(active: Tensor, x: Tensor, down_t: Tensor) -> Tensor:
    """``active`` as booleans [T, F]."""
    tokens, width = x.shape[0], down_t.shape[0]
    if active.dim() not in (1, 2) or active.dtype not in (torch.bool, torch.int64):
        raise ArgumentError(
            f"active is {active.dtype} {list(active.shape)}.",
            "Give booleans [T, F] or [F], or int64 neuron numbers [T, n] or [n].",
        )
    if active.dim() == 2 and active.shape[0] != tokens:
        raise ArgumentError(
            f"active has {active.shape[0]} rows and x has {tokens}.",
            "Give one row for each token, or one for all.",
        )
    if active.dtype == torch.int64:
        numbers = torch.where((active >= 0) & (active < width), active, width)
        active = torch.zeros((*active.shape[:-1], width + 1), dtype=torch.bool, device=active.device)
        active = active.scatter(-1, numbers, True)[..., :width]
    elif active.shape[-1] != width:
        raise ArgumentError(
            f"active has {active.shape[-1]} columns and down_t has {width} neurons.",
            "Give one for each neuron.",
        )
    return active.expand(tokens, width)


def _check(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    *edges: float,
) -> None:
    if act not in ACTIVATIONS:
        raise ArgumentError(f"There is no activation {act!r} here.", f"Use one of {', '.join(ACTIVATIONS)}.")
    if mode not in MODES:
        raise ArgumentError(
            f"There is no mode {mode!r} of the sparse MLP.", f"Use one of {', '.join(MODES)}."
        )
    if (active is not None) != (mode == "neuron"):
        raise ArgumentError(
            f"Mode {mode!r} comes {'without' if active is None else 'with'} active neurons.",
            "Give active in mode 'neuron', and in no other.",
        )
    if not all(edge >= 0 for edge in edges):
        raise ArgumentError(f"The thresholds are {edges}.", "Give thresholds that are not negative.")
    if x.dim() != 2 or gate.dim() != 2 or down_t.dim() != 2 or gate.shape != up.shape:
        _refuse_shapes(x, gate, up, down_t)
    wanted = (x.shape[1], down_t.shape[0]) if mode == "teal" else (down_t.shape[0], x.shape[1])
    if tuple(gate.shape) != wanted:
        _refuse_shapes(x, gate, up, down_t)
    if x.dtype not in DTYPES or not x.dtype == gate.dtype == up.dtype == down_t.dtype:
        raise ArgumentError(
            f"x, gate, up and down_t are {x.dtype}, {gate.dtype}, {up.dtype} and {down_t.dtype}.",
            "Give all four one dtype: float32, bfloat16, float16 or float64.",
        )
    if any(t.device != x.device for t in (gate, up, down_t, active) if t is not None):
        raise ArgumentError("The arguments are on different devices.", f"Move all of them to {x.device}.")
    if any(w.stride(1) != 1 and w.shape[1] > 1 for w in (gate, up, down_t)):
        raise ArgumentError(
            "The last dimension of gate, up or down_t is not contiguous.",
            "Call .contiguous() on them once, when the model is loaded.",
        )


def _refuse_shapes(*arguments: Tensor) -> None:
    names = ("x", "gate", "up", "down_t")
    given = ", ".join(f"{name} {list(a.shape)}" for name, a in zip(names, arguments, strict=True))
    raise ArgumentError(
        f"The shapes do not fit together: {given}.",
        "Give x [T, H], gate and up [F, H] (mode 'teal': [H, F]) and down_t [F, D].",
    )


def _forward(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    threshold: float,
    input_threshold: float,
    stats: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, gate, up, down_t, active, act, mode, threshold, input_threshold)
    arguments = (x, gate, up, down_t, active, act, mode, threshold, input_threshold, stats)
    name, isa = resolve(backend, x.device, x.dtype)
    if name == "cpu":
        return cpu.sparse_mlp(*arguments, isa)
    if name == "triton":
        from routing_kernels.triton import mlp as triton

        return triton.sparse_mlp(*arguments)
    return reference.sparse_mlp(*arguments)


def _forward_shapes(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    threshold: float,
    input_threshold: float,
    stats: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, gate, up, down_t, active, act, mode, threshold, input_threshold)
    tokens = x.shape[0]
    return (
        x.new_empty((tokens, down_t.shape[1])),
        x.new_empty((2, tokens), dtype=torch.int32),
        x.new_empty((tokens, 2) if stats else (0,), dtype=torch.float32),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, gate, up, down_t, active, *ctx.settings = inputs[:9]
    ctx.save_for_backward(x, gate, up, down_t, active)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:4])
    if grad is None or not any(needs):
        return (None,) * 11
    found = _backward_op(grad, *ctx.saved_tensors, *ctx.settings, needs)
    return (*(g if need else None for g, need in zip(found, needs, strict=True)), *(None,) * 7)


def _backward_shapes(
    grad: Tensor,
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down_t: Tensor,
    active: Tensor | None,
    act: str,
    mode: str,
    threshold: float,
    input_threshold: float,
    needs: list[bool],
) -> tuple[Tensor, ...]:
    inputs = (x, gate, up, down_t)
    return tuple(t.new_empty(t.shape if need else (0,)) for t, need in zip(inputs, needs, strict=True))


def _refuse_second_derivative(ctx: Any, *_: Tensor | None) -> None:
    raise ArgumentError(
        "The sparse MLP has no second derivative.",
        "Differentiate it once, or run the model's own MLP where a second derivative is needed.",
    )


_INPUTS = (
    "Tensor x, Tensor gate, Tensor up, Tensor down_t, Tensor? active, "
    "str act, str mode, float threshold, float input_threshold"
)
_FORWARD = f"({_INPUTS}, bool stats, str backend) -> (Tensor y, Tensor counts, Tensor kept_energy)"
_BACKWARD = f"(Tensor grad, {_INPUTS}, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)"
_op = define("sparse_mlp", _FORWARD, _forward, _forward_shapes)
differentiable("sparse_mlp", _differentiate, _save_for_backward)
_inference_op = undispatched(define("sparse_mlp_inference", _FORWARD, _forward, _forward_shapes), _forward)
_backward_op = define("sparse_mlp_backward", _BACKWARD, reference.sparse_mlp_backward, _backward_shapes)
differentiable("sparse_mlp_backward", _refuse_second_derivative)
