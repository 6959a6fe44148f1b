"""A store in memory, a random recording, and a way to run Python in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store in memory."""
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture
def elsewhere() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python source in a fresh process."""

    def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload]
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            **options,
        )

    return run


class Recording:
    """Random routing of ``runs`` runs, as a pandas frame and in a store."""

    def __init__(
        self, store: Store, seed: int, *, runs: int, tokens: int, layers: list[int], experts: int, k: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.store, self.layers, self.experts, self.k = store, layers, experts, k
        self.runs = list(range(101, 101 + runs))
        rows = []
        for run in self.runs:
            for position in range(tokens):
                for layer in layers:
                    chosen = rng.permutation(experts)[:k]
                    weights = rng.random(k).astype(np.float32)
                    rank = np.argsort(np.argsort(-weights))
                    for slot in range(k):
                        rows.append(
                            (
                                run,
                                0,
                                position,
                                layer,
                                slot,
                                chosen[slot],
                                weights[slot],
                                rank[slot],
                                rng.random(),
                            )
                        )
        names = ["run", "step", "position", "layer", "slot", "expert", "weight", "rank", "norm"]
        self.routing = pd.DataFrame(rows, columns=names)
        self.routing["norm"] = self.routing["norm"].astype(np.float32)
        store.write("routing", {name: self.routing[name].to_numpy() for name in names})
        store.write(
            "run",
            {
                "run": self.runs,
                "num_experts": experts,
                "labels": [{"language": "en" if r % 2 else "fr"} for r in self.runs],
            },
        )
        store.flush()

    def ask(self, query: str, params: object = None) -> pd.DataFrame:
        """The answer of the store as a frame."""
        return self.store.sql(query, params).df()


@pytest.fixture
def record(store: Store) -> Callable[..., Recording]:
    """Make a random recording in the store."""

    def make(seed: int = 0, *, runs: int = 2, tokens: int = 17, experts: int = 6, k: int = 2) -> Recording:
        return Recording(store, seed, runs=runs, tokens=tokens, layers=[1, 2, 5], experts=experts, k=k)

    return make
