"""The routing map's numbers out of the store, as arrays: cell by cell, or aggregated over columns of tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

WHOLE = 32_768
"""Cells (layers times tokens) up to which a map is sent as one piece."""

SKIPPED = 5
"""The depth event of a block that did not run; 4: repeated, 3 and 2: no attention, no MLP, 1: another layer's instead."""

# What became of a block or of a part of it, the one that says most last: of several in a cell the last one is shown. Where
# one sublayer was repeated, the rows say that the block was, without the other sublayer: a repeat goes before a skip.
_EVENTS = (
    "CASE WHEN event = 'skip' THEN CASE unit WHEN 'block' THEN 5 WHEN 'attn' THEN 3 ELSE 2 END "
    "WHEN event = 'repeat' THEN 4 WHEN event = 'reuse' THEN 1 ELSE 0 END"
)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shape:
    """Size of a run: layers, tokens, experts a layer, and choices a token."""

    layers: int
    tokens: int
    experts: int
    choices: int

    @property
    def whole(self) -> bool:
        """Whether its map goes as one piece."""
        return self.layers * self.tokens <= WHOLE


class Kept:
    """The cells of the runs in view, so that a token that has been read is not read again.

    A cell of a token that the model has read never changes: a text that is rewound goes on as another run.
    """

    MOST = 4

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int, bool, int, int, int], Arrays] = {}

    def cells(self, cursor: Any, shape: Shape, run: int, base: int, edited: bool, computed: int) -> Arrays:
        """What :func:`fine` gives for all tokens of a run, of which the model has read the first ``computed``."""
        key = (run, base, edited, shape.layers, shape.experts, shape.choices)
        with self._lock:
            arrays = self._kept.pop(key, None)
        have = 0 if arrays is None else _size(arrays)
        if arrays is None or have > shape.tokens:
            arrays = fine(cursor, shape, run, base, edited, 0, shape.tokens)
        elif have < shape.tokens:
            new = fine(cursor, shape, run, base, edited, have, shape.tokens)
            arrays = {name: np.concatenate([arrays[name], part], axis=-1) for name, part in new.items()}
        with self._lock:
            self._kept[key] = {name: array[..., :computed] for name, array in arrays.items()}
            while len(self._kept) > self.MOST:
                del self._kept[next(iter(self._kept))]
        return arrays


def _size(arrays: Arrays) -> int:
    return int(next(iter(arrays.values())).shape[-1])


def fine(cursor: Any, shape: Shape, run: int, base: int, edited: bool, first: int, stop: int) -> Arrays:
    """Every value of the tokens from ``first`` up to, not including, ``stop``."""
    layers, size = shape.layers, stop - first
    experts, weights = _choices(cursor, shape, run, first, stop)
    router = columns(
        cursor,
        "SELECT layer, position, margin, entropy, edited FROM router WHERE run = ? AND position >= ? AND position < ?",
        [run, first, stop],
    )
    depth = columns(
        cursor,
        f"SELECT layer, position, max({_EVENTS}) AS event FROM depth WHERE run = ? AND position >= ? AND position < ? "
        "GROUP BY layer, position",
        [run, first, stop],
    )
    parts = columns(cursor, "FROM part_tiles(?, ?, ?, 1)", [run, first, stop])
    events = np.nan_to_num(_grid(depth, "event", layers, size, first, 1))
    skipped = (events == SKIPPED).astype(np.float32)
    flips = np.zeros((layers, size), np.float32)
    if edited and shape.choices:
        before, _ = _choices(cursor, shape, base, first, stop)
        differs = np.any(np.sort(before, axis=0) != np.sort(experts, axis=0), axis=0)
        # Of two texts one may be shorter, and a block that does not run makes no choice.
        differs &= np.any(before >= 0, axis=0) & np.any(experts >= 0, axis=0) & (skipped == 0)
        flips = differs.astype(np.float32)
    arrays = {"experts": experts, "weights": weights}
    for rows, names in ((router, ("margin", "entropy")), (parts, ("influence", "contribution", "sparsity"))):
        for name in names:
            arrays[name] = _grid(rows, name, layers, size, first, 1)
    changed = np.nan_to_num(_grid(router, "edited", layers, size, first, 1)).astype(np.float32)
    return arrays | {"flip": flips, "edited": changed, "skipped": skipped, "depth": events}


