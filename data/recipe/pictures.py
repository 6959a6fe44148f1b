"""The datasheet's pictures, as SVG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from workbench.tasks.levels import HIGH, LOW

WIDTH = 520
FAULT = {
    "intact": "intact",
    "faulty": "with the fault",
    "intact_choices_and_weights": "fault, intact experts and weights",
    "intact_choices": "fault, intact experts",
    "choices_of_another_item": "fault, experts of another item",
    "choices_of_another_task": "fault, experts of another task",
}


def draw(facts: dict[str, Any], folder: Path) -> None:
    """All pictures that follow from facts.json."""
    loss(facts["text"]).save(folder / "loss.svg")
    load(facts["text"]).save(folder / "load.svg")
    information(facts["text"]).save(folder / "information.svg")
    tasks(facts["accuracy"]).save(folder / "tasks.svg")
    headroom(facts["oracles"], facts["fault"]).save(folder / "headroom.svg")


def training(curve: pd.DataFrame, folder: Path) -> None:
    """Loss by domain over steps, from columns step, label, loss."""
    order = curve.sort_values("step").groupby("label")["loss"].last().sort_values(ascending=False).index
    title = alt.TitleParams("Loss while training, nats per token", subtitle="lessons get harder on the way")
    lines = alt.Chart(curve, title=title, width=WIDTH, height=300).mark_line()
    lines.encode(
        x=alt.X("step:Q").title("training step"),
        y=alt.Y("loss:Q").title(None).scale(domainMin=0),
        color=alt.Color("label:N").sort(list(order)).scale(scheme="tableau10").title(None),
    ).save(folder / "training.svg")


def loss(text: dict[str, Any]) -> alt.Chart:
    """Loss by domain, and what random routing adds, as one bar each."""
    order = list(text["loss"])
    rows = []
    for domain in order:
        rows.append({"domain": domain, "part": "the model", "nats": text["loss"][domain]["mean"], "place": 0})
        cost = text["random_routing_cost"][domain]["mean"]
        rows.append({"domain": domain, "part": "added by random routing", "nats": cost, "place": 1})
    chart = alt.Chart(
        pd.DataFrame(rows), title="Loss on held-out text, nats per token", width=WIDTH, height=220
    )
    return chart.mark_bar().encode(
        y=alt.Y("domain:N").sort(order).title(None),
        x=alt.X("nats:Q").title("nats per token"),
        color=alt.Color("part:N")
        .title(None)
        .scale(domain=["the model", "added by random routing"], range=["#4c78a8", "#f2b16b"])
        .legend(orient="bottom"),
        order="place:Q",
    )


def load(text: dict[str, Any]) -> alt.Chart:
    """Load of every expert in every layer over the mean."""
    cells = pd.DataFrame(text["load"])
    cells["load"] = cells["share"] / cells.groupby("layer")["share"].transform("mean")
    grid = alt.Chart(cells).mark_rect()
    grid = grid.encode(
        x=alt.X("expert:O").axis(labelAngle=0),
        y="layer:O",
        color=alt.Color("load:Q").title("times the mean").scale(scheme="blueorange", domainMid=1),
    )
    figures = alt.Chart(cells).mark_text(fontSize=9)
    figures = figures.encode(x="expert:O", y="layer:O", text=alt.Text("load:Q", format=".1f"))
    title = "How often each expert is chosen: 1 is an even share, 0 would be a dead expert"
    return (grid + figures).properties(width=WIDTH, height=170, title=title)


def information(text: dict[str, Any]) -> alt.Chart:
    """Bits about domain and task by layer, with the highest shuffle as a tick."""
    names = {
        "domain": "which domain",
        "domain_at_token": "which domain, same token",
        "task": "which task",
        "task_at_answer_mark": "which task, at the answer mark",
    }
    rows = [
        {
            "layer": layer["layer"],
            "about": name,
            "bits": layer[kind]["bits"],
            "null": layer[kind]["null_high"],
        }
        for layer in text["information"]
        for kind, name in names.items()
    ]
    frame = pd.DataFrame(rows)
    bars = (
        alt.Chart()
        .mark_bar(color="#4c78a8")
        .encode(x=alt.X("layer:O").axis(labelAngle=0), y=alt.Y("bits:Q").title("bits"))
    )
    ticks = (
        alt.Chart()
        .mark_tick(color="#e45756", thickness=3, width=22)
        .encode(x="layer:O", y=alt.Y("null:Q").title("bits"))
    )
    title = alt.TitleParams(
        "What the choice of an expert tells, in bits",
        subtitle="red: the most that shuffled labels seemed to tell",
    )
    both = alt.layer(bars, ticks, data=frame).properties(width=WIDTH // 2 - 50, height=120)
    return both.facet(alt.Facet("about:N").sort(list(names.values())).title(None), columns=2).properties(
        title=title
    )


def tasks(accuracy: dict[str, Any]) -> alt.Chart:
    """Accuracy by task and level; usable levels have a frame."""
    frame = pd.DataFrame(accuracy["levels"])
    frame["percent"] = 100 * frame["accuracy"]
    frame["usable"] = frame["corrected"].between(LOW, HIGH)
    base = alt.Chart(frame).encode(
        x=alt.X("level:O").title("level, from easy to hard").axis(labelAngle=0), y=alt.Y("task:N").title(None)
    )
    cells = base.mark_rect().encode(
        color=alt.Color("percent:Q").title("per cent").scale(scheme="blues", domain=[12.5, 100], clamp=True)
    )
    frames = base.transform_filter("datum.usable").mark_rect(filled=False, stroke="#e45756", strokeWidth=2)
    figures = base.mark_text(fontSize=10).encode(
        text=alt.Text("percent:Q", format=".0f"),
        color=alt.condition("datum.percent > 65", alt.value("white"), alt.value("black")),
    )
    title = alt.TitleParams(
        "Right answers in per cent", subtitle="chance is 12.5; red frames: levels usable for experiments"
    )
    return (cells + frames + figures).properties(
        width=WIDTH, height=26 * frame["task"].nunique(), title=title
    )


def headroom(oracles: dict[str, Any], fault: dict[str, Any]) -> alt.Chart:
    """Shares of right answers under oracle paths and under the planted fault, with their intervals."""
    shown = [
        ("oracle paths", "router's own path", oracles["native"]),
        ("oracle paths", "oracle for the answer", oracles["label_oracle"]),
        (
            "oracle paths",
            "oracle for a wrong answer, giving that",
            oracles["wrong_label_oracle_reaches_its_label"],
        ),
        ("on a third wording", "router's own path", oracles["cross_native"]),
        ("on a third wording", "oracle path of two other wordings", oracles["cross_oracle"]),
        ("on a third wording", "such a path of another item", oracles["cross_other_item"]),
        (
            "on a third wording",
            "the same for a wrong answer, giving that",
            oracles["cross_wrong_label_oracle_reaches_its_label"],
        ),
        *(("planted fault", name, fault["right"][key]) for key, name in FAULT.items()),
    ]
    rows = [
        {"group": group, "path": path, "percent": 100 * value["mean"], "low": 100 * (value["mean"] - value["half_width"]),
         "high": 100 * (value["mean"] + value["half_width"])}
        for group, path, value in shown
    ]  # fmt: skip
    parts = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = pd.DataFrame([row for row in rows if row["group"] == group])
        y = alt.Y("path:N").sort(None).title(None).axis(labelLimit=260)
        x = alt.X("percent:Q").title("items in per cent").scale(domain=[0, 100])
        bars = alt.Chart(own).mark_bar(color="#4c78a8").encode(x=x, y=y)
        rules = alt.Chart(own).mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y)
        parts.append((bars + rules).properties(width=WIDTH - 160, height=26 * len(own), title=group))
    return alt.vconcat(*parts).resolve_scale(x="shared")
