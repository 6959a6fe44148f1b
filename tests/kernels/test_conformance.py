"""The conformance check: every backend here passes it, and kernels with a planted fault do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import routing_kernels
import torch
from kernel_isas import EXPERT_ISAS, using
from routing_kernels import conformance
from torch import Tensor


def wrong(outcomes: list[conformance.Outcome]) -> list[str]:
    return [f"{o.op}, {o.case}, {o.dtype}: {o.state} {o.detail}" for o in outcomes if o.state != "right"]


@pytest.mark.slow
@pytest.mark.parametrize("isa", EXPERT_ISAS)
def test_the_c_backend_conforms(isa: str) -> None:
    with using(isa):
        outcomes = conformance.check("cpu")
    assert not wrong(outcomes)
    assert {o.op for o in outcomes} == set(conformance.OPS)


def test_the_reference_conforms() -> None:
    assert not wrong(conformance.check("reference", dtypes=(torch.float32, torch.float64)))


def test_what_cannot_run_is_not_applicable() -> None:
    outcomes = conformance.check("triton", dtypes=(torch.float64,))
    assert {o.state for o in outcomes} == {"not applicable"} and outcomes[0].detail


# Faults as kernels have them: each is a change of our own op, so that nothing else about it differs.


def neighbours_expert(*, ids: Tensor, **rest: Any) -> Any:
    """The expert beside the one that was chosen."""
    inside = (ids >= 0) & (ids < len(rest["gate_up"]))
    return routing_kernels.moe_experts(ids=torch.where(inside, (ids + 1) % len(rest["gate_up"]), ids), **rest)


def first_of_one_expert(*, ids: Tensor, weights: Tensor, **rest: Any) -> Any:
    """Weights taken in the order of the experts instead of the slots."""
    order = ids.argsort(1)
    return routing_kernels.moe_experts(ids=ids, weights=weights.gather(1, order), **rest)


def missing_tail(*, gate_up: Tensor, down: Tensor, **rest: Any) -> Any:
    """The neurons beyond the last full tile of 16."""
    down = down.clone()
    down[:, :, down.shape[2] // 16 * 16 :] = 0
    return routing_kernels.moe_experts(gate_up=gate_up, down=down, **rest)


def drops_uncounted(**arguments: Any) -> Any:
    out = routing_kernels.moe_experts(**arguments)
    return out._replace(dropped=torch.zeros_like(out.dropped))


def statistics_of_the_weighted(*, weights: Tensor, **rest: Any) -> Any:
    out = routing_kernels.moe_experts(weights=weights, **rest)
    return out._replace(slot_norm=out.slot_norm * weights.float()) if rest["stats"] else out


def other_bits_with_statistics(**arguments: Any) -> Any:
    out = routing_kernels.moe_experts(**arguments)
    return out._replace(y=out.y * (1 + 2e-6)) if arguments["stats"] else out


def one_key_too_many(**arguments: Any) -> Any:
    """Causality off by one: a query sees the key after it."""
    k = arguments["k"]
    if not arguments.get("causal", True) or k.shape[2] != arguments["q"].shape[2]:
        return routing_kernels.block_attention(**arguments)
    late = {
        name: torch.cat([arguments[name][:, :, 1:], arguments[name][:, :, -1:]], 2) for name in ("k", "v")
    }
    return routing_kernels.block_attention(**arguments | late)


def window_of_one_more(**arguments: Any) -> Any:
    window = arguments.get("window", 0)
    return routing_kernels.block_attention(**arguments | {"window": window + bool(window)})


def block_left_out(**arguments: Any) -> Any:
    ptr, col = arguments["ptr"], arguments["col"]
    if not len(col):
        return routing_kernels.block_attention(**arguments)
    out = routing_kernels.block_attention(**arguments | {"ptr": ptr.clamp(max=len(col) - 1), "col": col[:-1]})
    mass = torch.nn.functional.pad(out.block_mass, (0, 1)) if arguments["stats"] else out.block_mass
    return out._replace(block_mass=mass)


def wrong_group(**arguments: Any) -> Any:
    """Query heads dealt round to the key heads instead of in runs."""
    flipped = {name: arguments[name].flip(1) for name in ("k", "v")}
    return routing_kernels.block_attention(**arguments | flipped)


def last_neuron_kept(*, active: Tensor | None = None, **rest: Any) -> Any:
    if active is not None:
        active = active.clone()
        active[:, -1] = True
    return routing_kernels.sparse_mlp(active=active, **rest)


def up_for_gate(*, gate: Tensor, up: Tensor, **rest: Any) -> Any:
    return routing_kernels.sparse_mlp(gate=up, up=gate, **rest)


def last_write_wins(*, base: Tensor, rows: Tensor, ids: Tensor, **rest: Any) -> Any:
    """Repeated ids overwrite instead of adding up."""
    last = torch.tensor([not (ids[i + 1 :] == one).any() for i, one in enumerate(ids)], dtype=torch.bool)
    return routing_kernels.scatter_add_rows(base=base, rows=rows * last[:, None], ids=ids, **rest)


def wraps_around(*, x: Tensor, ids: Tensor, **rest: Any) -> Any:
    """An id that names no row read from the other end."""
    return routing_kernels.gather_rows(x=x, ids=ids % len(x), **rest)


def first_column_only_once(*, x: Tensor, **rest: Any) -> Any:
    x = x.clone()
    x[:, -1:] = 0
    return routing_kernels.masked_matmul(x=x, **rest)


def change_for_mlp(**arguments: Any) -> Any:
    out = routing_kernels.residual_stats(**arguments)
    return out._replace(mlp=out.change)


def another_experts_weight(*, ids: Tensor, **rest: Any) -> Any:
    inside = (ids >= 0) & (ids < len(rest["weight"]))
    return routing_kernels.expert_linear(
        ids=torch.where(inside, (ids + 1) % len(rest["weight"]), ids), **rest
    )


def last_input_missing(*, x: Tensor, **rest: Any) -> Any:
    x = x.clone()
    x[..., -1] = 0
    return routing_kernels.expert_linear(x=x, **rest)


def bias_of_the_first(*, bias: Tensor | None = None, **rest: Any) -> Any:
    bias = bias if bias is None else bias[:1].expand_as(bias)
    return routing_kernels.expert_linear(bias=bias, **rest)


def likeliest_instead(*, logits: Tensor, tokens: Tensor, **rest: Any) -> Any:
    return routing_kernels.token_logprob(logits=logits, tokens=logits.argmax(-1), **rest)


def last_column_missing(*, logits: Tensor, tokens: Tensor, **rest: Any) -> Any:
    """A tail of the vocabulary that is not summed."""
    shorter = logits[:, : max(1, logits.shape[1] - 1)]
    inside = tokens.clamp(max=shorter.shape[1] - 1)
    return routing_kernels.token_logprob(logits=shorter, tokens=inside, **rest)


FAULTS: list[tuple[str, Callable[..., Any]]] = [
    ("moe_experts", neighbours_expert), ("moe_experts", first_of_one_expert), ("moe_experts", missing_tail),
    ("moe_experts", drops_uncounted), ("moe_experts", statistics_of_the_weighted),
    ("moe_experts", other_bits_with_statistics), ("block_attention", one_key_too_many),
    ("block_attention", window_of_one_more), ("block_attention", block_left_out), ("block_attention", wrong_group),
    ("sparse_mlp", last_neuron_kept), ("sparse_mlp", up_for_gate), ("scatter_add_rows", last_write_wins),
    ("gather_rows", wraps_around), ("masked_matmul", first_column_only_once), ("residual_stats", change_for_mlp),
    ("expert_linear", another_experts_weight), ("expert_linear", last_input_missing),
    ("expert_linear", bias_of_the_first), ("token_logprob", likeliest_instead), ("token_logprob", last_column_missing),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("op", "fault"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_planted_fault_is_found(op: str, fault: Callable[..., Any], dtype: torch.dtype) -> None:
    if fault is other_bits_with_statistics and dtype != torch.float32:
        pytest.skip("bfloat16 rounds the fault away")
    if op == "token_logprob" and dtype != torch.float32:
        pytest.skip("its cases are in float32 alone")
    outcomes = conformance.check("cpu", dtypes=(dtype,), ops={op: fault}, chosen=lambda case: case.op == op)
    assert "wrong" in {o.state for o in outcomes}
    assert not {o.state for o in outcomes} - {"wrong", "right"}, wrong(outcomes)


def test_what_a_kernel_does_is_named() -> None:
    def refuses(**_: Any) -> Any:
        raise routing_kernels.ArgumentError("Not this.", "Give something else.")

    def fails(**_: Any) -> Any:
        raise IndexError("out of range")

    only = {"dtypes": (torch.float32,), "chosen": lambda case: case.op == "gather_rows"}
    assert {o.state for o in conformance.check("cpu", ops={"gather_rows": refuses}, **only)} == {"refused"}
    crashed = conformance.check("cpu", ops={"gather_rows": fails}, **only)
    assert {(o.state, o.detail) for o in crashed} == {("crashed", "IndexError: out of range")}
