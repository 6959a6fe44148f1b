"""Builds the corpus: documents with labels and split, the tokenizer, and one token array per domain and split.

python -m data.recipe.corpus
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd

from data.recipe import folders, sources
from data.recipe.tokenizer import load_tokenizer, train_tokenizer

DOMAINS = ("prose-en", "prose-fr", "prose-de", "prose-es", "prose-ru", "python", "c", "arithmetic")
SPLITS = ("train", "validation", "test")


def split_of(text: str) -> str:
    """Split of a document by a hash of its text: 94 % train, 3 % validation, 3 % test."""
    bucket = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100
    return "train" if bucket < 94 else "validation" if bucket < 97 else "test"


def collect() -> pd.DataFrame:
    """All documents without repetitions: text, domain, language, source, licence, split."""
    frame = pd.DataFrame(sources.documents()).drop_duplicates("text", ignore_index=True)
    frame["licence"] = frame["source"].map(sources.LICENCES)
    frame["split"] = frame["text"].map(split_of)
    return frame


def build() -> None:
    """Writes documents.parquet, the tokenizer and ``tokens/<domain>.<split>.npz`` into the cache folder."""
    target = folders.corpus()
    (target / "tokens").mkdir(parents=True, exist_ok=True)
    frame = collect()
    frame.to_parquet(target / "documents.parquet")
    train_tokenizer(frame[frame["split"] == "train"], target / "tokenizer")
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
    build()
