"""Gated MLPs in a model: another forward on the instance, which drops neurons where somebody asks for it.

With every neuron kept the model's own three products run. Ours read the same weights, so that it can at best be as fast
on one token, and add up rows for each token, so that it is slower on many (``benchmarks/kernels.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import routing_kernels
import torch
from torch import Tensor, nn

from workbench.errors import EditRefused
from workbench.runtime.attach.activations import kernel_activation
from workbench.runtime.attach.calls import MlpAsker, MlpCall, MlpOptions, MlpReport
from workbench.runtime.replace import replace_forward

OWN = (
    "with all neurons kept the model's own products are at least as fast; edits that drop neurons run on ours"
)


@dataclass
class _Gated:
    """One gated MLP; ``turned`` are weights transposed for the kernel, made when first asked for."""

    module: Any
    forward: Callable[..., Any]
    act: str
    backend: str
    askers: list[MlpAsker] = field(default_factory=list)
    turned: dict[str, tuple[tuple[int, int], Tensor]] = field(default_factory=dict)


_GATED: WeakKeyDictionary[nn.Module, _Gated] = WeakKeyDictionary()


def unfit_mlp(module: Any) -> str:
    """Why our kernel does not cover the dense MLP ``module``; empty where it does."""
    name = type(module).__name__
    for part in ("gate_proj", "up_proj", "down_proj"):
        linear = getattr(module, part, None)
        if type(linear) is not nn.Linear:
            return f"{name} is no gated MLP of gate_proj, up_proj and down_proj"
        if linear.bias is not None:
            return f"{name} has biases, which the kernel does not cover"
    act = getattr(module, "act_fn", None)
    if act is None or kernel_activation(act) is None:
        return f"the activation {type(act).__name__} is not in the kernel"
    return _disproof(module)


def _disproof(module: Any) -> str:
    """Whether the module computes down(act(gate x) * (up x)), on random numbers."""
    weight = module.gate_proj.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, weight.shape[1], generator=generator).to(
        weight
    )  # some modules take nothing but [B, S, H]
    with torch.no_grad():
        own = module(x)
        plain = module.down_proj(module.act_fn(module.gate_proj(x)) * module.up_proj(x))
    same = isinstance(own, Tensor) and torch.equal(own, plain)
    return "" if same else f"{type(module).__name__} computes something else than a gated MLP"


def attach_mlp(module: Any, backend: str) -> Callable[[], None]:
    """Let ``module``, which :func:`unfit_mlp` finds nothing against, be asked; returns what undoes it."""
    act = kernel_activation(module.act_fn)
    assert act is not None
    here = _GATED[module] = _Gated(module, module.forward, act, backend)

    def forward(hidden: Tensor) -> Any:
        return _run(here, hidden)

    restore = replace_forward(module, forward)

    def undo() -> None:
        _GATED.pop(module, None)
        restore()

    return undo


def ask_mlp(module: nn.Module, asker: MlpAsker) -> Callable[[], None]:
    """Show every call of the gated MLP ``module`` to ``asker``, which answers with what it wants of it, or ``None``.

    Of several askers one may answer a call with a request. Returns a function that ends it.

    Raises
    ------
    EditRefused
        ``module`` is no gated MLP that our kernel covers.
    """
    here = _GATED.get(module)
    if here is None:
        raise EditRefused(
            f"The neurons of {type(module).__name__} cannot be left out by our kernel.",
            "Open the model with kernels other than the model's own; workbench doctor --model NAME says which layers "
            "our kernel covers.",
        )
    here.askers.append(asker)
    return lambda: here.askers.remove(asker)


def _run(here: _Gated, hidden: Tensor) -> Any:
    flat = hidden.reshape(-1, hidden.shape[-1])
    asked = [options for asker in list(here.askers) if (options := asker(MlpCall(flat))) is not None]
    if not asked:
        return here.forward(hidden)
    if len(asked) > 1:
        raise EditRefused(
            "Two edits drop neurons of the same MLP by criteria of their own.",
            "Give the layer one criterion, or scopes that do not meet.",
        )
    (options,) = asked
    if options.rows is None or bool(options.rows.all()):
        return _sparse(here, flat, options).reshape(hidden.shape)
    out = here.forward(hidden).reshape(flat.shape).clone()
    if bool(options.rows.any()):
        out[options.rows] = _sparse(here, flat[options.rows], options)
    return out.reshape(hidden.shape)


def _sparse(here: _Gated, x: Tensor, options: MlpOptions) -> Tensor:
    gate, up = here.module.gate_proj.weight, here.module.up_proj.weight
    if options.mode == "teal":
        gate, up = _turned(here, "gate_proj"), _turned(here, "up_proj")
    active = options.active
    if active is not None and active.dim() == 2 and options.rows is not None:
        active = active[options.rows]
    out = routing_kernels.sparse_mlp(
        x, gate, up, _turned(here, "down_proj"), options.mode, options.threshold, options.input_threshold, active,
        here.act, stats=options.sink is not None, backend=here.backend,
    )  # fmt: skip
    if options.sink is not None:
        options.sink(MlpReport(out.active_count, out.input_count, out.kept_energy, here.backend))
    return out.y


def _turned(here: _Gated, part: str) -> Tensor:
    """A weight transposed, kept until the weight changes."""
    weight = getattr(here.module, part).weight
    state = (weight.data_ptr(), weight._version)
    known = here.turned.get(part)
    if known is None or known[0] != state or weight.requires_grad and torch.is_grad_enabled():
        here.turned[part] = known = (state, weight.T.contiguous())
    return known[1]


def turned_bytes(module: nn.Module) -> int:
    """Bytes that the transposed weights of ``module`` take now."""
    here = _GATED.get(module)
    return 0 if here is None else sum(t.numel() * t.element_size() for _, t in here.turned.values())
