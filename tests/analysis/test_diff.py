"""The difference of two runs, against hand-made runs and an independent alignment."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import diff
from workbench.analysis.diff import align
from workbench.errors import StoreError
from workbench.store import Store, connect


def put(
    store: Store, run: int, words: list[str], chosen: dict[tuple[int, int], list[int]], edited: bool = False
) -> None:
    """A run whose tokens are numbered by word, with the given choices by position and layer."""
    ids = [sum(map(ord, word)) for word in words]
    store.write("token", {"run": run, "step": [0 if p < 3 else p - 2 for p in range(len(words))],
                          "position": list(range(len(words))), "token": ids, "text": words})  # fmt: skip
    for (position, layer), experts in chosen.items():
        step = 0 if position < 3 else position - 2
        k = len(experts)
        store.write("routing", {"run": run, "step": step, "position": position, "layer": layer, "slot": list(range(k)),
                                "expert": experts, "weight": np.linspace(0.9, 0.1, k), "rank": list(range(k))})  # fmt: skip
        store.write("router", {"run": run, "step": step, "position": position, "layer": layer, "margin": 0.25, "tie": False,
                               "edited": edited and layer == 1})  # fmt: skip
    store.flush()


@pytest.fixture
def store():
    with Store.open(":memory:") as opened:
        yield opened


BASE = ["The", " cat", " sat", " on", " it", "."]
CHOSEN = {(p, layer): [p % 4, (p + layer) % 4 + 4] for p in range(6) for layer in (1, 3)}


def test_a_run_does_not_differ_from_itself(store):
    put(store, 1, BASE, CHOSEN)
    same = diff(store.cursor(), 1, 1)
    assert same.flips.empty
    assert (same.first_layer, same.first_expert, same.first_position) == (None, None, None)
    assert same.text == "The cat sat on it."
    assert list(same.tokens.position) == list(same.tokens.base_position) == list(range(6))
    assert "0 flips" in str(same)


def test_flips_are_found_at_aligned_positions_and_the_first_in_order_of_execution_leads(store):
    words = ["The", " cat", " sat", " right", " on", " it"]
    chosen = {(p, layer): list(CHOSEN[p if p < 3 else p - 1, layer]) for p in range(6) for layer in (1, 3)}
    chosen[1, 3] = [7, CHOSEN[1, 3][0]]  # one expert of two is new, and the order turned round
    chosen[2, 1] = [CHOSEN[2, 1][1], CHOSEN[2, 1][0]]  # the same set
    chosen[5, 1] = [8, 9]
    put(store, 1, BASE, CHOSEN)
    put(store, 2, words, chosen, edited=True)
    result = diff(store.cursor(), 1, 2)
    assert list(zip(result.tokens.base_position, result.tokens.position, strict=True)) == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 4),
        (4, 5),
    ]
    assert list(result.tokens.text) == ["The", " cat", " sat", " on", " it"]
    rows = [(r.position, r.base_position, r.layer, r.cause, r.step) for r in result.flips.itertuples()]
    assert rows == [(1, 1, 3, "upstream", 0), (5, 4, 1, "edit", 3)]
    assert list(result.flips.iloc[0].base_experts) == CHOSEN[1, 3]
    assert list(result.flips.iloc[0].run_experts) == chosen[1, 3]
    assert (result.first_layer, result.first_position, result.first_expert) == (3, 1, CHOSEN[1, 3][1])
    assert result.text == "The cat sat{+ right+} on it[-.-]"
    assert "layer 3, position 1" in str(result) and "1 edit" in str(result) and "1 upstream" in str(result)


def test_kl_is_added_by_whoever_has_logits(store):
    put(store, 1, BASE, CHOSEN)
    with_kl = dataclasses.replace(diff(store.cursor(), 1, 1), kl=[0.5, 1.5])
    assert "mean 1 nats" in str(with_kl)


def test_dense_runs_have_no_flips(store):
    put(store, 1, BASE, {})
    put(store, 2, BASE[:-1] + ["!"], {})
    result = diff(store.cursor(), 1, 2)
    assert result.flips.empty and result.text == "The cat sat on it[-.-]{+!+}"


def test_an_unknown_run_is_refused(store):
    put(store, 1, BASE, CHOSEN)
    with pytest.raises(StoreError, match="Run 9 has no tokens"):
        diff(store.cursor(), 1, 9)


@pytest.mark.slow
def test_it_works_over_a_connection(tmp_path):
    path = tmp_path / "a.duckdb"
    with Store.open(path) as owner:
        put(owner, 1, BASE, CHOSEN)
        put(owner, 2, BASE, {**CHOSEN, (4, 3): [0, 1]})
        with connect(path) as reader:
            assert reader.owner is not None
            result = diff(reader, 1, 2)
            assert (len(result.flips), result.first_position, result.first_layer) == (1, 4, 3)


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 3), max_size=20))
def test_alignment(base, run):
    pairs = list(align(base, run))
    assert all(base[i] == run[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in zip(pairs, pairs[1:], strict=False))
    prefix = 0
    while prefix < min(len(base), len(run)) and base[prefix] == run[prefix]:
        prefix += 1
    assert pairs[:prefix] == [(i, i) for i in range(prefix)]
    if base and run and set(base) & set(run):
        assert pairs or prefix == 0
    if set(base) & set(run):
        assert pairs


def test_frequent_tokens_align_too():
    assert len(list(align([1] + [7] * 300, [2] + [7] * 300))) == 300
