"""Accuracy by task and level: eight choices by log-likelihood, chance-corrected.

python -m data.recipe.evaluate FOLDER --split validation --items 200
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from data.recipe import experts
from workbench import tasks
from workbench.tasks.item import CHANCE, TASKS
from workbench.tasks.symbols import END

BATCH_TOKENS = 8192


def load_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Model in float32 on the recipe's expert bank, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.set_experts_implementation(experts.register())
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def choice_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, items: pd.DataFrame
) -> np.ndarray:
    """Log-likelihood in nats of every choice of every item [items, 8]; free-form choices include the end."""
    free_form = items["task"].map(lambda name: TASKS[name].free_form)
    scores = np.zeros((len(items), len(items["choices"].iloc[0])))
    for is_free, group in items.groupby(free_form):
        texts, ends = [], END if is_free else ""
        prompts = tokenizer(group["prompt"].tolist())["input_ids"]
        choices = [tokenizer([choice + ends for choice in row])["input_ids"] for row in group["choices"]]
        if is_free:
            texts = [prompt + choice for prompt, row in zip(prompts, choices, strict=True) for choice in row]
            likelihood = continuation_scores(
                model, texts, [len(p) for p in prompts for _ in range(scores.shape[1])]
            )
            scores[items.index.get_indexer(group.index)] = likelihood.reshape(len(group), -1)
        else:
            options = torch.tensor(choices).squeeze(-1)
            for rows, logits in last_logits(model, prompts):
                chosen = logits.log_softmax(-1).gather(1, options[rows])
                scores[items.index.get_indexer(group.index)[rows]] = chosen.numpy()
    return scores


def batches(texts: list[list[int]]) -> list[list[int]]:
    """Row numbers of texts in batches of similar length and a bounded number of tokens."""
    result: list[list[int]] = [[]]
    for row in sorted(range(len(texts)), key=lambda row: len(texts[row])):
        if (len(result[-1]) + 1) * len(texts[row]) > BATCH_TOKENS:
            result.append([])
        result[-1].append(row)
    return result


def padded(texts: list[list[int]]) -> torch.Tensor:
    """Token ids [B, L], padded on the right, where causal attention keeps the padding out of sight."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)


def last_logits(model: PreTrainedModel, prompts: list[list[int]]) -> list[tuple[list[int], torch.Tensor]]:
    """Row numbers and logits [B, V] after the last token of each prompt, batch by batch."""
    result = []
    for rows in batches(prompts):
        hidden = model.model(padded([prompts[row] for row in rows]), use_cache=False).last_hidden_state
        last = torch.tensor([len(prompts[row]) - 1 for row in rows])
        result.append((rows, model.lm_head(hidden[torch.arange(len(rows)), last])))
    return result


def continuation_scores(model: PreTrainedModel, texts: list[list[int]], starts: list[int]) -> np.ndarray:
    """Log-likelihood in nats of each text from its start position on."""
    scores = np.zeros(len(texts))
    for rows in batches(texts):
        ids = padded([texts[row] for row in rows])
        losses = (
            model(ids, use_cache=False).logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        )
        for place, row in enumerate(rows):
            scores[row] = float(losses[place, starts[row] - 1 : len(texts[row]) - 1].sum())
    return scores


def table(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, split: str, items: int) -> pd.DataFrame:
    """One row per task and level: items, accuracy, 95 % half-width, chance-corrected accuracy."""
    rows = []
    for name in tasks.names():
        frame = tasks.load(name, split=split, n=items)
        best = choice_scores(model, tokenizer, frame).argmax(1)
        frame["correct"] = [
            choices[b] == a for choices, b, a in zip(frame["choices"], best, frame["answer"], strict=True)
        ]
        for level, group in frame.groupby("level"):
            accuracy = group["correct"].mean()
            rows.append(
                {
                    "task": name,
                    "level": level,
                    "items": len(group),
                    "accuracy": accuracy,
                    "half_width": 1.96 * (accuracy * (1 - accuracy) / len(group)) ** 0.5,
                    "corrected": (accuracy - CHANCE) / (1 - CHANCE),
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--items", type=int, default=200)
    options = parser.parse_args()
    model, tokenizer = load_model(options.folder)
    result = table(model, tokenizer, options.split, options.items)
    print(result.pivot(index="task", columns="level", values="corrected").round(2).to_string())
    result.to_csv(options.folder / f"accuracy-{options.split}.csv", index=False)


if __name__ == "__main__":
    main()
