"""Attention maps against the models' own eager attention, ranks against numpy."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.signals import attention_rank

_COMMON: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "attn_implementation": "eager",
}  # fmt: skip
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    "gpt_neox": {"num_key_value_heads": 4},
    "gemma2": {"head_dim": 8, "attn_logit_softcapping": 2.0, "sliding_window": 4},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", _FAMILIES)
def test_the_map_is_the_one_that_eager_attention_uses(
    family: str, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    native, compared = module.eager_attention_forward, []

    def spy(
        owner: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **rest: Any
    ) -> Any:
        out, weights = native(owner, query, key, value, attention_mask, scaling=scaling, **rest)
        extra = {"softcap": rest.get("softcap"), "sinks": rest.get("s_aux", getattr(owner, "sinks", None))}
        found = attention_rank.attention_map(query, key, scaling, attention_mask, **extra)
        compared.append((found, weights))
        rows = torch.tensor([1, 4, 7])
        some = attention_rank.attention_map(query, key, scaling, attention_mask, rows, **extra)
        torch.testing.assert_close(some, weights[:, :, rows], rtol=1e-5, atol=1e-6)
        return out, weights

    monkeypatch.setattr(module, "eager_attention_forward", spy)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(family, **(_COMMON | _FAMILIES[family]))
        ).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    mask = torch.ones(2, 9, dtype=torch.int64)
    if padded:
        mask[0, :3] = 0
    with torch.no_grad():
        model(torch.arange(18).reshape(2, 9) + 3, attention_mask=mask, use_cache=False)
    assert len(compared) == 2
    for found, weights in compared:
        assert torch.equal(found, weights)


def test_without_a_mask_the_map_is_causal_also_behind_a_cache() -> None:
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 7, 8)
    found = attention_rank.attention_map(q, k, 0.3)
    assert found.shape == (1, 4, 3, 7) and found.dtype == torch.float32
    for row in range(3):
        logits = q[0, 3, row].double().numpy() @ k[0, 1, : 5 + row].double().numpy().T * 0.3
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(found[0, 3, row, : 5 + row].numpy(), expected, rtol=1e-5)
        assert found[0, 3, row, 5 + row :].abs().sum() == 0


def test_a_boolean_mask_means_allowed_and_leaves_rows_without_keys_uniform() -> None:
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4)
    allowed = torch.tensor([[False, False], [True, False]])
    found = attention_rank.attention_map(q, k, 1.0, allowed)
    assert found[0, 0].tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_heads_that_do_not_divide_are_an_error() -> None:
    with pytest.raises(ValueError, match="4 query heads cannot share 3"):
        attention_rank.attention_map(torch.zeros(1, 4, 2, 8), torch.zeros(1, 3, 2, 8), 1.0)


def _reference(
    a: np.ndarray, tolerance: float, whole: np.ndarray | None = None
) -> tuple[int, float, float, float]:
    s = np.linalg.svd(a, compute_uv=False)
    p = s[s > 0] / s.sum() if s.sum() > 0 else np.array([])
    rows = a if whole is None else whole
    total = rows.sum(-1, keepdims=True)
    rows = np.divide(rows, total, out=np.zeros_like(rows), where=total > 0)
    entropies = [-sum(x * math.log(x) for x in row if x > 0) for row in rows]
    return (
        int((s > tolerance * s[0]).sum()) if s[0] > 0 else 0,
        float(np.linalg.norm(a, "fro") ** 2 / np.linalg.norm(a, 2) ** 2) if s[0] > 0 else 0.0,
        float(np.exp(-(p * np.log(p)).sum())) if len(p) else 0.0,
        float(np.mean(entropies)),
    )


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(1, 12),
    sharpness=st.sampled_from([0.0, 1.0, 10.0]),
    tolerance=st.sampled_from([0.001, 0.01, 0.3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_ranks_agree_with_numpy_on_causal_maps(
    size: int, sharpness: float, tolerance: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    logits = np.where(np.tri(size, dtype=bool), random.normal(size=(2, size, size)) * sharpness, -np.inf)
    maps = np.exp(logits - logits.max(-1, keepdims=True))
    maps /= maps.sum(-1, keepdims=True)
    found = attention_rank.ranks(torch.from_numpy(maps), tolerance)
    for head in range(2):
        rank, stable, effective, entropy = _reference(maps[head], tolerance)
        assert int(found.rank[head]) == rank
        assert float(found.stable_rank[head]) == pytest.approx(stable, rel=1e-9)
        assert float(found.effective_rank[head]) == pytest.approx(effective, rel=1e-9)
        assert float(found.entropy[head]) == pytest.approx(entropy, abs=1e-9)
        assert 1 <= found.stable_rank[head] <= found.effective_rank[head] * size
    single = attention_rank.ranks(torch.from_numpy(maps).float(), tolerance)
    torch.testing.assert_close(single.stable_rank.double(), found.stable_rank, rtol=1e-4, atol=1e-4)
    assert single.rank.dtype == torch.int64 and single.stable_rank.dtype == torch.float32


def test_known_maps() -> None:
    identity, uniform = torch.eye(5).expand(2, 3, 5, 5), torch.full((1, 5, 5), 0.2)
    found = attention_rank.ranks(identity)
    assert found.rank.shape == (2, 3) and (found.rank == 5).all()
    torch.testing.assert_close(found.stable_rank, torch.full((2, 3), 5.0))
    torch.testing.assert_close(found.effective_rank, torch.full((2, 3), 5.0))
    assert found.entropy.abs().max() == 0
    found = attention_rank.ranks(uniform)
    assert found.rank.item() == 1
    assert found.stable_rank.item() == pytest.approx(1, abs=1e-5)
    assert found.entropy.item() == pytest.approx(math.log(5), rel=1e-6)


def test_one_token_nothing_and_numbers_that_are_not() -> None:
    one = attention_rank.ranks(torch.ones(4, 1, 1))
    assert (
        one.rank.tolist() == [1] * 4
        and one.effective_rank.tolist() == [1.0] * 4
        and one.entropy.tolist() == [0.0] * 4
    )
    nothing = attention_rank.ranks(torch.zeros(3, 3))
    assert [float(x) for x in nothing] == [0.0] * 4
    maps = torch.eye(3).repeat(2, 1, 1)
    maps[0, 2, 1] = torch.nan
    broken = attention_rank.ranks(maps)
    assert broken.rank.tolist() == [0, 3]
    assert all(math.isnan(x[0]) and not math.isnan(x[1]) for x in broken[1:])


def test_a_sampled_submatrix_takes_its_rank_from_the_sample_and_its_entropy_from_whole_rows() -> None:
    random = np.random.default_rng(3)
    logits = np.where(np.tri(40, dtype=bool), random.normal(size=(40, 40)), -np.inf)
    whole = np.exp(logits)
    whole /= whole.sum(-1, keepdims=True)
    rows = attention_rank.sample(40, limit=10, seed=1)
    assert rows is not None
    found = attention_rank.ranks(torch.from_numpy(whole)[rows], 0.01, rows)
    expected = _reference(whole[np.ix_(rows.numpy(), rows.numpy())], 0.01, whole[rows.numpy()])
    assert [float(x) for x in found] == pytest.approx(list(expected), rel=1e-9)


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match="not square"):
        attention_rank.ranks(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="The tolerance is 1.5"):
        attention_rank.ranks(torch.zeros(2, 3, 3), 1.5)


def test_samples_are_sorted_distinct_repeatable_and_draw_nothing_from_the_global_generator() -> None:
    assert attention_rank.sample(256) is None
    state = torch.get_rng_state()
    first, again, other = (attention_rank.sample(1000, 256, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first is not None and again is not None and other is not None
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (256,) and (first.diff() > 0).all() and first[0] >= 0 and first[-1] < 1000
