"""Rows about attention maps: made from sampled queries and all keys, on the writer's thread, many layers at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.runtime.arena import Held, array
from workbench.runtime.capture import AttentionSample, MapSample, RowRanks
from workbench.runtime.recorder import Taken
from workbench.signals import attention_rank as ranking
from workbench.signals.attention_map import MapStatistics, statistics
from workbench.signals.attention_rank import Ranks

T = TypeVar("T")

BUDGET = 2**22
"""Elements of attention maps that are formed at a time."""

SINKS, WINDOW = 1, 16
"""First keys that count as sinks, and keys that count as near, in ``attention_map``."""


class Seen(NamedTuple, Generic[T]):
    """What was kept of one row of the batch in one layer of one pass."""

    taken: Taken
    layer: int
    value: T


def attention(passes: Sequence[Taken]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of ``attention_rank`` and ``attention_map`` of ``passes``; maps of one shape are measured together."""
    ranked = [
        Seen(taken, layer, ranks)
        for taken in passes for layer, capture in taken.layers.items() for ranks in capture.ranks
    ]  # fmt: skip
    looked: list[Seen[MapSample]] = []
    groups: dict[Hashable, list[Seen[AttentionSample]]] = {}
    for taken in passes:
        for layer, capture in taken.layers.items():
            for sample in capture.attention:
                groups.setdefault(_make(taken, sample), []).append(Seen(taken, layer, sample))
    for group in groups.values():
        for found, told in _measure(group):
            ranked.extend(found)
            looked.extend(told)
    if ranked:
        yield "attention_rank", _rank_rows(ranked)
    if looked:
        yield "attention_map", _map_rows(looked)


def _make(taken: Taken, sample: AttentionSample) -> Hashable:
    """What samples have in common whose maps are made in one go."""
    record = taken.facts.record
    rows = None if sample.rows is None else sample.rows.shape
    shapes = (sample.query.shape, sample.key.shape, rows, sample.mask.dtype)
    asked = (record.attention_rank, record.attention_map, record.rank_tolerance)
    return *shapes, sample.scale, sample.softcap, sample.sinks is None, *asked


def _keys(found: Sequence[Seen[Any]], heads: Sequence[int]) -> dict[str, Any]:
    """The key columns of one row a head."""
    return {
        "run": np.repeat([seen.taken.runs[seen.value.row] for seen in found], heads),
        "step": np.repeat([seen.taken.step for seen in found], heads),
        "layer": np.repeat([seen.layer for seen in found], heads),
        "head": np.concatenate([np.arange(n) for n in heads]),
    }


def _rank_rows(found: Sequence[Seen[RowRanks]]) -> Mapping[str, Any]:
    heads = [seen.value.ranks.rank.shape[0] for seen in found]

    def each(name: str) -> NDArray[Any]:
        return np.repeat(np.asarray([getattr(seen.value, name) for seen in found]), heads)

    return _keys(found, heads) | {
        "tokens": each("tokens"), "length": each("length"), "submatrix": each("submatrix").tolist(),
        "method": each("method").tolist(), "dtype": each("dtype").tolist(), "error": each("error").tolist(),
        "tolerance": np.repeat([seen.taken.facts.record.rank_tolerance for seen in found], heads),
        **_values(Ranks._fields, [seen.value.ranks for seen in found]),
    }  # fmt: skip


def _map_rows(found: Sequence[Seen[MapSample]]) -> Mapping[str, Any]:
    heads = [seen.value.statistics.entropy.shape[0] for seen in found]
    return _keys(found, heads) | {
        "tokens": np.repeat([seen.value.rows for seen in found], heads),
        "length": np.repeat([seen.value.length for seen in found], heads),
        "sinks": SINKS, "local_window": WINDOW,
        **_values(MapStatistics._fields, [seen.value.statistics for seen in found]),
    }  # fmt: skip


def _values(names: Sequence[str], found: Sequence[Any]) -> dict[str, pa.Array]:
    return {
        name: pa.array(np.concatenate([np.asarray(getattr(one, name)) for one in found]), from_pandas=True)
        for name in names
    }


def _rows(found: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Arrays that are read row by row: a row of a tensor is a tensor, and takes the interpreter from the model's thread."""
    return [values.numpy() for values in found]


def _stack(copies: Sequence[Held]) -> Tensor:
    """[P, N, R, D] of P copies [R, N, D]."""
    return torch.from_numpy(np.stack([array(one) for one in copies])).transpose(1, 2).contiguous()


def _masks(samples: Sequence[AttentionSample], size: int, keys: int) -> Tensor:
    """The masks of samples [P or 1, ...]; causal ones of one length are one and the same."""
    first = samples[0].mask
    if all(one.mask is first for one in samples):
        return first.expand(first.shape[0], size, keys).unsqueeze(0)
    return torch.stack([one.mask.expand(one.mask.shape[0], size, keys) for one in samples])


def _measure(
    group: Sequence[Seen[AttentionSample]],
) -> Iterator[tuple[list[Seen[RowRanks]], list[Seen[MapSample]]]]:
    """What samples of one shape say, as many at a time as :data:`BUDGET` allows."""
    first, record = group[0].value, group[0].taken.facts.record
    (size, heads, _), keys = first.query.shape, first.key.shape[0]
    at_once = max(1, BUDGET // (heads * size * keys))
    for start in range(0, len(group), at_once):
        part = group[start : start + at_once]
        samples = [seen.value for seen in part]
        maps = ranking.attention_map(
            _stack([s.query for s in samples]), _stack([s.key for s in samples]), first.scale, _masks(samples, size, keys),
            softcap=first.softcap,
            sinks=None if first.sinks is None else torch.stack([s.sinks for s in samples]),  # type: ignore[misc]
        )  # fmt: skip
        columns = None if first.rows is None else torch.stack([s.rows for s in samples])  # type: ignore[misc]
        ranked, looked = [], []
        if record.attention_rank:
            found = ranking.ranks(maps, record.rank_tolerance, columns)
            submatrix = "full" if first.rows is None else "sampled"
            for seen, *values in zip(part, *_rows(found), strict=True):
                one = RowRanks(
                    seen.value.row,
                    Ranks(*values),
                    size,
                    seen.value.length,
                    submatrix,
                    "gram",
                    "float64",
                    None,
                )
                ranked.append(Seen(seen.taken, seen.layer, one))
        if record.attention_map:
            told = statistics(
                maps, torch.arange(size) if columns is None else columns, sinks=SINKS, window=WINDOW
            )
            for seen, *values in zip(part, *_rows(told), strict=True):
                of = MapSample(seen.value.row, MapStatistics(*values), size, seen.value.length)
                looked.append(Seen(seen.taken, seen.layer, of))
        yield ranked, looked
