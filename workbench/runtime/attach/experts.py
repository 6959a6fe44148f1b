"""Experts in a model: our kernel for the banks it covers, the model's own implementation for the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import routing_kernels
from torch import Tensor, nn

from workbench.runtime.attach.activations import kernel_activation


@dataclass
class Bank:
    """How one expert bank runs: kernel backend, activation, and who wants the statistics of the next call and the seconds it
    took the calling thread."""

    backend: str
    act: str
    threshold: float = 0.01
    sink: Callable[[routing_kernels.MoeExperts, float], None] | None = None


_BANKS: WeakKeyDictionary[nn.Module, Bank] = WeakKeyDictionary()


def experts_function(own: str) -> Callable[[Any, Tensor, Tensor, Tensor], Tensor]:
    """What stands in transformers' registry in place of the implementation called ``own``."""

    def experts(module: Any, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """hidden [T, H], ids [T, k], weights [T, k] -> [T, H], in transformers' calling order."""
        bank = _BANKS.get(module)
        if bank is None:
            return _own_function(own, module)(module, hidden, ids, weights)
        started = time.perf_counter()
        out = routing_kernels.moe_experts(
            hidden, ids, weights, module.gate_up_proj, module.down_proj,
            act=bank.act, stats=bank.sink is not None, threshold=bank.threshold, backend=bank.backend,
        )  # fmt: skip
        if bank.sink is not None:
            bank.sink(out, time.perf_counter() - started)
        return out.y

    return experts


def _own_function(own: str, module: Any) -> Callable[..., Tensor]:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    # The class's own loop stands behind the decorator that asks the registry.
    return ALL_EXPERTS_FUNCTIONS.get_interface(own, type(module).forward.__wrapped__)


def attach_bank(module: Any, backend: str) -> None:
    """Let ``module``, which :func:`unfit_bank` finds nothing against, run on our kernel."""
    act = kernel_activation(module.act_fn)
    assert act is not None
    _BANKS[module] = Bank(backend, act)


def detach_bank(module: nn.Module) -> None:
    """Give ``module`` back to the model's own implementation."""
    _BANKS.pop(module, None)


def bank_of(module: nn.Module) -> Bank | None:
    """How ``module`` runs, if it runs on our kernels."""
    return _BANKS.get(module)


def unfit_bank(bank: Any) -> str:
    """Why our kernel does not cover ``bank``; empty where it does."""
    name = type(bank).__name__
    if not hasattr(bank, "_apply_gate"):
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
