"""Routes of other engines: positions, the last token, sentinels, missing layers; and their replay on the local model."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.errors import StoreError
from workbench.runtime.imports import read_file

IDS = [5, 17, 3, 60, 22, 9, 41, 8]


def _routes(bench: Any, run: Any) -> np.ndarray[Any, Any]:
    rows = bench.sql("SELECT position, layer, slot, expert FROM routing WHERE run = ?", [run.id]).fetchall()
    array = np.full((len(IDS), 3, 2), -1, np.int64)
    for position, layer, slot, expert in rows:
        array[position, layer, slot] = expert
    assert (array >= 0).all()
    return array


def _encoded(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(array.astype(np.int32).tobytes()).decode()


@pytest.mark.slow
@pytest.mark.parametrize("source", ["vllm", "sglang", "sglang-text", "megatron"])
def test_routes_come_back_and_replay_to_the_same_choices(bench: Any, source: str) -> None:
    one = bench("olmoe")
    plan = wb.reroute.rank_offset(layers="all", shift=1)
    theirs = one.run(IDS, plan)
    array = _routes(one, theirs)
    given: Any = array
    if source == "sglang-text":
        given = _encoded(array)
    elif source == "megatron":
        given = [torch.from_numpy(array[:, layer]) for layer in range(3)]
    run = one.import_routes(IDS, given, source=source.partition("-")[0], labels={"engine": source})
    found = one.sql(
        "SELECT position, layer, slot, expert, isnan(weight) FROM routing WHERE run = ? ORDER BY ALL", [run]
    ).fetchall()
    assert found == [(p, n, s, array[p, n, s], True) for p in range(8) for n in range(3) for s in range(2)]
    about = one.sql(
        "SELECT kind, tokens, prompt_tokens, labels ->> 'engine' FROM run WHERE run = ?", [run]
    ).fetchone()
    assert about == ("import", 8, 8, source)
    again = one.run(IDS, wb.reroute.replay(run))
    torch.testing.assert_close(again.logits, theirs.logits, rtol=1e-5, atol=1e-5)
    assert (_routes(one, again) == array).all()


def test_the_last_token_of_a_generation_was_never_run(bench: Any) -> None:
    one = bench("olmoe")
    array = _routes(one, one.run(IDS))
    run = one.import_routes(IDS, array[:-1], prompt_tokens=5)
    rows = one.sql("SELECT max(position), max(step) FROM routing WHERE run = ?", [run]).fetchone()
    assert rows == (6, 2)
    assert one.sql("SELECT count(*) FROM token WHERE run = ? AND part = 'generated'", [run]).fetchone() == (
        3,
    )
    late = one.import_routes(IDS, array[4:], first=4)
    assert one.sql("SELECT min(position) FROM routing WHERE run = ?", [late]).fetchone() == (4,)
    for rows_given, first in (
        (array[:-2], 0),
        (np.concatenate([array, array]), 0),
        (array, 1),
        (array[:0], 8),
    ):
        with pytest.raises(StoreError, match="rows of routes"):
            one.import_routes(IDS, rows_given, first=first)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "nothing"), [(np.int16, -1), (np.uint8, 255), (np.uint16, 65535)])
def test_sentinels_leave_slots_and_cells_out(bench: Any, dtype: Any, nothing: int) -> None:
    one = bench("olmoe")
    array = _routes(one, one.run(IDS)).astype(dtype)
    array[2, 1, 1] = nothing
    array[3, 0] = nothing
    run = one.import_routes(IDS, array)
    assert one.sql("SELECT count(*) FROM routing WHERE run = ?", [run]).fetchone() == (8 * 3 * 2 - 3,)
    assert one.sql(
        "SELECT count(*) FROM routing WHERE run = ? AND position = 3 AND layer = 0", [run]
    ).fetchone() == (0,)
    replayed = one.run(IDS, wb.reroute.replay(run))
    slots = "SELECT count(*) FROM routing WHERE run = ? AND position = ? AND layer = ?"
    assert one.sql(slots, [replayed.id, 2, 1]).fetchone() == (1,)
    assert one.sql(slots, [replayed.id, 3, 0]).fetchone() == (
        2,
    )  # nothing is known there: the model's own choice


def test_missing_layers(bench: Any) -> None:
    one = bench("olmoe")
    array = _routes(one, one.run(IDS))
    run = one.import_routes(IDS, array[:, [0, 2]], layers=[0, 2])
    layers = one.sql("SELECT DISTINCT layer FROM routing WHERE run = ? ORDER BY layer", [run]).fetchall()
    assert layers == [(0,), (2,)]
    for wrong in (None, [0, 5], [0]):
        with pytest.raises(StoreError, match="with experts"):
            one.import_routes(IDS, array[:, [0, 2]], layers=wrong)


@pytest.mark.slow
def test_what_does_not_fit_the_model_is_refused(bench: Any) -> None:
    one = bench("olmoe")
    array = _routes(one, one.run(IDS))
    strange = array.copy()
    strange[1, 1, 0] = 8
    with pytest.raises(StoreError, match="Layer 1 has 8 experts; the routes name expert 8"):
        one.import_routes(IDS, strange)
    with pytest.raises(StoreError, match="names an expert twice"):
        one.import_routes(IDS, np.zeros_like(array))
    for given, source, problem in (
        (array.astype(float), "vllm", "array of float64"),
        (array[0], "vllm", "shape"),
        ("not base64!", "sglang", "not base64"),
        (_encoded(array.reshape(-1)[:-1]), "sglang", "do not divide"),
        ([array[:, 0], array[:-1, 1]], "megatron", "have the shapes"),
        (array, "other", "no import from"),
    ):
        with pytest.raises(StoreError, match=problem):
            one.import_routes(IDS, given, source=source)
    with pytest.raises(StoreError, match="no experts"):
        bench(build_tiny("llama")).import_routes(IDS, array)


def test_files(bench: Any, tmp_path: Any) -> None:
    one = bench("olmoe")
    array = _routes(one, one.run(IDS))
    np.savez(tmp_path / "a.npz", tokens=np.array(IDS), routes=array)
    (tmp_path / "b.json").write_text(json.dumps({"tokens": IDS, "routes": array.tolist(), "source": "vllm"}))
    reply = {
        "input_ids": IDS[:5],
        "output_ids": IDS[5:],
        "meta_info": {"routed_experts": _encoded(array[:-1])},
    }
    (tmp_path / "c.json").write_text(json.dumps(reply))
    for name in ("a.npz", "b.json", "c.json"):
        run = one.import_routes(**read_file(str(tmp_path / name)))
        assert one.sql("SELECT count(*) FROM routing WHERE run = ?", [run]).fetchone() == (
            42 if name[0] == "c" else 48,
        )
    (tmp_path / "d.json").write_text("[]")
    for name in ("d.json", "none.npz"):
        with pytest.raises(StoreError):
            read_file(str(tmp_path / name))
