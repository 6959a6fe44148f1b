"""Experts in a model: our fused layer for the banks it covers, our products around the model's own gate for the others
that the registry describes, the model's own implementation for the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import routing_kernels
import torch
from torch import Tensor, nn

from workbench.runtime.attach.activations import kernel_activation


@dataclass
class Bank:
    """How one expert bank runs: kernel backend, activation, and who wants what the next call gives: its statistics, the ids
    and weights it executed, and the seconds it took the calling thread. ``act`` is empty where the model's own gate stands
    between our products."""

    backend: str
    act: str
    threshold: float = 0.01
    sink: Callable[[routing_kernels.ExpertRows, Tensor, Tensor, float], None] | None = None


_BANKS: WeakKeyDictionary[nn.Module, Bank] = WeakKeyDictionary()


def experts_function(own: str) -> Callable[[Any, Tensor, Tensor, Tensor], Tensor]:
    """What stands in transformers' registry in place of the implementation called ``own``."""

    def experts(module: Any, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """hidden [T, H], ids [T, k], weights [T, k] -> [T, H], in transformers' calling order."""
        bank = _BANKS.get(module)
        if bank is None:
            return _own_function(own, module)(module, hidden, ids, weights)
        started = time.perf_counter()
        out = _run(module, bank, hidden, ids, weights)
        if bank.sink is not None:
            bank.sink(out, ids, weights, time.perf_counter() - started)
        return out.y

    return experts


def each_choice(module: Any, hidden: Tensor, ids: Tensor) -> Tensor:
    """What each expert [T, k] that was chosen of a bank on our kernels makes of ``hidden`` [T, H] before its weight,
    [T, k, H]; zeros for a slot without one. Nobody is told of its statistics."""
    bank, k = _BANKS[module], ids.shape[-1]
    ids = ids.reshape(-1, 1)
    once = torch.ones_like(ids, dtype=hidden.dtype)
    out = _run(module, Bank(bank.backend, bank.act), hidden.repeat_interleave(k, dim=0), ids, once)
    return out.y.unflatten(0, (-1, k))


def _run(module: Any, bank: Bank, hidden: Tensor, ids: Tensor, weights: Tensor) -> routing_kernels.ExpertRows:
    return (_fused if bank.act else _composed)(module, bank, hidden, ids, weights)


def _fused(
    module: Any, bank: Bank, hidden: Tensor, ids: Tensor, weights: Tensor
) -> routing_kernels.ExpertRows:
    return routing_kernels.expert_rows(
        hidden, ids, weights, module.gate_up_proj, module.down_proj,
        act=bank.act, stats=bank.sink is not None, threshold=bank.threshold, backend=bank.backend,
    )  # fmt: skip


def _composed(
    module: Any, bank: Bank, hidden: Tensor, ids: Tensor, weights: Tensor
) -> routing_kernels.ExpertRows:
    """What the registry's flags say of a bank, in the terms of our linear layers."""
    name = "gate_up_proj" if module.has_gate else "up_proj"

    def layer(part: str) -> routing_kernels.ExpertLinear:
        bias = getattr(module, f"{part}_bias") if module.has_bias else None
        return routing_kernels.ExpertLinear(getattr(module, part), bias, module.is_transposed)

    return routing_kernels.composed_experts(
        hidden, ids, weights, layer(name), layer("down_proj"),
        module._apply_gate if module.has_gate else module.act_fn,
        module.post_expert_norm if getattr(module, "has_post_expert_norm", False) else None,
        stats=bank.sink is not None, threshold=bank.threshold, backend=bank.backend,
    ).rows()  # fmt: skip


def _own_function(own: str, module: Any) -> Callable[..., Tensor]:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    # The class's own loop stands behind the decorator that asks the registry.
    return ALL_EXPERTS_FUNCTIONS.get_interface(own, type(module).forward.__wrapped__)


def attach_bank(module: Any, backend: str) -> None:
    """Let ``module`` run on our kernels: fused where :func:`unfit_bank` finds nothing against it, else composed."""
    act = "" if unfit_bank(module) else kernel_activation(module.act_fn)
    assert act is not None
    _BANKS[module] = Bank(backend, act)


def detach_bank(module: nn.Module) -> None:
    """Give ``module`` back to the model's own implementation."""
    _BANKS.pop(module, None)


def bank_of(module: nn.Module) -> Bank | None:
    """How ``module`` runs, if it runs on our kernels."""
    return _BANKS.get(module)


def known_bank(bank: Any) -> bool:
    """Whether transformers' registry says of ``bank`` how its weights lie and how its neurons are gated."""
    return hasattr(bank, "_apply_gate")


def unfit_bank(bank: Any) -> str:
    """Why our fused layer does not cover ``bank``; empty where it does."""
    name = type(bank).__name__
    if not known_bank(bank):
        return f"{name} is not in transformers' experts registry"
    for flag, wanted, what in (
        ("has_gate", True, "has neurons without a gate"), ("has_bias", False, "has biases"),
        ("is_transposed", False, "holds its weights transposed"),
        ("is_concatenated", True, "interleaves gate and up"),
        ("has_post_expert_norm", False, "normalises what each expert returns"),
    ):  # fmt: skip
        if bool(getattr(bank, flag, wanted)) is not wanted:
            return f"{name} {what}, which the kernel does not cover"
    if type(bank)._apply_gate.__qualname__ != "_default_apply_gate":
        return f"{name} gates its neurons in its own way"
    if kernel_activation(bank.act_fn) is None:
        return f"the activation {type(bank.act_fn).__name__} is not in the kernel"
    return ""


_PROOF = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}
_FLAGS = (
    "has_gate",
    "has_bias",
    "is_transposed",
    "is_concatenated",
)  # of every release; has_post_expert_norm is younger


def unfit_parts(module: Any, backend: str) -> str:
    """Why our products with the model's gate between them do not compute what ``module`` does; empty where they do, as a
    call on random numbers shows."""
    name = type(module).__name__
    if not all(hasattr(module, flag) for flag in _FLAGS):
        return f"{name} is not in transformers' experts registry"
    weight = getattr(module, "down_proj", None)
    if not isinstance(weight, Tensor) or weight.dim() != 3 or weight.dtype not in _PROOF:
        return f"{name} holds its weights in a way that our products do not read"
    hidden = weight.shape[2 if module.is_transposed else 1]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, hidden, generator=generator).to(weight)
    ids = torch.arange(6).reshape(3, 2).to(weight.device) % len(weight)
    weights = torch.tensor([[0.5, 0.25], [1.0, 0.125], [0.75, 0.5]]).to(weight)
    with torch.no_grad():
        own = type(module).forward.__wrapped__(module, x, ids, weights).double()
        ours = _composed(module, Bank(backend, ""), x, ids, weights).y.double()
    difference = float((ours - own).norm() / own.norm().clamp(min=1e-30))
    if ours.shape == own.shape and difference <= _PROOF[weight.dtype]:
        return ""
    return f"{name} computes something else than its flags say: the outputs differ by {difference:.1e}"
