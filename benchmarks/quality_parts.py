"""What the benchmarks of quality share: held-out texts and items, one plan measured on them, and how sure a number is."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import workbench as wb

RECORD = wb.Record(contribution=False, sparsity=False, attention_rank=False)
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md")
"""English prose that no model was trained on: the project's own pages."""
DRAWS = 2000
"""Bootstrap resamples."""


@dataclass(frozen=True)
class Ground:
    """What every plan is measured on: texts as token ids, items with a checkable answer, continuations, and texts that
    nothing else uses, for calibration. ``timed`` texts measure the time."""

    texts: list[list[int]]
    items: pd.DataFrame
    continuations: pd.DataFrame
    calibration: list[list[int]]
    timed: list[list[int]]


@dataclass(frozen=True)
class Outcome:
    """One plan on the ground: loss in nats and tokens of each text [texts], each item right or wrong [items; none where the
    plan acts on generated tokens alone], share of the work that was done, and time over that of the bare model. ``kept`` is
    what a mask of the attention map kept: mean density, recall and error."""

    loss: np.ndarray
    tokens: np.ndarray
    right: np.ndarray
    work: float | None
    time: float
    kept: dict[str, float]


def ground(bench: Any, texts: int, tokens: int, items: int) -> Ground:
    """Half of the texts are held-out task items joined together, half are prose; ``items`` of a middling level of each task
    with one-token options."""
    lessons = _lessons(bench, texts + 8, tokens)
    prose = _prose(bench, texts + 8, tokens)
    both = [text for pair in zip(lessons, prose, strict=True) for text in pair]
    chosen = both[:texts]
    levels = wb.tasks.usable()
    frames = []
    for task, rows in levels.groupby("task"):
        if wb.tasks.describe().set_index("task").loc[task, "free_form"].any():
            continue
        middle = rows.iloc[(rows["corrected"] - 0.6).abs().argmin()]
        frames.append(wb.tasks.load(str(task), split="test", level=int(middle["level"]), n=items))
    half = tokens // 4
    going = pd.DataFrame([
        {"prompt": bench.tokenizer.decode(ids[:half]), "answer": rest, "choices": [rest]}
        for ids in chosen for rest in [bench.tokenizer.decode(ids[half:])]
    ])  # fmt: skip
    return Ground(chosen, pd.concat(frames, ignore_index=True), going, both[-8:], chosen[:3])


def _lessons(bench: Any, count: int, tokens: int) -> list[list[int]]:
    frames = [wb.tasks.load(name, split="validation", level=1, n=4 * count) for name in wb.tasks.names()]
    joined: list[int] = []
    row = 0
    while len(joined) < count * tokens:
        for frame in frames:
            item = frame.iloc[row % len(frame)]
            joined += bench.token_ids(str(item["prompt"]) + str(item["answer"]))
        row += 1
    return [joined[n * tokens : (n + 1) * tokens] for n in range(count)]


