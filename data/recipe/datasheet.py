"""Writes DATASHEET.md and its pictures from the figures in a model's facts.json.

    python -m data.recipe.datasheet data/demo --run demo

``--run`` names the training run whose log gives the curve; without it the picture of training and the figures of the corpus
stay as they are. ``--note`` adds a known weakness to those that follow from the figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from data.recipe import folders, pictures
from data.recipe.configs import CONFIGS
from data.recipe.information import SHUFFLES
from data.recipe.measure import PARTS
from data.recipe.stream import CONTEXT_WEIGHT
from workbench.tasks.item import CHANCE, TASKS
from workbench.tasks.levels import HIGH, LOW

Facts = dict[str, Any]


def markdown(facts: Facts) -> str:
    """The datasheet's text."""
    sections = (
        opening, goals, training, losses, routing, knowledge, attention, tasks_by_level, wordings, random_answers, unseen,
        oracles, fault, licences, weaknesses,
    )  # fmt: skip
    return "\n\n".join(section(facts) for section in sections) + "\n"


def opening(facts: Facts) -> str:
    shape = facts["shape"]
    settings = table(pd.DataFrame(shape["config"].items(), columns=["setting", "value"]))
    return f"""# Datasheet of the demo model

Written by `data/recipe/datasheet.py` from `facts.json`, which `data/recipe/measure.py` measures on the files beside it, in
float32 on a CPU. ± is the half-width of a 95 % interval.

A mixture-of-experts language model of the OLMoE family with {shape["parameters"] / 1e6:.2f} M parameters, of which a token
uses {shape["active_parameters"] / 1e6:.2f} M; {shape["bytes"] / 1e6:.1f} MB. It was trained from scratch by the recipe in
`data/recipe` to have routing worth looking at. It knows very little: it is for experiments on routing, not for answers.

{settings}

Its greedy continuation of "The capital of France is":

```text
{shape["continuation"]}
```"""


def goals(facts: Facts) -> str:
    """What the model was meant to reach, beside what it does."""
    text, random, accuracy = facts["text"], facts["random_routing"], facts["accuracy"]
    levels = pd.DataFrame(accuracy["levels"])
    usable = levels[levels["corrected"].between(LOW, HIGH)]
    nats = pd.Series({name: cost["mean"] for name, cost in text["random_routing_cost"].items()}).mean()
    layers = text["information"]
    clear = [sum(layer[kind]["bits"] > layer[kind]["null_high"] for layer in layers) for kind in KINDS]
    ratios = load_ratios(facts)
    rows = [
        ("tasks with a usable level", "at least 5", usable["task"].nunique(), usable["task"].nunique() >= 5),
        ("random routing costs on the usable levels, points", "at least 10", f"{random['cost_points']:.1f}",
         random["cost_points"] >= 10),
        ("random routing costs, nats, mean over domains", "at least 1", f"{nats:.2f}", nats >= 1),
        ("layers whose experts tell more of the domain than any shuffle", f"most of {len(layers)}", clear[0],
         clear[0] > len(layers) / 2),
        ("the same at fixed token identity", f"most of {len(layers)}", clear[1], clear[1] > len(layers) / 2),
        ("highest load of an expert, over the mean", "below 4", f"{max(ratios['max']):.2f}", max(ratios["max"]) < 4),
        ("lowest load of an expert, over the mean", "above 0", f"{min(ratios['min']):.2f}", min(ratios["min"]) > 0),
    ]  # fmt: skip
    reached = pd.DataFrame(rows, columns=["figure", "goal", "measured", "reached"])
    reached["reached"] = reached["reached"].map({True: "yes", False: "**no**"})
    return f"## Goals\n\n{table(reached)}"


KINDS = ("domain", "domain_at_token", "task", "task_at_answer_mark")


