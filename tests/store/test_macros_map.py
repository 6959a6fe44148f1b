"""The macros that serve a map at a level of detail, against the same columns put together with pandas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

TOKENS, WIDTH, BEGIN, STOP = 23, 4, 4, 21


def columns(frame):
    """The rows of the tile by layer and first position of their column."""
    inside = frame[(frame.position >= BEGIN) & (frame.position < STOP)]
    return inside.assign(column=inside.position // WIDTH * WIDTH).groupby(["layer", "column"])


def test_choice_tiles(record):
    recording = record(3, tokens=TOKENS)
    run = recording.runs[1]
    got = recording.ask("FROM choice_tiles(?, ?, ?, ?)", [run, BEGIN, STOP, WIDTH]).set_index(
        ["layer", "position"]
    )
    rows = recording.routing[recording.routing.run == run]
    expected = dict(iter(columns(rows[rows["rank"] == 0])))
    assert set(got.index) == set(expected) and (got.index.get_level_values("position") % WIDTH == 0).all()
    for key, group in expected.items():
        counts = Counter(group.expert)
        most = max(counts.values())
        row = got.loc[key]
        assert row.expert == min(expert for expert, count in counts.items() if count == most)
        assert row.share == pytest.approx(most / len(group)) and row.tokens == len(group)
        assert row.weight == pytest.approx(group.weight.mean(), rel=1e-6)
    single = recording.ask("FROM choice_tiles(?, 0, ?, 1)", [run, TOKENS])
    assert (single.share == 1).all() and len(single) == TOKENS * len(recording.layers)


def test_router_tiles_and_part_tiles(store):
    rng = np.random.default_rng(1)
    position, layer = (grid.reshape(-1) for grid in np.meshgrid(np.arange(TOKENS), [0, 2], indexing="ij"))
    size = len(position)
    shared = {"run": 7, "step": 0, "position": position, "layer": layer}
    values = {
        name: rng.random(size).astype(np.float32)
        for name in ("margin", "entropy", "influence", "block_norm", "zero_share")
    }
    edited = rng.random(size) < 0.5
    store.write("router", shared | {
        "margin": values["margin"], "entropy": values["entropy"], "tie": False, "dropped": 0, "edited": edited,
        "native": None, "native_weights": None,
    })  # fmt: skip
    store.write("contribution", shared | {
        "attn_norm": 0.0, "attn_cos": 0.0, "mlp_norm": 0.0, "mlp_cos": 0.0, "block_norm": values["block_norm"],
        "influence": values["influence"],
    })  # fmt: skip
    thin = layer == 2
    part = {name: value[thin] if isinstance(value, np.ndarray) else value for name, value in shared.items()}
    part |= {"expert": -1, "width": 8, "zero_share": values["zero_share"][thin], "threshold": 0.1}
    store.write("sparsity", part | {"below_share": 0.0, "hoyer": 0.0})
    store.flush()
    import pandas as pd

    frame = pd.DataFrame({"position": position, "layer": layer, "edited": edited.astype(float), **values})
    router = (
        store.sql("FROM router_tiles(7, ?, ?, ?)", [BEGIN, STOP, WIDTH]).df().set_index(["layer", "position"])
    )
    parts = (
        store.sql("FROM part_tiles(7, ?, ?, ?)", [BEGIN, STOP, WIDTH]).df().set_index(["layer", "position"])
    )
    expected = dict(iter(columns(frame)))
    assert set(router.index) == set(parts.index) == set(expected)
    for key, group in expected.items():
        for name in ("margin", "entropy", "edited"):
            assert router.loc[key, name] == pytest.approx(group[name].mean(), rel=1e-5)
        assert parts.loc[key, "influence"] == pytest.approx(group.influence.mean(), rel=1e-5)
        assert parts.loc[key, "contribution"] == pytest.approx(group.block_norm.mean(), rel=1e-5)
        if key[0] == 2:
            assert parts.loc[key, "sparsity"] == pytest.approx(group.zero_share.mean(), rel=1e-5)
        else:
            assert np.isnan(parts.loc[key, "sparsity"]), "layer 0 has no row of sparsity"


def test_flip_tiles(record):
    recording = record(5, tokens=TOKENS)
    base, run = recording.runs
    sets = recording.routing.groupby(["run", "layer", "position"]).expert.agg(frozenset)
    differs = (sets[run] != sets[base]).astype(float).rename("flip").reset_index()
    got = recording.ask("FROM flip_tiles(?, ?, ?, ?, ?)", [base, run, BEGIN, STOP, WIDTH]).set_index(
        ["layer", "position"]
    )
    expected = {key: group.flip.mean() for key, group in columns(differs)}
    assert set(got.index) == set(expected)
    for key, share in expected.items():
        assert got.loc[key, "flip"] == pytest.approx(share)
    same = recording.ask("FROM flip_tiles(?, ?, 0, ?, 4)", [run, run, TOKENS])
    assert (same.flip == 0).all() and len(same) > 0


def test_lane_tiles(record):
    recording = record(6, tokens=TOKENS)
    run = recording.runs[0]
    rows = recording.routing[(recording.routing.run == run) & (recording.routing.layer == 2)]
    got = recording.ask("FROM lane_tiles(?, 2, ?, ?, ?)", [run, BEGIN, STOP, WIDTH]).set_index(
        ["expert", "position"]
    )
    inside = rows[(rows.position >= BEGIN) & (rows.position < STOP)]
    expected = inside.assign(column=inside.position // WIDTH * WIDTH).groupby(["expert", "column"]).size()
    assert set(got.index) == set(expected.index)
    for (expert, column), count in expected.items():
        assert got.loc[(expert, column), "share"] == pytest.approx(count / min(WIDTH, STOP - column))
