"""Writes DATASHEET.md, facts.json and the pictures of a finished model into its folder.

python -m data.recipe.datasheet data/demo --run demo
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import torch

from data.recipe import evaluate, folders, routing_facts
from data.recipe.configs import CONFIGS
from data.recipe.stream import CONTEXT_WEIGHT
from workbench.tasks.item import CHANCE

PROMPT = "The capital of France is"


def measure(folder: Path, rows: int, length: int, items: int) -> dict[str, Any]:
    """All numbers of the datasheet."""
    model, tokenizer = evaluate.load_model(folder)
    count = model.config.num_experts
    data = routing_facts.sample(tokenizer, rows, length)
    plain = routing_facts.observe(model, data)
    scrambled = routing_facts.observe(model, data, routing_facts.random_experts(count, seed=0))
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    text = tokenizer.decode(model.generate(ids, max_new_tokens=40, do_sample=False)[0])
    load = routing_facts.loads(plain, count)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "active_parameters": active_parameters(model),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "config": {key: getattr(model.config, key) for key in SHOWN},
        "training": json.loads((folder / "training.json").read_text()),
        "rows_per_domain": rows,
        "row_length": length,
        "loss": routing_facts.loss_by_label(plain, data),
        "loss_random_routing": routing_facts.loss_by_label(scrambled, data),
        "load": load.round(5).tolist(),
        "load_max_over_mean": (load.max(1) * count).round(3).tolist(),
        "load_min_over_mean": (load.min(1) * count).round(3).tolist(),
        "domain_information": routing_facts.domain_information(plain, data, count),
        "continuation": text,
        "accuracy": evaluate.table(model, tokenizer, "validation", items).to_dict("records"),
    }


SHOWN = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "norm_topk_prob",
    "vocab_size",
    "max_position_embeddings",
)


def active_parameters(model: torch.nn.Module) -> int:
    """Parameters that one token uses: everything but the experts it is not sent to."""
    config = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    bank = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    return total - bank + bank * config.num_experts_per_tok // config.num_experts


def training_curve(run: str, steps: int) -> pd.DataFrame:
    """Means over every hundredth part of the training log: step, label, loss, and the seconds of a step."""
    rows = [json.loads(line) for line in (folders.training(run) / "log.jsonl").read_text().splitlines()]
    frame = pd.DataFrame([row for row in rows if row["step"] < steps]).drop_duplicates("step", keep="last")
    columns = [name for name in frame.columns if name.startswith("loss/")]
    frame["part"] = frame["step"] // max(1, steps // 100)
    curve = frame.groupby("part")[["step", "seconds", *columns]].mean().reset_index(drop=True)
    return curve.melt(["step", "seconds"], columns, "label", "loss").replace(
        {"label": r"^loss/"}, {"label": ""}, regex=True
    )


def markdown(facts: dict[str, Any], curve: pd.DataFrame) -> str:
    """The datasheet's text."""
    training, config = facts["training"], CONFIGS[facts["training"]["config"]]
    losses = pd.DataFrame({"loss": facts["loss"], "random routing": facts["loss_random_routing"]})
    losses["cost"] = losses["random routing"] - losses["loss"]
    layers = pd.DataFrame(facts["domain_information"]).assign(
        **{"max load / mean": facts["load_max_over_mean"], "min load / mean": facts["load_min_over_mean"]}
    )
    accuracy = pd.DataFrame(facts["accuracy"])
    accuracy["text"] = [
        f"{a:.2f} ± {h:.2f}" for a, h in zip(accuracy["accuracy"], accuracy["half_width"], strict=True)
    ]
    usable = accuracy[(accuracy["corrected"] >= 0.3) & (accuracy["corrected"] <= 0.8)]
    summary = json.loads((folders.corpus() / "summary.json").read_text())
    seconds = curve.drop_duplicates("step")["seconds"].mean()
    rate = config.tokens_per_step / seconds
    lines = [
        "# Datasheet of the demo model",
        "",
        "Written by `data/recipe/datasheet.py`; every number is measured on the files beside it, in float32 on a CPU.",
        "",
        "![Training](training.svg) ![Load](load.svg)",
        "",
        "## What it is",
        "",
        "A mixture-of-experts language model of the OLMoE family with "
        f"{facts['parameters'] / 1e6:.2f} M parameters, of which a token uses "
        f"{facts['active_parameters'] / 1e6:.2f} M; {facts['bytes'] / 1e6:.1f} MB. It was trained from scratch by "
        "the recipe in `data/recipe` to have routing worth looking at. It knows very little: it is for experiments on "
        "routing, not for answers.",
        "",
        table(pd.DataFrame(facts["config"].items(), columns=["setting", "value"])),
        "",
        "## Training",
        "",
        f"Configuration `{training['config']}`, seed {config.seed}: {training['steps']:,} steps of "
        f"{config.tokens_per_step:,} tokens, {training['tokens'] / 1e6:.1f} M tokens seen in all; the rate was constant up "
        f"to step {training['from_step']:,} and then fell to zero. {seconds:.2f} seconds a step on average, {rate:,.0f} "
        "tokens a second, on two shared CPU cores at the lowest priority. Of the tokens, "
        f"{config.lesson_share[-1][1]:.0%} to {config.lesson_share[0][1]:.0%} are lessons (drills and tasks), the "
        f"rest text; lesson tokens that cannot be foreseen weigh {CONTEXT_WEIGHT} in the loss.",
        "",
        "## Loss by domain",
        "",
        "Nats per token on validation documents; for the tasks, on the answers. Random routing sends every token of every "
        "layer to random different experts with the weights unchanged.",
        "",
        table(losses.reset_index(names="domain").round(3)),
        "",
        f"Random routing costs {losses['cost'].mean():.2f} nats on average.",
        "",
        "## Routing",
        "",
        "`bits` is the mutual information between a chosen expert and the domain; the null shuffles domains among whole "
        f"rows ({facts['rows_per_domain']} rows of {facts['row_length']} tokens a domain; mean and highest of "
        f"{routing_facts.SHUFFLES} shuffles). A load of 1 is even; no expert is dead where the smallest is above 0.",
        "",
        table(layers.round(3)),
        "",
        "## Tasks",
        "",
        f"Validation items, eight choices by log-likelihood, accuracy with the half-width of its 95 % interval; chance is "
        f"{CHANCE:.3f}. A model that merely picks among the symbols it has seen in a short prompt also exceeds chance.",
        "",
        table(accuracy.pivot(index="task", columns="level", values="text").fillna("").reset_index()),
        "",
        f"Levels between 0.3 and 0.8 after correction for chance: {len(usable)}, of {usable['task'].nunique()} tasks.",
        "",
        "## A greedy continuation",
        "",
        "```text",
        facts["continuation"],
        "```",
        "",
        "## Corpus and licences",
        "",
        table(pd.DataFrame(summary["sources"])),
        "",
        table(
            pd.DataFrame(summary["tokens"])
            .pivot(index="domain", columns="split", values="tokens")
            .reset_index()
        ),
        "",
        "The texts are not distributed, and each keeps its licence; the weights come with the project under its own.",
        "",
        "## Known weaknesses",
        "",
        f"- The load is uneven: up to {max(facts['load_max_over_mean']):.1f} times the mean on text of all domains in equal "
        "parts.",
        "- Small and briefly trained: prose is locally plausible at best, facts are not to be trusted.",
        "- The prose is technical documentation, so its vocabulary is narrow; German, Spanish, French and Russian are "
        "translations of manuals.",
        f"- Rows were {config.length_first} to {config.length} tokens long in training and {training['length']} while the "
        "rate fell, so that late positions are little trained.",
        "",
    ]
    return "\n".join(lines)


