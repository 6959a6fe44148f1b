"""Builds the corpus: documents with labels and split, the tokenizer, and one token array per domain and split.

python -m data.recipe.corpus
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from data.recipe import folders, sources
from data.recipe.tokenizer import load_tokenizer, train_tokenizer

DOMAINS = ("prose-en", "prose-fr", "prose-de", "prose-es", "prose-ru", "python", "c", "arithmetic")
SPLITS = ("train", "validation", "test")
DEMO = Path(__file__).resolve().parents[1] / "demo"
PARAGRAPH = 30  # characters; shorter lines are headings, which may repeat


def split_of(text: str) -> str:
    """Split of a document by a hash of its text: 94 % train, 3 % validation, 3 % test."""
    bucket = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100
    return "train" if bucket < 94 else "validation" if bucket < 97 else "test"


def collect() -> pd.DataFrame:
    """All documents without repetitions: text, domain, language, source, licence, split."""
    frame = pd.DataFrame(sources.documents()).drop_duplicates("text", ignore_index=True)
    frame["licence"] = frame["source"].map(sources.LICENCES)
    frame["split"] = frame["text"].map(split_of)
    frame["text"] = without_repetitions(frame)
    return frame[frame["text"].str.len() >= sources.SHORTEST].reset_index(drop=True)


def without_repetitions(frame: pd.DataFrame) -> pd.Series:
    """The texts without paragraphs of natural language that an earlier document of the same domain had.

    Manual pages end in the same notes on licence and translation, whose loss says nothing about a model. Paragraphs
    that differ in numbers alone count as the same; code repeats itself by nature and is left as it is.
    """
    owners: dict[tuple[str, str], int] = {}
    texts = []
    for number, (text, domain) in enumerate(zip(frame["text"], frame["domain"], strict=True)):
        lines = text.splitlines(keepends=True)
        if domain.startswith("prose"):
            keys = [(domain, re.sub(r"\d+", "0", " ".join(line.split()))) for line in lines]
            lines = [
                line
                for line, key in zip(lines, keys, strict=True)
                if len(key[1]) < PARAGRAPH or owners.setdefault(key, number) == number
            ]
        texts.append("".join(lines))
    return pd.Series(texts, index=frame.index)


def build(*, renew_tokenizer: bool) -> None:
    """Writes documents.parquet, the tokenizer and ``tokens/<domain>.<split>.npz`` into the cache folder.

    The tokenizer is the committed model's own, so that all models of the recipe share one, unless it is renewed.
    """
    target = folders.corpus()
    (target / "tokens").mkdir(parents=True, exist_ok=True)
    frame = collect()
    frame.to_parquet(target / "documents.parquet")
    if renew_tokenizer:
        train_tokenizer(frame[frame["split"] == "train"], target / "tokenizer")
    else:
        (target / "tokenizer").mkdir(exist_ok=True)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(DEMO / file, target / "tokenizer" / file)
    tokenizer = load_tokenizer()
    counts = []
    for domain in DOMAINS:
        for split in SPLITS:
            texts = frame.loc[(frame["domain"] == domain) & (frame["split"] == split), "text"].tolist()
            encoded = [
                np.array(ids + [tokenizer.eos_token_id], dtype=np.uint16)
                for ids in tokenizer(texts)["input_ids"]
            ]
            ends = np.cumsum([len(ids) for ids in encoded])
            np.savez(target / "tokens" / f"{domain}.{split}.npz", tokens=np.concatenate(encoded), ends=ends)
            counts.append(
                {"domain": domain, "split": split, "documents": len(texts), "tokens": int(ends[-1])}
            )
    table = pd.DataFrame(counts)
    licences = frame.groupby(["source", "licence"])["text"].agg(
        documents="count", characters=lambda s: int(s.str.len().sum())
    )
    summary = {"tokens": table.to_dict("records"), "sources": licences.reset_index().to_dict("records")}
    (target / "summary.json").write_text(json.dumps(summary, indent=1))
    print(table.pivot(index="domain", columns="split", values="tokens"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--renew-tokenizer", action="store_true", help="train the tokenizer anew on this corpus"
    )
    build(renew_tokenizer=parser.parse_args().renew_tokenizer)
