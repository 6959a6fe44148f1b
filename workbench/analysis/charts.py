"""Charts of what the macros and this room answer: plain ``altair.Chart`` objects, made from aggregated rows.

What a call of :mod:`workbench.analysis` answers, the chart of the same name draws: ``charts.probe(analysis.probe(...))``.
Sequences are drawn in viridis and categories in the palette of Okabe and Ito (2008), both told apart by readers who see
colours differently; every mark carries its numbers as a tooltip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.analysis.drawing import LARGEST as LARGEST  # users colour and cut their own charts like these
from workbench.analysis.drawing import PALETTE as PALETTE
from workbench.analysis.drawing import across, checked, grid, lines, require
from workbench.analysis.tolerance import Tolerable
from workbench.errors import StoreError
from workbench.said import said

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from workbench.analysis.diff import RunDiff


def expert_load(frame: pd.DataFrame) -> alt.Chart:
    """Load of every expert by layer, from the macro ``expert_load``."""
    return grid(
        checked(frame, "layer", "expert", "load"),
        {"expert": said("expert")},
        {"layer": said("layer")},
        {"load": said("load")},
        said("Load: share of a layer's choices that each expert took"),
    )


def affinity(frame: pd.DataFrame, layer: int | None = None) -> alt.Chart:
    """Probability of the next layer's experts given one of ``layer`` (the first without), from ``expert_affinity``."""
    require(frame, "layer", "expert", "next_expert", "probability")
    if layer is None and len(frame):
        layer = int(frame["layer"].min())
    rows = checked(frame[frame["layer"] == layer], "expert", "next_expert", "probability")
    return grid(
        rows,
        {"next_expert": said("next expert")},
        {"expert": said("expert")},
        {"probability": said("probability")},
        said("From layer %1 to the next: P(next expert | expert)", layer),
    )


def entropy_profile(frame: pd.DataFrame) -> alt.Chart:
    """Mean router entropy by layer, from ``routing_entropy``."""
    return lines(
        checked(frame, "layer", "entropy"),
        {"entropy": said("router entropy")},
        said("entropy, nats"),
        said("How undecided the router is: mean entropy by layer"),
    )


def margin_profile(frame: pd.DataFrame) -> alt.Chart:
    """Mean margin between the last chosen and the first left-out expert by layer, from ``routing_entropy``."""
    return lines(
        checked(frame, "layer", "margin"),
        {"margin": said("margin")},
        said("margin of the scores"),
        said("How close the last choice was: mean margin by layer"),
    )


def arank_profile(frame: pd.DataFrame) -> alt.Chart:
    """Attention rank and its companions by layer, from ``arank_profile``; the mean where there are several kinds of map."""
    rows = checked(frame, "layer", "rank", "stable_rank", "effective_rank")
    names = {
        "rank": said("ARank"),
        "stable_rank": said("stable rank"),
        "effective_rank": said("effective rank"),
    }
    return lines(rows, names, said("rank"), said("Rank of the attention maps by layer"))


def contribution(frame: pd.DataFrame) -> alt.Chart:
    """Relative norms of what attention, MLP and block add, by layer, from ``layer_contribution``."""
    rows = checked(frame, "layer", "attn_norm", "mlp_norm", "block_norm")
    names = {"attn_norm": said("attention"), "mlp_norm": said("MLP"), "block_norm": said("block")}
    title = said("What each part adds, by layer")
    # The first block often adds many times what it finds, all others a fraction of it.
    return lines(rows, names, said("norm / norm of the residual stream"), title, True)


