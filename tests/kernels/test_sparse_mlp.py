"""The sparse gated MLP: definition, every instruction set against it, what is skipped, and how exactly."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import pytest
import routing_kernels
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import DTYPES, ISAS, NORM_TOLERANCE, using
from torch import Tensor

ACTS = routing_kernels.ACTIVATIONS
MODES = ("teal", "cats", "neuron")
NATIVE = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}
NATIVE["gelu_pytorch_tanh"] = lambda x: F.gelu(x, approximate="tanh")


class Case(NamedTuple):
    """An MLP in the layout of models: gate and up [F, H], down [D, F]."""

    x: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    active: Tensor

    def run(self, mode: str, **settings: Any) -> routing_kernels.SparseMlp:
        turn = (lambda w: w.T.contiguous()) if mode == "teal" else (lambda w: w)
        active = {"active": self.active} if mode == "neuron" else {}
        weights = (turn(self.gate), turn(self.up), self.down.T.contiguous())
        return routing_kernels.sparse_mlp(self.x, *weights, mode, **active, **settings)

    def double(self) -> Case:
        return Case(*(t.double() if t.is_floating_point() else t for t in self))


def make(tokens: int, hidden: int, width: int, outputs: int, dtype: torch.dtype, seed: int = 0) -> Case:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, hidden, generator=random)
    gate, up = (torch.randn(width, hidden, generator=random) / hidden**0.5 for _ in range(2))
    down = torch.randn(outputs, width, generator=random) / width**0.5
    active = torch.rand(tokens, width, generator=random) < torch.rand((), generator=random)
    return Case(*(t.to(dtype) for t in (x, gate, up, down)), active)


def masked(case: Case, mode: str, act: str, threshold: float, edge: float) -> tuple[Tensor, Tensor, Tensor]:
    """The dense MLP with zeros where the mode drops: y, which neurons are active, and what the threshold ranks."""
    x, gate, up, down, active = case.double()
    if mode == "teal":
        x = torch.where(x.abs() > edge, x, 0)
    activated = NATIVE[act](x @ gate.T)
    neurons = activated * (x @ up.T)
    ranked = neurons if mode == "teal" else activated
    chosen = active if mode == "neuron" else ranked.abs() > threshold
    return torch.where(chosen, neurons, 0) @ down.T, chosen, ranked


shapes = st.tuples(st.integers(0, 40), st.integers(1, 50), st.integers(1, 80), st.integers(1, 40))


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(MODES), st.sampled_from(ACTS), st.integers(0, 2**31))
def test_reference_is_the_dense_layer_with_zeros(shape, mode, act, seed):
    case = make(min(shape[0], 6), *shape[1:], torch.float64, seed)
    edges = {"threshold": 0.25, "input_threshold": 0.5}
    out = case.run(mode, act=act, stats=True, backend="reference", **edges)
    y, chosen, ranked = masked(case, mode, act, 0.25, 0.5)
    torch.testing.assert_close(out.y, y, rtol=1e-9, atol=1e-12)
    assert out.active_count.tolist() == chosen.sum(1).tolist()
    read = case.x.abs() > 0.5 if mode == "teal" else torch.ones_like(case.x, dtype=torch.bool)
    assert out.input_count.tolist() == read.sum(1).tolist()
    kept = torch.where(read, case.x, 0).square().sum(1) / case.x.square().sum(1)
    torch.testing.assert_close(out.kept_energy[:, 0], kept.float(), rtol=1e-6, atol=0)
    share = torch.where(chosen, ranked, 0).square().sum(1) / ranked.square().sum(1)
    expected = torch.full_like(share, math.nan) if mode == "neuron" else share
    torch.testing.assert_close(out.kept_energy[:, 1], expected.float(), rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    shapes,
    st.sampled_from(MODES),
    st.sampled_from(ACTS),
    st.sampled_from(ISAS),
    st.sampled_from(DTYPES),
    st.integers(0, 2**31),
)
def test_c_agrees_with_the_reference_in_float64(shape, mode, act, isa, dtype, seed):
    case = make(*shape, dtype, seed)
    x, gate, up, down, _ = case.double()
    # A threshold in the widest gap between magnitudes: rounding then puts no value on its other side.
    edge = gap(case.x.double().abs())
    inputs = torch.where(x.abs() > edge, x, 0) if mode == "teal" else x
    activated = NATIVE[act](inputs @ gate.T)
    threshold = gap((activated * (inputs @ up.T) if mode == "teal" else activated).abs())
    with using(isa):
        out = case.run(mode, act=act, threshold=threshold, input_threshold=edge, stats=True, backend="cpu")
    exact = case.double().run(
        mode, act=act, threshold=threshold, input_threshold=edge, stats=True, backend="reference"
    )
    assert out.y.dtype == dtype and out.y.shape == (shape[0], shape[3])
    # Against what is added up, not against its sums, which may cancel to nothing; |act(z)| is at most |z|.
    size = ((inputs.abs() @ gate.abs().T) * (inputs.abs() @ up.abs().T)).norm(dim=1) * down.norm()
    smallest = torch.finfo(dtype).smallest_normal * shape[3] ** 0.5
    error = (out.y.double() - exact.y).norm(dim=1)
    assert (error <= NORM_TOLERANCE[dtype] * size + smallest).all()
    assert torch.equal(out.active_count, exact.active_count)
    assert torch.equal(out.input_count, exact.input_count)
    torch.testing.assert_close(out.kept_energy, exact.kept_energy, rtol=1e-4, atol=1e-6, equal_nan=True)


def gap(magnitudes: Tensor) -> float:
    """The middle of the widest gap in the upper nine tenths, or 0 where there are too few."""
    ordered = magnitudes.flatten().sort().values
    if len(ordered) < 4:
        return 0.0
    ordered = ordered[: max(2, int(len(ordered) * 0.9))]
    at = ordered.diff().argmax()
    if ordered.diff()[at] < 1e-4:
        return 0.0
    return ((ordered[at] + ordered[at + 1]) / 2).item()


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(MODES), st.sampled_from(ISAS), st.sampled_from(DTYPES), st.integers(0, 2**31))
def test_y_has_the_same_bits_whatever_else_is_asked(shape, mode, isa, dtype, seed):
    case = make(*shape, dtype, seed)
    edges = {"threshold": 0.1, "input_threshold": 0.3, "backend": "cpu"}
    with using(isa):
        y = case.run(mode, **edges).y
        assert torch.equal(y, case.run(mode, stats=True, **edges).y)
        for t in range(0, shape[0], 7):
            alone = case._replace(x=case.x[t : t + 1], active=case.active[t : t + 1])
            assert torch.equal(y[t : t + 1], alone.run(mode, **edges).y)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_layers_have_the_bits_of_each_token_alone(dtype, isa):
    """A lone token adds up longer pieces of rows than several do."""
    case = make(3, 19, 4096 + 1029, 5, dtype)
    y, _, _ = masked(case, "teal", "silu", 0.0, 0.5)
    with using(isa):
        out = case.run("teal", input_threshold=0.5, backend="cpu").y
        alone = [
            case._replace(x=case.x[t : t + 1]).run("teal", input_threshold=0.5, backend="cpu").y
            for t in range(3)
        ]
    assert torch.equal(out, torch.cat(alone))
    assert ((out.double() - y).norm(dim=1) <= 4 * NORM_TOLERANCE[dtype] * y.norm(dim=1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_active_is_not_read(mode, dtype, isa):
    """Weights of dropped neurons and inputs may be NaN: nothing of it is seen."""
    case = make(1, 33, 70, 21, dtype)
    case = case._replace(active=torch.arange(70)[None] % 3 == 0)
    edges = {"threshold": 0.3, "input_threshold": 0.6, "backend": "cpu"}
    _, chosen, _ = masked(case, mode, "silu", 0.3, 0.6)
    with using(isa):
        y = case.run(mode, **edges).y
        assert 0 < chosen.sum() < 70 and y.isfinite().all()
        if mode == "teal":
            case.gate[:, case.x[0].abs() <= 0.6] = case.up[:, case.x[0].abs() <= 0.6] = math.nan
        else:
            case.up[~chosen[0]] = math.nan
        if mode == "neuron":
            case.gate[~chosen[0]] = math.nan
        case.down[:, ~chosen[0]] = math.nan
        assert torch.equal(case.run(mode, **edges).y, y)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_active_costs_no_arithmetic(mode):
    case = make(8, 512, 1024, 512, torch.float32)
    all_on, all_off = torch.ones(8, 1024, dtype=torch.bool), torch.zeros(8, 1024, dtype=torch.bool)
    arguments: dict[bool, dict[str, Any]] = {
        True: {},
        False: {"threshold": 1e9, "input_threshold": 1e9},
    }

    def cost(on: bool) -> float:
        times, these = [], case._replace(active=all_on if on else all_off)
        turn = (lambda w: w.T.contiguous()) if mode == "teal" else (lambda w: w)
        weights = (turn(these.gate), turn(these.up), these.down.T.contiguous())
        active = {"active": these.active} if mode == "neuron" else {}
        for _ in range(7):
            start = time.thread_time()
            routing_kernels.sparse_mlp(these.x, *weights, mode, backend="cpu", **active, **arguments[on])
            times.append(time.thread_time() - start)
        return min(times)

    assert cost(False) < cost(True) * (0.6 if mode == "cats" else 0.2)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_active_neurons_by_number_or_by_mask(backend):
    case = make(3, 8, 10, 6, torch.float32)
    gate, up, down_t = case.gate, case.up, case.down.T.contiguous()

    def run(active: Tensor) -> routing_kernels.SparseMlp:
        return routing_kernels.sparse_mlp(case.x, gate, up, down_t, "neuron", active=active, backend=backend)

    numbers = torch.tensor([[1, 4, -1, 4], [10, 2**40, 0, 9], [-5, -1, -1, 99]])
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[0, [1, 4]] = mask[1, [0, 9]] = True
    by_number, by_mask = run(numbers), run(mask)
    assert torch.equal(by_number.y, by_mask.y)
    assert by_number.active_count.tolist() == by_mask.active_count.tolist() == [2, 2, 0]
    assert not by_mask.y[2].any()
    assert torch.equal(
        run(torch.tensor([3, 7])).y, run(mask.new_zeros(10).index_fill(0, torch.tensor([3, 7]), 1)).y
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", MODES)
def test_nan_stays_visible_and_stays_where_it_is(mode, isa):
    case = make(4, 12, 20, 9, torch.float32)
    case.x[1, 3] = math.nan
    case.active[:, 0] = True
    with using(isa):
        out = case.run(mode, threshold=0.2, input_threshold=0.2, backend="cpu", stats=True)
    assert out.y[1].isnan().all() and out.y[[0, 2, 3]].isfinite().all()


def test_strides_no_tokens_and_no_statistics():
    case = make(5, 24, 17, 11, torch.float32)
    weights = [
        torch.cat([w, w], dim=1)[:, : w.shape[1]] for w in (case.gate, case.up, case.down.T.contiguous())
    ]
    y = routing_kernels.sparse_mlp(case.x.T.contiguous().T, *weights, "cats", 0.1, backend="cpu").y
    assert torch.equal(y, case.run("cats", threshold=0.1, backend="cpu").y)
    for backend in ("reference", "cpu"):
        out = case._replace(x=case.x[:0], active=case.active[:0]).run("teal", backend=backend)
        assert out.y.shape == (0, 11) and out.active_count.shape == (0,) and out.kept_energy.numel() == 0


def small(gradient: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, list[Any]]:
    case = make(5, 6, 8, 4, dtype)
    turned = [case.gate.T.contiguous(), case.up.T.contiguous()]
    plain, down_t = [case.gate, case.up], case.down.T.contiguous()
    return {
        mode: [
            t.detach().clone().requires_grad_(gradient)
            for t in (case.x, *(turned if mode == "teal" else plain), down_t)
        ]
        + [case.active if mode == "neuron" else None]
        for mode in MODES
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend, mode):
    arguments = (*small(True)[mode], "silu", mode, 0.05, 0.2, False, backend)
    torch.library.opcheck(torch.ops.routing_kernels.sparse_mlp.default, arguments)
    arguments = (*small()[mode], "silu", mode, 0.05, 0.2, mode != "neuron", backend)
    torch.library.opcheck(torch.ops.routing_kernels.sparse_mlp_inference.default, arguments)
    x, *rest = small()[mode]
    arguments = (torch.randn(5, 4), x, *rest, "gelu", mode, 0.05, 0.2, [True, False, True, True])
    torch.library.opcheck(torch.ops.routing_kernels.sparse_mlp_backward.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("act", ACTS)
def test_gradient_against_finite_differences(act, mode):
    x, gate, up, down_t, active = small(True, torch.float64)[mode]

    def layer(*arguments: Tensor) -> Tensor:
        return routing_kernels.sparse_mlp(
            *arguments, mode, threshold=1e-3, input_threshold=0.1, active=active, act=act
        ).y

    assert torch.autograd.gradcheck(layer, (x, gate, up, down_t))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_compiles_without_a_graph_break(mode):
    *tensors, active = small(True)[mode]

    def layer(*arguments: Tensor) -> Tensor:
        out = routing_kernels.sparse_mlp(*arguments, mode, 0.05, active=active, stats=True)
        return out.y.square().sum() + out.active_count.sum()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = compiled(*tensors), layer(*tensors)
    assert torch.equal(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, tensors), torch.autograd.grad(expected, tensors), strict=True
    ):
        assert torch.equal(ours, theirs)


X, GATE, UP, DOWN_T, _ = small()["cats"]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"act": "swiglu"}, "no activation 'swiglu'"),
        ({"mode": "wina"}, "no mode 'wina' of the sparse MLP. Use one of teal, cats, neuron"),
        ({"mode": "neuron"}, "without active neurons. Give active in mode 'neuron'"),
        ({"active": torch.ones(8, dtype=torch.bool)}, "with active neurons"),
        ({"mode": "teal"}, "shapes do not fit"),
        ({"x": X[0]}, "shapes do not fit"),
        ({"up": UP[:3]}, "shapes do not fit"),
        ({"down_t": DOWN_T[:3]}, "shapes do not fit"),
        ({"threshold": -1.0}, "not negative"),
        ({"threshold": math.nan}, "not negative"),
        ({"x": X.double()}, "Give all four one dtype"),
        ({"gate": GATE.to("meta")}, "different devices"),
        ({"gate": GATE.T.contiguous().T}, "not contiguous"),
        ({"mode": "neuron", "active": torch.ones(8)}, "int64 neuron numbers"),
        ({"mode": "neuron", "active": torch.ones(7, dtype=torch.bool)}, "Give one for each neuron"),
        ({"mode": "neuron", "active": torch.ones(2, 8, dtype=torch.bool)}, "one row for each token"),
    ],
)
def test_bad_arguments_are_refused(wrong, problem):
    arguments = {"x": X, "gate": GATE, "up": UP, "down_t": DOWN_T, "mode": "cats", **wrong}
    with pytest.raises(routing_kernels.ArgumentError, match=problem):
        routing_kernels.sparse_mlp(**arguments)
