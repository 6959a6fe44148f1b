"""The map of a run of any size: what is sent at once, and the tiles at every level of detail against the rows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.panel.grids import WHOLE
from workbench.panel.tiles import COARSE
from workbench.store import Store

TOKENS, LAYERS, EXPERTS, TOP_K = 9000, 6, 16, 2
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def write_run() -> Callable[..., int]:
    """The benchmarks' writer of large runs."""
    spec = importlib.util.spec_from_file_location("synthetic_run", ROOT / "benchmarks/synthetic_run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    write: Callable[..., int] = module.write_synthetic_run
    return write


@pytest.fixture(scope="module")
def written(write_run: Callable[..., int]) -> Iterator[tuple[Store, int, int]]:
    """A store with two runs of 9,000 tokens that differ in a block."""
    with Store.open(":memory:") as store:
        base = write_run(store, TOKENS, LAYERS, EXPERTS, TOP_K)
        yield store, base, write_run(store, TOKENS, LAYERS, EXPERTS, TOP_K, flips_of=base)


@pytest.fixture
def large(fake_bench: Any, driver: Any, written: tuple[Store, int, int]) -> Iterator[tuple[Any, int, int]]:
    """A view that shows one of them against the other."""
    store, base, run = written
    own, fake_bench.store = fake_bench.store, store
    driver.control("show", run=str(run), base=str(base), plan=False)
    yield driver, base, run
    fake_bench.store = own


def ask(driver: Any, run: int, base: int, colour: str, first: int, bucket: int, layer: Any = None) -> Any:
    driver.view.clear()
    driver.control(
        "tile", run=str(run), base=str(base), edited=run != base, colour=colour, first=first, bucket=bucket, layer=layer
    )  # fmt: skip
    return driver.arrays() if "tile" in driver.view.kinds() else None


def rows(store: Store, query: str, *values: Any) -> Any:
    return store.sql(query, list(values)).fetchall()


@pytest.mark.slow
def test_a_large_map_comes_without_its_cells(large: Any) -> None:
    driver, base, run = large
    told = driver.view.last("map")
    assert TOKENS * LAYERS > WHOLE and told["tile"] is None
    assert (told["tokens"], len(told["layers"]), told["experts"], told["choices"]) == (
        TOKENS,
        LAYERS,
        EXPERTS,
        TOP_K,
    )
    assert told["run"] == str(run) and told["base"] == str(base) and told["edited"] is True
    assert told["colours"] == ["expert", "weight", "margin", "entropy", "flip", "influence", "contribution"]
    assert driver.state["edited"]["past"] is True and driver.state["edited"]["model"] == "synthetic"
    assert driver.view.last("cell")["text"] and "next" not in driver.view.kinds()


def test_a_text_of_another_model_is_not_gone_on_with(large: Any) -> None:
    driver, _, run = large
    driver.compute("step")
    told = driver.view.last("error")
    assert "recorded with synthetic" in told["problem"] and "Press Run" in told["remedy"]
    assert driver.state["live"] is None and driver.state["edited"]["id"] == str(run)


def test_columns_hold_the_most_frequent_expert_and_means(large: Any, fake_bench: Any) -> None:
    driver, base, run = large
    bucket, first = 8, 1024
    arrays = ask(driver, run, base, "expert", first, bucket)
    size = min(COARSE, -(-(TOKENS - first) // bucket))
    assert arrays["experts"].shape == (1, LAYERS, size) and arrays["share"].shape == (LAYERS, size)
    for layer, column in ((0, 0), (3, 17), (5, size - 1)):
        start = first + bucket * column
        found = [e for (e,) in rows(
            fake_bench.store, "SELECT expert FROM routing WHERE run = ? AND layer = ? AND rank = 0 AND position >= ? "
            "AND position < ? ORDER BY ALL", run, layer, start, start + bucket,
        )]  # fmt: skip
        counts = np.bincount(found, minlength=EXPERTS)
        assert arrays["experts"][0, layer, column] == counts.argmax()
        assert arrays["share"][layer, column] == pytest.approx(counts.max() / len(found))
    for colour, table, column_name in (
        ("entropy", "router", "entropy"), ("margin", "router", "margin"), ("influence", "contribution", "influence"),
        ("contribution", "contribution", "block_norm"),
    ):  # fmt: skip
        arrays = ask(driver, run, base, colour, first, bucket)
        ((mean,),) = rows(
            fake_bench.store, f"SELECT avg({column_name}) FROM {table} WHERE run = ? AND layer = 2 AND position >= ? "
            "AND position < ?", run, first + 40, first + 48,
        )  # fmt: skip
        assert arrays[colour][2, 5] == pytest.approx(mean, rel=1e-5)
        low, high = driver.view.last("tile")["tile"]["range"]
        assert low < high
    weights = ask(driver, run, base, "weight", first, bucket)["weights"]
    ((mean,),) = rows(
        fake_bench.store, "SELECT avg(weight) FROM routing WHERE run = ? AND layer = 2 AND rank = 0 AND position >= ? "
        "AND position < ?", run, first + 40, first + 48,
    )  # fmt: skip
    assert weights[0, 2, 5] == pytest.approx(mean, rel=1e-5)


def test_columns_of_depth_events_hold_the_most_frequent_one(fake_bench: Any, driver: Any) -> None:
    from workbench.panel import grids

    position = np.arange(64)
    write = fake_bench.store.write
    same = {"run": 7, "step": 0, "kv": None}
    write("depth", same | {"position": position[:6], "layer": 1, "unit": "mlp", "event": "skip"})
    write("depth", same | {"position": position[4:8], "layer": 1, "unit": "block", "event": "skip"})
    write("depth", same | {"position": position[:8], "layer": 2, "unit": "block", "event": "execute"})
    fake_bench.store.flush()
    arrays = grids.coarse(
        fake_bench.store.cursor(), grids.Shape(4, 64, 8, 2), 7, 7, False, "depth", 0, 64, 8
    )  # fmt: skip
    # Of eight tokens four skipped the MLP alone, and four the block, two of them both: the block says more.
    assert arrays["depth"][1, 0] in (2, 5) and arrays["share"][1, 0] == 0.5
    assert arrays["depth"].sum() == arrays["depth"][1, 0], "a block that ran is no departure"
    assert arrays["skipped"][1, 0] == 0.5


@pytest.mark.slow
def test_flips_of_columns_agree_with_the_macro_and_single_tokens(large: Any, fake_bench: Any) -> None:
    driver, base, run = large
    flips = {(layer, position) for layer, position in rows(
        fake_bench.store, "SELECT layer, position FROM flips(?, ?)", base, run
    )}  # fmt: skip
    assert len(flips) == sum(1 for p in range(TOKENS // 3, TOKENS // 2 + 1) if p % 3 == 0)
    bucket, first = 16, 0
    coarse = ask(driver, run, base, "flip", first, bucket)["flip"]
    for column in range(0, coarse.shape[1], 50):
        inside = [(2, p) in flips for p in range(column * bucket, min(TOKENS, (column + 1) * bucket))]
        assert coarse[2, column] == pytest.approx(np.mean(inside))
    assert coarse[0].max() == 0
    fine = ask(driver, run, base, "flip", 3072, 1)
    texts = driver.view.last("tile")["tile"]["texts"]
    assert len(texts) == fine["flip"].shape[1] == 256 and texts[0] == rows(
        fake_bench.store, "SELECT text FROM token WHERE run = ? AND position = 3072", run
    )[0][0]  # fmt: skip
    assert [bool(x) for x in fine["flip"][2]] == [(2, p) in flips for p in range(3072, 3072 + 256)]
    assert fine["experts"].shape == (TOP_K, LAYERS, 256) and fine["edited"][2].all()
    assert not ask(driver, base, base, "flip", 0, 32)["flip"].any(), "a run does not differ from itself"


def test_lanes_and_load_are_shares(large: Any, fake_bench: Any) -> None:
    driver, base, run = large
    lanes = ask(driver, run, base, "lanes", 0, 64, layer=4)["lanes"]
    assert lanes.shape == (EXPERTS, -(-TOKENS // 64)) and np.allclose(lanes.sum(0), TOP_K, atol=1e-6)
    ((count,),) = rows(
        fake_bench.store, "SELECT count(*) FROM routing WHERE run = ? AND layer = 4 AND expert = 3 AND position < 64", run
    )  # fmt: skip
    assert lanes[3, 0] == pytest.approx(count / 64)
    driver.view.clear()
    driver.control("load_of", run=str(run))
    message = driver.view.last("load")
    load = np.frombuffer(driver.view.buffers[driver.view.kinds().index("load")][0], np.float32)
    load = load.reshape(message["array"]["shape"])
    expected = rows(fake_bench.store, "SELECT layer, expert, load FROM expert_load(?, first := true)", run)
    for layer, expert, value in expected:
        assert load[layer, expert] == pytest.approx(value, rel=1e-6)


def test_tiles_outside_or_of_another_run(large: Any, fake_bench: Any) -> None:
    driver, base, run = large
    for first, bucket, colour, words in (
        (TOKENS + 24, 8, "expert", "no tile"), (0, 3, "expert", "no tile"), (0, 8, "nonsense", "no colour"),
        (0, 8, "lanes", "no layer"),
    ):  # fmt: skip
        ask(driver, run, base, colour, first, bucket)
        assert words in driver.view.last("error")["problem"]
    assert ask(driver, 12345, base, "expert", 0, 8) is None, (
        "a map that is not in view any more needs no answer"
    )
    assert driver.view.kinds() == ["done"]


def test_a_past_run_is_looked_at_and_run_again_when_the_plan_changes(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt="alpha beta gamma")
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [2]})
    driver.compute("recompute")
    old = driver.state["edited"]["id"]
    driver.compute("run", prompt="other words here now")
    driver.control("clear")
    driver.control("seen")
    driver.control("show", run=old, base=None, plan=True)
    state = driver.state
    assert (
        state["base"]["id"] == old
        and state["base"]["past"]
        and state["edited"] is None
        and not state["stale"]
    )
    assert state["prompt"] == "alpha beta gamma" and [e["kind"] for e in state["plan"]["edits"]] == [
        "reroute.ban"
    ]
    driver.compute("try", layer=1, position=0)
    assert "store" in driver.view.last("error")["problem"]
    driver.control("add", edit={"kind": "skip.block", "layers": [2]})
    assert driver.state["stale"]
    driver.compute("recompute")
    state = driver.state
    assert not state["base"]["past"] and state["base"]["id"] != old and state["edited"] and not state["stale"]
    driver.control("show", run="77", base=None, plan=False)
    assert "77" in driver.view.last("error")["problem"]
    driver.control("show", run="x", base=None, plan=False)
    assert "no run" in driver.view.last("error")["problem"]
