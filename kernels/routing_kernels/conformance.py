"""Does a backend compute what the reference computes? Small cases that have caught mistakes, on any backend and device.

    from routing_kernels import conformance
    for outcome in conformance.check("cpu"):
        print(outcome)

Each case runs the op with statistics on and off and twice, and holds the result against the reference in float64: values,
statistics, their invariants, the same bits with statistics and on repetition. ``ops`` puts other functions in the place of
ours, so a kernel of your own can be held to the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from routing_kernels import ops as own
from routing_kernels.errors import ArgumentError, BackendError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float64: 1e-10}
"""Norm of the error over the norm of the exact result, per token."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case: ``right``; ``wrong``, with what differs; ``refused`` or ``not applicable`` by a clear
    error; ``crashed`` by any other."""

    op: str
    case: str
    dtype: str
    state: Literal["right", "wrong", "refused", "not applicable", "crashed"]
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """Arguments of one op. ``exact`` names results that are integers or must agree to the bit, ``close`` those that are
    held to the tolerance; ``holds`` says what else is wrong with the results, or nothing."""

    op: str
    name: str
    arguments: dict[str, Any]
    close: Sequence[str]
    exact: Sequence[str] = ()
    statistics: bool = True
    holds: Callable[[Any, dict[str, Any]], str] = lambda _out, _arguments: ""


def check(
    backend: str = "auto",
    device: torch.device | str = "cpu",
    dtypes: Sequence[torch.dtype] = DTYPES,
    ops: Mapping[str, Callable[..., Any]] | None = None,
    seed: int = 0,
    chosen: Callable[[Case], bool] = lambda _case: True,
) -> list[Outcome]:
    """Runs every case on ``backend`` with tensors on ``device``.

    Parameters
    ----------
    ops
        Functions by the names of ours, with our signatures, to check instead; those that are not named are ours.
    seed
        Of the random numbers in the cases.
    chosen
        Which cases to run; all of them, unless told otherwise.
    """
    functions = {name: getattr(own, name) for name in OPS} | dict(ops or {})
    found = []
    for dtype in dtypes:
        for case in filter(chosen, cases(dtype, seed)):
            found.append(_outcome(case, dtype, functions[case.op], backend, torch.device(device)))
    return found


def _outcome(
    case: Case, dtype: torch.dtype, function: Callable[..., Any], backend: str, device: torch.device
) -> Outcome:
    name = str(dtype).removeprefix("torch.")
    try:
        arguments = {key: _to(value, device) for key, value in case.arguments.items()}
        detail = _difference(case, dtype, function, backend, arguments)
    except BackendError as error:
        return Outcome(case.op, case.name, name, "not applicable", str(error))
    except ArgumentError as error:
        return Outcome(case.op, case.name, name, "refused", str(error))
    except Exception as error:  # a kernel may fail in any way; which one is the finding
        return Outcome(case.op, case.name, name, "crashed", f"{type(error).__name__}: {error}")
    return Outcome(case.op, case.name, name, "wrong" if detail else "right", detail)


def _difference(
    case: Case, dtype: torch.dtype, function: Callable[..., Any], backend: str, arguments: dict[str, Any]
) -> str:
    exact = getattr(own, case.op)(
        **{key: _wide(value) for key, value in case.arguments.items()},
        **({"stats": True} if case.statistics else {}),
        backend="reference",
    )
    runs = [
        function(**arguments, **({"stats": stats} if case.statistics else {}), backend=backend)
        for stats in (True, True, False)
    ]
    names = list(exact._fields) if hasattr(exact, "_fields") else ["y"]
    with_them, again, without = (_named(run, names) for run in runs)
    wanted = _named(exact, names)
    for field in (*case.close, *case.exact):
        found, right = with_them[field].cpu(), wanted[field]
        if found.shape != right.shape:
            return f"{field} has shape {list(found.shape)}, not {list(right.shape)}"
        if not torch.equal(found, again[field].cpu()) and not found.isnan().any():
            return f"{field} differs from one call to the next"
        if field in case.exact and not torch.equal(found.to(right.dtype), right):
            return f"{field} is {found.flatten()[:8].tolist()}, not {right.flatten()[:8].tolist()}"
        if field in case.close:
            wrong = _far(found, right, TOLERANCE[dtype])
            if wrong:
                return f"{field} {wrong}"
    first = names[0]
    if not torch.equal(without[first].nan_to_num(7.0), with_them[first].nan_to_num(7.0)):
        return f"{first} has other bits with statistics"
    return case.holds(runs[0], arguments)


def _far(found: Tensor, right: Tensor, tolerance: float) -> str:
    found, right = found.double(), right.double()
    if not torch.equal(found.isnan(), right.isnan()):
        return "is not a number where it should be one, or the other way round"
    if not torch.equal(found.isinf(), right.isinf()):
        return "is infinite where it should not be, or the other way round"
    gap, size = (t.nan_to_num(0.0, 0.0, 0.0) for t in (found - right, right))
    if gap.dim() > 1:
        gap, size = gap.flatten(0, -2), size.flatten(0, -2)
    worst = (gap.norm(dim=-1) / (size.norm(dim=-1) + size.abs().mean() + 1e-6)).max() if gap.numel() else 0.0
    return "" if worst <= tolerance else f"is off by {float(worst):.1e} of its size"


def _named(out: Any, names: Sequence[str]) -> dict[str, Tensor]:
    return {"y": out} if isinstance(out, Tensor) else dict(zip(names, out, strict=True))


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, own.MaskedWeight):
        return own.MaskedWeight(
            value.values.to(device), value.bits.to(device), value.start.to(device), value.columns
        )
    return value.to(device) if isinstance(value, Tensor) else value


def _wide(value: Any) -> Any:
    if isinstance(value, own.MaskedWeight):
        return value._replace(values=value.values.double())
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if floating else value


# The cases


def cases(dtype: torch.dtype, seed: int = 0) -> Iterator[Case]:
    """Every case in ``dtype``, from a generator of its own."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(dtype)

    for make in (_experts, _linear, _mlp, _attention, _rows, _masked, _residual, _ranks, _logprob):
        yield from make(normal, random)


