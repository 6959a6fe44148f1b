"""Rows about attention maps: made from sampled queries and all keys, on the writer's thread, many layers at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from workbench.runtime.capture import AttentionSample, MapSample, RowRanks
from workbench.runtime.record import Record
from workbench.runtime.recorder import Taken
from workbench.signals import attention_rank as ranking
from workbench.signals.attention_map import MapStatistics, statistics

BUDGET = 2**22
"""Elements of attention maps that are formed at a time."""

SINKS, WINDOW = 1, 16
"""First keys that count as sinks, and keys that count as near, in ``attention_map``."""


def attention(taken: Taken) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of ``attention_rank`` and ``attention_map`` of one pass."""
    record = taken.facts.record
    looked: list[tuple[int, MapSample]] = []
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
        for ranked, told in _measure(group, record):
            found.extend(ranked)
            looked.extend(told)
    if found:
        yield _rank_rows(taken, found)
    if looked:
        yield _map_rows(taken, looked)


def _rank_rows(taken: Taken, found: list[tuple[int, RowRanks]]) -> tuple[str, Mapping[str, Any]]:
    heads = [ranks.ranks.rank.shape[0] for _, ranks in found]

    def each(values: list[Any]) -> NDArray[Any]:
        return np.repeat(np.asarray(values), heads)

    return "attention_rank", {
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


def _map_rows(taken: Taken, found: list[tuple[int, MapSample]]) -> tuple[str, Mapping[str, Any]]:
    heads = [sample.statistics.entropy.shape[0] for _, sample in found]

    def each(values: list[Any]) -> NDArray[Any]:
        return np.repeat(np.asarray(values), heads)

    return "attention_map", {
        "run": each([taken.runs[sample.row] for _, sample in found]), "step": taken.step,
        "layer": each([layer for layer, _ in found]), "head": np.concatenate([np.arange(n) for n in heads]),
        "tokens": each([sample.rows for _, sample in found]), "length": each([sample.length for _, sample in found]),
        "sinks": SINKS, "local_window": WINDOW,
        **{
            name: pa.array(np.concatenate([getattr(s.statistics, name).numpy() for _, s in found]), from_pandas=True)
            for name in MapStatistics._fields
        },
    }  # fmt: skip


def _measure(
    group: list[tuple[int, AttentionSample]], record: Record
) -> Iterator[tuple[list[tuple[int, RowRanks]], list[tuple[int, MapSample]]]]:
    """What samples of one shape say, as many at a time as :data:`BUDGET` allows."""
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
        ranks, looked = [], []
        if record.attention_rank:
            found = ranking.ranks(maps, record.rank_tolerance, columns)
            submatrix = "full" if first.rows is None else "sampled"
            for n, (layer, sample) in enumerate(part):
                one = ranking.Ranks(*(value[n] for value in found))
                ranks.append(
                    (
                        layer,
                        RowRanks(sample.row, one, size, sample.length, submatrix, "gram", "float64", None),
                    )
                )
        if record.attention_map:
            told = statistics(
                maps, torch.arange(size) if columns is None else columns, sinks=SINKS, window=WINDOW
            )
            for n, (layer, sample) in enumerate(part):
                of = MapStatistics(*(value[n] for value in told))
                looked.append((layer, MapSample(sample.row, of, size, sample.length)))
        yield ranks, looked
