"""Rows about attention maps: made from sampled queries and all keys, on the writer's thread, many layers at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from workbench.runtime.capture import AttentionSample, RowRanks
from workbench.runtime.recorder import Taken
from workbench.signals import attention_rank as ranking

BUDGET = 2**22
"""Elements of attention maps that are formed at a time."""


def attention_rank(taken: Taken) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of ``attention_rank`` of one pass."""
    found: list[tuple[int, RowRanks]] = [
        (layer, ranks) for layer, capture in taken.layers.items() for ranks in capture.ranks
    ]
    groups: dict[Hashable, list[tuple[int, AttentionSample]]] = {}
    for layer, capture in taken.layers.items():
        for sample in capture.attention:
            rows = None if sample.rows is None else sample.rows.shape
            key = (
                sample.query.shape,
                sample.key.shape,
                rows,
                sample.mask.dtype,
                sample.scale,
                sample.softcap,
                sample.sinks is None,
            )
            groups.setdefault(key, []).append((layer, sample))
    for group in groups.values():
        found.extend(_ranks(group, taken.facts.record.rank_tolerance))
    if not found:
        return
    heads = [ranks.ranks.rank.shape[0] for _, ranks in found]

    def each(values: list[Any]) -> NDArray[Any]:
        return np.repeat(np.asarray(values), heads)

    yield "attention_rank", {
        "run": each([taken.runs[ranks.row] for _, ranks in found]), "step": taken.step,
        "layer": each([layer for layer, _ in found]), "head": np.concatenate([np.arange(n) for n in heads]),
        "tokens": each([ranks.tokens for _, ranks in found]), "length": each([ranks.length for _, ranks in found]),
        "submatrix": each([ranks.submatrix for _, ranks in found]).tolist(),
        "method": each([ranks.method for _, ranks in found]).tolist(),
        "tolerance": taken.facts.record.rank_tolerance,
        "dtype": each([ranks.dtype for _, ranks in found]).tolist(),
        "error": each([ranks.error for _, ranks in found]).tolist(),
        **{
            name: pa.array(np.concatenate([getattr(ranks.ranks, name).numpy() for _, ranks in found]), from_pandas=True)
            for name in ("rank", "stable_rank", "effective_rank", "entropy")
        },
    }  # fmt: skip


def _ranks(group: list[tuple[int, AttentionSample]], tolerance: float) -> Iterator[tuple[int, RowRanks]]:
    """Ranks of samples of one shape, as many at a time as :data:`BUDGET` allows."""
    first = group[0][1]
    heads, size, keys = first.query.shape[0], first.query.shape[1], first.key.shape[1]
    at_once = max(1, BUDGET // (heads * size * keys))
    for start in range(0, len(group), at_once):
        part = group[start : start + at_once]
        maps = ranking.attention_map(
            torch.stack([s.query for _, s in part]), torch.stack([s.key for _, s in part]), first.scale,
            torch.stack([s.mask.expand(s.mask.shape[0], size, keys) for _, s in part]),
            softcap=first.softcap,
            sinks=None if first.sinks is None else torch.stack([s.sinks for _, s in part]),  # type: ignore[misc]
        )  # fmt: skip
        columns = None if first.rows is None else torch.stack([s.rows for _, s in part])  # type: ignore[misc]
        found = ranking.ranks(maps, tolerance, columns)
        for n, (layer, sample) in enumerate(part):
            one = ranking.Ranks(*(value[n] for value in found))
            submatrix = "full" if first.rows is None else "sampled"
            yield layer, RowRanks(sample.row, one, size, sample.length, submatrix, "gram", "float64", None)
