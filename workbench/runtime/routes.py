"""The routes of a recorded run, for another run to take."""

from __future__ import annotations

import torch

from workbench.errors import EditRefused
from workbench.interventions.routing import NOTHING
from workbench.runtime.hooks.scene import SourceRoutes
from workbench.store import Store


def recorded_routes(store: Store, run: int, layer: int, device: torch.device) -> SourceRoutes:
    """The recorded routes of ``run`` in ``layer``, for a replay."""
    found = store.sql(
        "SELECT position, list(expert ORDER BY slot) AS ids, list(weight ORDER BY slot) AS weights FROM routing "
        "WHERE run = ? AND layer = ? GROUP BY position ORDER BY position",
        [run, layer],
    ).fetchall()
    if not found:
        raise EditRefused(
            f"Run {run} has no recorded routes in layer {layer}.",
            "Replay a run of this store that recorded routing.",
        )
    size, k = found[-1][0] + 1, max(len(row[1]) for row in found)
    ids = torch.full((size, k), NOTHING, dtype=torch.int64)
    weights = torch.zeros(size, k, dtype=torch.float32)
    known = torch.zeros(size, dtype=torch.bool)
    for position, experts, their_weights in found:
        ids[position, : len(experts)] = torch.tensor(experts)
        weights[position, : len(experts)] = torch.tensor(their_weights)
        known[position] = True
    return SourceRoutes(ids.to(device), weights.to(device), known.to(device))