def flips_map(frame: pd.DataFrame) -> alt.Chart:
    """Where two runs choose differently, and why, from ``flips`` (or the ``flips`` of a run diff). Positions and layers
    between the first and the last flip are shown whether or not something flipped there."""
    import altair as alt

    rows = checked(frame, "position", "layer", "cause")
    scale = alt.Scale(domain=["edit", "tie", "upstream"], range=PALETTE[:3])
    positions, layers = (
        list(range(int(rows[name].min()), int(rows[name].max()) + 1)) if len(rows) else []
        for name in ("position", "layer")
    )
    return (
        alt.Chart(rows, title="Choices that differ between the two runs, by cause")
        .mark_rect()
        .encode(
            x=across("position", "token position", positions),
            y=alt.Y("layer:O", scale=alt.Scale(domain=layers)),
            color=alt.Color("cause:N", scale=scale),
            tooltip=["position", "layer", "cause"],
        )
    )


def skip_effects(frame: pd.DataFrame, value: str = "effect") -> alt.Chart:
    """Effect of skipping a layer on every later one, from ``skip_matrix`` (``largest``, ``mean``) or
    ``experiments.skip_effects`` (``effect``, ``mean``)."""
    value = value if value in frame else "largest"
    rows = checked(frame.dropna(subset="layer") if "layer" in frame else frame, "skipped", "layer", value)
    return grid(
        rows,
        {"layer": said("layer")},
        {"skipped": said("skipped")},
        {value: said("%1", value)},
        said("Change of later updates when a layer is skipped"),
    )


def layer_effects(frame: pd.DataFrame) -> alt.Chart:
    """How far plans move the residual stream, by layer, from ``layer_effect`` or ``experiments.by_layer``: one panel for
    each of CKA, distance and KL, one line a plan."""
    import altair as alt

    named = frame if "plan" in frame else frame.assign(plan="")
    rows = checked(named, "plan", "layer", "cka", "distance", "kl")
    names = {"cka": "CKA", "distance": "distance / norm", "kl": "KL, nats"}
    tall = rows.rename(columns=names).melt(
        ["plan", "layer"], list(names.values()), var_name="measure", value_name="value"
    )
    return (
        alt.Chart(tall, title="The residual stream with and without the plan", height=120)
        .mark_line(point=True)
        .encode(
            x=across("layer", "layer"),
            y=alt.Y("value:Q", title=None),
            color=alt.Color("plan:N", scale=alt.Scale(range=PALETTE)),
            row=alt.Row("measure:N", title=None, sort=list(names.values())),
            tooltip=["plan", "layer", "measure", alt.Tooltip("value:Q", format=".4f")],
        )
        .resolve_scale(y="independent")
    )


def tolerable(answer: Tolerable | pd.DataFrame, allowed: float) -> alt.Chart:
    """Change of the loss by sparsity, from ``analysis.tolerable`` or the macro ``tolerable_sparsity``: the mean, its upper
    bound, the worst task, and what is ``allowed`` (nats)."""
    import altair as alt

    frame = answer.table if isinstance(answer, Tolerable) else answer
    level = "level" if "level" in frame else "sparsity"
    rows = checked(frame, level, "change", "upper", "worst_change").assign(allowed=allowed)
    names = {"change": "mean", "upper": "upper bound", "worst_change": "worst task", "allowed": "allowed"}
    tall = rows.rename(columns=names).melt(
        level, list(names.values()), var_name="measure", value_name="value"
    )
    return (
        alt.Chart(tall, title="What is left out and what it costs")
        .mark_line(point=True)
        .encode(
            x=alt.X(f"{level}:Q", title="share left out"),
            y=alt.Y("value:Q", title="change of the loss, nats"),
            color=alt.Color(
                "measure:N", scale=alt.Scale(range=PALETTE), title=None, sort=list(names.values())
            ),
            strokeDash=alt.StrokeDash("measure:N", title=None, sort=list(names.values())),
            tooltip=[level, "measure", alt.Tooltip("value:Q", format=".4f")],
        )
    )


