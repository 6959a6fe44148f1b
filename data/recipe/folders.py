"""Where the recipe keeps what it builds: nothing of it is part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ROUTING_WORKBENCH_CACHE"


def cache() -> Path:
    """The cache folder: ``$ROUTING_WORKBENCH_CACHE``, or ``~/.cache/routing-workbench``."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "routing-workbench")


def corpus() -> Path:
    """Documents, tokenizer and token arrays."""
    return cache() / "corpus"


def training(name: str) -> Path:
    """Checkpoints and log of one training run."""
    return cache() / "training" / name
