"""The committed demo model: small, plain, offline, and routing in ways that matter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data.recipe import evaluate, routing_facts
from data.recipe.configs import DEMO
from workbench import tasks
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
def demo():
    """Model and tokenizer of the repository."""
    return evaluate.load_model(FOLDER)


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


def test_it_has_the_shape_that_the_recipe_names(demo) -> None:
    model, tokenizer = demo
    wanted = DEMO.model()
    for key in (
        "hidden_size",
        "num_hidden_layers",
        "num_experts",
        "num_experts_per_tok",
        "norm_topk_prob",
        "vocab_size",
    ):
        assert getattr(model.config, key) == getattr(wanted, key)
    assert model.config.num_experts >= 16 and model.config.num_hidden_layers >= 6
    assert model.config.max_position_embeddings >= 512
    assert sum(parameter.numel() for parameter in model.parameters()) <= 9_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 20_000_000
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token == END


def test_every_symbol_is_one_token_and_text_survives_the_round_trip(demo) -> None:
    _, tokenizer = demo
    assert all(len(tokenizer(symbol)["input_ids"]) == 1 for symbol in ALL)
    for text in [*TEXTS.values(), "12 + 30 = 42", "Recall:<bak><17>,<bek><3>. Ask<bak><=>"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_datasheet_agrees_with_the_files(demo) -> None:
    model, _ = demo
    facts = json.loads((FOLDER / "facts.json").read_text())
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["bytes"] == (FOLDER / "model.safetensors").stat().st_size
    assert min(facts["load_min_over_mean"]) > 0
    assert facts["load_max_over_mean"] == pytest.approx(
        np.max(facts["load"], axis=1) * model.config.num_experts, abs=0.01
    )
    text = (FOLDER / "DATASHEET.md").read_text()
    for name, loss in facts["loss"].items():
        assert f"| {name} | {loss:.3f}".rstrip("0") in text


@pytest.mark.slow
def test_experts_follow_the_language_and_random_routing_costs(demo) -> None:
    model, tokenizer = demo
    chosen, plain, scrambled = [], [], []
    for text in TEXTS.values():
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        every = torch.ones(1, ids.shape[1] - 1, dtype=torch.bool)
        data = routing_facts.Sample(ids, torch.zeros_like(ids), every, np.zeros(1, dtype=int))
        seen = routing_facts.observe(model, data)
        chosen.append(routing_facts.loads(seen, model.config.num_experts))
        plain.append(float(seen.loss.mean()))
        random = routing_facts.random_experts(model.config.num_experts, seed=0)
        scrambled.append(float(routing_facts.observe(model, data, random).loss.mean()))
    assert np.mean(scrambled) > np.mean(plain) + 0.2
    distances = [0.5 * np.abs(a - b).sum(1).mean() for i, a in enumerate(chosen) for b in chosen[:i]]
    assert np.mean(distances) > 0.15  # total variation between the loads of two domains, averaged over layers


@pytest.mark.slow
def test_it_recalls_values_from_its_context(demo) -> None:
    items = tasks.load("recall", split="validation", level=1, n=100)
    best = evaluate.choice_scores(*demo, items).argmax(1)
    correct = [
        choices[b] == answer
        for choices, b, answer in zip(items["choices"], best, items["answer"], strict=True)
    ]
    assert np.mean(correct) > 0.3  # chance is 1/8, a guess among the four values of the context 1/4
