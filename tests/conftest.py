"""What every room's tests share: quiet settings, tiny models, benches that close themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from tiny_models import build_tiny

# Timings on shared machines say nothing about correctness; fewer examples than the default keep the suite short.
settings.register_profile("workbench", deadline=None, max_examples=40)
settings.load_profile("workbench")


@pytest.fixture
def tiny() -> Callable[..., Any]:
    """Builds a tiny model of a family: ``tiny("mixtral")``."""
    return build_tiny


@pytest.fixture
def bench(tmp_path: Any) -> Any:
    """Opens tiny models on stores of their own and closes them after the test: ``bench("olmoe", kernels="model")``."""
    import workbench as wb

    opened: list[Any] = []

    def make(model: Any, **options: Any) -> Any:
        model = build_tiny(model) if isinstance(model, str) else model
        options = {"store": tmp_path / f"runs{len(opened)}.duckdb"} | options
        opened.append(wb.open(model, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