def coarse(
    cursor: Any, shape: Shape, run: int, base: int, edited: bool, colour: str, first: int, stop: int, bucket: int
) -> Arrays:  # fmt: skip
    """What ``colour`` needs of columns of ``bucket`` tokens."""
    window = [run, first, stop, bucket]
    size = -(-(stop - first) // bucket)

    def grid(rows: Arrays, name: str) -> np.ndarray:
        return _grid(rows, name, shape.layers, size, first, bucket)

    arrays: Arrays = {}
    if colour in ("expert", "weight"):
        rows = columns(
            cursor, "SELECT layer, position, expert, share, weight FROM choice_tiles(?, ?, ?, ?)", window
        )
        if colour == "weight":
            arrays["weights"] = grid(rows, "weight")[None]
        arrays["experts"] = np.nan_to_num(grid(rows, "expert"), nan=-1).astype(np.int16)[None]
        arrays["share"] = grid(rows, "share")
    elif colour == "flip":
        if edited:
            rows = columns(cursor, "FROM flip_tiles(?, ?, ?, ?, ?)", [base, *window])
            arrays["flip"] = grid(rows, "flip")
        else:
            arrays["flip"] = np.zeros((shape.layers, size), np.float32)
    elif colour == "depth":
        rows = columns(
            cursor,
            f"WITH cells AS (SELECT layer, position, max({_EVENTS}) AS event FROM depth WHERE run = ? AND position >= ? "
            "AND position < ? GROUP BY layer, position), counted AS (SELECT layer, (position // ?) * ? AS position, event, "
            "count(*) AS n FROM cells WHERE event > 0 GROUP BY ALL) SELECT layer, position, arg_max(event, n) AS depth, "
            "max(n) / ? AS share FROM counted GROUP BY layer, position",
            [run, first, stop, bucket, bucket, bucket],
        )
        arrays["depth"] = np.nan_to_num(grid(rows, "depth"))
        arrays["share"] = np.nan_to_num(grid(rows, "share"))
    elif colour in ("margin", "entropy"):
        arrays[colour] = grid(columns(cursor, "FROM router_tiles(?, ?, ?, ?)", window), colour)
    else:
        arrays[colour] = grid(columns(cursor, "FROM part_tiles(?, ?, ?, ?)", window), colour)
    skips = columns(
        cursor,
        "SELECT layer, (position // ?) * ? AS position, count(*) / ? AS share FROM depth WHERE run = ? AND position >= ? "
        "AND position < ? AND unit = 'block' AND event = 'skip' GROUP BY ALL",
        [bucket, bucket, bucket, run, first, stop],
    )
    return arrays | {"skipped": np.nan_to_num(grid(skips, "share"))}


def lanes(cursor: Any, shape: Shape, run: int, layer: int, first: int, stop: int, bucket: int) -> Arrays:
    """Shares of tokens that chose each expert of a layer, [experts, columns]."""
    rows = columns(cursor, "FROM lane_tiles(?, ?, ?, ?, ?)", [run, layer, first, stop, bucket])
    grid = np.zeros((shape.experts, -(-(stop - first) // bucket)), np.float32)
    keep = rows["expert"] < shape.experts
    grid[
        rows["expert"][keep].astype(np.int64), (rows["position"][keep].astype(np.int64) - first) // bucket
    ] = rows["share"][keep]
    return {"lanes": grid}


def _choices(cursor: Any, shape: Shape, run: int, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Experts [k, L, T] int16 and weights [k, L, T] fp32 of some tokens, heaviest first."""
    experts = np.full((shape.choices, shape.layers, stop - first), -1, np.int16)
    weights = np.full(experts.shape, np.nan, np.float32)
    rows = columns(
        cursor,
        "SELECT layer, position, expert, weight, rank FROM routing WHERE run = ? AND position >= ? AND position < ?",
        [run, first, stop],
    )
    keep = rows["rank"] < shape.choices
    place, layer, position = (rows[name][keep].astype(np.int64) for name in ("rank", "layer", "position"))
    experts[place, layer, position - first] = rows["expert"][keep]
    weights[place, layer, position - first] = rows["weight"][keep]
    return experts, weights


def columns(cursor: Any, query: str, parameters: list[Any]) -> Arrays:
    columns = cursor.execute(query, parameters).fetchnumpy()
    return {name: _plain(column) for name, column in columns.items()}


def _plain(column: np.ndarray) -> np.ndarray:
    """A column without a mask: what is NULL becomes NaN."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.filled(column.astype(np.float64), np.nan)
    return column


def _grid(rows: Arrays, name: str, layers: int, size: int, first: int, bucket: int) -> np.ndarray:
    grid = np.full((layers, size), np.nan, np.float32)
    grid[rows["layer"].astype(np.int64), (rows["position"].astype(np.int64) - first) // bucket] = rows[name]
    return grid
