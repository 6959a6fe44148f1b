"""Scoring a model on items with a known answer, under several plans, item by item so that plans can be paired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from workbench.errors import EditRefused, PromptError, WorkbenchError
from workbench.interventions import Plan
from workbench.runtime.prompts import token_ids

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

NEEDED = ("prompt", "answer", "choices")
_CHUNK = 32


def evaluate(
    bench: Bench,
    items: pd.DataFrame,
    plans: Sequence[Plan],
    score: Literal["choices"] = "choices",
    progress: bool = False,
) -> pd.DataFrame:
    """One row per plan and item.

    Parameters
    ----------
    items
        Columns ``prompt``, ``answer`` and ``choices`` (the options, among them the answer); others are kept.
    plans
        Every item is scored under every plan.
    score
        ``choices``: the prediction is the option of the highest log-likelihood after the prompt (summed over its tokens).
    progress
        Show a progress bar.

    Returns
    -------
    The items' own columns and ``item`` (row number in ``items``), ``plan_number``, ``plan`` (hash), ``gold``,
    ``prediction``, ``correct``, and ``losses``: the negative log-likelihood in nats of every option, in the order of
    ``choices``.
    """
    if score != "choices":
        raise WorkbenchError(f"Items cannot be scored by {score!r}.", 'Use score="choices".')
    missing = [name for name in NEEDED if name not in items]
    if missing:
        raise WorkbenchError(f"The items have no column {missing[0]!r}.", f"They need {', '.join(NEEDED)}.")
    if bench.tokenizer is None:
        raise PromptError(
            "This bench has no tokenizer, so the options have no tokens.", "Open the model with one."
        )
    for edit in (edit for plan in plans for edit in plan.active):
        if edit.rows != "all":
            raise EditRefused(
                f"{edit.kind} is scoped to rows, which number the prompts of one bench.run.",
                "Remove its row scope.",
            )
    tables = []
    for number, plan in enumerate(plans):
        losses = _losses(bench, items, plan, progress, f"plan {number + 1} of {len(plans)}")
        tables.append(_table(items, losses, number, plan))
    return pd.concat(tables, ignore_index=True)


def _table(items: pd.DataFrame, losses: list[list[float]], number: int, plan: Plan) -> pd.DataFrame:
    table = items.reset_index(drop=True)
    table.insert(0, "item", np.arange(len(table)))
    table["plan_number"], table["plan"] = number, plan.hash
    table["gold"] = table["answer"]
    table["prediction"] = [
        list(choices)[int(np.argmin(loss))] for choices, loss in zip(table["choices"], losses, strict=True)
    ]
    table["correct"] = table["prediction"] == table["gold"]
    table["losses"] = losses
    return table


def _losses(bench: Bench, items: pd.DataFrame, plan: Plan, progress: bool, title: str) -> list[list[float]]:
    """Negative log-likelihood of every option of every item."""
    rows = list(zip(items["prompt"], items["choices"], strict=True))
    chunks = list(_chunks(rows))
    found: list[list[float]] = []
    for chunk in _watched(chunks, title) if progress else chunks:
        found.extend(_score(bench, chunk, plan))
    return found


def _score(bench: Bench, rows: list[tuple[str, Any]], plan: Plan) -> list[list[float]]:
    """Each option is appended to its prompt; options of one token share the prompt's own pass."""
    vocab_size = bench.anatomy.vocab_size
    prompts = [token_ids(p, bench.tokenizer, context=bench.context, vocab_size=vocab_size) for p, _ in rows]
    options = [[_option(bench, text) for text in choices] for _, choices in rows]
    asked: list[list[int]] = []
    for prompt, texts in zip(prompts, options, strict=True):
        asked.extend([prompt] if all(len(o) == 1 for o in texts) else [prompt + o[:-1] for o in texts])
    runs = iter(bench.run(asked, plan, record=None))
    scores = []
    for prompt, texts in zip(prompts, options, strict=True):
        if all(len(option) == 1 for option in texts):
            log_p = next(runs).logits[-1].log_softmax(-1)
            scores.append([-float(log_p[option[0]]) for option in texts])
        else:
            scores.append([_loss(next(runs).logits[len(prompt) - 1 :], option) for option in texts])
    return scores


def _loss(logits: torch.Tensor, option: list[int]) -> float:
    log_p = logits.log_softmax(-1)
    return -float(sum(log_p[n, token] for n, token in enumerate(option)))


def _option(bench: Bench, text: str) -> list[int]:
    ids = list(bench.tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[misc]
    if not ids:
        raise PromptError("One of the choices is empty.", "Every choice needs at least one token.")
    return ids


def _chunks(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def _watched(chunks: list[Any], title: str) -> Iterator[Any]:
    from rich.progress import track

    yield from track(chunks, description=title)
