"""The op as torch sees it: schema, gradient, compiler, and what it refuses."""

from __future__ import annotations

import itertools

import pytest
import routing_kernels
import torch
from routing_kernels import reference
from torch import Tensor


def tensors(dtype: torch.dtype, gradient: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, ids, weights, gate_up, down: five tokens, four experts of which one is never chosen, some slots dropped."""
    random = torch.Generator().manual_seed(1)
    x, weights = torch.randn(5, 6, generator=random), torch.rand(5, 3, generator=random)
    gate_up, down = torch.randn(4, 8, 6, generator=random), torch.randn(4, 6, 4, generator=random)
    ids = torch.tensor([[0, 1, 0], [3, -1, 1], [0, 4, -1], [3, 3, 3], [-1, -1, -1]])
    made = [t.to(dtype).requires_grad_(gradient) for t in (x, weights, gate_up, down)]
    return made[0], ids, made[1], made[2], made[3]


@pytest.mark.slow
@pytest.mark.parametrize("stats", [False, True])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck(backend, stats):
    arguments = (*tensors(torch.float32), "silu", stats, 0.01, backend)
    torch.library.opcheck(torch.ops.routing_kernels.moe_experts.default, arguments)
    arguments = (*tensors(torch.float32, gradient=False), "silu", stats, 0.01, backend)
    torch.library.opcheck(torch.ops.routing_kernels.moe_experts_inference.default, arguments)


@pytest.mark.slow
def test_opcheck_of_the_gradient():
    x, *rest = tensors(torch.float32, gradient=False)
    arguments = (torch.randn_like(x), x, *rest, "gelu", [True, False, True, True])
    torch.library.opcheck(torch.ops.routing_kernels.moe_experts_backward.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("act", routing_kernels.ACTIVATIONS)
def test_gradient_against_finite_differences(act):
    x, ids, weights, gate_up, down = tensors(torch.float64)

    def layer(x: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        return routing_kernels.moe_experts(x, ids, weights, gate_up, down, act=act).y

    assert torch.autograd.gradcheck(layer, (x, weights, gate_up, down))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("act", routing_kernels.ACTIVATIONS)
def test_gradient_of_the_c_backend_against_autograd_through_the_reference(act, dtype):
    x, ids, weights, gate_up, down = tensors(dtype)
    wanted = [x, weights, gate_up, down]
    found = torch.autograd.grad(
        routing_kernels.moe_experts(x, ids, weights, gate_up, down, act=act, backend="cpu").y.square().sum(),
        wanted,
    )
    exact = [t.detach().double().requires_grad_() for t in wanted]
    y = reference.moe_experts(exact[0], ids, *exact[1:], act, False, 0.01)[0]
    expected = torch.autograd.grad(y.square().sum(), exact)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - theirs).norm() <= tolerance * theirs.norm()


def test_only_the_wanted_gradients_are_computed():
    full = tensors(torch.float32)
    loss = routing_kernels.moe_experts(*full).y.square().sum()
    expected = dict(
        zip((0, 2, 3, 4), torch.autograd.grad(loss, [full[i] for i in (0, 2, 3, 4)]), strict=True)
    )
    for chosen in itertools.chain.from_iterable(itertools.combinations((0, 2, 3, 4), n) for n in (1, 2, 3)):
        some = [t.detach().requires_grad_(i in chosen) for i, t in enumerate(full)]
        routing_kernels.moe_experts(*some).y.square().sum().backward()
        for i, tensor in enumerate(some):
            assert (tensor.grad is None) == (i not in chosen)
            if i in chosen:
                assert torch.equal(tensor.grad, expected[i])


def test_statistics_are_not_differentiable():
    out = routing_kernels.moe_experts(*tensors(torch.float32), stats=True)
    assert out.y.requires_grad
    assert not any(field.requires_grad for field in out[1:])


def test_a_second_derivative_is_refused():
    x, *rest = tensors(torch.float32)
    loss = routing_kernels.moe_experts(x, *rest).y.sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(routing_kernels.ArgumentError, match="second derivative"):
        first.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [False, True])
def test_compiles_without_a_graph_break(gradient):
    arguments = tensors(torch.float32, gradient)

    def layer(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = routing_kernels.moe_experts(*arguments, stats=True)
        return out.y.square().sum(), out.counts, out.slot_norm * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = compiled(*arguments), layer(*arguments)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    if gradient:
        leaves = [arguments[i] for i in (0, 2, 3, 4)]
        pairs = zip(
            torch.autograd.grad(found[0], leaves), torch.autograd.grad(expected[0], leaves), strict=True
        )
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.slow
def test_compiles_with_the_default_compiler():
    arguments = tensors(torch.float32, gradient=False)
    compiled = torch.compile(lambda *a: routing_kernels.moe_experts(*a).y * 2, fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), routing_kernels.moe_experts(*arguments).y * 2)


X, IDS, WEIGHTS, GATE_UP, DOWN = tensors(torch.float32, gradient=False)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (
            {"act": "swiglu"},
            "There is no activation 'swiglu' here. Use one of silu, gelu, gelu_pytorch_tanh, relu.",
        ),
        ({"x": X[0]}, "shapes do not fit"),
        ({"x": X[:, :4]}, "shapes do not fit"),
        ({"x": X[:3]}, "shapes do not fit"),
        ({"weights": WEIGHTS[:, :2]}, "shapes do not fit"),
        ({"gate_up": GATE_UP[:, :7]}, "shapes do not fit"),
        ({"down": DOWN[:2]}, "shapes do not fit"),
        ({"x": X.double()}, "Give all three one dtype"),
        ({"x": X.int(), "gate_up": GATE_UP.int(), "down": DOWN.int()}, "Give all three one dtype"),
        ({"ids": IDS.int()}, "ids are torch.int32"),
        ({"weights": WEIGHTS.long()}, "weights are torch.int64"),
        ({"weights": WEIGHTS.to("meta")}, "different devices"),
        ({"gate_up": GATE_UP.mT.contiguous().mT}, "not contiguous"),
        ({"down": DOWN.mT.contiguous().mT}, "not contiguous"),
    ],
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_bad_arguments_are_refused_with_a_remedy(backend, wrong, problem):
    arguments = {"x": X, "ids": IDS, "weights": WEIGHTS, "gate_up": GATE_UP, "down": DOWN, **wrong}
    with pytest.raises(routing_kernels.ArgumentError) as refusal:
        routing_kernels.moe_experts(**arguments, backend=backend)
    assert problem in str(refusal.value)
    assert refusal.value.remedy.endswith(".")


def test_who_stands_between_sees_the_op_and_nobody_else_pays_for_it() -> None:
    from torch.profiler import profile
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    arguments = tensors(torch.float32, gradient=False)
    plain = routing_kernels.moe_experts(*arguments, backend="cpu")
    with Watch():
        watched = routing_kernels.moe_experts(*arguments, backend="cpu")
    assert any("routing_kernels.moe_experts" in name for name in seen)
    with profile() as found:
        profiled = routing_kernels.moe_experts(*arguments, backend="cpu")
    assert any("routing_kernels::moe_experts" in one.key for one in found.key_averages())
    assert torch.equal(watched.y, plain.y) and torch.equal(profiled.y, plain.y)
    with torch.device("meta"):  # what torch makes by default says nothing about the results
        torch.set_default_dtype(torch.float64)
        try:
            odd = routing_kernels.moe_experts(*arguments, stats=True, backend="cpu")
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(odd.y, plain.y) and odd.slot_norm.dtype == torch.float32


def test_only_a_plain_call_passes_the_dispatcher_by() -> None:
    from routing_kernels.library import undispatched

    class Other(torch.Tensor):
        pass

    run = undispatched(lambda *_: "op", lambda *_: "call")
    x = torch.ones(2, 3)
    assert run(x, torch.nn.Parameter(x), "cpu", 1, 0.5, True, None) == "call"
    assert run(x, x.as_subclass(Other), "cpu") == "op"
    ways: list[str] = []

    def inside(one: torch.Tensor) -> torch.Tensor:
        ways.append(run(one))
        return one * 2

    torch.func.vmap(inside)(x)
    torch.jit.trace(inside, (x,), check_trace=False)
    assert ways == ["op", "op"]
    assert run(x) == "call"
