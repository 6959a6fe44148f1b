"""Attention-map statistics and the rank sketch against float64 loops and SVDs."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.signals import attention_map, rank_sketch
from workbench.signals.attention_rank import attention_map as map_of
from workbench.signals.rank_kernel import kernel_sketch


def softmax_map(length, seed=0, heads=2, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(heads, length, length, generator=generator)
    return logits.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf).softmax(-1)


@pytest.mark.parametrize("sinks", [1, 2])
def test_statistics_against_loops(sinks):
    maps = softmax_map(40)
    rows = torch.tensor([0, 1, 5, 17, 39])
    found = attention_map.statistics(maps[:, rows], rows, sinks=sinks, window=4)
    for head in range(2):
        kept = [int(i) for i in rows if i >= sinks]
        a = maps[head].double().numpy()
        assert np.isclose(
            found.entropy[head],
            np.mean([-sum(x * np.log(x) for x in a[i] if x > 0) for i in kept]),
            atol=1e-5,
        )
        assert np.isclose(found.sink[head], np.mean([a[i, :sinks].sum() for i in kept]), atol=1e-5)
        local = [sum(a[i, j] for j in range(i + 1) if i - j < 4) for i in kept]
        assert np.isclose(found.local[head], np.mean(local), atol=1e-5)
        assert np.isclose(
            found.distance[head],
            np.mean([sum(a[i, j] * (i - j) for j in range(i + 1)) for i in kept]),
            atol=1e-4,
        )


def test_decay_is_the_exponent_of_a_power_law():
    length, power = 512, 1.3
    back = (torch.arange(length)[:, None] - torch.arange(length)).clamp(min=1).double()
    law = back.pow(-power).tril()
    found = attention_map.statistics(law, torch.arange(length))
    assert abs(float(found.decay) - power) < 0.15


def test_a_map_of_one_token_says_nothing_of_decay():
    assert attention_map.statistics(torch.ones(1, 1), torch.tensor([0])).decay.isnan()


@pytest.mark.parametrize("length", [48, 200])
def test_the_sketch_is_near_the_svd_and_never_below_it(length):
    maps = softmax_map(length, heads=3)
    s = torch.linalg.svdvals(maps.double())
    stable = s.square().sum(-1) / s[:, 0].square()
    participation = s.square().sum(-1).square() / s.pow(4).sum(-1)
    found = rank_sketch.of_map(maps, 24)
    assert torch.all(found.stable_rank.double() >= stable * (1 - 1e-5))
    assert torch.all(found.stable_rank.double() <= stable * 1.05)
    assert torch.all(found.participation.double() >= participation * (1 - 1e-5))
    assert torch.all(found.participation.double() <= participation * 1.25)
    assert torch.allclose(found.entropy, torch.special.entr(maps).sum(-1).mean(-1), atol=1e-5)


def test_blocks_give_the_same_sketch_as_the_whole_map():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(4, 70, 8, generator=generator), torch.randn(2, 70, 8, generator=generator)
    rows = rank_sketch.blocks(q, k, 0.4, None, softcap=None, sinks=None, budget=4 * 70 * 9)
    assert len(list(rows())) == 8
    whole = torch.cat([block for _, block in rows()], dim=1)
    assert torch.allclose(whole.sum(-1), torch.ones(4, 70), atol=1e-5) and whole.triu(1).abs().max() == 0
    for a, b in zip(rank_sketch.sketch(rows, 4, 70, 8), rank_sketch.of_map(whole, 8), strict=True):
        assert torch.allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("window", [0, 13])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_the_attention_kernel_gives_the_same_sketch_as_the_map(backend, window, with_sinks):
    generator = torch.Generator().manual_seed(2)
    length = 150
    q, k = torch.randn(4, length, 12, generator=generator), torch.randn(2, length, 12, generator=generator)
    sinks = torch.randn(4, generator=generator) if with_sinks else None
    back = torch.arange(length)[:, None] - torch.arange(length)
    seen = (back >= 0) & (back < (window or length))
    maps = map_of(q[None], k[None], 0.6, seen, sinks=sinks)[0]
    found = kernel_sketch(q, k, 0.6, window=window, sinks=sinks, width=24, seed=5, backend=backend)
    for ours, theirs in zip(found, rank_sketch.of_map(maps, 24, seed=5), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)
    s = torch.linalg.svdvals(maps.double())
    stable = s.square().sum(-1) / s[:, 0].square()
    assert torch.all(found.stable_rank.double() >= stable * (1 - 1e-4))
    # Random maps under a window have a flat spectrum, of which one power iteration sees the largest value from below.
    assert torch.all(found.stable_rank.double() <= stable * (1.2 if window else 1.05))


def test_a_sketch_wider_than_its_map_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        rank_sketch.of_map(softmax_map(4), 5)
    with pytest.raises(ValueError, match="does not fit"):
        kernel_sketch(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8), 1.0, width=5)


LONG = """
import resource, torch
from workbench.signals import rank_sketch
from workbench.signals.rank_kernel import kernel_sketch
def sketch(length):
    random = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, length, 8, generator=random), torch.randn(1, length, 8, generator=random)
    return q, k, kernel_sketch(q, k, 0.3, width=4, backend="cpu")
