"""Depth routers trained on a frozen model, saved, applied as a plan, and held against random and uniform skipping.

Two ways of training. :func:`train_gates` learns one linear router a layer through straight-through gates on the attention's
output (Router-Tuning: He et al. 2024, arXiv 2410.13184). :func:`train_paths` searches for each text a path that skips or
repeats layers and lowers loss plus cost, and teaches small networks its choices (Dr.LLM: Heakl et al. 2025, arXiv
2510.12773, with a greedy search in place of the tree search). The model's weights are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.errors import EditRefused, PromptError
from workbench.interventions import Edit, Plan, skip
from workbench.interventions.skip.base import Unit
from workbench.runtime.bench import Bench
from workbench.runtime.depth.routers import DepthRouter, normalised
from workbench.runtime.prompts import Prompt, several
from workbench.runtime.record import Record

GAMMA, BETA = 2.0, 0.999
"""Of the focal loss and of the effective numbers by which the classes are weighted (Dr.LLM)."""


def layers_by_rank(bench: Bench, prompts: Sequence[Prompt], count: int) -> list[int]:
    """The ``count`` layers whose attention maps have the lowest mean rank a token on ``prompts``, measured (gamma-MoD: Luo
    et al. 2024, arXiv 2410.13859). Layer 0 is left out: nothing stands before it that could be kept."""
    runs = bench.run(several(prompts), record=Record(routing=False, contribution=False, sparsity=False))
    profile = bench.sql("FROM arank_profile(?)", [[run.id for run in runs]]).df()
    means = profile.groupby("layer")["share"].mean().drop(index=0, errors="ignore")
    return sorted(int(layer) for layer in means.nsmallest(count).index)


def train_gates(
    bench: Bench, prompts: Sequence[Prompt], layers: Sequence[int], *, target: float, steps: int = 60,
    rate: float = 0.05, scale: float = 4.0, seed: int = 0,
) -> DepthRouter:  # fmt: skip
    """Train a linear router for the attention of each of ``layers`` so that about a share ``target`` of the tokens runs.

    The loss is the model's own next-token loss plus ``scale * relu(mean gate - target)``; the gate is 0 or 1 forwards and
    its probability backwards. Every step reads one prompt. Keys and values of closed tokens stay, as under
    ``kv="compute"``, with which the plan of :func:`plan_of` applies the router.
    """
    texts = [torch.tensor([bench.token_ids(prompt)]) for prompt in several(prompts)]
    texts = [ids for ids in texts if ids.shape[1] > 1]
    if not texts:
        raise PromptError("There is no text to learn from.", "Give prompts of at least two tokens.")
    generator = torch.Generator().manual_seed(seed)
    width = bench.anatomy.hidden_size
    weights: dict[str, Tensor] = {}
    for layer in layers:
        weights[f"{layer}.weight"] = (0.01 * torch.randn(width, generator=generator)).requires_grad_()
        weights[f"{layer}.bias"] = torch.ones(1).requires_grad_()
    optimiser = torch.optim.Adam(weights.values(), lr=rate)
    order = torch.randint(len(texts), (steps,), generator=generator).tolist()
    with bench.running(), torch.enable_grad(), _Frozen(bench.model), ExitStack() as undo:
        shares: list[Tensor] = []
        for layer in layers:
            _gate(bench, layer, weights, shares, undo)
        for number in order:
            shares.clear()
            ids = texts[number].to(next(bench.model.parameters()).device)
            logits = bench.model(input_ids=ids, use_cache=False).logits[0]
            loss = F.cross_entropy(logits[:-1].float(), ids[0, 1:])
            loss = loss + scale * F.relu(torch.stack(shares).mean() - target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return DepthRouter("linear", {name: value.detach() for name, value in weights.items()})


def _gate(
    bench: Bench, layer: int, weights: dict[str, Tensor], shares: list[Tensor], undo: ExitStack
) -> None:
    """Multiply what the attention of ``layer`` adds by the router's straight-through gate."""
    block = bench.anatomy.layer(layer)
    if block.attn_outlet is None or not block.additive:
        raise EditRefused(
            f"Layer {layer} has no attention that could be gated: {block.reason}.", "Name others."
        )
    entered: list[Tensor] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[:] = [args[0] if args else kwargs["hidden_states"]]

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        added = output[0] if isinstance(output, tuple) else output
        logit = normalised(entered[0]) @ weights[f"{layer}.weight"] + weights[f"{layer}.bias"]
        probability = torch.sigmoid(logit)
        shares.append(probability.mean())
        gate = (probability > 0.5).float() + probability - probability.detach()
        added = added * gate.unsqueeze(-1).to(added.dtype)
        return (added, *output[1:]) if isinstance(output, tuple) else added

    undo.callback(block.module.register_forward_pre_hook(before, with_kwargs=True).remove)
    undo.callback(block.attn_outlet.module.register_forward_hook(after).remove)


