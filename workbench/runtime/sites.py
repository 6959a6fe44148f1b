"""Any read site of a run as a tensor: the run's tokens are read again under its plan, with a reader at the site."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.address import Address, integers
from workbench.anatomy import Block, expert_inputs
from workbench.errors import AddressError, EditRefused
from workbench.runtime.attach import AttentionCall, device_of
from workbench.runtime.hooks.expert_neurons import Neurons
from workbench.runtime.hooks.write import expert_outputs
from workbench.runtime.instrument import Session
from workbench.runtime.passes import Pass
from workbench.runtime.run import Run
from workbench.signals import attention_rank

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

_ROUTING = ("router_logits", "expert_scores", "expert_ids", "expert_weights")
READABLE = ("resid_pre", "attn_pattern", "attn_head_out", "attn_out", "resid_mid", *_ROUTING, "expert_out", "mlp_act",
            "mlp_out", "resid_post")  # fmt: skip
"""Sites :func:`read` gives; ``logits`` are ``run.logits``."""


def read(bench: Bench, run: Run, site: str, layers: Sequence[int], tokens: Any) -> Tensor:
    """The values of ``site`` in ``layers`` at ``tokens`` as executed, on the model's device.

    Returns [layers, tokens, ...] with the site's own shape behind (``attn_pattern``: [layers, N, tokens, S]). A layer that
    the run's plan skips has no values and is refused.
    """
    if site not in READABLE:
        raise AddressError(
            f"Site {site!r} cannot be read as a tensor.", f"Choose one of {', '.join(READABLE)}."
        )
    size = len(run.logits)
    at = _positions(tokens, run.prompt_tokens, size)
    found: dict[int, Tensor] = {}
    device = device_of(bench.model)
    for layer in layers:
        bench.anatomy.require(Address(site, layer))
    ids = run.tokens[:size].unsqueeze(0).to(device)
    with bench.running(), bench.session([run.plan], None, [run.labels]) as session, ExitStack() as undo:
        for layer in layers:
            _listen(session, bench.anatomy.layer(layer), site, found, undo)
        now = Pass(0, torch.arange(size, device=device).unsqueeze(0), None,
                   torch.tensor([run.prompt_tokens], device=device), ids)  # fmt: skip
        session.begin(now)
        bench.model(input_ids=ids, use_cache=False)
        if site in _ROUTING:
            _from_captures(bench, session, site, layers, found)
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise EditRefused(
            f"Layer {missing[0]} has no {site}: the run's plan skips it, or the model never computes it there.",
            "Choose another layer.",
        )
    for layer in layers:
        there = (
            found[layer].shape[-2]
            if site == "attn_pattern"
            else found[layer].numel() // _width(found[layer], size)
        )
        if there != size:
            raise EditRefused(
                f"Layer {layer} ran for {there} of the {size} tokens of this run, so that {site} is not there for all.",
                "Read resid_pre or resid_post, which every token has, or another layer.",
            )
    if site == "attn_pattern":
        return torch.stack([found[layer][:, at] for layer in layers])
    return torch.stack([found[layer].reshape(size, *_tail(found[layer], size))[at] for layer in layers])


def _width(value: Tensor, size: int) -> int:
    """Numbers of one token."""
    return math.prod(_tail(value, size)) or 1


def _tail(value: Tensor, size: int) -> tuple[int, ...]:
    """The shape behind the token axis, whether the value is [1, S, ...] or [S, ...]."""
    return tuple(value.shape[2:]) if value.shape[0] == 1 and value.ndim > 2 else tuple(value.shape[1:])


def _listen(session: Session, block: Block, site: str, found: dict[int, Tensor], undo: ExitStack) -> None:
    layer = block.layer

    def keep(value: Tensor) -> None:
        found[layer] = value.detach().clone()

    def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    def on_output(multiplier: float = 1.0) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            keep(value if multiplier == 1.0 else value * multiplier)

        return hook

    def before(module: nn.Module) -> None:
        undo.callback(module.register_forward_pre_hook(on_input, with_kwargs=True).remove)

    if site == "resid_pre":
        before(block.module)
    elif site == "resid_post":
        undo.callback(block.module.register_forward_hook(on_output()).remove)
    elif site in ("attn_out", "mlp_out"):
        outlet = block.attn_outlet if site == "attn_out" else block.mlp_outlet
        assert outlet is not None  # the anatomy refuses these sites where no outlet was proved
        undo.callback(outlet.module.register_forward_hook(on_output(outlet.multiplier)).remove)
    elif site == "resid_mid":
        _listen_mid(block, found, undo)
    elif site == "attn_head_out":
        assert block.attention is not None
        heads = block.attention.num_heads

        def split(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            keep(args[0].reshape(*args[0].shape[:2], heads, -1))

        undo.callback(block.attention.out_proj.register_forward_pre_hook(split).remove)
    elif site == "mlp_act":
        if block.moe is not None:
            undo.callback(_listen_experts(block, keep))
            return
        assert block.mlp is not None and block.mlp.down_proj is not None  # else the anatomy has refused
        before(block.mlp.down_proj)
    elif site == "expert_out":
        assert block.moe is not None

        def slots(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
            keep(expert_outputs(module, args, kwargs))

        undo.callback(block.moe.experts.register_forward_hook(slots, with_kwargs=True).remove)
    elif site == "attn_pattern":
        assert block.attention is not None

        def pattern(call: AttentionCall) -> None:
            found[layer] = attention_rank.attention_map(
                call.query, call.key, call.scale, call.mask, softcap=call.softcap, sinks=call.sinks
            )[0]

        point = getattr(block.attention.module, "hook_pattern", None)
        if isinstance(point, nn.Module):  # of a TransformerLens bridge, which computes attention itself

            def on_point(_: nn.Module, __: Any, output: Tensor) -> None:
                keep(output[0])

            undo.callback(point.register_forward_hook(on_point).remove)
            return
        session.listen(layer, pattern)
    else:
        session.watch_routing(layer)


def _listen_experts(block: Block, keep: Callable[[Tensor], None]) -> Callable[[], None]:
    """Keep the neurons of the chosen experts at every call of the bank; returns what ends it."""
    assert block.moe is not None
    neurons = Neurons(block)

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, ids, _weights = expert_inputs(args, kwargs)
        keep(neurons.of(hidden.reshape(len(ids), -1), ids))

    return block.moe.experts.register_forward_pre_hook(read, with_kwargs=True).remove


def _listen_mid(block: Block, found: dict[int, Tensor], undo: ExitStack) -> None:
    """resid_mid is resid_pre + attn_out on every block for which that was proved."""
    assert block.attn_outlet is not None
    outlet, kept = block.attn_outlet, {}

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept["pre"] = args[0] if args else kwargs["hidden_states"]

    def add(_: nn.Module, __: Any, output: Any) -> None:
        attn = output[0] if isinstance(output, tuple) else output
        found[block.layer] = kept["pre"] + attn * outlet.multiplier

    undo.callback(block.module.register_forward_pre_hook(enter, with_kwargs=True).remove)
    undo.callback(outlet.module.register_forward_hook(add).remove)


def _from_captures(
    bench: Bench, session: Session, site: str, layers: Sequence[int], found: dict[int, Tensor]
) -> None:
    for layer in layers:
        capture = session.captures.get(layer)
        if capture is None:
            continue
        rule = bench.anatomy.layer(layer).moe.rule  # type: ignore[union-attr]
        value = {
            "router_logits": capture.logits, "expert_ids": capture.ids, "expert_weights": capture.weights,
            "expert_scores": capture.selection,
        }[site]  # fmt: skip
        if site == "expert_scores" and value is None and rule is not None and capture.logits is not None:
            value = rule.selection(rule.scores(capture.logits))
        if value is not None:
            found[layer] = value


def _positions(tokens: Any, prompt: int, size: int) -> list[int]:
    if isinstance(tokens, slice):
        chosen = list(range(size))[tokens]
    elif isinstance(tokens, str):
        named = {
            "all": range(size), "prompt": range(min(prompt, size)), "generated": range(prompt, size),
            "prompt_last": range(prompt - 1, prompt),
        }  # fmt: skip
        if tokens not in named:
            raise AddressError(
                f"There are no tokens called {tokens!r}.", f"Choose one of {', '.join(named)}."
            )
        chosen = list(named[tokens])
    else:
        chosen = list(integers(tokens, "token"))
    wrong = next((t for t in chosen if not 0 <= t < size), None)
    if not chosen or wrong is not None:
        raise AddressError(
            "The scope names no token." if wrong is None else f"Token {wrong} was not computed in this run.",
            f"The run computed tokens 0 to {size - 1}.",
        )
    return chosen
