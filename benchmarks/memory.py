"""Memory while a long recording goes on: resident megabytes over recorded tokens, as JSON.

    python benchmarks/memory.py [--tokens 1000000] [--points 20] [--memory 256] [--folder DIR]

A small random MoE (3 layers, 8 experts, 2 a token) records documents of 512 tokens into a store file with ``wb.Record()``,
as ``bench.record`` does. After each part everything is committed and the resident memory read. The figure is what the
second half of the tokens added to it: the mean of the last quarter less that of the second. DuckDB keeps what it wrote of
the file in memory until it holds ``--memory`` MiB (a quarter of the machine's memory unless a store is opened otherwise), so
that this is told beside. Every point is told on stderr as it comes.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surroundings import figure, publish

# isort: split
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.store import Store

SMALL: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
}  # fmt: skip
DOCUMENT = 512


def resident() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def documents(tokens: int, seed: int) -> Iterator[list[int]]:
    """Random token ids, ``tokens`` in all."""
    random = torch.Generator().manual_seed(seed)
    while tokens > 0:
        yield torch.randint(2, 500, (min(DOCUMENT, tokens),), generator=random).tolist()
        tokens -= DOCUMENT


def measure(tokens: int, points: int, memory: int, folder: Path) -> list[dict[str, float]]:
    """Resident memory, what of it is DuckDB's, and size of the file after each of ``points`` equal parts of ``tokens``, warm
    from one part before."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmoe", **SMALL)).eval()
    found = []
    path = folder / "long.duckdb"
    with Store.open(path, memory=memory * 2**20) as store, wb.open(model, store=path) as bench:
        for point in range(points + 1):
            bench.record(documents(tokens // points, point))
            bench.store.flush()
            gc.collect()
            held = store.sql("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()[0][0]
            row = {
                "tokens": point * (tokens // points),
                "resident": round(resident(), 1),
                "duckdb": round(held / 2**20, 1),
                "file": round(path.stat().st_size / 2**20, 1),
            }
            found.append(row)
            print(f"  {row['tokens']:>9,} tokens: {row['resident']:8.1f} MB in memory, {row['duckdb']:8.1f} MB of it "
                  f"DuckDB's, {row['file']:8.1f} MB of file", file=sys.stderr, flush=True)  # fmt: skip
    return found


def added(rows: list[dict[str, float]], what: str) -> float:
    """Megabytes that the second half of the tokens added, by means over quarters: single points differ by what DuckDB
    happens to hold."""
    quarter = (len(rows) - 1) // 4
    second, last = rows[quarter + 1 : 2 * quarter + 1], rows[-quarter:]
    return statistics.mean(row[what] for row in last) - statistics.mean(row[what] for row in second)


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--memory", type=int, default=256, help="MiB that DuckDB may hold")
    parser.add_argument(
        "--folder", help="where the store is made, and removed again; the system's temporary folder"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        rows = measure(asked.tokens, asked.points, asked.memory, Path(folder))
    grown = added(rows, "resident")
    cached = added(rows, "duckdb")
    where = f"{asked.tokens:,} tokens, 3 layers, 8 experts, 2 a token, a store of {asked.memory} MiB"
    figures = [
        figure("memory added by the second half", where, grown, "MB", "<= 32"),
        figure("memory added by the second half but for DuckDB's", where, grown - cached, "MB"),
        figure("memory at the end", where, rows[-1]["resident"], "MB"),
        figure("bytes of file a token", where, rows[-1]["file"] * 2**20 / max(1, rows[-1]["tokens"]), "B"),
    ]
    publish("memory", figures, points=rows)


if __name__ == "__main__":
    main()
