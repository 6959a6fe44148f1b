"""Memory while a long recording goes on: resident megabytes over recorded tokens, as JSON.

    python benchmarks/memory.py [--tokens 1000000] [--points 20] [--before 1000000] [--memory 256] [--folder DIR]

A small random MoE (3 layers, 8 experts, 2 a token) records documents of 512 tokens into a store file with ``wb.Record()``,
as ``bench.record`` does. After each part everything is committed and the resident memory read, less what the C library keeps
of what was let go. The figure is what the second half of the tokens added to it: the mean of the last quarter less that of
the second. DuckDB keeps what it wrote of the file in memory until it holds its share of ``--memory`` MiB (a quarter of the
machine's memory unless a store is opened otherwise), so ``--before`` tokens are recorded first, and what DuckDB holds is
told beside. It rises and falls by tens of megabytes, most of all with every 8 M choices, when sums over a block of runs are
made. Every point is told on stderr as it comes.
"""

from __future__ import annotations

import argparse
import ctypes
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
    """Megabytes of this process in memory, once glibc has given back what nobody holds."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def documents(tokens: int, seed: int) -> Iterator[list[int]]:
    """Random token ids, ``tokens`` in all."""
    random = torch.Generator().manual_seed(seed)
    while tokens > 0:
        yield torch.randint(2, 500, (min(DOCUMENT, tokens),), generator=random).tolist()
        tokens -= DOCUMENT


def measure(tokens: int, points: int, before: int, memory: int, folder: Path) -> list[dict[str, float]]:
    """Resident memory, what of it is DuckDB's, and size of the file: after ``before`` tokens, and after each of ``points``
    equal parts of ``tokens`` more."""
    part = tokens // points
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmoe", **SMALL)).eval()
    found = []
    path = folder / "long.duckdb"
    with Store.open(path, memory=memory * 2**20) as store, wb.open(model, store=path) as bench:
        for point in range(-(before // part), points + 1):
            bench.record(documents(part, point + before))
            bench.store.flush()
            if point < 0:
                continue
            gc.collect()
            held = store.sql("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()[0][0]
            row = {
                "tokens": before + point * part,
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
    parser.add_argument("--before", type=int, default=1_000_000, help="tokens that are recorded first")
    parser.add_argument("--memory", type=int, default=256, help="MiB that DuckDB may hold")
    parser.add_argument(
        "--folder", help="where the store is made, and removed again; the system's temporary folder"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        rows = measure(asked.tokens, asked.points, asked.before, asked.memory, Path(folder))
    grown = added(rows, "resident")
    cached = added(rows, "duckdb")
    where = f"{asked.tokens:,} tokens after {asked.before:,}, 3 layers, 8 experts, 2 a token, a store of {asked.memory} MiB"
    figures = [
        figure("memory added by the second half", where, grown, "MB", "<= 32"),
        figure("memory added by the second half but for DuckDB's", where, grown - cached, "MB"),
        figure("memory at the end", where, rows[-1]["resident"], "MB"),
        figure("bytes of file a token", where, rows[-1]["file"] * 2**20 / max(1, rows[-1]["tokens"]), "B"),
    ]
    publish("memory", figures, points=rows)


if __name__ == "__main__":
    main()
