"""Charts hold the rows of their macro, compile to pictures offline, and refuse what they cannot draw."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

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
PLACED = pd.DataFrame({"pc1": [0.0, 1.0], "pc2": [1.0, 0.0], "label": ["a", "b"]})


def colours_of(chart: alt.Chart) -> dict:
    return chart.to_dict()["encoding"]["color"]["scale"]


@pytest.mark.parametrize(
    ("draw", "frame", "rows"),
    [
        (charts.expert_load, LOADS, 2),
        (charts.affinity, PAIRS, 2),
        (charts.entropy_profile, PROFILE, 6),
        (charts.arank_profile, PROFILE, 18),
        (charts.contribution, PROFILE, 18),
        (charts.flips_map, FLIPS, 2),
        (lambda frame: charts.scatter(frame, "label"), PLACED, 2),
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


def test_affinity_shows_the_layer_asked_for():
    (data,) = charts.affinity(PAIRS, 1).to_dict()["datasets"].values()
    assert data == [{"expert": 2, "next_expert": 3, "probability": 0.25}]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(StoreError, match="no column 'expert'"):
        charts.expert_load(LAYER)
    long = pd.DataFrame({"layer": 0, "expert": np.arange(charts.LARGEST + 1), "load": 0.0})
    with pytest.raises(StoreError, match="too large"):
        charts.expert_load(long)