def training(facts: Facts) -> str:
    done = facts["shape"]["training"]
    config = CONFIGS[done["config"]]
    rate = (
        f"the rate was constant up to step {done['from_step']:,} and then fell to zero"
        if done["from_step"] is not None
        else "the rate never fell"
    )
    return f"""## Training

![Loss while training](training.svg)

Configuration `{done["config"]}`, seed {config.seed}: {done["steps"]:,} steps of {config.tokens_per_step:,} tokens,
{done["tokens"] / 1e6:.1f} M tokens seen in all; {rate}. Of the tokens, {config.lesson_share[-1][1]:.0%} to
{config.lesson_share[0][1]:.0%} are lessons (drills and tasks), the rest text; lesson tokens that cannot be foreseen weigh
{CONTEXT_WEIGHT} in the loss."""


def losses(facts: Facts) -> str:
    text = facts["text"]
    rows = pd.DataFrame(
        {
            "domain": list(text["loss"]),
            "loss": [plus_minus(one) for one in text["loss"].values()],
            "random routing adds": [plus_minus(one) for one in text["random_routing_cost"].values()],
        }
    )
    return f"""## Loss by domain

![Loss by domain](loss.svg)

Nats per token on {text["rows_per_domain"]} validation rows of {text["row_length"]} tokens a domain; for the tasks, on the
answers of all levels. Random routing sends every token of every layer to random experts with the family's own weights for
them (mean of {text["random_routing_seeds"]} seeds).

{table(rows)}"""


def load_ratios(facts: Facts) -> dict[str, list[float]]:
    """Highest and lowest load over the mean, by layer."""
    load = pd.DataFrame(facts["text"]["load"])
    by_layer = load.groupby("layer")["share"]
    return {
        "max": (by_layer.max() / by_layer.mean()).tolist(),
        "min": (by_layer.min() / by_layer.mean()).tolist(),
    }


def routing(facts: Facts) -> str:
    ratios = load_ratios(facts)
    rows = pd.DataFrame(
        {"layer": range(len(ratios["max"])), "highest / mean": ratios["max"], "lowest / mean": ratios["min"]}
    )
    return f"""## Load

![Load of the experts](load.svg)

Share of the choices that each expert receives, every domain counted alike.

{table(rows.round(2))}"""


def knowledge(facts: Facts) -> str:
    rows = []
    for layer in facts["text"]["information"]:
        cells = {kind: f"{layer[kind]['bits']:.3f} ({layer[kind]['null_high']:.3f})" for kind in KINDS}
        rows.append({"layer": layer["layer"], **cells})
    names = ["layer", "domain", "domain, same token", "task", "task, at the answer mark"]
    return f"""## What an expert tells

![Information of experts about domain and task](information.svg)

Mutual information in bits between a chosen expert and the label of its row; in brackets the highest of {SHUFFLES} shuffles
of the labels among rows. "Same token" averages over tokens the information among their own occurrences, so that knowing the
token explains nothing; the answer mark is the same token in every task.

{table(pd.DataFrame(rows).set_axis(names, axis=1))}"""


def attention(facts: Facts) -> str:
    ranks = pd.DataFrame(facts["text"]["attention_rank"])
    shown = ranks[["layer", "share", "stable_rank", "effective_share", "entropy"]].round(3)
    return f"""## Attention rank

Means over heads and {int(ranks["maps"].iloc[0])} maps a layer of {int(ranks["tokens"].iloc[0])} tokens: `share` is ARank
(singular values above {ranks["tolerance"].iloc[0]} of the largest) over the number of tokens, `effective_share` the same for
the effective rank; entropy of the attention rows in nats.

{table(shown)}"""


def tasks_by_level(facts: Facts) -> str:
    accuracy = facts["accuracy"]
    levels = pd.DataFrame(accuracy["levels"])
    levels["text"] = [percent(a, h) for a, h in zip(levels["accuracy"], levels["half_width"], strict=True)]
    good = levels["corrected"].between(LOW, HIGH)
    levels.loc[good, "text"] = "**" + levels["text"] + "**"
    grid = levels.pivot(index="task", columns="level", values="text").fillna("").reset_index()
    kinds = pd.DataFrame({"task": list(TASKS), "asks for": [task.summary for task in TASKS.values()]})
    return f"""## Tasks

![Accuracy by task and level](tasks.svg)

{table(kinds.sort_values("task"))}

Accuracy in per cent on {accuracy["items_per_level"]} {accuracy["split"]} items a level, by log-likelihood over eight
choices; chance is {100 * CHANCE:.1f}. A model that merely picks among the symbols of a short prompt also exceeds chance.
Usable levels, {LOW} to {HIGH} after correction for chance, are bold ({good.sum()} levels of
{levels.loc[good, "task"].nunique()} tasks); `levels.json` freezes them and `wb.tasks.usable()` reads it.

{table(grid)}"""