def quality(frame: pd.DataFrame, columns: int = 3) -> alt.ConcatChart:
    """Quality against work, one panel a family of skips or masks.

    ``frame`` has one row a plan: ``family``, ``method``, ``control`` (a random one), ``budget`` (share of the work done),
    ``change`` (of the loss, nats a token), ``change_low`` and ``change_high`` (its interval). A line a method with its
    intervals; the matched random controls are one dashed grey line with their intervals as a band.
    """
    import altair as alt

    names = ("family", "method", "control", "budget", "change", "change_low", "change_high")
    rows = checked(frame, *names)
    panels = [_quality_panel(part, str(family)) for family, part in rows.groupby("family", sort=False)]
    joined: alt.ConcatChart = alt.concat(*panels, columns=columns, title="Loss against work done")
    return joined.resolve_scale(
        color="independent", y="independent", strokeDash="independent", shape="independent"
    )


def _quality_panel(rows: pd.DataFrame, family: str) -> alt.LayerChart:
    import altair as alt

    means = rows.groupby(["method", "control", "budget"], as_index=False).mean(numeric_only=True)
    methods = sorted(means.loc[~means["control"], "method"].unique())
    y = alt.Y(
        "change:Q", title="change of the loss, nats a token", scale=alt.Scale(type="symlog", constant=0.1)
    )
    x = alt.X(
        "budget:Q", title="share of the work done", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")
    )
    tooltip = [
        "method",
        "budget",
        *(alt.Tooltip(name, format=".4f") for name in ("change", "change_low", "change_high")),
    ]
    chance = alt.Chart(means[means["control"]])
    drawn = alt.Chart(means[~means["control"]])
    colour = alt.Color(
        "method:N", scale=alt.Scale(domain=methods, range=PALETTE), legend=alt.Legend(title=None)
    )
    shape = alt.Shape("method:N", scale=alt.Scale(domain=methods), legend=alt.Legend(title=None))
    layers = [
        chance.mark_area(color="#888888", opacity=0.2).encode(
            x=x, y=alt.Y("change_low:Q"), y2="change_high:Q"
        ),
        chance.mark_line(color="#666666", strokeDash=[4, 3], point={"color": "#666666"}).encode(
            x=x, y=y, tooltip=tooltip
        ),
        drawn.mark_rule().encode(x=x, y="change_low:Q", y2="change_high:Q", color=colour),
        drawn.mark_line(point=True).encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip),
    ]
    title = alt.TitleParams(family, subtitle="grey: random at the same budget")
    return alt.LayerChart(layer=layers, title=title, width=260, height=200)


def components(frame: pd.DataFrame, colour: str | None = None) -> alt.Chart:
    """Rows by their first two principal components, coloured by the column ``colour`` (a label that was added) if one is
    named."""
    import altair as alt

    rows = _named(frame, "pc1", "pc2", *([] if colour is None else [colour]))
    explained = frame.attrs.get("explained")
    titles = [
        f"component {i + 1}" + (f" ({explained[i]:.0%} of the variance)" if explained else "")
        for i in range(2)
    ]
    points = (
        alt.Chart(rows, title=f"Routing as an embedding: one point a {_item(frame)}")
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("pc1:Q", title=titles[0]),
            y=alt.Y("pc2:Q", title=titles[1]),
            tooltip=["item", *([] if colour is None else [colour]), "pc1", "pc2"],
        )
    )
    if colour is None:
        return points.encode(color=alt.value(PALETTE[0]))
    return points.encode(
        color=alt.Color(f"{colour}:N", scale=alt.Scale(range=PALETTE)), shape=alt.Shape(f"{colour}:N")
    )


def clusters(frame: pd.DataFrame) -> alt.Chart:
    """How well every row sits in its cluster: its silhouette, near 0 where it could as well be in another."""
    import altair as alt

    rows = _named(frame, "cluster", "silhouette", "distance").sort_values(
        ["cluster", "silhouette"], ascending=[True, False]
    )
    item = _item(frame)
    return (
        alt.Chart(
            rows, title=f"Clusters of routing: one bar a {item}, near 0 where it fits another cluster as well"
        )
        .mark_bar()
        .encode(
            x=alt.X("silhouette:Q", title="silhouette", scale=alt.Scale(domainMax=1)),
            y=alt.Y("item:N", title=item, sort=rows["item"].tolist()),
            color=alt.Color("cluster:N", scale=alt.Scale(range=PALETTE)),
            tooltip=[
                "item",
                "cluster",
                *(alt.Tooltip(name, format=".3f") for name in ("silhouette", "distance")),
            ],
        )
    )