def _prose(bench: Any, count: int, tokens: int) -> list[list[int]]:
    """Windows of the pages without tables, code and marks; they overlap where the pages are too short."""
    here = Path(__file__).resolve().parent.parent
    found: list[int] = []
    for page in PAGES:
        text = (here / page).read_text(encoding="utf-8")
        text = re.sub(r"```.*?```|<details>.*?</details>|<!--.*?-->", "", text, flags=re.DOTALL)
        kept = [line for line in text.splitlines() if not line.startswith(("|", "#"))]
        words = re.sub(r"[`*]", "", " ".join(kept)).split()
        for start in range(0, len(words), 100):  # a tokenizer may not take more than the context
            found += bench.token_ids(" ".join(words[start : start + 100]) + " ")
    step = max(1, (len(found) - tokens) // count)
    return [found[n * step : n * step + tokens] for n in range(count)]


def measure(
    bench: Any, on: Ground, edit: Any, op: str | None, layers: int | None = None, grows: bool = False
) -> Outcome:
    """``edit`` on the ground. ``op`` names the rows of work; ``layers`` are those that may have such rows, where the layers
    that an edit does not touch have none. With ``grows`` the loss is that of continuations, whose tokens count as
    generated."""
    if grows:
        scored = bench.evaluate(on.continuations, plans=[edit])
        loss = np.array([losses[0] for losses in scored["losses"]])
        tokens = np.array([len(bench.token_ids(text)) for text in on.continuations["answer"]])
    else:
        runs = bench.run(on.texts, edit, record=RECORD)
        tokens = np.array([len(run.tokens) - 1 for run in runs])
        loss = np.array([run.loss for run in runs]) * tokens
    right = (
        np.zeros(0, dtype=bool)
        if grows
        else bench.evaluate(on.items, plans=[edit])["correct"].to_numpy(dtype=bool)
    )
    work = (
        None
        if op is None or edit is None
        else _work(bench, on, edit, op, layers, grows, [] if grows else runs)
    )
    kept = _kept(bench, runs) if op == "attention_blocks" else {}
    return Outcome(loss, tokens, right, work, _time(bench, on, edit, grows), kept)


def _kept(bench: Any, runs: list[Any]) -> dict[str, float]:
    found = bench.sql(
        "SELECT avg(density), avg(recall), avg(error) FROM attention_mask WHERE list_contains(?, run)",
        [[run.id for run in runs]],
    ).fetchone()
    return {} if found[0] is None else dict(zip(("density", "recall", "error"), found, strict=True))


def work_of(bench: Any, on: Ground, edit: Any, op: str | None, layers: int | None) -> float | None:
    """Share of the work that ``edit`` does on the timed texts."""
    if op is None:
        return None
    return _work(bench, on, edit, op, layers, False, bench.run(on.timed, edit, record=RECORD))


def _work(
    bench: Any, on: Ground, edit: Any, op: str, layers: int | None, grows: bool, runs: list[Any]
) -> float:
    """Share of the units of ``op`` that were done, counted in the store."""
    if grows:
        prompt = on.texts[0][: len(on.texts[0]) // 4]
        runs = [bench.generate(prompt, len(on.texts[0]) - len(prompt), edit, record=RECORD)]
    first = 1 if grows else 0
    done, left, touched = bench.sql(
        "SELECT sum(executed), sum(skipped), count(DISTINCT layer) FROM cost "
        "WHERE list_contains(?, run) AND op = ? AND step >= ?",
        [[run.id for run in runs], op, first],
    ).fetchone()
    if done is None:
        return 1.0
    tokens = sum(len(run.tokens) - (run.prompt_tokens + 1 if grows else 0) for run in runs)
    others = 0 if layers is None else (layers - touched) * tokens
    return float((done + others) / (done + left + others))


def _time(bench: Any, on: Ground, edit: Any, grows: bool) -> float:
    """Processor time of this thread for the timed texts over that without the edit, the less of two turns each."""
    if grows:
        return float("nan")
    spent: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(2):
        for bare in (True, False):
            started = time.thread_time()
            bench.run(on.timed, None if bare else edit, record=None)
            spent[bare].append(time.thread_time() - started)
    return min(spent[False]) / min(spent[True])


def change(one: Outcome, others: list[Outcome], seed: int = 0) -> tuple[float, float, float]:
    """Mean loss of ``one`` minus the mean of ``others`` in nats a token, with its 95 % interval over texts (paired)."""
    other = np.mean([outcome.loss for outcome in others], axis=0)
    return _interval(one.loss - other, one.tokens, seed)


def points(one: Outcome, others: list[Outcome], seed: int = 0) -> tuple[float, float, float]:
    """Accuracy of ``one`` minus the mean of ``others``, with its 95 % interval over items (paired)."""
    other = np.mean([outcome.right for outcome in others], axis=0)
    return _interval(one.right - other, np.ones(len(one.right)), seed)


def _interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float, float]:
    """A ratio of sums with its percentile-bootstrap interval over units."""
    if not len(sums):
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    ratios = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(sums.sum() / sizes.sum()), float(low), float(high)
