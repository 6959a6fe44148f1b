"""An experiment in the store: what its runs and rows refer to by number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from workbench.runtime.bench import Bench
from workbench.store import new_run_id


def start(bench: Bench, name: str, config: Mapping[str, Any]) -> int:
    """Write an experiment called ``name`` with what it was asked for; gives its number."""
    number = new_run_id()
    bench.store.write("experiment", {
        "experiment": [number], "created": [datetime.now(UTC).replace(tzinfo=None)], "name": [name],
        "config": [json.dumps(dict(config))],
    })  # fmt: skip
    return number
