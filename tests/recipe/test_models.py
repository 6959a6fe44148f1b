"""The relatives of the demo model: plain, small, and different in what their names say and in nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import workbench as wb
from data.recipe import measure, overview
from data.recipe.configs import CONFIGS
from workbench import tasks

DATA = Path(__file__).resolve().parents[2] / "data"
MODELS = sorted(folder.parent for folder in DATA.glob("models/*/config.json"))
ALONG = sorted(folder for folder in MODELS if folder.name.startswith("demo-step-"))
SEEDS = [folder for folder in MODELS if folder.name.startswith(overview.SEEDS)]
TEXT = (
    "The packages are installed by the system administrator, who can also remove them. This chapter explains"
)


def config(folder: Path) -> dict[str, Any]:
    """The configuration without where it was written."""
    told = AutoConfig.from_pretrained(folder).to_dict()
    return {
        key: value
        for key, value in told.items()
        if key not in ("_name_or_path", "dtype", "transformers_version")
    }


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Any]]:
    """Every model of the repository by the name of its folder, in float32."""
    yield {
        folder.name: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for folder in [DATA / "demo", *MODELS]
    }


def test_all_of_them_are_there_and_small() -> None:
    assert [folder.name for folder in SEEDS] == [f"{overview.SEEDS}{seed}" for seed in (1, 2, 3)]
    assert len(ALONG) == 3 and {"demo-raw-weights", "dense-twin"} < {folder.name for folder in MODELS}
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 80e6


def test_configurations_differ_in_what_the_names_say() -> None:
    demo = config(DATA / "demo")

    def changed(folder: Path) -> set[str]:
        own = config(folder)
        return {key for key in demo if own.get(key) != demo[key]} | (own.keys() - demo.keys())

    assert changed(DATA / "models/demo-raw-weights") == {"norm_topk_prob"}
    assert all(changed(folder) == set() for folder in ALONG)
    assert all(changed(folder) == {"hidden_size", "intermediate_size"} for folder in SEEDS)
    assert changed(DATA / "models/dense-twin") == {"num_experts", "num_experts_per_tok", "intermediate_size"}
    for folder in MODELS:
        done = json.loads((folder / "training.json").read_text())
        wanted = CONFIGS[done["config"]].model().to_dict()
        assert all(config(folder)[key] == wanted[key] for key in measure.SHOWN)
        texts = "Recall:<bak><17>. Ask<bak><=>", TEXT
        mine, theirs = (
            AutoTokenizer.from_pretrained(one)(list(texts))["input_ids"] for one in (folder, DATA / "demo")
        )
        assert mine == theirs


@pytest.mark.slow
def test_weights_are_as_large_as_the_names_say(models: dict[str, Any]) -> None:
    active = {name: measure.active_parameters(model) for name, model in models.items()}
    routers = sum(layer.mlp.gate.weight.numel() for layer in models["demo"].model.layers)
    assert active["dense-twin"] + routers == active["demo"] + 6 * models["demo"].config.hidden_size
    total = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert len({total[folder.name] for folder in SEEDS}) == 1 and total["small-seed1"] < total["demo"] / 2
    seeds = [models[folder.name].lm_head.weight for folder in SEEDS]
    assert not any(torch.allclose(seeds[0], other, atol=0.01) for other in seeds[1:])


@pytest.mark.slow
def test_training_can_be_followed(models: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DATA / "demo")
    items = pd.concat([tasks.load(name, split="validation", level=1, n=10) for name in tasks.names()])
    texts = [TEXT, *(items["prompt"] + items["answer"])]
    losses = {}
    for name in (*(folder.name for folder in ALONG), "demo"):
        rows = [tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]
        with torch.no_grad():
            losses[name] = sum(float(models[name](ids, labels=ids).loss) for ids in rows) / len(rows)
    assert list(losses.values()) == sorted(losses.values(), reverse=True), losses


@pytest.mark.slow
def test_raw_weights_are_recorded_as_they_are() -> None:
    sums = {}
    for folder in (DATA / "demo", DATA / "models/demo-raw-weights"):
        with wb.open(str(folder), store=":memory:", dtype="float32") as bench:
            bench.run(TEXT, record=wb.Record(contribution=False, sparsity=False, attention_rank=False))
            frame = bench.sql("SELECT sum(weight) AS total FROM routing GROUP BY layer, position").df()
            sums[folder.name] = frame["total"]
    assert (sums["demo"] - 1).abs().max() < 1e-5
    assert sums["demo-raw-weights"].max() < 1 and sums["demo-raw-weights"].min() > 2 / 16


def test_the_page_is_of_the_figures() -> None:
    found = overview.collect(DATA / "models", DATA / "demo")
    assert set(found) == {"demo", *(folder.name for folder in MODELS)}
    assert (DATA / "models/README.md").read_text() == overview.markdown(found)
    for folder in MODELS:
        shape = found[folder.name]["shape"]
        assert shape["training"] == json.loads((folder / "training.json").read_text())
        assert shape["bytes"] == (folder / "model.safetensors").stat().st_size
