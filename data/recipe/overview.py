"""Writes what the demo model and its relatives have in common and in what they differ, from the facts.json of each.

    python -m data.recipe.overview data/models --demo data/demo

A folder of ``data/models`` counts when ``python -m data.recipe.measure FOLDER --only shape text accuracy`` has measured it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from data.recipe.configs import CONFIGS
from data.recipe.datasheet import load_ratios, plus_minus, table
from data.recipe.pictures import WIDTH
from workbench import tasks

Facts = dict[str, Any]
SEEDS = "small-seed"  # beginning of the names of the models that differ in nothing but the seed


def collect(folder: Path, demo: Path) -> dict[str, Facts]:
    """Facts by name of model, the demo model first."""
    files = [demo / "facts.json", *sorted(folder.glob("*/facts.json"))]
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def summary(models: dict[str, Facts], usable: pd.DataFrame) -> pd.DataFrame:
    """One row a model: size, training, losses, accuracy, load, and what experts tell."""
    rows = []
    for name, facts in models.items():
        shape, text = facts["shape"], facts["text"]
        done = shape["training"]
        bits = [layer["domain"]["bits"] for layer in text["information"]]
        ratios = load_ratios(facts)
        rows.append({
            "model": f"`{name}`",
            "parameters": f"{shape['parameters'] / 1e6:.2f} M",
            "a token uses": f"{shape['active_parameters'] / 1e6:.2f} M",
            "steps": f"{done['steps']:,}",
            "tokens": f"{done['tokens'] / 1e6:.1f} M",
            "rate fell": "no" if done["from_step"] is None else f"from step {done['from_step']:,}",
            "loss on text": f"{text_loss(facts):.2f}",
            "loss on tasks": plus_minus(text["loss"]["tasks"]),
            "accuracy": f"{100 * accuracy(facts, usable):.0f} %",
            "load, highest / mean": f"{max(ratios['max']):.2f}",
            "bits of the domain": f"{min(bits):.2f} to {max(bits):.2f}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def text_loss(facts: Facts) -> float:
    """Mean loss over the domains of text, nats per token."""
    return float(np.mean([one["mean"] for name, one in facts["text"]["loss"].items() if name != "tasks"]))


def accuracy(facts: Facts, usable: pd.DataFrame) -> float:
    """Mean accuracy over the given levels, every level counted alike."""
    return float(pd.DataFrame(facts["accuracy"]["levels"]).merge(usable)["accuracy"].mean())


def by_task(models: dict[str, Facts]) -> pd.DataFrame:
    """Mean accuracy over all levels of every task in per cent, a column a model."""
    found = {
        name: pd.DataFrame(facts["accuracy"]["levels"]).groupby("task")["accuracy"].mean()
        for name, facts in models.items()
    }
    return (100 * pd.DataFrame(found)).round(0).astype(int).reset_index()


def seeds(models: dict[str, Facts], usable: pd.DataFrame) -> str:
    """Mean and standard deviation over the seeds of figures that a single training cannot give an error for."""
    own = [facts for name, facts in models.items() if name.startswith(SEEDS)]
    figures = {
        "loss on text, nats": [text_loss(facts) for facts in own],
        "loss on tasks, nats": [facts["text"]["loss"]["tasks"]["mean"] for facts in own],
        "accuracy on the demo model's usable levels, points": [100 * accuracy(facts, usable) for facts in own],
        "random routing costs on text, nats": [random_cost(facts) for facts in own],
        "highest load over the mean": [max(load_ratios(facts)["max"]) for facts in own],
        "bits of the domain, mean over layers": [
            float(np.mean([layer["domain"]["bits"] for layer in facts["text"]["information"]])) for facts in own
        ],
    }  # fmt: skip
    rows = [
        {"figure": what, "mean": f"{np.mean(values):.2f}", "standard deviation": f"{np.std(values, ddof=1):.2f}",
         "of": ", ".join(f"{value:.2f}" for value in values)}
        for what, values in figures.items()
    ]  # fmt: skip
    return table(pd.DataFrame(rows))


def random_cost(facts: Facts) -> float:
    """What random routing adds to the loss, mean over the domains of text, nats per token."""
    costs = facts["text"]["random_routing_cost"]
    return float(np.mean([one["mean"] for name, one in costs.items() if name != "tasks"]))


def picture(models: dict[str, Facts]) -> alt.Chart:
    """Loss by domain of every model."""
    rows = [
        {"model": name, "domain": domain, "nats": one["mean"], "low": one["mean"] - one["half_width"],
         "high": one["mean"] + one["half_width"]}
        for name, facts in models.items() for domain, one in facts["text"]["loss"].items()
    ]  # fmt: skip
    base = alt.Chart(pd.DataFrame(rows), width=WIDTH, height=26 * len(models)).encode(
        y=alt.Y("model:N").sort(list(models)).title(None)
    )
    colour = alt.Color("domain:N").scale(scheme="tableau10").title(None)
    spans = base.mark_rule(opacity=0.3, color="gray").encode(
        x=alt.X("low:Q").title("nats per token"), x2="high:Q"
    )
    marks = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="nats:Q", color=colour, shape=alt.Shape("domain:N").title(None)
    )
    title = alt.TitleParams(
        "Loss on held-out text and on answers of the tasks", subtitle="lines are 95 % intervals over rows"
    )
    return (spans + marks).properties(title=title)


def markdown(models: dict[str, Facts]) -> str:
    """The page."""
    usable = tasks.usable()[["task", "level"]]
    demo, raw, twin = (
        models[name]["shape"]["training"] for name in ("demo", "demo-raw-weights", "dense-twin")
    )
    _, left = CONFIGS["demo-raw-weights"].begins
    items = {facts["accuracy"]["items_per_level"] for name, facts in models.items() if name != "demo"}
    return f"""# The demo model and its relatives

