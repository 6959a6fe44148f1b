"""What the benchmark of quality against work measures: every family of skip and mask, at several budgets, each beside a
random control that leaves as much out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import workbench as wb

SHARES = (0.25, 0.5, 0.75)
"""Shares of the tokens, and of the attention map, that are done."""
LEFT_OUT = (0.3, 0.5, 0.7)
"""Shares of activations and weights that are left out."""

Make = Callable[[float, int], Any]
"""(share of the work to do, seed) -> an edit that leaves the rest out at random."""


@dataclass(frozen=True)
class Case:
    """One plan.

    Attributes
    ----------
    family, method
        What is left out, and by which rule; ``random`` is the control.
    budget
        Share of the family's work that is done by the rule's own arithmetic; ``None`` where only the run shows it.
    edit
        The edit.
    seed
        Of a control, else ``None``.
    """

    family: str
    method: str
    budget: float | None
    edit: Any
    seed: int | None = None


@dataclass(frozen=True)
class Family:
    """Plans that leave the same kind of work out.

    ``op`` names the rows of the table ``cost`` that count the work; none where nothing is left out (the unit is computed and
    masked). ``grows`` says that the family acts on generated tokens alone.
    """

    name: str
    op: str | None
    cases: Sequence[Case]
    control: Make
    grows: bool = False


@dataclass(frozen=True)
class Measured:
    """What the rules that look at the model need: the calibration, and for each layer how much its parts contribute and the
    share of the full rank that its attention maps have."""

    source: str
    influence: Sequence[float]
    attention: Sequence[float]
    mlp: Sequence[float]
    rank: Sequence[float]


def families(bench: Any, known: Measured, block: int) -> list[Family]:
    """Everything that is measured on this model."""
    layers = bench.anatomy.num_layers
    later = list(range(1, layers))
    return [
        *_layers(layers, known), *(_tokens(later, unit, kv) for unit, kv in _TOKEN_UNITS), _exits(), _decays(layers),
        _attention(block), _activations(known.source), *_weights(known.source), *_units(known.source),
    ]  # fmt: skip


def _lowest(values: Sequence[float], count: int) -> list[int]:
    return sorted(sorted(range(len(values)), key=lambda n: values[n])[:count])


def _drawn(layers: int, share: float, seed: int) -> list[int]:
    """Layers that are left out: as many as the share says, no two seeds the same while there are others."""
    rng = random.Random(layers)
    seen: list[list[int]] = []
    count = round(layers * (1 - share))
    for _ in range(200):
        found = sorted(rng.sample(range(layers), count))
        if found not in seen:
            seen.append(found)
    return seen[seed % len(seen)]


def _layers(size: int, known: Measured) -> list[Family]:
    """Whole blocks and sublayers left out for every token."""
    counts = [n for n in (1, 2, 3) if n < size]
    blocks, attentions, mlps = [], [], []
    for n in counts:
        share = (size - n) / size
        middle = [round((size - n) / 2) + i for i in range(n)]
        blocks += [
            Case("blocks", "uniform", share, wb.skip.policy("uniform", speed_up=size / (size - n))),
            Case("blocks", "contiguous middle", share, wb.skip.block(middle)),
            Case("blocks", "last first", share, wb.skip.block(range(size - n, size))),
            Case("blocks", "lowest block influence", share, wb.skip.block(_lowest(known.influence, n))),
            Case("blocks", "lowest attention rank", share, wb.skip.block(_lowest(known.rank, n))),
        ]
        attentions += [
            Case("attention sublayers", "last first", share, wb.skip.attention(range(size - n, size))),
            Case(
                "attention sublayers",
                "lowest contribution",
                share,
                wb.skip.attention(_lowest(known.attention, n)),
            ),
            Case(
                "attention sublayers",
                "lowest attention rank",
                share,
                wb.skip.attention(_lowest(known.rank, n)),
            ),
        ]
        mlps += [
            Case("MLP sublayers", "last first", share, wb.skip.mlp(range(size - n, size))),
            Case("MLP sublayers", "lowest contribution", share, wb.skip.mlp(_lowest(known.mlp, n))),
        ]
    return [
        Family("blocks", "block", blocks, lambda share, seed: wb.skip.block(_drawn(size, share, seed))),
        Family("attention sublayers", "attn", attentions,
               lambda share, seed: wb.skip.attention(_drawn(size, share, seed))),
        Family("MLP sublayers", "mlp", mlps, lambda share, seed: wb.skip.mlp(_drawn(size, share, seed))),
    ]  # fmt: skip


_TOKEN_UNITS = (
    ("block", "compute"), ("block", "absent"), ("block", "copy-last"), ("attention", "compute"), ("mlp", "absent"),
)  # fmt: skip


def _tokens(layers: list[int], unit: Any, kv: Any) -> Family:
    """Some tokens pass the units by, in all layers but the first."""
    name = f"tokens past the {unit}" + ("" if unit == "mlp" else f", kv {kv}")

    def make(score: Any, share: float, **more: Any) -> Any:
        return wb.skip.tokens(layers, capacity=share, score=score, unit=unit, kv=kv, protect=0, **more)

    cases = [
        Case(name, f"by {score}", share, make(score, share))
        for share in SHARES
        for score in ("norm", "position")
    ]
    if (unit, kv) == ("block", "compute"):
        cases += [
            Case(name, "by attention received, looking ahead", share, make("attention", share, causal=False))
            for share in SHARES
        ]
    return Family(
        name,
        {"attention": "attn"}.get(unit, unit),
        cases,
        lambda share, seed: make("random", share, seed=seed),
    )


def _exits() -> Family:
    name = "early exit, kv copy-last"
    cases = [
        Case(name, "by similarity", None, wb.skip.policy("early_exit", similarity=similarity, kv="copy-last"))
        for similarity in (0.9, 0.95, 0.98)
    ]
    return Family(
        name, "block", cases, lambda share, seed: wb.skip.policy("random", share=share, protect=0, seed=seed)
    )


def _decays(layers: int) -> Family:
    name = "depth of generated tokens"
    cases = [
        Case(
            name,
            "geometric decay",
            None,
            wb.skip.policy("decay", alpha=alpha, min_layers=max(1, layers // 3)),
        )
        for alpha in (0.998, 0.99, 0.97)
    ]

    def control(share: float, seed: int) -> Any:
        return wb.skip.policy("random", share=share, seed=seed, tokens="generated")

    return Family(name, "block", cases, control, grows=True)


def _attention(block: int) -> Family:
    name = "blocks of the attention map"

    def make(pattern: Any, share: float, **more: Any) -> Any:
        return wb.mask.attention("all", pattern, keep=share, block=block, **more)

    chosen: tuple[tuple[str, dict[str, Any]], ...] = (
        ("oracle", {}), ("pooled", {}), ("vertical-slash", {"last": 32}), ("channels", {"channels": 8}),
        ("clusters", {"clusters": 3}), ("hierarchical", {}),
    )  # fmt: skip
    cases = [
        Case(name, pattern, share, make(pattern, share, **more))
        for share in SHARES
        for pattern, more in chosen
    ]
    for width in (block, 3 * block):
        cases += [
            Case(
                name, "window and sinks", None, wb.mask.attention("all", "window", window=width, block=block)
            ),
            Case(
                name, "window", None, wb.mask.attention("all", "window", window=width, block=block, sinks=0)
            ),
        ]
    cases += [
        Case(name, "strided", None, wb.mask.attention("all", "strided", stride=stride, block=block))
        for stride in (2, 4)
    ]
    return Family(name, "attention_blocks", cases, lambda share, seed: make("random", share, seed=seed))


def _activations(source: str) -> Family:
    name = "activations"
    cases = []
    for gone in LEFT_OUT:
        for method in ("magnitude", "weight-informed"):
            cases.append(
                Case(name, method, 1 - gone, wb.mask.activations("all", method, sparsity=gone, source=source))
            )
        # The gate is computed in full: one of the three products.
        gated = wb.mask.activations("all", "gate", sparsity=gone, source=source)
        cases.append(Case(name, "gate", 1 / 3 + 2 / 3 * (1 - gone), gated))
    return Family(
        name, "sparse_mlp", cases,
        lambda share, seed: wb.mask.activations("all", "random", sparsity=1 - share, seed=seed),
    )  # fmt: skip


def _weights(source: str) -> list[Family]:
    def make(by: str, **shape: Any) -> Any:
        needs = {"source": source} if by in ("activation-weighted", "prune-and-grow") else {}
        return wb.mask.weights("all", criterion=by, **shape, **needs)

    single = ("magnitude", "activation-weighted", "prune-and-grow")
    found = [Family(
        "weights, single entries", "masked_matmul",
        [Case("weights, single entries", by, 1 - gone, make(by, ratio=gone)) for gone in LEFT_OUT for by in single],
        lambda share, seed: make("random", ratio=1 - share, seed=seed),
    ), Family(
        "weights, 2 of 4", "masked_matmul",
        [Case("weights, 2 of 4", by, 0.5, make(by, shape="n:m", n=2, m=4)) for by in single],
        lambda share, seed: make("random", shape="n:m", n=2, m=4, seed=seed),
    )]  # fmt: skip
    for shape in ("rows", "columns"):
        name = f"weights, whole {shape}"
        cases = [
            Case(name, by, 1 - gone, make(by, shape=shape, ratio=gone))
            for gone in (0.1, 0.3)
            for by in single[:2]
        ]
        found.append(Family(
            name, "masked_matmul", cases,
            lambda share, seed, shape=shape: make("random", shape=shape, ratio=1 - share, seed=seed),  # type: ignore[misc]
        ))  # fmt: skip
    return found


def _units(source: str) -> list[Family]:
    found = []
    for name, make, op, fills in (
        ("heads", wb.mask.heads, None, ("zero", "mean")), ("experts", wb.mask.experts, "moe_experts", ("zero", "mean")),
        ("neurons", wb.mask.neurons, "sparse_mlp", ("zero",)),
    ):  # fmt: skip
        for fill in fills:
            filled = {} if fill == "zero" else {"replacement": fill, "source": source}

            def edit(by: str, share: float, make: Any = make, filled: Any = filled, **more: Any) -> Any:
                needs = filled | ({"source": source} if by == "activation" else {})
                return make("all", ratio=1 - share, criterion=by, **needs, **more)

            family = f"{name}, {fill} instead"
            cases = [
                Case(family, f"by {by}", share, edit(by, share))
                for share in (0.5, 0.75)
                for by in ("activation", "magnitude")
            ]
            found.append(Family(
                family, op if fill == "zero" else None, cases,
                lambda share, seed, edit=edit: edit("random", share, seed=seed),  # type: ignore[misc]
            ))  # fmt: skip
    return found