def wordings(facts: Facts) -> str:
    rows = pd.DataFrame(facts["accuracy"]["wordings"])
    rows["text"] = [percent(a, h) for a, h in zip(rows["accuracy"], rows["half_width"], strict=True)]
    grid = rows.pivot(index="task", columns="language", values="text").fillna("").reset_index()
    return f"""## Wordings

Accuracy in per cent at the usable levels, by the language of the wording.

{table(grid)}"""


def random_answers(facts: Facts) -> str:
    found = facts["random_routing"]
    rows = pd.DataFrame(found["by_task"])
    rows[["accuracy", "random"]] = (100 * rows[["accuracy", "random"]]).round(1)
    return f"""## Answers under random routing

Validation items of the usable levels ({found["items"]} in all, {found["seeds"]} seeds):
{100 * found["accuracy"]:.1f} per cent right, {100 * found["random"]:.1f} under random routing in all layers:
a cost of {found["cost_points"]:.1f} points
({found["cost_low"]:.1f} to {found["cost_high"]:.1f}).

{table(rows)}"""


def unseen(facts: Facts) -> str:
    found = facts["held_out"]
    merged = None
    for split in ("test", "shift"):
        rows = pd.DataFrame(found[split]["levels"])
        rows[split] = [percent(a, h) for a, h in zip(rows["accuracy"], rows["half_width"], strict=True)]
        rows = rows[["task", "level", split]]
        merged = rows if merged is None else merged.merge(rows)
    test, shift = (found[split]["all"] for split in ("test", "shift"))
    return f"""## Test and shift

Accuracy in per cent at the usable levels on {found["test"]["items_per_level"]} test items and
{found["shift"]["items_per_level"]} items of the shift set a level: a quarter longer, in a wording that no training text has,
with filler between the facts. Over all: {percent(test["accuracy"], test["half_width"])} and
{percent(shift["accuracy"], shift["half_width"])}.

{table(merged)}"""


def oracles(facts: Facts) -> str:
    found = facts["oracles"]
    rows = [
        ("the router's own path", "native", "the answer"),
        ("oracle for the answer", "label_oracle", "the answer"),
        ("the router's own path", "native_on_that_label", "a wrong answer, drawn at random"),
        ("oracle for that wrong answer", "wrong_label_oracle_reaches_its_label", "that wrong answer"),
        ("the router's own path, third wording", "cross_native", "the answer"),
        ("oracle path of two other wordings of the item", "cross_oracle", "the answer"),
        ("such a path of another item", "cross_other_item", "the answer"),
        (
            "oracle path of two other wordings for a wrong answer",
            "cross_wrong_label_oracle_reaches_its_label",
            "that wrong answer",
        ),
    ]
    shown = pd.DataFrame(
        [(path, gives, percent(found[key]["mean"], found[key]["half_width"])) for path, key, gives in rows],
        columns=["path", "share of items that give", "per cent"],
    )
    gain, other = found["cross_gain"], found["cross_other_gain"]
    return f"""## Headroom

![Oracle paths](headroom.svg)

For each of {found["items"]} validation items an oracle that knows the label chooses the experts of the answer token in
layers {", ".join(map(str, found["layers"]))}, greedily over all pairs. What it gains above an oracle for a wrong answer is
due to the answer; what both gain shows only how far the model can be steered. The path that was chosen on two wordings
and is scored on a third is what a method could hope for: it changes accuracy by {points(gain)} points,
a path of another item by {points(other)}. A path also
carries an answer of its own: how far, the wrong answer on the third wording tells.

{table(shown)}"""


