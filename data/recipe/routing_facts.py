"""What a model's routing looks like on held-out text: loss by domain, load, information about the domain, random routing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from data.recipe.corpus import DOMAINS
from data.recipe.stream import TextSource, document_mask
from workbench import tasks

LABELS = (*DOMAINS, "tasks")
SHUFFLES = 50

Rewrite = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Sample:
    """Held-out rows: ``ids`` and ``document`` [N, L] int64, ``counted`` [N, L - 1] bool (targets), ``label`` [N].

    ``document`` numbers the documents of a row; no token sees another document, as in training.
    """

    ids: torch.Tensor
    document: torch.Tensor
    counted: torch.Tensor
    label: np.ndarray


@dataclass
class Observed:
    """``loss`` [N, L - 1] in nats, ``experts`` [layers, N, L, k] int64, of a sample."""

    loss: torch.Tensor
    experts: torch.Tensor


def sample(
    tokenizer: PreTrainedTokenizerFast, rows: int, length: int, split: str = "validation", seed: int = 0
) -> Sample:
    """``rows`` rows of every domain and of the tasks; a row is one window, or task items one after another."""
    rng = random.Random(f"{split}/{seed}")
    text = TextSource(split)
    ids, document, counted, label = [], [], [], []
    for number in range(len(DOMAINS)):
        found = 0
        while found < rows:
            window = text.window(number, rng, length)
            if len(window) == length:
                ids.append(torch.from_numpy(window.astype(np.int64)))
                document.append(torch.zeros(length, dtype=torch.int64))
                counted.append(torch.ones(length - 1, dtype=torch.bool))
                label.append(number)
                found += 1
    items = [
        item for name in tasks.names() for item in tasks.load(name, split=split, n=20, seed=seed).itertuples()
    ]
    rng.shuffle(items)
    queue = iter(items)
    for _ in range(rows):
        row: list[int] = []
        answers: list[bool] = []
        owner: list[int] = []
        while len(row) < length:
            item = next(queue)
            prompt, answer = tokenizer([item.prompt, item.answer])["input_ids"]
            owner += [owner[-1] + 1 if owner else 0] * (len(prompt) + len(answer) + 1)
            row += [*prompt, *answer, tokenizer.eos_token_id]
            answers += [False] * len(prompt) + [True] * len(answer) + [False]
        ids.append(torch.tensor(row[:length]))
        document.append(torch.tensor(owner[:length]))
        counted.append(torch.tensor(answers[1:length]))
        label.append(len(DOMAINS))
    return Sample(torch.stack(ids), torch.stack(document), torch.stack(counted), np.array(label))


@contextmanager
def expert_hooks(model: PreTrainedModel, hook: Callable[..., Any]) -> Iterator[None]:
    """Runs ``hook(layer, hidden, index, weight)`` before every expert bank; what it returns replaces the index."""
    handles = []
    for number, layer in enumerate(model.model.layers):

        def before(module: torch.nn.Module, args: tuple, number: int = number) -> tuple | None:
            hidden, index, weight = args
            changed = hook(number, index, weight)
            return None if changed is None else (hidden, changed, weight)

        handles.append(layer.mlp.experts.register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def observe(
    model: PreTrainedModel, data: Sample, rewrite: Rewrite | None = None, batch: int = 16
) -> Observed:
    """Losses and executed experts on a sample; ``rewrite(index, weight)`` may choose other experts in all layers."""
    layers = model.config.num_hidden_layers
    losses, experts = [], []
    seen: list[torch.Tensor] = []

    def hook(number: int, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
        changed = None if rewrite is None else rewrite(index, weight)
        seen.append(index if changed is None else changed)
        return changed

    with expert_hooks(model, hook):
        for ids, document in zip(data.ids.split(batch), data.document.split(batch), strict=True):
            seen.clear()
            mask = document_mask(document)[:, None]
            logits = model(ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            losses.append(
                F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
                    len(ids), -1
                )
            )
            experts.append(torch.stack(seen[:layers]).view(layers, *ids.shape, -1))
    return Observed(torch.cat(losses), torch.cat(experts, dim=1))


def random_experts(count: int, seed: int) -> Rewrite:
    """A rewrite that gives every token random different experts and keeps the weights."""
    generator = torch.Generator().manual_seed(seed)

    def rewrite(index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.rand(index.shape[0], count, generator=generator).argsort(1)[:, : index.shape[1]]

    return rewrite


def loss_by_label(seen: Observed, data: Sample) -> dict[str, float]:
    """Mean loss in nats by domain; for the tasks, of the answer tokens."""
    return {
        name: float(seen.loss[data.label == number][data.counted[data.label == number]].mean())
        for number, name in enumerate(LABELS)
    }


def loads(seen: Observed, experts: int) -> np.ndarray:
    """Share of the choices each expert receives [layers, experts], 1 / experts when even; first tokens left out."""
    return np.stack(
        [
            np.bincount(layer[:, 1:].flatten(), minlength=experts) / layer[:, 1:].numel()
            for layer in seen.experts
        ]
    )


def information(table: np.ndarray) -> float:
    """Mutual information in bits between the two sides of a table of counts (plug-in estimate)."""
    joint = table / table.sum()
    independent = joint.sum(0, keepdims=True) * joint.sum(1, keepdims=True)
    return float((joint[joint > 0] * np.log2(joint[joint > 0] / independent[joint > 0])).sum())


def domain_information(seen: Observed, data: Sample, experts: int, seed: int = 0) -> list[dict[str, float]]:
    """By layer: bits that a chosen expert tells about the domain, beside rows whose domains were shuffled.

    Whole rows keep their label in the shuffle, so that the likeness of tokens within a row stays in the null.
    ``null_high`` is the highest of the shuffles.
    """
    rng = np.random.default_rng(seed)
    result = []
    for layer, chosen in enumerate(seen.experts.numpy()):
        rows = np.stack([np.bincount(row[1:].ravel(), minlength=experts) for row in chosen])
        null = [information(by_label(rows, rng.permutation(data.label))) for _ in range(SHUFFLES)]
        entry = {"layer": layer, "bits": information(by_label(rows, data.label))}
        result.append(entry | {"null_mean": float(np.mean(null)), "null_high": float(np.max(null))})
    return result


def by_label(rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Sums rows of counts by label."""
    table = np.zeros((len(LABELS), rows.shape[1]))
    np.add.at(table, label, rows)
    return table
