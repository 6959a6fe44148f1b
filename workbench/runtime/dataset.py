"""Recording a data set: documents stream through the model until a budget of tokens is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.progress import Progress

from workbench.errors import PromptError
from workbench.interventions import Plan
from workbench.runtime.prompts import token_ids
from workbench.runtime.record import Record

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

AT_ONCE = 4096
"""Tokens that are gathered, padding included, before they are run."""

TokenLabels: TypeAlias = Callable[[Sequence[str]], Mapping[str, Sequence[Any]]]
"""From the texts of a document's tokens to labels of them: by name, one a token, ``None`` for no label."""


@dataclass(frozen=True)
class Recorded:
    """What was recorded: the runs in order, and how many documents and tokens they hold."""

    runs: tuple[int, ...]
    documents: int
    tokens: int


@dataclass(frozen=True)
class _Part:
    """A stretch of a document that fits the context."""

    ids: list[int]
    labels: dict[str, Any]
    token_labels: dict[str, Sequence[Any]]


def record_dataset(
    bench: Bench, dataset: Iterable[Any], *, tokens: int | None, plan: Plan, record: Record,
    token_labels: TokenLabels | None, progress: bool,
) -> Recorded:  # fmt: skip
    """See :meth:`workbench.runtime.bench.Bench.record`."""
    if tokens is not None and tokens < 1:
        raise PromptError(
            f"A budget of {tokens} tokens holds nothing.", "Give at least one token, or no budget."
        )
    runs: list[int] = []
    documents: set[int] = set()
    spent = 0
    with Progress(disable=not progress) as bar:
        task = bar.add_task("tokens", total=tokens)
        for batch in _batches(_parts(bench, dataset, token_labels), tokens):
            made = bench.run(
                [part.ids for part in batch], plan=plan, record=record, labels=[part.labels for part in batch]
            )
            for part, run in zip(batch, made, strict=True):
                _write_token_labels(bench, run.id, part)
                runs.append(run.id)
                documents.add(part.labels["document"])
            counted = sum(len(part.ids) for part in batch)
            spent += counted
            bar.advance(task, counted)
    return Recorded(tuple(runs), len(documents), spent)


def _parts(bench: Bench, dataset: Iterable[Any], token_labels: TokenLabels | None) -> Iterator[_Part]:
    """Every document in stretches that fit the context; the labels say which document and which part."""
    for number, item in enumerate(_rows(dataset)):
        prompt, labels, given = _document(item, number)
        ids = token_ids(prompt, bench.tokenizer, context=None, vocab_size=bench.anatomy.vocab_size)
        marked = {name: list(values) for name, values in given.items()}
        if token_labels is not None:
            marked |= {name: list(v) for name, v in token_labels([bench.token_text(i) for i in ids]).items()}
        for name, values in marked.items():
            if len(values) != len(ids):
                raise PromptError(
                    f"Document {number} has {len(ids)} tokens, but {len(values)} labels {name!r}.",
                    "Give one label a token, None for none.",
                )
        size = bench.context or max(1, len(ids))
        for part, start in enumerate(range(0, len(ids), size)):
            stretch = slice(start, start + size)
            yield _Part(
                ids[stretch], {"document": number, "part": part, **labels},
                {name: values[stretch] for name, values in marked.items()},
            )  # fmt: skip


def _rows(dataset: Iterable[Any]) -> Iterable[Any]:
    """Items of an iterable, or the rows of a frame."""
    to_dict = getattr(dataset, "to_dict", None)
    return to_dict("records") if to_dict is not None and hasattr(dataset, "columns") else dataset


def _document(item: Any, number: int) -> tuple[Any, dict[str, Any], Mapping[str, Sequence[Any]]]:
    """Prompt, labels and token labels of one item of a data set."""
    if not isinstance(item, Mapping):
        return item, {}, {}
    name = next((name for name in ("text", "tokens", "prompt") if name in item), None)
    if name is None:
        raise PromptError(
            f"Document {number} has none of the fields text, tokens and prompt.", "Name one of its fields so."
        )
    labels = dict(item.get("labels") or {})
    labels |= {key: value for key, value in item.items() if key not in (name, "labels", "token_labels")}
    return item[name], labels, item.get("token_labels") or {}


def _batches(parts: Iterator[_Part], budget: int | None) -> Iterator[list[_Part]]:
    """Parts in groups of about :data:`AT_ONCE` tokens, cut off where the budget ends."""
    batch: list[_Part] = []
    left = budget
    for part in parts:
        if left is not None:
            if left == 0:
                break
            if len(part.ids) > left:
                kept = {name: values[:left] for name, values in part.token_labels.items()}
                part = _Part(part.ids[:left], part.labels, kept)
            left -= len(part.ids)
        longest = max(len(one.ids) for one in (*batch, part))
        if batch and longest * (len(batch) + 1) > AT_ONCE:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


def _write_token_labels(bench: Bench, run: int, part: _Part) -> None:
    for name, values in part.token_labels.items():
        at = [n for n, value in enumerate(values) if value is not None]
        if at:
            bench.store.write(
                "token_label",
                {"run": run, "position": at, "label": name, "value": [str(values[n]) for n in at]},
            )