def neighbours(frame: pd.DataFrame) -> alt.Chart:
    """Which rows are routed alike: the similarity of every row with its nearest others."""
    import altair as alt

    rows = checked(frame, "item", "place", "other", "similarity").astype({"item": str, "other": str})
    return (
        alt.Chart(rows, title="Nearest in routing: similarity of each row with its neighbours")
        .mark_rect()
        .encode(
            x=alt.X("other:N", title="neighbour"),
            y=alt.Y("item:N", title="row"),
            color=alt.Color("similarity:Q", title="cosine", scale=alt.Scale(scheme="viridis")),
            tooltip=["item", "place", "other", alt.Tooltip("similarity", format=".4f")],
        )
    )


def routing_vectors(frame: pd.DataFrame) -> alt.Chart:
    """The vectors themselves: rows of the frame down, experts across, layer by layer."""
    import altair as alt
    import pandas as pd

    if frame.columns.nlevels != 2:
        raise StoreError("The frame has no columns by layer and expert.", "Give what routing_vectors gives.")
    places = list(frame.columns.to_frame().itertuples(index=False, name=None))
    tall = pd.DataFrame(
        [
            (_text(item), layer, expert, value)
            for item, vector in zip(frame.index, frame.to_numpy(), strict=True)
            for (layer, expert), value in zip(places, vector, strict=True)
        ],
        columns=["item", "layer", "expert", "value"],
    )
    item = _item(frame)
    return (
        alt.Chart(checked(tall, *tall), title=f"Mean weight of every expert, by {item}", width=alt.Step(5))
        .mark_rect()
        .encode(
            x=alt.X("expert:O", axis=alt.Axis(labels=False, ticks=False)),
            y=alt.Y("item:N", title=item),
            column=alt.Column("layer:O", spacing=2),
            color=alt.Color("value:Q", title="weight", scale=alt.Scale(scheme="viridis")),
            tooltip=["item", "layer", "expert", alt.Tooltip("value", format=".4f")],
        )
    )


def probe(frame: pd.DataFrame) -> alt.LayerChart:
    """The held-out score by layer (one point where all layers were read together) over what labels dealt anew reach: the
    grey bar is their mean and two standard deviations to both sides, as far as a score can be there."""
    import altair as alt

    rows = checked(frame, "layer", "score", "null_mean", "null_sd", "p_value", "runs")
    for name in ("null_mean", "null_sd", "p_value"):
        rows[name] = rows[name].astype(float)
    rows["layer"] = ["all" if layer != layer or layer is None else str(int(layer)) for layer in rows["layer"]]
    rows["low"], rows["high"] = (
        (rows["null_mean"] + sign * 2 * rows["null_sd"]).clip(0, 1) for sign in (-1, 1)
    )
    x = alt.X("layer:N", title="layer", sort=rows["layer"].tolist(), axis=alt.Axis(labelAngle=0))
    tooltip = [
        "layer",
        "runs",
        *(alt.Tooltip(name, format=".3f") for name in ("score", "null_mean", "p_value")),
    ]
    null = alt.Chart(rows).mark_bar(color="#999999", opacity=0.5, width=12)
    points = alt.Chart(rows).mark_point(filled=True, size=80, color=PALETTE[0])
    return alt.LayerChart(
        layer=[
            null.encode(
                x=x, y=alt.Y("low:Q", title="balanced accuracy, held out"), y2="high:Q", tooltip=tooltip
            ),
            points.encode(x=x, y=alt.Y("score:Q", scale=alt.Scale(domain=[0, 1])), tooltip=tooltip),
        ],
        title=alt.TitleParams(
            "What a linear reader tells from the routing", subtitle="grey: labels dealt anew"
        ),
    )