q, k, found = sketch(1000)
rows = rank_sketch.blocks(q, k, 0.3, None, softcap=None, sinks=None, budget=2**20)
for ours, theirs in zip(found, rank_sketch.sketch(rows, 1, 1000, 4), strict=True):
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = sketch(16_000)[2]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown // 1024, *found.stable_rank.tolist(), *found.entropy.tolist())
"""


@pytest.mark.slow
def test_sixteen_thousand_tokens_take_the_memory_of_their_vectors_alone():
    done = subprocess.run(
        [sys.executable, "-c", LONG], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    megabytes, stable, entropy = (float(x) for x in done.stdout.split())
    assert megabytes < 200, "a map of 16,000 tokens would be 1 GB"
    assert 1 <= stable <= 16_000 and 0 < entropy < math.log(16_000)


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
def test_recorded_maps_and_sketches(bench, padded):
    model = bench("qwen3_moe")
    prompt = [int(t) for t in np.random.default_rng(0).integers(1, 50, 30)]
    record = wb.Record(attention_map=True, rank_sketch=8, rank_tokens=64)
    run = (
        model.run([prompt, prompt + prompt], record=record)[0] if padded else model.run(prompt, record=record)
    )
    maps = run.tensor("attn_pattern", layers=1).double()
    rows = model.sql(
        "SELECT head, entropy, sink, distance, tokens, length FROM attention_map WHERE run = ? AND layer = 1 ORDER BY head",
        [run.id],
    ).fetchall()
    wanted = attention_map.statistics(maps, torch.arange(30))
    assert len(rows) == len(maps)
    for head, entropy, sink, distance, tokens, length in rows:
        assert (tokens, length) == (30, 30)
        assert np.allclose(
            [entropy, sink, distance],
            [wanted.entropy[head], wanted.sink[head], wanted.distance[head]],
            atol=1e-4,
        )
    s = torch.linalg.svdvals(maps)
    stable = (s.square().sum(-1) / s[:, 0].square()).tolist()
    found = model.sql(
        "SELECT method, submatrix, rank, stable_rank, error, length FROM attention_rank WHERE run = ? AND layer = 1 "
        "ORDER BY method, head",
        [run.id],
    ).fetchall()
    exact, sketched = found[: len(stable)], found[len(stable) :]
    assert {row[0] for row in exact} == {"gram"} and {row[0] for row in sketched} == {"kernel sketch 8"}
    assert np.allclose([row[3] for row in exact], stable, rtol=1e-4)
    assert np.allclose([row[3] for row in sketched], stable, rtol=0.05)
    assert all(row[2] is None and 0 <= row[4] < 0.1 and row[5] == 30 for row in sketched)


def test_a_long_map_is_sketched_in_bounded_memory():
    generator = torch.Generator().manual_seed(0)
    length = 3000
    q, k = torch.randn(1, length, 8, generator=generator), torch.randn(1, length, 8, generator=generator)
    rows = rank_sketch.blocks(q, k, 0.35, None, softcap=None, sinks=None, budget=2**18)
    largest = max(block.numel() for _, block in rows())
    assert largest <= 2**18
    found = rank_sketch.sketch(rows, 1, length, 8)
    assert 1 <= float(found.stable_rank) <= length
