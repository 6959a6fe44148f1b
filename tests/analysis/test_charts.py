"""Charts hold the rows of their macro, compile to pictures offline, and refuse what they cannot draw."""

from __future__ import annotations

import inspect

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from workbench import analysis
from workbench.analysis import charts
from workbench.errors import StoreError

LAYER = pd.DataFrame({"layer": np.arange(6)})
SERIES = {
    name: LAYER["layer"] + i
    for i, name in enumerate("entropy rank stable_rank effective_rank attn_norm mlp_norm block_norm".split())
}
PROFILE = LAYER.assign(**SERIES)
PAIRS = pd.DataFrame(
    {"layer": [0, 0, 1], "expert": [0, 1, 2], "next_expert": [2, 3, 3], "probability": [0.5, 1.0, 0.25]}
)
FLIPS = pd.DataFrame({"position": [3, 4], "layer": [1, 2], "cause": ["edit", "upstream"]})
LOADS = pd.DataFrame({"layer": [0, 0], "expert": [0, 1], "load": [0.25, 0.75]})
EFFECTS = pd.DataFrame(
    {"plan": ["p", "p", "q", "q"], "layer": [0, 1, 0, 1], "cka": 0.9, "distance": 0.1, "kl": 0.01}
)
SKIPPED = pd.DataFrame(
    {"skipped": [0, 0, 1, 1], "layer": [1, None, 2, None], "largest": [0.5, 0.1, 0.2, 0.1], "mean": 0.1}
).astype({"layer": "Int64"})
LEVELS = pd.DataFrame(
    {"level": [0.3, 0.5], "change": [0.0, 0.1], "upper": [0.01, 0.2], "worst_change": [0.1, 0.4]}
)
PLACED = pd.DataFrame({"pc1": [0.0, 1.0], "pc2": [1.0, 0.0], "label": ["a", "b"]})


def colours_of(chart: alt.Chart) -> dict:
    return chart.to_dict()["encoding"]["color"]["scale"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "frame", "rows"),
    [
        (charts.expert_load, LOADS, 2),
        (charts.affinity, PAIRS, 2),
        (charts.entropy_profile, PROFILE, 6),
        (charts.arank_profile, PROFILE, 18),
        (charts.contribution, PROFILE, 18),
        (charts.flips_map, FLIPS, 2),
        (charts.layer_effects, EFFECTS, 12),
        (charts.skip_effects, SKIPPED, 2),
        (lambda frame: charts.tolerable(frame, 0.05), LEVELS, 8),
        (lambda frame: charts.components(frame, "label"), PLACED, 2),
    ],
)
def test_a_chart_holds_its_rows_and_draws_offline(draw, frame, rows):
    chart = draw(frame)
    assert type(chart) is alt.Chart
    (data,) = chart.to_dict()["datasets"].values()
    assert len(data) == rows
    scale = colours_of(chart)
    assert scale.get("scheme") == "viridis" or set(scale["range"]) <= set(charts.PALETTE)
    svg = vl_convert.vegalite_to_svg(chart.to_json(), allowed_base_urls=[])
    assert svg.startswith("<svg") and "<path" in svg


@pytest.mark.slow
def test_quality_has_a_panel_a_family_with_its_controls_as_one_line():
    rows = [
        {"family": family, "method": method, "control": method == "random", "budget": budget, "change": 1 - budget,
         "change_low": 0.9 - budget, "change_high": 1.1 - budget}
        for family in ("blocks", "tokens") for method in ("random", "random", "uniform", "middle")
        for budget in (0.5, 0.75)
    ]  # fmt: skip
    chart = charts.quality(pd.DataFrame(rows))
    drawn = chart.to_dict()
    assert [panel["title"]["text"] for panel in drawn["concat"]] == ["blocks", "tokens"]
    sizes = sorted(len(data) for data in drawn["datasets"].values())
    assert sizes[0] == 2 and sizes[-1] == 4, "two controls of one budget are one point"
    svg = vl_convert.vegalite_to_svg(chart.to_json(), allowed_base_urls=[])
    assert svg.startswith("<svg") and "middle" in svg
    with pytest.raises(StoreError, match="no column 'budget'"):
        charts.quality(pd.DataFrame(rows).drop(columns="budget"))


def test_affinity_shows_the_layer_asked_for():
    (data,) = charts.affinity(PAIRS, 1).to_dict()["datasets"].values()
    assert data == [{"expert": 2, "next_expert": 3, "probability": 0.25}]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(StoreError, match="no column 'expert'"):
        charts.expert_load(LAYER)
    long = pd.DataFrame({"layer": 0, "expert": np.arange(charts.LARGEST + 1), "load": 0.0})
    with pytest.raises(StoreError, match="too large"):
        charts.expert_load(long)


