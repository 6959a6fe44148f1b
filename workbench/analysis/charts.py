"""Charts of what the macros and this room answer: plain ``altair.Chart`` objects, made from aggregated rows.

Sequences are drawn in viridis and categories in the palette of Okabe and Ito (2008), both told apart by readers who see
colours differently; every mark carries its numbers as a tooltip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import StoreError

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

LARGEST = 5000
"""Rows a chart takes at most: its data travel inside it."""

PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]
"""Colours of categories (Okabe and Ito 2008)."""


def expert_load(frame: pd.DataFrame) -> alt.Chart:
    """Load of every expert by layer, from the macro ``expert_load``."""
    return _grid(
        _checked(frame, "layer", "expert", "load"), "expert", "layer", "load", "Share of the layer's choices"
    )


def affinity(frame: pd.DataFrame, layer: int | None = None) -> alt.Chart:
    """Probability of the next layer's experts given one of ``layer`` (the first without), from ``expert_affinity``."""
    if layer is None and len(frame):
        layer = int(frame["layer"].min())
    rows = _checked(frame[frame["layer"] == layer], "expert", "next_expert", "probability")
    return _grid(
        rows,
        "next_expert",
        "expert",
        "probability",
        f"From layer {layer} to the next: P(next expert | expert)",
    )


def entropy_profile(frame: pd.DataFrame) -> alt.Chart:
    """Mean router entropy by layer, from ``routing_entropy``."""
    return lines(
        _checked(frame, "layer", "entropy"), {"entropy": "router entropy"}, "nats", "Router entropy by layer"
    )


def arank_profile(frame: pd.DataFrame) -> alt.Chart:
    """Attention rank and its companions by layer, from ``arank_profile``; the mean where there are several kinds of map."""
    rows = _checked(frame, "layer", "rank", "stable_rank", "effective_rank")
    names = {"rank": "ARank", "stable_rank": "stable rank", "effective_rank": "effective rank"}
    return lines(rows, names, "rank", "Rank of the attention maps by layer")


def contribution(frame: pd.DataFrame) -> alt.Chart:
    """Relative norms of what attention, MLP and block add, by layer, from ``layer_contribution``."""
    rows = _checked(frame, "layer", "attn_norm", "mlp_norm", "block_norm")
    names = {"attn_norm": "attention", "mlp_norm": "MLP", "block_norm": "block"}
    # The first block often adds many times what it finds, all others a fraction of it.
    return lines(rows, names, "norm / norm of the residual stream", "What each part adds, by layer", True)


def flips_map(frame: pd.DataFrame) -> alt.Chart:
    """Where two runs choose differently, and why, from ``flips`` (or the ``flips`` of a run diff)."""
    import altair as alt

    rows = _checked(frame, "position", "layer", "cause")
    scale = alt.Scale(domain=["edit", "tie", "upstream"], range=PALETTE[:3])
    return (
        alt.Chart(rows, title="Choices that differ between the two runs")
        .mark_rect()
        .encode(
            x=alt.X("position:O", title="token position"),
            y="layer:O",
            color=alt.Color("cause:N", scale=scale),
            tooltip=["position", "layer", "cause"],
        )
    )


def skip_effects(frame: pd.DataFrame, value: str = "effect") -> alt.Chart:
    """Effect of skipping a layer on every later one, from ``experiments.skip_effects``."""
    rows = _checked(frame.dropna(subset="layer") if "layer" in frame else frame, "skipped", "layer", value)
    return _grid(rows, "layer", "skipped", value, "Change of later updates when a layer is skipped")


def quality(frame: pd.DataFrame) -> alt.Chart:
    """Quality against work: one line a method over ``work`` (share that is left) and ``change`` (nats); random controls are
    dashed."""
    import altair as alt

    rows = _checked(frame, "family", "method", "control", "work", "change")
    return (
        alt.Chart(rows, title="Loss against work left")
        .mark_line(point=True)
        .encode(
            x=alt.X("work:Q", title="share of the work that is left"),
            y=alt.Y("change:Q", title="change of the loss, nats a token"),
            color=alt.Color("method:N", scale=alt.Scale(range=PALETTE)),
            strokeDash=alt.StrokeDash("control:N", title="random control"),
            facet=alt.Facet("family:N", columns=3),
            tooltip=["family", "method", "work", alt.Tooltip("change", format=".4f")],
        )
    )


def scatter(frame: pd.DataFrame, colour: str) -> alt.Chart:
    """Rows by their first two principal components (``analysis.components``), coloured by the column ``colour``."""
    import altair as alt

    rows = _checked(frame, "pc1", "pc2", colour)
    explained = frame.attrs.get("explained")
    titles = [f"component {i + 1}" + (f" ({explained[i]:.0%})" if explained else "") for i in range(2)]
    return (
        alt.Chart(rows, title="Routing as an embedding")
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("pc1:Q", title=titles[0]),
            y=alt.Y("pc2:Q", title=titles[1]),
            color=alt.Color(f"{colour}:N", scale=alt.Scale(range=PALETTE)),
            shape=f"{colour}:N",
            tooltip=[colour, "pc1", "pc2"],
        )
    )


def _checked(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    missing = [name for name in columns if name not in frame]
    if missing:
        raise StoreError(
            f"The frame has no column {missing[0]!r}.", f"Give the rows of the macro: {', '.join(columns)}."
        )
    if len(frame) > LARGEST:
        raise StoreError(
            f"A chart of {len(frame):,} rows would be too large; {LARGEST:,} are drawn at most.",
            "Aggregate in SQL, or choose fewer layers or positions.",
        )
    return frame[list(columns)].reset_index(drop=True)


def _grid(rows: pd.DataFrame, x: str, y: str, value: str, title: str) -> alt.Chart:
    import altair as alt

    return (
        alt.Chart(rows, title=title)
        .mark_rect()
        .encode(
            x=alt.X(f"{x}:O", title=x.replace("_", " ")),
            y=alt.Y(f"{y}:O", title=y.replace("_", " ")),
            color=alt.Color(f"{value}:Q", scale=alt.Scale(scheme="viridis")),
            tooltip=[x, y, alt.Tooltip(value, format=".4f")],
        )
    )


def lines(
    rows: pd.DataFrame, names: dict[str, str], unit: str, title: str, logarithmic: bool = False
) -> alt.Chart:
    """One line a measure over the layers: ``names`` gives the columns of ``rows`` to draw and what to call them.

    ``logarithmic`` draws the values on a symmetric logarithmic axis, for measures of very different sizes.
    """
    import altair as alt

    tall = rows.rename(columns=names).melt(
        "layer", list(names.values()), var_name="measure", value_name="value"
    )
    colour: Any = alt.Color("measure:N", scale=alt.Scale(range=PALETTE), title=None)
    return (
        alt.Chart(tall, title=title)
        .mark_line(point=True)
        .encode(
            x="layer:O",
            y=alt.Y("mean(value):Q", title=unit, scale=alt.Scale(type="symlog" if logarithmic else "linear")),
            color=colour,
            strokeDash=alt.StrokeDash("measure:N", title=None),
            tooltip=["layer", "measure", alt.Tooltip("mean(value):Q", format=".4f")],
        )
    )
