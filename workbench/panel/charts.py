"""The panel's charts: Altair specifications over the macros, each with a rule at the layer in view that a page moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.analysis import charts, drawing
from workbench.errors import SqlError, StoreError
from workbench.panel import answers
from workbench.panel.replies import sentence
from workbench.said import Said, said

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

LAYER = "layer_in_view"
"""Name of the parameter that holds the number of the layer in view."""

_HEIGHT = 240
"""Of every chart in pixels, however many layers or experts go down it."""

_LAYERS = 24
"""Layers of a large model that a chart by expert shows, around the one in view."""


def drawn(cursor: Any, chart: str, run: int, layer: int) -> answers.Chart:
    """One chart of a run.

    Raises
    ------
    StoreError
        There is no such chart.
    """
    if chart not in CHARTS:
        raise StoreError(
            said("There is no chart %1.", repr(chart)), said("Choose one of %1.", ", ".join(CHARTS))
        )
    query, make, missing = CHARTS[chart]
    named = {name: value for name, value in {"run": run, "layer": layer}.items() if f"${name}" in query}
    frame = cursor.execute(query, named).df()
    spec = None
    if len(frame):
        spec = _spoken(make(frame, layer).properties(width="container", height=_HEIGHT).to_dict())
    return answers.Chart(
        chart=chart,
        run=str(run),
        layer=layer,
        spec=spec,
        note=None if spec is not None else sentence(missing),
    )


def _spoken(value: Any) -> Any:
    """A part of a specification, with what it says to a person as sentences for a view to translate."""
    if isinstance(value, Said):
        return {"$said": sentence(value).model_dump()}
    if isinstance(value, dict):
        return {key: _spoken(item) for key, item in value.items()}
    return [_spoken(item) for item in value] if isinstance(value, list) else value


def plotted(cursor: Any, sql: str, mark: str, x: str, y: str, colour: str | None) -> dict[str, Any]:
    """The answer of a checked query as a chart; columns are named by position, as a name may be any text.

    Raises
    ------
    SqlError
        A column is not in the answer, or there are more rows than a chart takes.
    """
    import altair as alt

    frame = cursor.execute(sql).df()
    wanted = [x, y] if colour is None else [x, y, colour]
    for name in wanted:
        if name not in frame.columns:
            raise SqlError(
                said("The answer has no column %1.", repr(name)), said("Choose another column for the chart.")
            )
    if len(frame) > drawing.LARGEST:
        raise SqlError(
            said("The answer has %1 rows; a chart takes %2.", f"{len(frame):,}", f"{drawing.LARGEST:,}"),
            said("Aggregate in SQL, or add a LIMIT."),
        )
    rows = frame[list(dict.fromkeys(wanted))].copy()
    fields = {name: f"c{n}" for n, name in enumerate(rows.columns)}
    numbers = {name: _is_number(rows[name]) for name in rows.columns}
    for name in rows.columns:
        if not numbers[name]:
            rows[name] = rows[name].map(lambda value: "" if value is None else str(value))
    rows.columns = list(fields.values())

    def channel(make: Any, name: str, ordinal: bool) -> Any:
        kind = "quantitative" if numbers[name] and not ordinal else "ordinal"
        return make(fields[name], type=kind, title=name)

    tips = [alt.Tooltip(field, type="nominal", title=name) for name, field in fields.items()]
    grid = mark == "grid"
    base = alt.Chart(rows)
    marks = {
        "bar": base.mark_bar(),
        "line": base.mark_line(point=True),
        "point": base.mark_point(filled=True),
        "grid": base.mark_rect(),
    }
    encoded = {
        "x": channel(alt.X, x, grid or mark == "bar"),
        "y": channel(alt.Y, y, grid),
        "tooltip": tips,
    }
    if colour is not None:
        if numbers[colour] and mark != "line":
            encoded["color"] = alt.Color(
                fields[colour], type="quantitative", title=colour, scale=alt.Scale(scheme="viridis")
            )
        else:
            encoded["color"] = alt.Color(
                fields[colour], type="nominal", title=colour, scale=alt.Scale(range=drawing.PALETTE)
            )
    spec: dict[str, Any] = marks[mark].encode(**encoded).properties(width="container").to_dict()
    return spec


def _is_number(column: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column)) and not pd.api.types.is_bool_dtype(column)


def _near(frame: pd.DataFrame, layer: int) -> pd.DataFrame:
    """The rows of the layers around ``layer``, where all of them would be too many."""
    if len(frame) <= drawing.LARGEST:
        return frame
    layers = _layers(frame)
    at = min(range(len(layers)), key=lambda n: abs(layers[n] - layer))
    count = min(_LAYERS, max(1, drawing.LARGEST // max(1, len(frame) // len(layers))))
    first = max(0, min(at - count // 2, len(layers) - count))
    return frame[frame["layer"].isin(layers[first : first + count])]


def _layers(frame: pd.DataFrame) -> list[int]:
    return sorted(int(layer) for layer in frame["layer"].unique())


def _ruled(chart: alt.Chart, frame: pd.DataFrame, channel: str, layer: int) -> Any:
    """``chart`` with a rule across it at the layer in view."""
    import altair as alt
    import pandas as pd

    title, chart = chart.title, chart.copy()
    chart.title = alt.Undefined
    at = alt.param(name=LAYER, value=layer)
    layers = pd.DataFrame({"layer": _layers(frame)})
    rule = (
        alt.Chart(layers)
        .mark_rule(strokeDash=[3, 2], size=2)
        .encode(**{channel: (alt.X if channel == "x" else alt.Y)("layer:O", title=said("layer"))})
        .transform_filter(f"datum.layer == {LAYER}")
    )
    return alt.layer(chart, rule, title=title).add_params(at)


def _load(frame: pd.DataFrame, layer: int) -> Any:
    rows = _near(frame, layer)
    return _ruled(charts.expert_load(rows), rows, "y", layer)


# All pairs of a large model are a hundred times those of one layer.
_AFFINITY = """
SELECT * FROM expert_affinity($run) WHERE layer = (
    SELECT arg_min(layer, abs(CAST(layer AS INTEGER) - $layer)) FROM (SELECT DISTINCT layer FROM expert_affinity($run))
)
"""


def _affinity(frame: pd.DataFrame, layer: int) -> alt.Chart:
    """Of one layer, whichever is nearest to the one in view and has a next."""
    return charts.affinity(frame.nlargest(drawing.LARGEST, "probability"))


def _lines(make: Callable[[Any], alt.Chart]) -> Callable[[pd.DataFrame, int], Any]:
    return lambda frame, layer: _ruled(make(frame), frame, "x", layer)


def _sparsity(frame: pd.DataFrame) -> alt.Chart:
    names = {
        "zero_share": said("exact zeros"),
        "below_share": said("below the threshold"),
        "hoyer": said("Hoyer"),
    }
    return drawing.lines(frame, names, said("share"), said("Activation sparsity by layer"))


CHARTS: dict[str, tuple[str, Callable[[Any, int], Any], Said]] = {
    "load": ("FROM expert_load($run)", _load, said("No routing was recorded in this run.")),
    "contribution": (
        "FROM layer_contribution($run)",
        _lines(charts.contribution),
        said("No contributions were recorded in this run."),
    ),
    "rank": (
        "FROM arank_profile($run)",
        _lines(charts.arank_profile),
        said("No attention ranks were recorded in this run."),
    ),
    "sparsity": (
        "FROM layer_sparsity($run)",
        _lines(_sparsity),
        said("No activation sparsity was recorded in this run."),
    ),
    "entropy": (
        "FROM routing_entropy($run)",
        _lines(charts.entropy_profile),
        said("No router entropies were recorded in this run."),
    ),
    "affinity": (
        _AFFINITY,
        _affinity,
        said("There are no two neighbouring layers with routers in this run."),
    ),
}
"""Query, drawing, and what to say where there is nothing to draw, by the chart's name."""
