"""The committed demo model: small, plain, offline, and routing in ways that matter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

import workbench as wb
from data.recipe import datasheet, headroom, measure, pictures, task_facts, text_facts
from data.recipe.configs import DEMO
from workbench import tasks
from workbench.interventions import Plan, reroute
from workbench.tasks.symbols import ALL, END

FOLDER = Path(__file__).resolve().parents[2] / "data" / "demo"
TEXTS = {
    "en": "The packages are installed by the system administrator, who can also remove them. This chapter explains",
    "fr": "Les paquets sont installés par l'administrateur du système, qui peut aussi les supprimer. Ce chapitre",
    "de": "Die Pakete werden vom Administrator des Systems installiert, der sie auch wieder entfernen kann. Dieses",
    "es": "Los paquetes son instalados por el administrador del sistema, que también puede eliminarlos. Este",
    "ru": "Пакеты устанавливаются администратором системы, который также может их удалить. В этой главе",
    "python": "def load(self, path):\n    with open(path) as file:\n        return [line.strip() for line in file]\n",
    "c": "#ifndef _HEADER_H\n#define _HEADER_H\n\nextern int read_block(void *buffer, unsigned long size);\n\n#endif\n",
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """The model of the repository, in float32."""
    with wb.open(str(FOLDER), store=":memory:", dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What the datasheet says in numbers."""
    return json.loads((FOLDER / "facts.json").read_text())


@pytest.mark.slow
def test_it_loads_offline_from_its_folder_alone(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "copy")
    code = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer; folder = sys.argv[1];"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder);"
        "ids = tokenizer('The capital of France is', return_tensors='pt').input_ids;"
        "print(len(tokenizer.decode(model.generate(ids, max_new_tokens=5, do_sample=False)[0])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "copy")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > len("The capital of France is")


def test_it_has_the_shape_that_the_recipe_names(bench: Any) -> None:
    config, wanted = bench.model.config, DEMO.model()
    for key in measure.SHOWN:
        assert getattr(config, key) == getattr(wanted, key)
    assert config.num_experts >= 16 and config.num_experts_per_tok >= 2 and config.num_hidden_layers >= 6
    assert config.max_position_embeddings >= 512
    assert sum(parameter.numel() for parameter in bench.model.parameters()) <= 9_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 20_000_000
    assert len(bench.tokenizer) == config.vocab_size
    assert bench.tokenizer.eos_token == END


def test_the_models_of_the_repository_are_small_together() -> None:
    assert sum(file.stat().st_size for file in FOLDER.parent.rglob("*") if file.is_file()) <= 80_000_000


def test_every_symbol_is_one_token_and_text_survives_the_round_trip(bench: Any) -> None:
    assert all(len(bench.tokenizer(symbol)["input_ids"]) == 1 for symbol in ALL)
    for text in [*TEXTS.values(), "12 + 30 = 42", "Recall:<bak><17>,<bek><3>. Ask<bak><=>"]:
        assert bench.tokenizer.decode(bench.tokenizer(text)["input_ids"]) == text


def test_the_figures_are_of_these_weights_and_reach_their_goals(bench: Any, facts: dict[str, Any]) -> None:
    assert facts["shape"]["checkpoint"] == bench.checkpoint
    assert facts["shape"]["parameters"] == sum(parameter.numel() for parameter in bench.model.parameters())
    levels = pd.DataFrame(facts["accuracy"]["levels"])
    assert levels.loc[levels["corrected"].between(0.3, 0.8), "task"].nunique() >= 5
    assert facts["random_routing"]["cost_low"] >= 10
    assert np.mean([cost["mean"] for cost in facts["text"]["random_routing_cost"].values()]) >= 1
    for kind in ("domain", "domain_at_token"):
        clear = [layer[kind]["bits"] > layer[kind]["null_high"] for layer in facts["text"]["information"]]
        assert np.mean(clear) > 0.5
    load = pd.DataFrame(facts["text"]["load"]).groupby("layer")["share"]
    assert (load.max() / load.mean()).max() < 4 and load.min().min() > 0
    assert facts["oracles"]["items"] > 0 and facts["fault"]["recovered"]["intact_choices_and_weights"] > 0.9


def test_the_frozen_levels_are_those_of_the_figures(bench: Any, facts: dict[str, Any]) -> None:
    frozen = json.loads((FOLDER / "levels.json").read_text())
    assert frozen["checkpoint"] == bench.checkpoint and frozen["split"] == "validation"
    measured = task_facts.frozen_levels(facts["accuracy"], bench.checkpoint)
    assert frozen["levels"] == measured["levels"]
    assert [tuple(row) for row in tasks.usable()[["task", "level"]].to_numpy()] == [
        (row["task"], row["level"]) for row in frozen["levels"]
    ]