class _Frozen:
    """The model's parameters without gradients, and as they were afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self._wanted = {p: p.requires_grad for p in model.parameters()}

    def __enter__(self) -> None:
        for parameter in self._wanted:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter, wanted in self._wanted.items():
            parameter.requires_grad_(wanted)


@dataclass(frozen=True)
class FoundPath:
    """The path of one prompt: ``visits`` [L] of each layer, its loss and that of the whole model, in nats."""

    visits: tuple[int, ...]
    loss: float
    base: float


def search_path(
    bench: Bench, prompt: Prompt, *, cost: float = 0.05, changes: int = 3, layers: Sequence[int] | None = None
) -> FoundPath:
    """The best path found greedily: up to ``changes`` times the one skip or repeat of a layer that lowers
    ``loss + cost * layers run`` the most, until none does."""
    size = bench.anatomy.num_layers
    free = list(range(size)) if layers is None else list(layers)
    visits = [1] * size
    base = best = float(bench.run(prompt, record=None).loss)
    value = best + cost * size
    for _ in range(changes):
        tried: list[list[int]] = []
        for layer in free:
            for count in {0, 1, 2} - {visits[layer]}:
                other = list(visits)
                other[layer] = count
                if any(other):
                    tried.append(other)
        runs = bench.run([prompt] * len(tried), plans=[path_plan(v) for v in tried], record=None)
        scored = [(run.loss + cost * sum(v), n) for n, (run, v) in enumerate(zip(runs, tried, strict=True))]
        lowest, at = min(scored)
        if lowest >= value:
            break
        value, visits, best = lowest, tried[at], float(runs[at].loss)
    return FoundPath(tuple(visits), best, base)


def path_plan(visits: Sequence[int]) -> Plan:
    """The plan that runs each layer as often as ``visits`` says (0, 1 or 2 times)."""
    edits: list[Edit] = []
    if gone := [n for n, count in enumerate(visits) if count == 0]:
        edits.append(skip.block(gone))
    if twice := [n for n, count in enumerate(visits) if count == 2]:
        edits.append(skip.repeat(twice, 2))
    return Plan(edits)


def train_paths(
    bench: Bench, prompts: Sequence[Prompt], paths: Sequence[FoundPath], *, width: int = 32, steps: int = 200,
    rate: float = 0.01, seed: int = 0,
) -> DepthRouter:  # fmt: skip
    """Teach a small network in each layer the visits that the paths of ``prompts`` have there, from the residual that
    enters the layer under that path. Layers that no path changes get none."""
    size, hidden = bench.anatomy.num_layers, bench.anatomy.hidden_size
    changed = [n for n in range(size) if any(path.visits[n] != 1 for path in paths)]
    inputs: dict[int, list[Tensor]] = {n: [] for n in changed}
    labels: dict[int, list[Tensor]] = {n: [] for n in changed}
    for prompt, path in zip(several(prompts), paths, strict=True):
        run = bench.run(prompt, path_plan(path.visits), record=None)
        if changed:
            residual = run.tensor("resid_pre", layers=changed)
            for at, layer in enumerate(changed):
                inputs[layer].append(residual[at].cpu())
                labels[layer].append(torch.full((residual.shape[1],), path.visits[layer]))
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for layer in changed:
        weights |= {
            f"{layer}.{name}": value
            for name, value in _fit(
                torch.cat(inputs[layer]), torch.cat(labels[layer]), hidden, width, steps, rate, generator
            ).items()
        }
    return DepthRouter("classes", weights)


def _fit(
    inputs: Tensor,
    labels: Tensor,
    hidden: int,
    width: int,
    steps: int,
    rate: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    parts = {
        "first": torch.randn(width, hidden, generator=generator) / hidden**0.5, "first_bias": torch.zeros(width),
        "last": torch.randn(3, width, generator=generator) / width**0.5, "last_bias": torch.tensor([0.0, 1.0, 0.0]),
    }  # fmt: skip
    counts = torch.bincount(labels, minlength=3).float()
    effective = torch.where(counts > 0, (1 - BETA) / (1 - BETA**counts), 0.0)
    effective = effective / effective.sum() * (counts > 0).sum()
    given = normalised(inputs)
    with torch.enable_grad():
        for value in parts.values():
            value.requires_grad_()
        optimiser = torch.optim.Adam(parts.values(), lr=rate)
        for _ in range(steps):
            inner = F.gelu(F.linear(given, parts["first"], parts["first_bias"]))
            logits = F.linear(inner, parts["last"], parts["last_bias"]).log_softmax(-1)
            own = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
            loss = -(effective[labels] * (1 - own.exp()) ** GAMMA * own).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return {name: value.detach() for name, value in parts.items()}


def plan_of(bench: Bench, router: DepthRouter) -> Plan:
    """The plan that applies ``router``: attention alone for ``linear``, whole blocks for ``classes``."""
    name = bench.add(router.artefact())
    unit: Unit = "attention" if router.form == "linear" else "block"
    layers = list(router.layers)
    return (
        Plan([skip.policy("learned", router=name, unit=unit, layers=layers, kv="compute")])
        if layers
        else Plan()
    )


def compare(
    bench: Bench, router: DepthRouter, prompts: Sequence[Prompt], seeds: Sequence[int] = (0, 1, 2)
) -> pd.DataFrame:
    """The router beside random and uniform skipping of the same units at the share that it runs.

    One row a plan: ``plan``, ``loss`` (mean nats a token over ``prompts``), ``share`` (units run over tokens, in the
    router's layers) and ``seconds``.
    """
    learned = plan_of(bench, router)
    layers = list(router.layers)
    unit: Unit = "attention" if router.form == "linear" else "block"
    rows = [
        _measured(bench, "none", Plan(), prompts, layers, unit),
        _measured(bench, "learned", learned, prompts, layers, unit),
    ]
    share = min(1.0, max(rows[-1]["share"], 1e-3))
    for seed in seeds:
        control = skip.policy("random", share=share, layers=layers, unit=unit, kv="compute", seed=seed)
        rows.append(_measured(bench, f"random {seed}", Plan([control]), prompts, layers, unit))
    evenly = skip.tokens(layers, capacity=share, score="position", unit=unit, kv="compute")
    rows.append(_measured(bench, "uniform", Plan([evenly]), prompts, layers, unit))
    return pd.DataFrame(rows)


def _measured(
    bench: Bench, name: str, plan: Plan, prompts: Sequence[Prompt], layers: Sequence[int], unit: str
) -> dict[str, Any]:
    record = Record(routing=False, contribution=False, sparsity=False, attention_rank=False)
    runs = bench.run(several(prompts), plan, record=record)
    ids = [run.id for run in runs]
    op = {"attention": "attn", "block": "block"}[unit]
    done, left = bench.sql(
        "SELECT coalesce(sum(executed), 0), coalesce(sum(skipped), 0) FROM cost WHERE list_contains(?, run) AND op = ?",
        [ids, op],
    ).fetchone() or (0, 0)
    tokens = sum(len(run.tokens) - 1 for run in runs)
    loss = sum(run.loss * (len(run.tokens) - 1) for run in runs) / tokens
    share = float(done) / ((tokens + len(runs)) * len(layers)) if done + left else 1.0
    seconds = bench.sql(
        "SELECT sum(value) FROM metric WHERE list_contains(?, run) AND name = 'seconds'", [ids]
    ).fetchone() or (0.0,)
    return {"plan": name, "loss": loss, "share": share, "seconds": float(seconds[0])}