Normal = Callable[..., Tensor]


def _experts(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    tokens, experts, hidden, width, top_k = 9, 5, 19, 23, 3
    gate_up, down = normal(experts, 2 * width, hidden), normal(experts, hidden, width) * 0.3
    x, weights = normal(tokens, hidden), normal(tokens, top_k).abs()
    chosen = torch.rand(tokens, experts, generator=random).argsort(1)
    ids = {
        "ragged sizes": chosen[:, :top_k],
        "all on one expert": torch.full((tokens, top_k), 3),
        "an empty expert": chosen[:, :top_k] % 4,
        "every expert": chosen,
        "dropped slots": torch.where(
            chosen[:, :top_k] == 2, -1, chosen[:, :top_k] + (chosen[:, :top_k] == 4)
        ),
        "the same expert twice": chosen[:, :1].expand(-1, top_k),
        "no token": chosen[:0, :top_k],
        "one token": chosen[:1, :top_k],
    }
    for name, choice in ids.items():
        count = len(choice)
        mine = normal(count, choice.shape[1]).abs() if choice.shape[1] != top_k else weights[:count]
        yield _expert_case(name, x[:count], choice, mine, gate_up, down, "silu")
    for act in ("gelu", "gelu_pytorch_tanh", "relu"):
        yield _expert_case(act, x, chosen[:, :top_k], weights, gate_up, down, act)
    spread = normal(hidden, tokens).T
    yield _expert_case("strided tokens", spread, chosen[:, :top_k], weights, gate_up, down, "silu")
    broken = x.clone()
    broken[4, 7] = torch.nan
    yield _expert_case("a NaN stays in its token", broken, chosen[:, :top_k], weights, gate_up, down, "silu")


def _expert_case(
    name: str, x: Tensor, ids: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor, act: str
) -> Case:
    def holds(out: Any, arguments: dict[str, Any]) -> str:
        counted = int(out.counts.sum()) + int(out.dropped)
        slots = arguments["ids"].numel()
        return "" if counted == slots else f"counts and drops add up to {counted} of {slots} slots"

    arguments = {"x": x, "ids": ids, "weights": weights, "gate_up": gate_up, "down": down, "act": act}
    close = ("y", "slot_norm", "hidden_l1", "hidden_l2")
    return Case("moe_experts", name, arguments, close, ("counts", "dropped"), holds=holds)


def _linear(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    tokens, experts, depth, outputs, top_k = 11, 5, 19, 37, 3
    weight, bias = normal(experts, outputs, depth), normal(experts, outputs)
    chosen = torch.rand(tokens, experts, generator=random).argsort(1)[:, :top_k]
    shared: dict[str, Any] = {"x": normal(tokens, depth), "ids": chosen, "weight": weight}
    turned = shared | {"weight": weight.transpose(1, 2).contiguous(), "transposed": True}
    own = {"x": normal(tokens, top_k, depth)}
    few = {"x": shared["x"][:1], "ids": chosen[:1]}
    none = {"x": shared["x"][:0], "ids": chosen[:0]}
    gaps = {"ids": torch.where(chosen == 2, -1, chosen + (chosen == 4)), "bias": bias}
    for side, plain in (("", shared), (", transposed", turned)):
        for name, change in (
            ("a row for a token", {}), ("a row for a slot", own), ("with biases", {"bias": bias}), ("one token", few),
            ("no token", none), ("dropped slots", gaps), ("all on one expert", {"ids": chosen * 0 + 3}),
        ):  # fmt: skip
            yield Case("expert_linear", f"{name}{side}", plain | change, ("y",), statistics=False)


def _mlp(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    tokens, hidden, width, out = 4, 19, 37, 21
    gate, up, down_t = normal(width, hidden), normal(width, hidden), normal(width, out)
    x = normal(tokens, hidden)
    active = torch.rand(tokens, width, generator=random) < 0.4
    active[1] = False
    plain: dict[str, Any] = {"x": x, "gate": gate, "up": up, "down_t": down_t, "act": "silu"}
    turned = plain | {"gate": gate.T.contiguous(), "up": up.T.contiguous()}
    close, exact = ("y", "kept_energy"), ("active_count", "input_count")

    def case(name: str, arguments: dict[str, Any]) -> Case:
        return Case("sparse_mlp", name, arguments, close, exact)

    yield case("neurons given, one token without any", plain | {"mode": "neuron", "active": active})
    yield case("all neurons", plain | {"mode": "neuron", "active": torch.ones_like(active)})
    # Edges far from any magnitude that rounding could carry over them: only exact zeros are dropped, or everything.
    yield case("no threshold", turned | {"mode": "teal", "act": "relu"})
    yield case("inputs below a gap", turned | {"x": torch.where(x.abs() < 0.5, 0.0, x), "mode": "teal"})
    yield case("nothing above the threshold", plain | {"mode": "cats", "threshold": 1e6})
    yield case("zeros alone", plain | {"mode": "cats", "act": "relu"})
    yield case("no token", plain | {"x": x[:0], "mode": "cats"})


def _attention(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    batch, heads, kv_heads, tokens, depth = 2, 4, 2, 37, 11

    def case(
        name: str, queries: int = tokens, share: float | Tensor = 0.6, block: int = 16, **options: Any
    ) -> Case:
        q, k = normal(batch, heads, queries, depth), normal(batch, kv_heads, tokens, depth)
        kept = torch.rand(heads, -(-queries // block), -(-tokens // block), generator=random) < share
        ptr, col = own.block_rows(kept)
        arguments = {
            "q": q,
            "k": k,
            "v": normal(batch, kv_heads, tokens, 9),
            "ptr": ptr,
            "col": col,
            "block": block,
        }
        close = ("o", "lse", "block_mass", *(("sketch",) if "extra" in options else ()))
        return Case("block_attention", name, arguments | options, close, ("executed",), holds=_mass_holds)

    yield case("random blocks")
    yield case("every block", share=2.0)
    yield case("no block", share=-1.0)
    yield case("wide blocks", share=2.0, block=64, window=30)
    yield case("no query", queries=0)
    yield case("one query", queries=1, share=2.0)
    yield case("queries after a cache", queries=20)
    yield case("without causality", causal=False)
    yield case("a window", share=2.0, window=5)
    yield case("capped scores", softcap=0.7)
    yield case("padding at both ends", lengths=torch.tensor([30, 37]), starts=torch.tensor([0, 18]))
    yield case("a row that is all padding", lengths=torch.tensor([0, 37]))
    yield case("sinks", sinks=normal(heads).float())
    yield case("extra columns", extra=normal(tokens, 3).float())
    yield case("whole heads left out", share=torch.tensor([2.0, -1.0, 2.0, 2.0])[:, None, None])


def _mass_holds(out: Any, arguments: dict[str, Any]) -> str:
    """Without sinks, the masses of a row of blocks add up to its queries that see something."""
    if arguments.get("sinks") is not None or not out.lse.numel():
        return ""
    expected = float(out.lse.isfinite().sum())
    found = float(out.block_mass.sum())
    return (
        ""
        if abs(found - expected) <= 1e-3 * (expected + 1)
        else f"block_mass adds up to {found}, not {expected}"
    )


def _rows(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    x, tokens = normal(13, 21), 13
    picked = {
        "some rows": torch.randperm(tokens, generator=random)[:6],
        "the same row again and again": torch.tensor([3, 3, 12, 3, 0]),
        "rows that are not there": torch.tensor([-1, 5, 13, 12]),
        "no row": torch.zeros(0, dtype=torch.int64),
        "every row": torch.arange(tokens),
    }
    for name, ids in picked.items():
        close, exact = ("y", "row_norm"), ("dropped",)
        yield Case("gather_rows", name, {"x": x, "ids": ids}, ("row_norm",), ("y", "dropped"))
        added: dict[str, Any] = {"base": x, "rows": normal(len(ids), 21), "ids": ids}
        yield Case("scatter_add_rows", name, added, close, exact)
        weighted = added | {"weights": normal(len(ids)).float()}
        yield Case("scatter_add_rows", f"{name}, weighted", weighted, close, exact)


def _masked(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    weight = normal(11, 45)
    masks = {
        "half": torch.rand(weight.shape, generator=random) < 0.5,
        "all": torch.ones_like(weight, dtype=torch.bool),
        "none": torch.zeros_like(weight, dtype=torch.bool),
        "the last column alone": torch.arange(45).expand(11, -1) == 44,
    }
    for name, mask in masks.items():
        packed = own.pack_masked(weight, mask)
        for tokens in (0, 1, 6):
            arguments = {"x": normal(tokens, 45), "weight": packed}
            yield Case("masked_matmul", f"{name}, {tokens} tokens", arguments, ("y",), statistics=False)


def _residual(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    fields = own.ResidualStats._fields
    for name, shape in (("vectors", (7, 21)), ("no token", (0, 21)), ("one column", (5, 1))):
        three = {part: normal(*shape) for part in ("pre", "attn", "mlp")}
        yield Case("residual_stats", name, three, fields, statistics=False)
    zeros = {"pre": normal(3, 21) * 0, "attn": normal(3, 21), "mlp": normal(3, 21) * 0}
    yield Case("residual_stats", "zero vectors", zeros, fields, statistics=False)


def _ranks(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    if normal(0).dtype != torch.float32:
        return  # a map is the output of a softmax in float32
    sure = torch.randn(2, 3, 19, 19, generator=random) * 3
    causal = sure.masked_fill(torch.ones(19, 19, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    columns = torch.rand(2, 19, generator=random).argsort(1)[:, :7].sort(1).values
    maps = {
        "causal maps": {"maps": causal},
        "sampled rows": {
            "maps": torch.stack([m[:, c] for m, c in zip(causal, columns, strict=True)]),
            "columns": columns,
        },
        "the same columns for all": {"maps": causal[:, :, columns[0]], "columns": columns[0]},
        "nothing": {"maps": causal * 0},
        "one token": {"maps": causal[..., :1, :1]},
        "no map": {"maps": causal[:0]},
        "equal rows": {"maps": torch.full((1, 5, 5), 0.2)},
        "every row sees itself": {"maps": torch.eye(6).unsqueeze(0)},
        "not a number": {"maps": torch.where(torch.arange(19) == 3, torch.nan, causal)},
    }
    for name, arguments in maps.items():
        close = ("stable_rank", "effective_rank", "entropy")
        yield Case("map_ranks", name, arguments, close, ("rank",), statistics=False)


def _logprob(normal: Normal, random: torch.Generator) -> Iterator[Case]:
    if normal(0).dtype != torch.float32:
        return  # halves are widened before anything is added up
    for name, tokens, width in (
        ("sentences", 5, 333),
        ("no token", 0, 21),
        ("one word", 3, 1),
        ("few words", 4, 7),
    ):
        logits = normal(tokens, width) * 8
        chosen = torch.randint(width, (tokens,), generator=random)
        yield Case("token_logprob", name, {"logits": logits, "tokens": chosen}, ("y",), statistics=False)


OPS = (
    "moe_experts", "expert_linear", "sparse_mlp", "block_attention", "gather_rows", "scatter_add_rows", "masked_matmul",
    "residual_stats", "map_ranks", "token_logprob",
)  # fmt: skip