def table(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table."""
    rows = [[str(value) for value in row] for row in frame.itertuples(index=False)]
    head = [str(name) for name in frame.columns]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def pictures(facts: dict[str, Any], curve: pd.DataFrame, folder: Path) -> None:
    """training.svg (loss by domain over steps) and load.svg (share of choices by layer and expert)."""
    lines = alt.Chart(curve, width=420, height=260, title="Loss in training, nats per token").mark_line()
    lines = lines.encode(
        x="step:Q", y=alt.Y("loss:Q").scale(zero=True), color=alt.Color("label:N").title("domain")
    )
    lines.save(folder / "training.svg")
    load = np.array(facts["load"]) * len(facts["load"][0])
    cells = pd.DataFrame(
        [
            {"layer": i, "expert": j, "load": load[i, j]}
            for i in range(load.shape[0])
            for j in range(load.shape[1])
        ]
    )
    grid = alt.Chart(cells, width=420, height=160, title="Load of the experts, 1 is even").mark_rect()
    grid.encode(x="expert:O", y="layer:O", color=alt.Color("load:Q").scale(scheme="viridis")).save(
        folder / "load.svg"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", required=True, help="name of the training run, for its curve")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--length", type=int, default=192)
    parser.add_argument("--items", type=int, default=200)
    options = parser.parse_args()
    facts = measure(options.folder, options.rows, options.length, options.items)
    curve = training_curve(options.run, facts["training"]["from_step"])
    (options.folder / "facts.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    (options.folder / "DATASHEET.md").write_text(markdown(facts, curve))
    pictures(facts, curve, options.folder)


if __name__ == "__main__":
    main()
