"""Scoring a model on items with a known answer, under several plans, item by item so that plans can be paired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.errors import EditRefused, PlanError, PromptError, WorkbenchError
from workbench.interventions import Plan
from workbench.runtime.attach import device_of
from workbench.runtime.hooks.depth import depth_key
from workbench.runtime.passes import Pass
from workbench.runtime.prompts import token_ids
from workbench.runtime.resume import Prompts, first_edited, go_on, read_prompts, resume

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

NEEDED = ("prompt", "answer", "choices")
_TOKENS = 8192
"""Most tokens of a pass over whole prompts, with padding."""
_CONTEXT = 16_384
"""Most tokens that the rows of a pass over last tokens look back at, together: it bounds the keys and values held."""

Plans: TypeAlias = Sequence[Plan]
Done: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class _Item:
    """Token ids of a prompt and of its options."""

    prompt: list[int]
    options: list[list[int]]

    @property
    def single(self) -> bool:
        return all(len(option) == 1 for option in self.options)

    @property
    def computed(self) -> int:
        """Tokens read to score the longest option: all but its last."""
        return len(self.prompt) + max(len(option) for option in self.options) - 1


@dataclass(frozen=True)
class _Cell:
    """One item under one plan."""

    item: int
    column: int
    plan: Plan


def evaluate(
    bench: Bench,
    items: pd.DataFrame,
    plans: Sequence[Plan | Sequence[Plan]],
    score: Literal["choices"] = "choices",
    progress: bool = False,
) -> pd.DataFrame:
    """One row per plan and item.

    Parameters
    ----------
    items
        Columns ``prompt``, ``answer`` and ``choices`` (the options, among them the answer); others are kept.
    plans
        Every item is scored under every plan. In place of one plan for all items there may be a list of one plan per
        item, in the order of ``items``.
    score
        ``choices``: the prediction is the option of the highest log-likelihood after the prompt (summed over its tokens).
    progress
        Show a progress bar.

    Returns
    -------
    The items' own columns and ``item`` (row number in ``items``), ``plan_number``, ``plan`` (hash), ``gold``,
    ``prediction``, ``correct``, and ``losses``: the negative log-likelihood in nats of every option, in the order of
    ``choices``.

    Notes
    -----
    The options stand behind the prompt: ``prompt_last`` is the last token of the prompt, and the tokens of an option count
    as generated. Where plans edit nothing before the last token of the prompt, the prompts are read once and only the last
    token is run again for each of these plans, through the layers from the first edited one on.
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
    columns = [_per_item(plan, len(items)) for plan in plans]
    encoded = _encode(bench, items)
    _check(bench, encoded, columns)
    losses: list[list[list[float]]] = [[[] for _ in encoded] for _ in columns]
    cells = [_Cell(n, c, plan) for c, column in enumerate(columns) for n, plan in enumerate(column)]
    with _counter(len(cells), progress) as done, bench.running():
        for found in _scored(bench, encoded, cells):
            for cell, values in found:
                losses[cell.column][cell.item] = values
            done(len(found))
    tables = [_table(items, losses[c], c, column) for c, column in enumerate(columns)]
    return pd.concat(tables, ignore_index=True)


def _per_item(plan: Plan | Sequence[Plan], count: int) -> Plans:
    if isinstance(plan, Plan):
        return [plan] * count
    if len(plan) != count:
        raise PlanError(f"There are {len(plan)} plans for {count} items.", "Give one plan per item.")
    return plan


def _encode(bench: Bench, items: pd.DataFrame) -> list[_Item]:
    vocab = bench.anatomy.vocab_size
    return [
        _Item(
            token_ids(prompt, bench.tokenizer, context=bench.context, vocab_size=vocab),
            [_option(bench, text) for text in choices],
        )
        for prompt, choices in zip(items["prompt"], items["choices"], strict=True)
    ]


