"""What units do on a set of prompts: means, samples, quantiles and norms that masks are chosen, thresholded or filled by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs
from workbench.errors import PlanError
from workbench.runtime.artefacts import Artefact
from workbench.runtime.gated import Gated, gated_of, unfit
from workbench.runtime.prompts import several

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

QUANTILES = 201
"""Points of a quantile function, evenly from 0 to 1."""
SAMPLES = 64
"""Tokens whose values are kept for resampling."""
_VALUES = 1 << 18


def calibrate(bench: Bench, prompts: Sequence[Any], seed: int) -> Artefact:
    """Run ``prompts`` without a plan and gather, for each layer ``l``:

    ``l.channels.SITE.mean``, ``.absolute`` [H], ``.samples`` [R, H] of the residual stream before (``resid_pre``) and behind
    the block (``resid_post``) and of what attention and MLP add (``attn_out``, ``mlp_out``, where the block is additive);
    ``l.heads.mean`` [N, D], ``l.heads.samples`` [R, N, D]; ``l.neurons.mean``, ``l.neurons.absolute`` [F] ([E, F] with
    experts) and ``l.neurons.samples`` [R, F] (dense); ``l.experts.mean`` [E, H], ``l.experts.samples`` [E, R, H],
    ``l.experts.absolute`` [E] (mean norm of the output); quantile functions ``l.quantile.input``, ``.neuron``, ``.gate``,
    ``.weighted_input``, ``.weighted_neuron`` [201] of absolute values; and for each projection ``l.input.PART.norm``,
    ``.mean``, ``.variance`` of what it reads.
    """
    gathered: dict[str, list[Tensor]] = defaultdict(list)
    with bench.running(), ExitStack() as undo:
        for block in bench.anatomy.blocks:
            _listen(block, gathered, bench.ops, undo)
        for prompt in several(prompts):
            ids = torch.tensor([bench.token_ids(prompt)], device=next(bench.model.parameters()).device)
            bench.model(input_ids=ids, use_cache=False)
    tensors: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(seed)
    for name, parts in gathered.items():
        tensors |= _summary(name, torch.cat(parts), generator)
    return Artefact("calibration", tensors, {"prompts": len(prompts), "model": bench.checkpoint})


def quantile(calibration: Artefact, layer: int, what: str, share: float) -> float:
    """The bound below which a ``share`` of the absolute values ``what`` lies in ``layer``."""
    points = tensor(calibration, f"{layer}.quantile.{what}")
    at = share * (len(points) - 1)
    low = int(at)
    high = min(low + 1, len(points) - 1)
    return float(points[low] + (points[high] - points[low]) * (at - low))


def tensor(calibration: Artefact, name: str) -> Tensor:
    """One tensor of a calibration; raises :class:`PlanError` where it has none of that name."""
    if name not in calibration.tensors:
        raise PlanError(
            f"The calibration {calibration.hash} has no {name}.",
            "Calibrate on the model that the plan is for.",
        )
    return calibration.tensors[name]


def _listen(block: Block, gathered: dict[str, list[Tensor]], backend: str, undo: ExitStack) -> None:
    layer = block.layer
    # Whether the kernel covers the MLP is tried on numbers of its own, which no hook must see.
    gated = [] if block.mlp is None or unfit(block) else gated_of(block, backend)

    def before(module: nn.Module, take: Callable[[Tensor], None]) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            value = args[0] if args else kwargs["hidden_states"]
            take(value.detach().reshape(-1, value.shape[-1]).float().cpu())

        undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(module: nn.Module, site: str, multiplier: float = 1.0) -> None:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            value = value.detach().reshape(-1, value.shape[-1]).float().cpu() * multiplier
            gathered[f"{layer}.channels.{site}"].append(value)

        undo.callback(module.register_forward_hook(hook).remove)

    if block.streams == 1:
        before(block.module, lambda value: gathered[f"{layer}.channels.resid_pre"].append(value))
        after(block.module, "resid_post")
    if block.additive:
        for site, outlet in (("attn_out", block.attn_outlet), ("mlp_out", block.mlp_outlet)):
            if outlet is not None:
                after(outlet.module, site, outlet.multiplier)
    if block.attention is not None:
        heads = block.attention.num_heads
        before(
            block.attention.out_proj,
            lambda value: gathered[f"{layer}.heads"].append(value.reshape(len(value), heads, -1)),
        )
    for part, linear in projections(block).items():
        before(linear, lambda value, part=part: gathered[f"{layer}.input.{part}"].append(value))  # type: ignore[misc]
    if not gated:
        return
    assert block.mlp is not None
    if block.moe is None:
        before(block.mlp.module, lambda value: _dense(layer, gated[0], value, gathered))
        return

    def experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, ids, _weights = expert_inputs(args, kwargs)
        for one in gated:
            tokens = (ids == one.expert).any(-1)
            _expert(layer, one, hidden[tokens].detach(), gathered)

    undo.callback(block.moe.experts.register_forward_pre_hook(experts, with_kwargs=True).remove)


def projections(block: Block) -> dict[str, nn.Linear]:
    """The linear projections of ``block`` by the last part of their names; routers and experts are left out."""
    router = None if block.moe is None else block.moe.router
    return {
        name.rpartition(".")[2]: module
        for name, module in block.module.named_modules()
        if type(module) is nn.Linear and module is not router and name.endswith("_proj")
    }


def _dense(layer: int, gated: Gated, x: Tensor, gathered: dict[str, list[Tensor]]) -> None:
    gate, neurons = gated.hidden(x.to(gated.gate))
    gathered[f"{layer}.neurons"].append(neurons.float().cpu())
    _values(layer, gated, x, gate, neurons, gathered)


def _expert(layer: int, gated: Gated, x: Tensor, gathered: dict[str, list[Tensor]]) -> None:
    gate, neurons = gated.hidden(x)
    out = (neurons @ gated.down.T).float().cpu()
    gathered[f"{layer}.expert.{gated.expert}.out"].append(out)
    gathered[f"{layer}.expert.{gated.expert}.neurons"].append(neurons.float().cpu())
    gathered[f"{layer}.expert.{gated.expert}.input"].append(x.float().cpu())
    _values(layer, gated, x, gate, neurons, gathered)


def _values(
    layer: int, gated: Gated, x: Tensor, gate: Tensor, neurons: Tensor, gathered: dict[str, list[Tensor]]
) -> None:
    for name, value in (
        ("input", x), ("neuron", neurons), ("gate", gate), ("weighted_input", x.float() * gated.input_weight.to(x.device)),
        ("weighted_neuron", neurons.float() * gated.neuron_weight),
    ):  # fmt: skip
        flat = value.detach().float().abs().reshape(-1).cpu()
        gathered[f"{layer}.quantile.{name}"].append(flat[:: max(1, len(flat) * 8 // _VALUES)])


def _summary(name: str, values: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    kind = name.split(".")[1]
    if kind == "quantile":
        if not len(values):
            return {name: torch.zeros(QUANTILES)}
        some = (
            values
            if len(values) <= _VALUES
            else values[torch.randperm(len(values), generator=generator)[:_VALUES]]
        )
        return {name: torch.quantile(some, torch.linspace(0, 1, QUANTILES))}
    if kind == "input":
        return _moments(name, values)
    count = len(values)
    chosen = (
        torch.randint(count, (SAMPLES,), generator=generator) if count else torch.zeros(0, dtype=torch.int64)
    )
    zero = values.new_zeros(values.shape[1:])
    found = {
        f"{name}.mean": values.mean(0) if count else zero,
        f"{name}.absolute": values.abs().mean(0) if count else zero,
        f"{name}.count": torch.tensor(count),
        f"{name}.samples": values[chosen] if count else values.new_zeros(SAMPLES, *values.shape[1:]),
    }
    if kind == "expert":
        del found[f"{name}.samples"]
        if name.endswith(".out"):
            found[f"{name}.samples"] = (
                values[chosen] if count else values.new_zeros(SAMPLES, *values.shape[1:])
            )
            found[f"{name}.absolute"] = values.norm(dim=-1).mean() if count else values.new_zeros(())
        if name.endswith((".input", ".neurons")):
            found |= _moments(name, values)
    return found


def _moments(name: str, values: Tensor) -> dict[str, Tensor]:
    if not len(values):
        zero = values.new_zeros(values.shape[1:])
        return {f"{name}.norm": zero, f"{name}.mean": zero, f"{name}.variance": zero}
    return {
        f"{name}.norm": values.norm(dim=0), f"{name}.mean": values.mean(0),
        f"{name}.variance": values.var(0, unbiased=False),
    }  # fmt: skip
