"""What charts are made of: checks of the frames that are drawn, axes, grids and lines that several of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import StoreError
from workbench.said import Said, said

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

LARGEST = 5000
"""Rows a chart takes at most: its data travel inside it."""

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
"""Colours of categories (Okabe and Ito 2008)."""


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Refuse a frame that lacks one of ``columns`` (:class:`StoreError`)."""
    missing = [name for name in columns if name not in frame]
    if missing:
        raise StoreError(
            f"The frame has no column {missing[0]!r}.", f"Give the rows of the macro: {', '.join(columns)}."
        )


def checked(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The ``columns`` of ``frame``; :class:`StoreError` where one is missing or the rows are more than :data:`LARGEST`."""
    require(frame, *columns)
    if len(frame) > LARGEST:
        raise StoreError(
            f"A chart of {len(frame):,} rows would be too large; {LARGEST:,} are drawn at most.",
            "Aggregate in SQL, or choose fewer layers or positions.",
        )
    return frame[list(columns)].reset_index(drop=True)


def across(column: str, title: str, domain: list[int] | None = None) -> alt.X:
    """Numbers across: upright, with some of them left out where they would stand on each other."""
    import altair as alt

    given: dict[str, Any] = {} if domain is None else {"scale": alt.Scale(domain=domain)}
    return alt.X(f"{column}:O", title=title, axis=alt.Axis(labelAngle=0, labelOverlap=True), **given)


def grid(
    rows: pd.DataFrame, x: dict[str, Said], y: dict[str, Said], value: dict[str, Said], title: Said
) -> alt.Chart:
    """Cells of ``value`` over ``x`` and ``y``, each a column with what it is called."""
    import altair as alt

    ((column, x_title),), ((down, y_title),), ((shade, value_title),) = x.items(), y.items(), value.items()
    return (
        alt.Chart(rows, title=title)
        .mark_rect()
        .encode(
            x=across(column, x_title),
            y=alt.Y(f"{down}:O", title=y_title),
            color=alt.Color(f"{shade}:Q", title=value_title, scale=alt.Scale(scheme="viridis")),
            tooltip=[
                alt.Tooltip(column, title=x_title),
                alt.Tooltip(down, title=y_title),
                alt.Tooltip(shade, title=value_title, format=".4f"),
            ],
        )
    )


def lines(
    rows: pd.DataFrame, names: dict[str, Said], unit: Said, title: Said, logarithmic: bool = False
) -> alt.Chart:
    """One line a measure over the layers: ``names`` gives the columns of ``rows`` to draw and what to call them.

    ``logarithmic`` draws the values on a symmetric logarithmic axis, for measures of very different sizes.
    """
    import altair as alt

    tall = rows.melt("layer", list(names), var_name="column", value_name="value")
    # As plain values: a frame would make other texts of the names, which a view translates.
    data = [
        {"layer": int(layer), "measure": names[name], "value": None if value != value else float(value)}
        for layer, name, value in tall[["layer", "column", "value"]].itertuples(index=False)
    ]
    # The title says what a single line is.
    legend: dict[str, Any] = {"legend": None} if len(names) == 1 else {}
    colour: Any = alt.Color("measure:N", scale=alt.Scale(range=PALETTE), title=None, **legend)
    return (
        alt.Chart(alt.InlineData(values=data), title=title)
        .mark_line(point=True)
        .encode(
            x=across("layer", said("layer")),
            y=alt.Y("mean(value):Q", title=unit, scale=alt.Scale(type="symlog" if logarithmic else "linear")),
            color=colour,
            strokeDash=alt.StrokeDash("measure:N", title=None, **legend),
            tooltip=[
                alt.Tooltip("layer:O", title=said("layer")),
                alt.Tooltip("measure:N", title=said("measure")),
                alt.Tooltip("mean(value):Q", title=unit, format=".4f"),
            ],
        )
    )