def bootstrap(frame: pd.DataFrame, of: str = "value") -> alt.LayerChart:
    """Estimates with their intervals; ``of`` says what was estimated.

    Several answers are drawn together when they are joined: ``pd.concat({"a": bootstrap(x), "b": bootstrap(y)})``.
    """
    import altair as alt

    rows = checked(frame, "estimate", "low", "high", "units").assign(name=_names(frame))
    y = alt.Y("name:N", title=None, sort=rows["name"].tolist())
    tooltip = ["name", *(alt.Tooltip(name, format=".4f") for name in ("estimate", "low", "high")), "units"]
    x = alt.X("low:Q", title=of, scale=alt.Scale(zero=False))
    return alt.LayerChart(
        layer=[
            alt.Chart(rows).mark_rule(color=PALETTE[0], strokeWidth=2).encode(x=x, x2="high:Q", y=y, tooltip=tooltip),
            alt.Chart(rows).mark_point(filled=True, size=80, color=PALETTE[0]).encode(
                x="estimate:Q", y=y, tooltip=tooltip
            ),
        ],
        title=f"{of.capitalize()} with its bootstrap interval",
    )  # fmt: skip


def permutation(frame: pd.DataFrame, of: str = "value") -> alt.LayerChart:
    """Differences of means over what dealing anew gives (grey: two standard deviations about 0); ``of`` says of what.

    Several answers are drawn together when they are joined: ``pd.concat({"a": permutation(...), "b": permutation(...)})``.
    """
    import altair as alt

    rows = checked(frame, "difference", "null_sd", "p_value", "draws").assign(name=_names(frame))
    rows["low"], rows["high"] = -2 * rows["null_sd"], 2 * rows["null_sd"]
    rows["name"] = [f"{name} (p = {p:.2g})" for name, p in zip(rows["name"], rows["p_value"], strict=True)]
    y = alt.Y("name:N", title=None, sort=rows["name"].tolist())
    tooltip = [
        "name",
        *(alt.Tooltip(name, format=".4f") for name in ("difference", "null_sd", "p_value")),
        "draws",
    ]
    x = alt.X("low:Q", title=f"difference in {of}")
    return alt.LayerChart(
        layer=[
            alt.Chart(rows).mark_bar(color="#999999", opacity=0.5, height=12).encode(x=x, x2="high:Q", y=y, tooltip=tooltip),
            alt.Chart(rows).mark_point(filled=True, size=80, color=PALETTE[0]).encode(
                x="difference:Q", y=y, tooltip=tooltip
            ),
        ],
        title=alt.TitleParams(f"Difference in {of}", subtitle="grey: values dealt anew, two standard deviations"),
    )  # fmt: skip


def diff(found: RunDiff) -> alt.Chart:
    """Where the two runs of a diff choose differently, and why."""
    return flips_map(found.flips)


def _names(frame: pd.DataFrame) -> list[str]:
    """What the rows are called: the outermost level of an index that was joined under names, else numbers from 1."""
    if frame.index.nlevels > 1:
        return [str(name) for name in frame.index.get_level_values(0)]
    return [""] if len(frame) == 1 else [str(i + 1) for i in range(len(frame))]


def _item(frame: pd.DataFrame) -> str:
    """What a row of routing vectors stands for."""
    return "token" if frame.index.nlevels > 1 else "run"


def _text(item: Any) -> str:
    return " : ".join(str(part) for part in item) if isinstance(item, tuple) else str(item)


def _named(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The checked columns with ``item``, the index as text: run ids are too long for numbers in a page."""
    return checked(frame, *columns).assign(item=[_text(item) for item in frame.index])