CALLS = [name for name in analysis.__all__ if inspect.isfunction(getattr(analysis, name))]
"""The public calls of the room."""


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[object, int]]:
    """What every public call answers about twelve random runs, with the marks its chart must have."""
    rng = np.random.default_rng(0)
    runs = pd.Index(range(1001, 1013), name="run")
    columns = pd.MultiIndex.from_product([[0, 3], range(4)], names=["layer", "expert"])
    vectors = pd.DataFrame(rng.random((12, 8)), index=runs, columns=columns)
    changes = pd.DataFrame(
        {"sparsity": np.repeat([0.2, 0.5], 6), "change": rng.random(12), "task": ["a", "b"] * 6}
    )
    flips = FLIPS.assign(base_experts=[[0], [1]], run_experts=[[1], [0]])
    found = analysis.RunDiff(1, 2, pd.DataFrame({"position": [0]}), flips, 1, 0, 3, "text")
    labels = {run: "ab"[run % 2] for run in runs}
    return {
        "bootstrap": (analysis.bootstrap(rng.random(9), draws=50), 1),
        "clusters": (analysis.clusters(vectors, 2), 12),
        "components": (analysis.components(vectors), 12),
        "diff": (found, 2),
        "neighbours": (analysis.neighbours(vectors, 2), 24),
        "permutation": (analysis.permutation(rng.random(5), rng.random(6), draws=50), 1),
        "probe": (analysis.probe(vectors, labels, folds=2, permutations=3, by_layer=True), 2),
        "routing_vectors": (vectors, 96),
        "tolerable": (analysis.tolerable(changes, 0.5, samples=20), 8),
    }


def draw(name: str, answer: object) -> alt.Chart | alt.LayerChart:
    return charts.tolerable(answer, 0.5) if name == "tolerable" else getattr(charts, name)(answer)


def test_every_public_call_has_the_chart_of_its_name(answers):
    assert sorted(answers) == sorted(CALLS)
    for name, (answer, rows) in answers.items():
        frames = [answer] if isinstance(answer, pd.DataFrame) else list(vars(answer).values())
        assert any(isinstance(frame, pd.DataFrame) for frame in frames), name
        chart = draw(name, answer)
        drawn = chart.to_dict()
        (data,) = drawn["datasets"].values()
        assert len(data) == rows, name
        assert drawn["title"], name
        layers = drawn.get("layer", [drawn])
        for axis in ("x", "y"):
            assert any(axis in layer["encoding"] for layer in layers), name


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_chart_of_a_call_draws_offline(answers, name):
    svg = vl_convert.vegalite_to_svg(draw(name, answers[name][0]).to_json(), allowed_base_urls=[])
    assert svg.startswith("<svg") and "<path" in svg


def test_charts_of_answers_say_what_they_show(answers):
    (point,) = charts.probe(probed_together(answers)).to_dict()["datasets"].values()
    assert [row["layer"] for row in point] == ["all"]
    wide = pd.DataFrame(
        {
            "layer": [0, 1, 2],
            "score": 1.0,
            "null_mean": [0.5, 0.2, 0.9],
            "null_sd": [0.1, 0.2, 0.1],
            "p_value": 0.1,
            "runs": 9,
        }
    )
    (bars,) = charts.probe(wide).to_dict()["datasets"].values()
    ends = [end for row in bars for end in (row["low"], row["high"])]
    assert ends == pytest.approx([0.3, 0.7, 0.0, 0.6, 0.7, 1.0]), "no grey where no score can be"
    joined = pd.concat({"one": answers["bootstrap"][0], "two": answers["bootstrap"][0]})
    (rows,) = charts.bootstrap(joined, "load").to_dict()["datasets"].values()
    assert [row["name"] for row in rows] == ["one", "two"]
    (null,) = charts.permutation(answers["permutation"][0], "load").to_dict()["datasets"].values()
    spread = answers["permutation"][0].null_sd[0]
    assert (null[0]["low"], null[0]["high"]) == pytest.approx((-2 * spread, 2 * spread))
    (bars,) = charts.clusters(answers["clusters"][0]).to_dict()["datasets"].values()
    assert [row["cluster"] for row in bars] == sorted(row["cluster"] for row in bars)
    assert {row["item"] for row in bars} == {str(run) for run in range(1001, 1013)}


def probed_together(answers) -> pd.DataFrame:
    vectors = answers["routing_vectors"][0]
    return analysis.probe(vectors, {run: "ab"[run % 2] for run in vectors.index}, folds=2, permutations=2)


@pytest.mark.parametrize(
    "draw", [charts.affinity, charts.expert_load, charts.routing_vectors, charts.clusters]
)
def test_a_frame_of_something_else_is_refused(draw):
    with pytest.raises(StoreError, match="no column"):
        draw(pd.DataFrame({"x": [1]}))
