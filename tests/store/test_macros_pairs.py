"""Macros that compare runs position by position against plain Python, over random runs that went back and on again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.store import Store

EXPERTS = 200  # more than a word of bits holds
LAYERS = (0, 3)
TABLES = ("routing", "router", "token", "contribution", "run", "depth")


@pytest.fixture(scope="module")
def shared() -> Iterator[Store]:
    """One store for all examples, emptied by each."""
    with Store.open(":memory:") as opened:
        yield opened


class Runs:
    """Random runs of a few tokens. Some runs computed their last tokens twice; the last choice of each token is kept."""

    def __init__(self, store: Store, seed: int, count: int = 3) -> None:
        rng = np.random.default_rng(seed)
        cursor = store.cursor()
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")
        self.store, self.runs = store, list(range(11, 11 + count))
        self.tokens: dict[tuple[int, int], int] = {}
        self.slots: dict[tuple[int, int, int], list[int]] = {}
        self.state: dict[tuple[int, int, int], tuple[float, bool, bool, int]] = {}
        self.parts: dict[tuple[int, int, int], tuple[float, float]] = {}
        rows = defaultdict(list)
        for run in self.runs:
            passes = [(0, 0), (1, int(rng.integers(2, 6)))] if rng.random() < 0.6 else [(0, 0)]
            for step, begin in passes:
                for position in range(begin, 7):
                    token = position if rng.random() < 0.8 else 99
                    self.tokens[run, position] = token
                    rows["token"].append((run, step, position, token))
                    for layer in LAYERS:
                        self._cell(rng, rows, (run, position, layer), step)
        names = {
            "token": "run step position token",
            "routing": "run step position layer slot expert weight rank",
            "router": "run step position layer margin tie edited",
            "contribution": "run step position layer block_norm influence",
        }
        for table, columns in names.items():
            store.write(
                table, dict(zip(columns.split(), map(list, zip(*rows[table], strict=True)), strict=True))
            )
        store.write("run", {"run": self.runs, "num_experts": EXPERTS, "tokens": 7})
        store.write(
            "depth", {"run": 12, "step": 0, "position": 1, "layer": 3, "unit": "block", "event": "skip"}
        )
        store.flush()

    def _cell(self, rng, rows, cell, step) -> None:
        run, position, layer = cell
        # Few experts, far apart: sets that overlap, in several words; sometimes one expert has two slots.
        k = int(rng.integers(1, 5))
        experts = rng.choice([0, 1, 63, 64, 127, 128, 199], k, replace=bool(rng.random() < 0.3)).tolist()
        ranks = rng.permutation(k).tolist()
        margin, tie, edited = (
            float(np.float32(rng.random())),
            bool(rng.random() < 0.2),
            bool(rng.random() < 0.2),
        )
        norm, influence = (float(x) for x in rng.random(2).astype(np.float32))
        at = (run, step, position, layer)
        for slot in rng.permutation(k).tolist():  # rows in any order
            rows["routing"].append((*at, slot, experts[slot], 0.5, ranks[slot]))
        rows["router"].append((*at, margin, tie, edited))
        rows["contribution"].append((*at, norm, influence))
        self.slots[cell] = [expert for _, expert in sorted(zip(ranks, experts, strict=True))]
        self.state[cell] = (margin, tie, edited, step)
        self.parts[cell] = (norm, influence)

    def prefix(self, base: int, run: int) -> int:
        """Tokens both begin with."""
        return next((p for p in range(7) if self.tokens[base, p] != self.tokens[run, p]), 7)


examples = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
seeds = st.integers(0, 2**31)


@examples
@given(seed=seeds, first=st.booleans())
def test_route_stability(shared, seed, first):
    runs = Runs(shared, seed)
    got = shared.sql(f"FROM route_stability(11, [12, 13], first := {str(first).lower()})").fetchall()
    wanted = []
    for run in (12, 13):
        positions = range(0 if first else 1, runs.prefix(11, run))
        for layer in LAYERS if positions else ():
            sets = [(runs.slots[11, p, layer], runs.slots[run, p, layer]) for p in positions]
            shares = [
                (len(set(a) & set(b)) / len(set(a)), len(set(a) & set(b)) / len(set(a) | set(b)),
                 set(a) == set(b), a[0] == b[0], len(set(b)) / EXPERTS)
                for a, b in sets
            ]  # fmt: skip
            wanted.append((run, layer, len(sets), *np.mean(shares, axis=0)))
    assert [row[:3] for row in got] == [row[:3] for row in wanted]
    if wanted:
        np.testing.assert_allclose(np.array(got, float), np.array(wanted, float))


@examples
@given(seed=seeds)
def test_flips(shared, seed):
    runs = Runs(shared, seed)
    wanted = {}
    for position in range(runs.prefix(11, 12)):
        for layer in LAYERS:
            a, b = (11, position, layer), (12, position, layer)
            (before, *marks), (after, *others) = runs.state[a], runs.state[b]
            if set(runs.slots[a]) != set(runs.slots[b]):
                cause = "edit" if marks[1] or others[1] else "tie" if marks[0] or others[0] else "upstream"
                wanted[position, layer] = (runs.slots[a], runs.slots[b], before, after, cause)
    got = shared.sql("FROM flips(11, 12)").fetchall()
    assert {(p, layer): tuple(rest) for p, layer, *rest in got} == wanted
    whole = shared.sql("FROM flips_aligned(11, 12, range(7), range(7))").fetchall()
    assert whole == sorted(whole, key=lambda row: (row[7], row[1], row[0]))
    for position, layer, *_, step, base_position in whole:
        assert step == runs.state[12, position, layer][3] and base_position == position


@examples
@given(seed=seeds, first=st.booleans())
def test_skip_effect(shared, seed, first):
    runs = Runs(shared, seed)
    got = shared.sql(f"FROM skip_effect(11, [12, 13], first := {str(first).lower()})").fetchall()
    wanted = []
    for run in (12, 13):
        for layer in LAYERS:
            at = [(runs.parts[11, p, layer], runs.parts[run, p, layer]) for p in range(0 if first else 1, 7)]
            norm, influence = ([b[i] - a[i] for a, b in at] for i in (0, 1))
            largest = max(abs(x) / a[0] for x, (a, _) in zip(norm, at, strict=True))
            skipped = (run, layer) == (12, 3)
            wanted.append((run, layer, skipped, len(at), np.mean(norm), np.mean(influence), largest))
    np.testing.assert_allclose(np.array(got, float), np.array(wanted, float), rtol=1e-6)


@examples
@given(seed=seeds)
def test_routing_map(shared, seed):
    runs = Runs(shared, seed)
    got = shared.sql(
        "SELECT run, position, layer, step, top, experts, margin FROM routing_map([11, 13])"
    ).fetchall()
    assert len(got) == 2 * 7 * len(LAYERS)
    for run, position, layer, step, top, experts, margin in got:
        cell = (run, position, layer)
        assert (margin, step) == (runs.state[cell][0], runs.state[cell][3])
        assert top == runs.slots[cell][0] and sorted(experts) == sorted(runs.slots[cell])


def test_some_runs_are_enough_where_the_whole_is_too_much(shared):
    Runs(shared, 3, count=6)
    others = list(range(12, 17))
    some = [run for (run,) in shared.sql(f"FROM some_runs({others}, 8) ORDER BY id").fetchall()]
    assert len(some) == 2
    for macro in ("route_stability", "skip_effect"):
        few = shared.sql(f"FROM {macro}(11, {others}, most := 8, first := true)").fetchall()
        assert few == shared.sql(f"FROM {macro}(11, {some}, first := true)").fetchall()
        assert {row[0] for row in few} <= set(some)
