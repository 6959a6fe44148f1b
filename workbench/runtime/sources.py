"""What edits take from other runs: the routes that a replay repeats and the values that a patch puts in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.interventions.patch import Patch
from workbench.interventions.ragged import NOTHING
from workbench.runtime.attach import device_of
from workbench.runtime.hooks.scene import SourceRoutes
from workbench.runtime.sites import read
from workbench.runtime.stored import stored_run

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


class Sources:
    """The other runs that ``plans`` name. Patched values are computed here, before the run that uses them starts; routes
    are read when they are first asked for."""

    def __init__(self, bench: Bench, plans: Sequence[Plan]) -> None:
        self._bench = bench
        self._routes: dict[tuple[int, int], SourceRoutes] = {}
        self._values: dict[tuple[str, int], Tensor] = {}
        edits = {e.model_dump_json(): e for plan in plans for e in plan.active if isinstance(e, Patch)}
        for key, edit in edits.items():
            layers = edit.layers_in(bench.anatomy)
            sources = sorted({edit.source_layer(layer) for layer in layers})
            values = read(bench, stored_run(bench, edit.run), edit.site, sources, "all")
            for layer in layers:
                self._values[key, layer] = values[sources.index(edit.source_layer(layer))]

    def values(self, edit: Patch, layer: int) -> Tensor:
        """What ``edit`` puts into ``layer`` [P, ...], by position in its source run."""
        return self._values[edit.model_dump_json(), layer]

    def routes(self, run: int, layer: int) -> SourceRoutes:
        """The recorded routes of ``run`` in ``layer``."""
        if (run, layer) not in self._routes:
            self._routes[run, layer] = self._recorded(run, layer)
        return self._routes[run, layer]

    def _recorded(self, run: int, layer: int) -> SourceRoutes:
        found = self._bench.store.sql(
            "SELECT position, list(expert ORDER BY slot) AS ids, list(weight ORDER BY slot) AS weights FROM routing "
            "WHERE run = ? AND layer = ? GROUP BY position ORDER BY position",
            [run, layer],
        ).fetchall()
        if not found:
            raise EditRefused(
                f"Run {run} has no recorded routes in layer {layer}.",
                "Replay a run of this store that recorded routing.",
            )
        device = device_of(self._bench.model)
        size, k = found[-1][0] + 1, max(len(row[1]) for row in found)
        ids = torch.full((size, k), NOTHING, dtype=torch.int64)
        weights = torch.zeros(size, k, dtype=torch.float32)
        known = torch.zeros(size, dtype=torch.bool)
        for position, experts, their_weights in found:
            ids[position, : len(experts)] = torch.tensor(experts)
            weights[position, : len(experts)] = torch.tensor(their_weights)
            known[position] = True
        return SourceRoutes(ids.to(device), weights.to(device), known.to(device))