Written by `data/recipe/overview.py` from the `facts.json` of each model, which `data/recipe/measure.py` measures on the
files beside it, in float32 on a CPU. Open one from a checkout by its folder: `wb.open("data/models/demo-raw-weights")`.

- `demo-raw-weights` has weights that are not renormalised (`norm_topk_prob=False`) and is otherwise as the demo model,
  whose training it leaves after step {left:,}, with the same texts, lessons and seed.
- `demo-step-...` are checkpoints along the demo model's training, in float16, at the full rate.
- `{SEEDS}1` to `{SEEDS}3` differ in nothing but the seed: {describe_small()}.
- `dense-twin` has one expert as wide as the {CONFIGS["demo"].top_k} that a token of the demo model uses, and the same
  texts, lessons and seed.
- No held-out content was asked in the training of any of them; what drills asked is a training item whatever its hash.

{table(summary(models, usable))}

Losses are nats per token, ± the half-width of a 95 % interval over rows. Accuracy is on the levels that are usable for
the demo model; chance is {100 * tasks.CHANCE:.1f} %. Bits are what a chosen expert tells about the domain of its row, in
the layer where it tells least and in the one where it tells most.

![Loss of every model by domain](models.svg)

## Error over training

{seeds(models, usable)}

## Accuracy by task

Per cent over all levels of the task, {" or ".join(map(str, sorted(items)))} items a level on the validation split (demo:
{models["demo"]["accuracy"]["items_per_level"]}).

{table(by_task(models))}
"""


def describe_small() -> str:
    config = CONFIGS[f"{SEEDS}1"]
    return f"hidden size {config.hidden}, experts {config.expert_width} wide, otherwise as the demo model"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--demo", type=Path, required=True)
    options = parser.parse_args()
    models = collect(options.folder, options.demo)
    (options.folder / "README.md").write_text(markdown(models))
    picture(models).save(options.folder / "models.svg")


if __name__ == "__main__":
    main()