def _option(bench: Bench, text: str) -> list[int]:
    ids = list(bench.tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[misc]
    if not ids:
        raise PromptError("One of the choices is empty.", "Every choice needs at least one token.")
    return ids


def _check(bench: Bench, items: list[_Item], columns: list[Plans]) -> None:
    """Every plan against every length it meets, once."""
    seen: set[tuple[int, int, int]] = set()
    for column in columns:
        for item, plan in zip(items, column, strict=True):
            case = (id(plan), len(item.prompt), item.computed)
            if case in seen:
                continue
            seen.add(case)
            for edit in plan.active:
                if edit.rows != "all":
                    raise EditRefused(
                        f"{edit.kind} is scoped to rows, which number the prompts of one bench.run.",
                        "Give a list of one plan per item instead.",
                    )
            if bench.context is not None and item.computed > bench.context:
                raise PromptError(
                    f"A prompt with its option has {item.computed} tokens, but the model takes {bench.context}.",
                    "Leave that item out.",
                )
            bench.check(plan, len(item.prompt), item.computed)


def _table(items: pd.DataFrame, losses: list[list[float]], number: int, plans: Plans) -> pd.DataFrame:
    table = items.reset_index(drop=True)
    table.insert(0, "item", np.arange(len(table)))
    hashes = {id(plan): plan.hash for plan in plans}
    table["plan_number"], table["plan"] = number, [hashes[id(plan)] for plan in plans]
    table["gold"] = table["answer"]
    table["prediction"] = [
        list(choices)[int(np.argmin(loss))] for choices, loss in zip(table["choices"], losses, strict=True)
    ]
    table["correct"] = table["prediction"] == table["gold"]
    table["losses"] = losses
    return table


# Passes


def _scored(
    bench: Bench, items: list[_Item], cells: list[_Cell]
) -> Iterator[list[tuple[_Cell, list[float]]]]:
    """Losses of all cells, batch by batch."""
    whole: list[_Cell] = []
    at_last: dict[int, dict[int, list[tuple[_Cell, int]]]] = {}
    layers = bench.anatomy.num_layers
    known: dict[tuple[int, int], int | None] = {}
    for cell in cells:
        length = len(items[cell.item].prompt)
        case = (id(cell.plan), length)
        if case not in known:
            known[case] = first_edited(cell.plan, bench.anatomy, length)
        first = known[case]
        if first is None:
            whole.append(cell)
        else:
            at_last.setdefault(length, {}).setdefault(cell.item, []).append((cell, first))
    # Without an edit at the last token there is nothing to share, and padded batches of all lengths are quicker.
    if all(first in (None, layers) for first in known.values()):
        whole, at_last = cells, {}
    for length in sorted(at_last):
        numbers = sorted(at_last[length])
        for start in range(0, len(numbers), max(1, _TOKENS // length)):
            batch = numbers[start : start + max(1, _TOKENS // length)]
            prompts = read_prompts(bench, torch.tensor([items[n].prompt for n in batch]))
            if prompts is None:
                whole.extend(cell for n in batch for cell, _ in at_last[length][n])
                continue
            asked = [(row, cell, first) for row, n in enumerate(batch) for cell, first in at_last[length][n]]
            yield from _resumed(bench, items, prompts, asked)
    yield from _read_whole(bench, items, whole)


def _resumed(
    bench: Bench, items: list[_Item], prompts: Prompts, asked: list[tuple[int, _Cell, int]]
) -> Iterator[list[tuple[_Cell, list[float]]]]:
    """Cells whose plans edit nothing before the last token: (row of ``prompts``, cell, first edited layer)."""
    # Rows of one plan stand together: every plan of a batch costs its own operations at each site.
    asked = sorted(asked, key=lambda one: (one[2], items[one[1].item].single, one[1].column))
    start = 0
    while start < len(asked):
        _, cell, first = asked[start]
        single = items[cell.item].single
        spread = 1 if single else max(len(items[c.item].options) for _, c, _ in asked[start:])
        most = max(1, _CONTEXT // (prompts.length * spread))
        batch = [
            one
            for one in asked[start : start + most]
            if one[2] == first and items[one[1].item].single == single
        ]
        start += len(batch)
        rows, plans = [row for row, _, _ in batch], [cell.plan for _, cell, _ in batch]
        logits, cache = resume(bench, prompts, rows, plans, first, going_on=not single)
        chosen = [items[cell.item] for _, cell, _ in batch]
        found = _option_losses(bench, logits.log_softmax(-1), cache, chosen, plans, prompts.length)
        yield [(cell, losses) for (_, cell, _), losses in zip(batch, found, strict=True)]


def _option_losses(
    bench: Bench, after_prompt: Tensor, cache: Any, items: list[_Item], plans: Plans, length: int
) -> list[list[float]]:
    """Losses of all options of each item, from the log-probabilities after its prompt [R, V] and the cache."""
    losses = [
        [-float(after_prompt[row, option[0]]) for option in item.options] for row, item in enumerate(items)
    ]
    width = max(len(option) for item in items for option in item.options) - 1
    if width:
        places = [(row, n) for row, item in enumerate(items) for n in range(len(item.options))]
        ids = torch.zeros(len(places), width, dtype=torch.int64)
        for place, (row, n) in enumerate(places):
            fed = items[row].options[n][:-1]
            ids[place, : len(fed)] = torch.tensor(fed, dtype=torch.int64)
        cache.batch_select_indices(torch.tensor([row for row, _ in places], device=device_of(bench.model)))
        log_p = go_on(bench, cache, ids, [plans[row] for row, _ in places], length).log_softmax(-1)
        for place, (row, n) in enumerate(places):
            for step, token in enumerate(items[row].options[n][1:]):
                losses[row][n] -= float(log_p[place, step, token])
    return losses


def _read_whole(
    bench: Bench, items: list[_Item], cells: list[_Cell]
) -> Iterator[list[tuple[_Cell, list[float]]]]:
    """Cells whose plans hold for earlier tokens: prompt and option are read together, in padded batches."""
    groups: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        groups.setdefault(depth_key(cell.plan, bench.anatomy), []).append(cell)
    for group in groups.values():
        group.sort(key=lambda cell: items[cell.item].computed)
        while group:
            batch: list[_Cell] = []
            rows = width = 0
            for cell in group:
                item = items[cell.item]
                width = max(width, item.computed)
                rows += 1 if item.single else len(item.options)
                if batch and rows * width > _TOKENS:
                    break
                batch.append(cell)
            del group[: len(batch)]
            yield list(
                zip(
                    batch,
                    _whole(bench, [items[c.item] for c in batch], [c.plan for c in batch]),
                    strict=True,
                )
            )


def _whole(bench: Bench, items: list[_Item], plans: Plans) -> list[list[float]]:
    """Losses of all options of each item; options of one token share the prompt's own row."""
    device = device_of(bench.model)
    texts, owners = [], []
    for number, item in enumerate(items):
        options: list[list[int]] = [[]] if item.single else [option[:-1] for option in item.options]
        texts += [item.prompt + option for option in options]
        owners += [number] * len(options)
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    valid = torch.arange(ids.shape[1]) < lengths.unsqueeze(-1)
    padded = not bool(valid.all())
    prompt = torch.tensor([len(items[owner].prompt) for owner in owners], device=device)
    positions = torch.arange(ids.shape[1], device=device).expand(ids.shape)
    mask = {"attention_mask": valid.to(device).long()} if padded else {}
    now = Pass(0, positions, valid.to(device) if padded else None, prompt, ids.to(device))
    with bench.session([plans[owner] for owner in owners], None, [{}] * len(owners)) as session:
        session.begin(now)
        output = bench.model(input_ids=now.tokens, use_cache=False, **mask)
    losses: list[list[float]] = [[] for _ in items]
    for row, owner in enumerate(owners):
        item = items[owner]
        start = len(item.prompt) - 1
        log_p = output.logits[row, start : int(lengths[row])].float().cpu().log_softmax(-1)
        if item.single:
            losses[owner] = [-float(log_p[0, option[0]]) for option in item.options]
        else:
            option = item.options[len(losses[owner])]
            losses[owner].append(-float(sum(log_p[n, token] for n, token in enumerate(option))))
    return losses


class _counter:
    """A progress bar over ``total`` items, or nothing; gives a function that counts finished ones."""

    def __init__(self, total: int, shown: bool) -> None:
        self._total, self._shown = total, shown
        self._bar: Any = None

    def __enter__(self) -> Done:
        if not self._shown:
            return lambda _: None
        from rich.progress import Progress

        self._bar = Progress()
        self._bar.start()
        task = self._bar.add_task("items x plans", total=self._total)
        return lambda count: self._bar.advance(task, count)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