@pytest.mark.slow
def test_the_datasheet_and_its_pictures_follow_from_the_figures(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    assert (FOLDER / "DATASHEET.md").read_text() == datasheet.markdown(facts)
    pictures.draw(facts, tmp_path)
    for name in ("loss", "load", "information", "tasks", "headroom"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 2_000
        assert f"({name}.svg)" in (FOLDER / "DATASHEET.md").read_text()
        assert (FOLDER / f"{name}.svg").is_file()


@pytest.mark.parametrize(("task", "level"), [("recall", 1), ("kth_smallest", 5), ("most_frequent", 4)])
def test_accuracy_measured_again_on_fewer_items_agrees(
    bench: Any, facts: dict[str, Any], task: str, level: int
) -> None:
    found = pd.DataFrame(facts["accuracy"]["levels"])
    told = found[(found["task"] == task) & (found["level"] == level)].iloc[0]
    again = bench.evaluate(tasks.load(task, split="validation", level=level, n=60))["correct"].mean()
    assert abs(again - told["accuracy"]) < 4 * (0.25 / 60) ** 0.5


@pytest.mark.slow
def test_the_planted_fault_measured_again_costs_and_is_undone_by_the_intact_routes(bench: Any) -> None:
    found = headroom.planted_fault(bench, tasks.usable(), items=20)
    right = {name: value["mean"] for name, value in found["right"].items()}
    assert right["faulty"] < right["intact"]
    assert right["intact_choices_and_weights"] == pytest.approx(right["intact"], abs=0.02)
    assert sorted(found["map"]) == list(range(16))
    assert sum(expert != instead for expert, instead in enumerate(found["map"])) == 8


@pytest.mark.slow
def test_experts_follow_the_language_and_random_routing_costs(bench: Any) -> None:
    runs = bench.run(
        list(TEXTS.values()), record=wb.Record(contribution=False, sparsity=False, attention_rank=False)
    )
    scrambled = bench.run(list(TEXTS.values()), Plan([reroute.random("all")]), record=None)
    assert np.mean([run.loss for run in scrambled]) > np.mean([run.loss for run in runs]) + 0.2
    chosen = []
    for run in runs:
        load = np.zeros((6, 16))
        for layer, expert, share in bench.sql(
            "SELECT layer, expert, load FROM expert_load(?)", [run.id]
        ).fetchall():
            load[layer, expert] = share
        chosen.append(load / load.sum(1, keepdims=True))
    distances = [0.5 * np.abs(a - b).sum(1).mean() for i, a in enumerate(chosen) for b in chosen[:i]]
    assert np.mean(distances) > 0.15  # total variation between the loads of two domains, averaged over layers


@pytest.mark.slow
def test_the_facts_of_text_hold_together(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Windows:
        """Texts of the tests in place of the corpus."""

        def __init__(self, split: str) -> None:
            self.texts = [np.array(bench.tokenizer(text)["input_ids"]) for text in TEXTS.values()]

        def window(self, domain: int, rng: Any, longest: int) -> np.ndarray:
            return self.texts[domain % len(self.texts)][:longest]

    monkeypatch.setattr(text_facts, "TextSource", Windows)
    found = text_facts.measure(bench, rows=3, length=16, per_level=1)
    assert set(found["loss"]) == {*text_facts.DOMAINS, "tasks"}
    load = pd.DataFrame(found["load"])
    assert load.groupby("layer")["share"].sum().to_numpy() == pytest.approx(np.ones(6))
    english = bench.run(bench.tokenizer(TEXTS["en"])["input_ids"][:16], record=None)
    assert found["loss"]["prose-en"]["mean"] == pytest.approx(english.loss, abs=1e-4)
    assert all(layer["task"]["bits"] > 0 for layer in found["information"])
    assert {row["layer"] for row in found["attention_rank"]} == set(range(6))


def test_proportions_have_wilson_intervals_and_are_corrected_for_chance() -> None:
    scored = pd.DataFrame(
        {"task": ["a"] * 80 + ["b"] * 40, "correct": [True] * 60 + [False] * 20 + [True] * 40}
    )
    table = task_facts.proportions(scored, ["task"])
    low, high = binomtest(60, 80).proportion_ci(0.95, "wilson")
    assert table["half_width"][0] == pytest.approx((high - low) / 2, abs=1e-4)
    assert table["corrected"].tolist() == pytest.approx([(0.75 - 0.125) / 0.875, 1.0])
    assert table["half_width"][1] > 0


def test_measures_are_rounded_and_other_items_stay_within_their_level() -> None:
    assert measure.rounded({"a": [1.23456789, 2], "b": {"c": None}}) == {"a": [1.23457, 2], "b": {"c": None}}
    table = pd.DataFrame({"task": list("aabbb"), "level": [1, 1, 1, 1, 1]})
    assert headroom._another(table) == [1, 0, 3, 4, 2]
    routes = [{3: {0: 0.5, 1: 0.5}}, {3: {1: 0.9, 2: 0.1}}, {3: {0: 0.7, 1: 0.3}}]
    assert headroom.shared_experts(routes, [1, 2, 0]) == pytest.approx((1 + 1 + 2) / 6)
    chosen = headroom.chosen_levels(
        pd.DataFrame(
            {"task": ["recall", "recall", "sorting"], "level": [1, 2, 1], "corrected": [0.31, 0.6, 0.5]}
        )
    )
    assert chosen[["task", "level"]].to_numpy().tolist() == [["recall", 2]]
