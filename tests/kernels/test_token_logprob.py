"""Log-probabilities of tokens: the definition by numpy, every instruction set against the reference, edges, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import routing_kernels
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_isas import ISAS, using
from torch import Tensor


def by_numpy(logits: Tensor, tokens: Tensor) -> np.ndarray:
    wide = logits.double().numpy()
    most = wide.max(-1, keepdims=True)
    shares = np.exp(wide - most)
    return wide[np.arange(len(wide)), tokens.numpy()] - most[:, 0] - np.log(shares.sum(-1))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5), st.integers(1, 700), st.sampled_from([0.0, 1.0, 10.0, 300.0]), st.sampled_from(ISAS),
    st.integers(0, 2**31),
)  # fmt: skip
def test_every_build_is_the_definition(tokens: int, width: int, scale: float, isa: str, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, width, generator=random) * scale
    chosen = torch.randint(width, (tokens,), generator=random)
    with using(isa):
        out = routing_kernels.token_logprob(logits, chosen, backend="cpu")
    expected = by_numpy(logits, chosen)
    assert out.dtype == torch.float32 and out.shape == (tokens,)
    np.testing.assert_allclose(out.numpy(), expected, rtol=2e-6, atol=2e-6)
    exact = routing_kernels.token_logprob(logits.double(), chosen)
    np.testing.assert_allclose(exact.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("isa", ISAS)
def test_a_large_vocabulary_keeps_its_digits(isa: str) -> None:
    logits = torch.randn(3, 200_003, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([0, 200_002, 77_777])
    with using(isa):
        out = routing_kernels.token_logprob(logits, tokens, backend="cpu")
        alone = routing_kernels.token_logprob(logits[1:2], tokens[1:2], backend="cpu")
    np.testing.assert_allclose(out.numpy(), by_numpy(logits, tokens), rtol=1e-6)
    assert torch.equal(out[1:2], alone), "a token does not depend on the others"


@pytest.mark.parametrize("isa", [*ISAS, "reference"])
def test_infinities_and_numbers_that_are_not(isa: str) -> None:
    rows = torch.zeros(8, 37)
    rows[0, 5] = -torch.inf  # the token itself cannot come
    rows[1, 6] = -torch.inf  # another cannot
    rows[2] = -torch.inf
    rows[2, 5] = 3.0  # it alone can
    rows[3, 20] = torch.nan
    rows[4] = -torch.inf
    rows[5, 20] = torch.inf
    rows[6, 5] = torch.inf
    rows[7, 36] = torch.nan
    tokens = torch.full((8,), 5)
    if isa == "reference":
        out = routing_kernels.token_logprob(rows, tokens, backend="reference")
    else:
        with using(isa):
            out = routing_kernels.token_logprob(rows, tokens, backend="cpu")
    expected = [-math.inf, -math.log(36), 0.0, math.nan, math.nan, -math.inf, math.nan, math.nan]
    assert out.tolist() == pytest.approx(expected, nan_ok=True)


def test_what_lies_apart_in_memory_is_read_as_it_is() -> None:
    whole = torch.randn(9, 60, generator=torch.Generator().manual_seed(2))
    tokens = torch.arange(18).reshape(9, 2)[:, 1]
    out = routing_kernels.token_logprob(whole[:, ::2], tokens)
    np.testing.assert_allclose(out.numpy(), by_numpy(whole[:, ::2], tokens), rtol=2e-6)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_gradient(backend: str) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 11, generator=random, requires_grad=True)
    tokens, given_back = torch.randint(11, (4,), generator=random), torch.randn(4, generator=random)
    (found,) = torch.autograd.grad(routing_kernels.token_logprob(logits, tokens, backend), logits, given_back)
    (right,) = torch.autograd.grad(
        logits.log_softmax(-1).gather(1, tokens.unsqueeze(1)).squeeze(1), logits, given_back
    )
    torch.testing.assert_close(found, right)
    wide = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: routing_kernels.token_logprob(x, tokens), (wide,))
    assert torch.autograd.gradgradcheck(lambda x: routing_kernels.token_logprob(x, tokens), (wide,))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_opcheck_and_a_graph_without_a_break(backend: str) -> None:
    logits, tokens = torch.randn(3, 9), torch.tensor([1, 8, 0])
    torch.library.opcheck(
        torch.ops.routing_kernels.token_logprob.default, (logits.requires_grad_(), tokens, backend)
    )
    compiled = torch.compile(
        lambda x: routing_kernels.token_logprob(x, tokens, backend), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(logits), routing_kernels.token_logprob(logits, tokens, backend))


ROWS, WORDS = torch.zeros(3, 4), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((ROWS[0], WORDS), "do not fit together"),
        ((ROWS, WORDS[:2]), "do not fit together"),
        ((ROWS[:, :0], WORDS), "do not fit together"),
        ((ROWS.half(), WORDS), "logits are torch.float16"),
        ((ROWS, WORDS.int()), "tokens torch.int32"),
        ((ROWS, WORDS + 2), "not among the 4"),
        ((ROWS, WORDS - 1, "reference"), "not among the 4"),
    ],
)
def test_refusals(arguments: tuple[object, ...], problem: str) -> None:
    with pytest.raises(routing_kernels.ArgumentError, match=problem):
        routing_kernels.token_logprob(*arguments)


def test_there_is_no_kernel_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing_kernels.ops.logprob.resolve", lambda *_: ("triton", "interpreter"))
    with pytest.raises(routing_kernels.BackendError, match="no triton kernel for token_logprob"):
        routing_kernels.token_logprob(ROWS, WORDS, backend="triton")