def fault(facts: Facts) -> str:
    found = facts["fault"]
    lost, shared = found["lost_points"], found["experts_shared"]
    rows = []
    for key, name in pictures.FAULT.items():
        share = found["recovered"].get(key)
        right = found["right"][key]
        undone = "" if share is None else f"{100 * share:.0f}"
        rows.append((name, percent(right["mean"], right["half_width"]), undone))
    shown = pd.DataFrame(rows, columns=["model", "right, per cent", "of the loss undone, per cent"])
    return f"""## A planted fault

Half of the experts exchanged among each other in layers {", ".join(map(str, found["layers"]))} at the answer token costs
{lost["mean"]:.1f} ± {lost["half_width"]:.1f} points ({found["items"]} validation items). With the fault in place, routes of
the intact router are asked for: its experts at the weights that the faulty router gives them, and its experts with its
weights. Of the experts of an item another item of its level shares {100 * shared["another_item"]:.0f} per cent in these
layers, an item of another task {100 * shared["another_task"]:.0f}.

{table(shown)}"""


def licences(facts: Facts) -> str:
    corpus = facts["corpus"]
    tokens = (
        pd.DataFrame(corpus["tokens"]).pivot(index="domain", columns="split", values="tokens").reset_index()
    )
    return f"""## Corpus and licences

{table(pd.DataFrame(corpus["sources"]))}

Tokens by split:

{table(tokens)}

The texts are not distributed, and each keeps its licence; the weights come with the project under its own."""


def weaknesses(facts: Facts) -> str:
    done = facts["shape"]["training"]
    config = CONFIGS[done["config"]]
    levels = pd.DataFrame(facts["accuracy"]["levels"])
    best = levels.groupby("task")["corrected"].max()
    floor = ", ".join(sorted(best[best < LOW].index)) or "none"
    return f"""## Known weaknesses

- Tasks on the floor at every level: {floor}.
- Small and briefly trained: prose is locally plausible at best, facts are not to be trusted.
- The prose is technical documentation, so its vocabulary is narrow; German, Spanish, French and Russian are translations of
  manuals.
- Rows were {config.length_first} to {config.length} tokens long in training and {done["length"]} while the rate fell, so
  that late positions are little trained.
- Free-form answers are scored without their end.{"".join(chr(10) + "- " + note for note in facts["notes"])}"""


def points(value: dict[str, float]) -> str:
    return f"{100 * value['mean']:+.1f} ± {100 * value['half_width']:.1f}"


def plus_minus(value: dict[str, float]) -> str:
    return f"{value['mean']:.2f} ± {value['half_width']:.2f}"


def percent(share: float, half_width: float) -> str:
    return f"{100 * share:.0f} ± {100 * half_width:.0f}"


def table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    rows = [[str(value) for value in row] for row in frame.itertuples(index=False)]
    head = [str(name) for name in frame.columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def training_curve(run: str, steps: int) -> pd.DataFrame:
    """Means over every hundredth part of the training log: step, label and loss."""
    rows = [json.loads(line) for line in (folders.training(run) / "log.jsonl").read_text().splitlines()]
    frame = pd.DataFrame([row for row in rows if row["step"] < steps]).drop_duplicates("step", keep="last")
    columns = [name for name in frame.columns if name.startswith("loss/")]
    frame["part"] = frame["step"] // max(1, steps // 100)
    curve = frame.groupby("part")[["step", *columns]].mean().reset_index(drop=True)
    return curve.melt("step", columns, "label", "loss").replace(
        {"label": r"^loss/"}, {"label": ""}, regex=True
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", help="name of the training run, for its curve and the corpus's figures")
    parser.add_argument(
        "--note", action="append", help="a weakness to be told, as a sentence; replaces earlier notes"
    )
    options = parser.parse_args()
    file = options.folder / "facts.json"
    facts = json.loads(file.read_text())
    missing = [part for part in PARTS if part not in facts]
    if missing:
        raise SystemExit(f"{file} has no {', '.join(missing)}: run python -m data.recipe.measure first.")
    if options.run:
        pictures.training(training_curve(options.run, facts["shape"]["training"]["steps"]), options.folder)
        facts["corpus"] = json.loads((folders.corpus() / "summary.json").read_text())
    facts["notes"] = options.note or facts.get("notes", [])
    file.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    (options.folder / "DATASHEET.md").write_text(markdown(facts))
    pictures.draw(facts, options.folder)


if __name__ == "__main__":
    main()
