"""Checks that no held-out item is asked in the training stream, from the texts of both alone.

    python -m data.recipe.contamination demo --steps 2000

The content of a question is its symbols and digits in order, whatever the wording, with its answer. Every place in a lesson
at which an answer is scored is a question: over everything that stands before it, and over the document's facts with the
last query.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import numpy as np

from data.recipe import folders
from data.recipe.configs import CONFIGS
from data.recipe.corpus import DOMAINS, SPLITS
from data.recipe.lessons import Document
from data.recipe.stream import Stream
from data.recipe.tokenizer import load_tokenizer
from workbench import tasks
from workbench.tasks.symbols import ALL, ANSWER_MARK
from workbench.tasks.wording import VARIANTS, WORDINGS

HELD_OUT = ("reference", "validation", "test", "shift")
ASKS = tuple(WORDINGS[variant].ask for variant in VARIANTS)


def content(text: str) -> str:
    """Symbols, digits and signs of a text in order, without its wording."""
    return "".join(re.findall(r"</?\w+>|[\d+]", text.replace(ANSWER_MARK, "")))


def held_out(splits: tuple[str, ...] = HELD_OUT, n: int | None = None) -> set[str]:
    """Contents of all items of the splits, at the default sizes or ``n`` a level."""
    return {
        content(item.prompt.split(":", 1)[1] + item.answer)
        for name in tasks.names()
        for split in splits
        for item in tasks.load(name, split=split, n=n).itertuples()
    }


def questions(document: Document) -> Iterator[str]:
    """Contents of all questions of a lesson."""
    facts = query = before = ""
    for text, scored in document:
        if not before and ":" in text:  # the prompt of a task: heading, facts, query
            text = text.split(":", 1)[1]
            ask = max(text.rfind(one) for one in ASKS)
            facts, query = text[:ask], text[ask:]
        elif scored:
            yield content(before + text)
            if facts:
                yield content(facts + query + text)
        elif facts:
            query = text
        before += text


class Listening(Stream):
    """A training stream that keeps the documents of its batches."""

    heard: list[Document]

    def encode(self, documents: list[Document]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As the stream does, and keeps the documents."""
        self.heard = getattr(self, "heard", []) + documents
        return super().encode(documents)


def asked(name: str, steps: range) -> Iterator[str]:
    """Contents of all questions in some training steps of a configuration (and of some lessons drawn and not used)."""
    stream = Listening(CONFIGS[name], load_tokenizer())
    for step in steps:
        stream.heard = []
        stream.batch(step)
        for document in stream.heard:
            yield from questions(document)


def texts_with_symbols() -> int:
    """Text tokens of the corpus that happen to be spelt like symbols of the tasks (a tag, an operator)."""
    tokenizer = load_tokenizer()
    symbols = tokenizer.convert_tokens_to_ids(list(ALL))
    count = 0
    for domain in DOMAINS:
        for split in SPLITS:
            with np.load(folders.corpus() / "tokens" / f"{domain}.{split}.npz") as saved:
                count += int(np.isin(saved["tokens"], symbols).sum())
    return count


def main() -> None:
    """Command line; fails where a held-out item was asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(CONFIGS))
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    known = held_out()
    seen = total = 0
    for question in asked(options.name, range(options.steps)):
        total += 1
        seen += question in known
    print(f"{len(known):,} held-out items, {total:,} questions in {options.steps:,} steps: {seen} in both")
    print(f"{texts_with_symbols()} tokens of the texts are spelt like a task symbol")
    raise SystemExit(seen > 0)


if __name__ == "__main__":
    main()
