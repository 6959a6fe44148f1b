"""The training stream: batch number s is a function of the seed and s alone, so that a restart needs no state.

A row is packed with documents and no token attends beyond its own document. Text rows take windows of real text from
all domains in equal shares, lesson rows take in-context documents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from data.recipe import folders
from data.recipe.configs import Config, interpolated
from data.recipe.corpus import DOMAINS
from data.recipe.lessons import Document, lesson

TRIES = 6  # documents looked at for the end of a row before one is cut
CONTEXT_WEIGHT = 0.1  # loss weight of lesson tokens that cannot be known beforehand
LESSON = len(DOMAINS)  # the domain number of lesson rows


@dataclass
class Batch:
    """``ids``, ``targets`` int64 and ``weights`` float32 [B, L]; additive ``mask`` [B, 1, L, L]; ``domain`` [B]."""

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor
    domain: torch.Tensor


class TextSource:
    """Windows of real text of one split, by domain."""

    def __init__(self, split: str) -> None:
        self.tokens: list[np.ndarray] = []
        self.ends: list[np.ndarray] = []
        for domain in DOMAINS:
            with np.load(folders.corpus() / "tokens" / f"{domain}.{split}.npz") as saved:
                self.tokens.append(saved["tokens"])
                self.ends.append(saved["ends"])

    def window(self, domain: int, rng: random.Random, longest: int) -> np.ndarray:
        """A window of at most ``longest`` tokens that starts anywhere and stays within one document."""
        tokens, ends = self.tokens[domain], self.ends[domain]
        start = rng.randrange(len(tokens) - 1)
        end = int(ends[np.searchsorted(ends, start, side="right")])
        return tokens[start : min(end, start + longest)]


class Stream:
    """Training batches by number."""

    def __init__(self, config: Config, tokenizer: PreTrainedTokenizerFast, split: str = "train") -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.text = TextSource(split)

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        config = self.config
        rng = random.Random(f"{config.seed}/{step}")
        progress = config.progress(step)
        length = config.row_length(step)
        rows = config.tokens_per_step // length
        lessons = round(interpolated(config.lesson_share, step) * rows)
        hard = interpolated(config.hard_tasks, step)
        packer = Packer(length)
        documents = self.documents(rng, progress, hard)
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for _ in range(lessons):
            packer.start(LESSON)
            fill(packer, documents, waiting)
        domains = [(step * (rows - lessons) + row) % len(DOMAINS) for row in range(rows - lessons)]
        for domain in domains:
            packer.start(domain)
            while not packer.full:
                ids = self.text.window(domain, rng, packer.room)
                packer.add(ids, np.ones(len(ids), dtype=np.float32))
        return packer.batch()

    def documents(
        self, rng: random.Random, progress: float, hard: float
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless lessons as token ids and loss weights."""
        while True:
            yield from self.encode([lesson(rng, progress, hard) for _ in range(48)])

    def encode(self, documents: list[Document]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Token ids and loss weights of lesson documents."""
        pieces = [piece for document in documents for piece in document]
        encoded = iter(self.tokenizer([text for text, _ in pieces])["input_ids"])
        result = []
        for document in documents:
            ids: list[int] = []
            weights: list[float] = []
            for _, scored in document:
                new = next(encoded)
                ids += new
                weights += [1.0 if scored else CONTEXT_WEIGHT] * len(new)
            result.append((np.array(ids), np.array(weights, dtype=np.float32)))
        return result


class Packer:
    """Packs documents into rows of ``length + 1`` tokens."""

    def __init__(self, length: int) -> None:
        self.width = length + 1
        self.ids: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []
        self.documents: list[np.ndarray] = []
        self.domains: list[int] = []
        self.filled = 0
        self.count = 0

    @property
    def room(self) -> int:
        """Free places in the current row."""
        return self.width - self.filled

    @property
    def full(self) -> bool:
        """Whether the current row is complete."""
        return self.room == 0

    def start(self, domain: int) -> None:
        """Opens a new row."""
        self.ids.append(np.zeros(self.width, dtype=np.int64))
        self.weights.append(np.zeros(self.width, dtype=np.float32))
        self.documents.append(np.zeros(self.width, dtype=np.int64))
        self.domains.append(domain)
        self.filled = 0
        self.count = 0

    def add(self, ids: np.ndarray, weights: np.ndarray) -> None:
        """Appends a document, cut at the end of the row; its first token has no context and is not scored."""
        take = min(len(ids), self.room)
        place = slice(self.filled, self.filled + take)
        self.ids[-1][place] = ids[:take]
        self.weights[-1][place] = weights[:take]
        self.weights[-1][self.filled] = 0.0
        self.documents[-1][place] = self.count
        self.filled += take
        self.count += 1

    def batch(self) -> Batch:
        """All rows as tensors."""
        ids, weights = torch.from_numpy(np.stack(self.ids)), torch.from_numpy(np.stack(self.weights))
        document = torch.from_numpy(np.stack(self.documents))[:, :-1]
        mask = document_mask(document)[:, None]
        return Batch(ids[:, :-1], ids[:, 1:], weights[:, 1:], mask, torch.tensor(self.domains))


def fill(
    packer: Packer,
    documents: Iterator[tuple[np.ndarray, np.ndarray]],
    waiting: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Fills the packer's row with whole documents as far as possible, since an answer cut off teaches nothing.

    A document that does not fit waits for the next row; after some tries the last one is cut.
    """
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for document in waiting:
        if len(document[0]) <= packer.room:
            packer.add(*document)
        else:
            kept.append(document)
    waiting[:] = kept
    tries = 0
    while not packer.full:
        document = next(documents)
        if packer.room < len(document[0]) <= packer.width and tries < TRIES:
            waiting.append(document)
            tries += 1
        else:
            packer.add(*document)


def document_mask(document: torch.Tensor) -> torch.Tensor:
    """Additive attention mask [B, L, L] from document numbers [B, L]: earlier tokens of the same document are seen."""
    visible = (document[:, :, None] == document[:, None, :]).tril()
    return torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
