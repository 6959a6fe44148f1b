"""Rows about attention maps: made from sampled queries and all keys, on the writer's thread, many layers at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from workbench.runtime.capture import AttentionSample
from workbench.runtime.held import Held, stacked, tensor
from workbench.runtime.recorder import Taken
from workbench.signals import attention_rank as ranking
from workbench.signals.attention_map import MapStatistics, statistics
from workbench.signals.attention_rank import Ranks

T = TypeVar("T")

BUDGET = 2**22
"""Elements of attention maps that are formed at a time."""

SINKS, WINDOW = 1, 16
"""First keys that count as sinks, and keys that count as near, in ``attention_map``."""


class Seen(NamedTuple):
    """What was sampled of one row of the batch in one layer of one pass."""

    taken: Taken
    layer: int
    sample: AttentionSample


class Measured(NamedTuple, Generic[T]):
    """What samples of one shape say.

    Attributes
    ----------
    keys
        The pass, layer and row of the batch of each of P samples.
    lengths
        The tokens of the run of each.
    tokens
        Rows of their maps.
    made
        The submatrix, the method, its dtype and its error.
    values
        Arrays [P, N] for N heads.
    """

    keys: Sequence[tuple[Taken, int, int]]
    lengths: Sequence[int]
    tokens: int
    made: tuple[str, str, str, float | None]
    values: T


def attention(passes: Sequence[Taken]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of ``attention_rank`` and ``attention_map`` of ``passes``; maps of one shape are measured together."""
    ranked = [
        Measured(
            [(taken, layer, one.row)], [one.length], one.tokens, (one.submatrix, one.method, one.dtype, one.error),
            Ranks(*(value[None] for value in one.ranks)),
        )
        for taken in passes for layer, capture in taken.layers.items() for one in capture.ranks
    ]  # fmt: skip
    looked: list[Measured[MapStatistics]] = []
    groups: dict[Hashable, list[Seen]] = {}
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


def _keys(found: Sequence[Measured[Any]]) -> dict[str, Any]:
    """What every row of a table says of its sample; one row a head."""
    heads = [one.values[0].shape[1] for one in found]
    each = np.repeat(heads, [len(one.keys) for one in found])
    return {
        "run": np.repeat([taken.runs[row] for one in found for taken, _, row in one.keys], each),
        "step": np.repeat([taken.step for one in found for taken, _, _ in one.keys], each),
        "layer": np.repeat([layer for one in found for _, layer, _ in one.keys], each),
        "head": np.concatenate([np.tile(np.arange(n), len(one.keys)) for n, one in zip(heads, found, strict=True)]),
        "tokens": np.repeat([one.tokens for one in found], _sizes(found)),
        "length": np.repeat([length for one in found for length in one.lengths], each),
    }  # fmt: skip


def _sizes(found: Sequence[Measured[Any]]) -> list[int]:
    """Rows of each."""
    return [len(one.keys) * one.values[0].shape[1] for one in found]


def _rank_rows(found: Sequence[Measured[Ranks]]) -> Mapping[str, Any]:
    sizes = _sizes(found)
    kinds = {"submatrix": pa.string(), "method": pa.string(), "dtype": pa.string(), "error": pa.float64()}
    made = {}
    for n, (name, kind) in enumerate(kinds.items()):
        values = (pa.scalar(one.made[n], kind) for one in found)
        made[name] = pa.concat_arrays([pa.repeat(*pair) for pair in zip(values, sizes, strict=True)])
    tolerances = [one.keys[0][0].facts.record.rank_tolerance for one in found]
    ranks = _values(Ranks._fields, [one.values for one in found])
    return _keys(found) | made | {"tolerance": np.repeat(tolerances, sizes)} | ranks


def _map_rows(found: Sequence[Measured[MapStatistics]]) -> Mapping[str, Any]:
    told = _values(MapStatistics._fields, [one.values for one in found])
    return _keys(found) | {"sinks": SINKS, "local_window": WINDOW} | told


def _values(names: Sequence[str], found: Sequence[Any]) -> dict[str, pa.Array]:
    return {
        name: pa.array(np.concatenate([np.asarray(getattr(one, name)).reshape(-1) for one in found]), from_pandas=True)
        for name in names
    }  # fmt: skip


def _stack(copies: Sequence[Held]) -> Tensor:
    """[P, N, R, D] of P copies [R, N, D]."""
    parts = stacked(copies)
    return (
        torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts)).transpose(1, 2).contiguous()
    )


def _masks(samples: Sequence[AttentionSample], size: int, keys: int) -> Tensor:
    """The masks of samples [P or 1, ...]; causal ones of one length are one and the same."""
    first = samples[0].mask
    masks = (
        [tensor(first)]
        if all(one.mask is first for one in samples)
        else [tensor(one.mask) for one in samples]
    )
    return torch.stack([mask.expand(mask.shape[0], size, keys) for mask in masks])


def _measure(group: Sequence[Seen]) -> Iterator[tuple[list[Measured[Ranks]], list[Measured[MapStatistics]]]]:
    """What samples of one shape say, as many at a time as :data:`BUDGET` allows."""
    first, record = group[0].sample, group[0].taken.facts.record
    (size, heads, _), keys = first.query.shape, first.key.shape[0]
    at_once = max(1, BUDGET // (heads * size * keys))
    for start in range(0, len(group), at_once):
        part = group[start : start + at_once]
        samples = [seen.sample for seen in part]
        maps = ranking.attention_map(
            _stack([s.query for s in samples]), _stack([s.key for s in samples]), first.scale, _masks(samples, size, keys),
            softcap=first.softcap,
            sinks=None if first.sinks is None else torch.stack([tensor(s.sinks) for s in samples if s.sinks is not None]),
        )  # fmt: skip
        columns = None if first.rows is None else torch.stack([s.rows for s in samples])  # type: ignore[misc]
        of = [(seen.taken, seen.layer, seen.sample.row) for seen in part], [s.length for s in samples], size
        made = ("full" if first.rows is None else "sampled", "gram", "float64", None)
        ranked, looked = [], []
        if record.attention_rank:
            ranked.append(Measured(*of, made, ranking.ranks(maps, record.rank_tolerance, columns)))
        if record.attention_map:
            at = torch.arange(size) if columns is None else columns
            looked.append(Measured(*of, made, statistics(maps, at, sinks=SINKS, window=WINDOW)))
        yield ranked, looked
