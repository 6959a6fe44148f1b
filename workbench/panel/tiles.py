"""The routing map out of the store: all of it where it is small, else tiles at the level of detail of a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import AddressError
from workbench.panel import replies

WHOLE = 32_768
"""Cells (layers times tokens) up to which a map is sent as one piece."""

FINE, COARSE = 256, 512
"""Columns of a tile of single tokens, and of one of aggregated tokens."""

COLOURS = ("expert", "weight", "margin", "entropy", "flip", "influence", "contribution", "sparsity")
"""What a map can be coloured by; ``lanes`` is asked for a layer at a time."""

_ROUTED = COLOURS[:5]
_RANGES = {
    "weight": ("routing", "weight", "rank = 0"),
    "margin": ("router", "margin", "true"),
    "entropy": ("router", "entropy", "true"),
    "influence": ("contribution", "influence", "true"),
    "contribution": ("contribution", "block_norm", "true"),
    "sparsity": ("sparsity", "zero_share", "true"),
}

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


def routing_map(
    cursor: Any, shape: Shape, base: int, edited: int | None, texts: Sequence[str]
) -> tuple[replies.RoutingMap, list[memoryview]]:
    """The map of the edited run, or of the base run where there is none; its one tile if it is small."""
    run = base if edited is None else edited
    piece: replies.Tile | None = None
    buffers: list[memoryview] = []
    if shape.whole:
        arrays = _fine(cursor, shape, run, base, edited is not None, 0, shape.tokens)
        piece, buffers = _pack(arrays, 0, 1, shape.tokens, list(texts))
        found = [
            name
            for name in COLOURS
            if (
                shape.choices
                if name in ("expert", "weight", "flip")
                else name in arrays and np.isfinite(arrays[name]).any()
            )
        ]
    else:
        found = [name for name in COLOURS if name in _ROUTED and shape.choices or _exists(cursor, name, run)]
    message = replies.RoutingMap(
        run=str(run), base=str(base), edited=edited is not None, tokens=shape.tokens, layers=list(range(shape.layers)),
        experts=shape.experts, choices=shape.choices, colours=found, tile=piece,
    )  # fmt: skip
    return message, buffers


def tile(
    cursor: Any,
    shape: Shape,
    base: int,
    edited: int | None,
    texts: Sequence[str],
    colour: str,
    first: int,
    bucket: int,
    layer: int | None,
) -> tuple[replies.Tile, list[memoryview]]:
    """The piece of a map from token ``first`` on.

    Raises
    ------
    AddressError
        The tile lies outside the run, or the colour or the bucket is unknown.
    """
    if bucket & (bucket - 1) or first % bucket or first >= shape.tokens:
        raise AddressError(
            f"There is no tile from token {first} on with {bucket} tokens a column.",
            f"The run has {shape.tokens} tokens; a column holds a power of two of them.",
        )
    if colour not in (*COLOURS, "lanes"):
        raise AddressError(f"The map has no colour {colour!r}.", f"Choose one of {', '.join(COLOURS)}.")
    run = base if edited is None else edited
    stop = min(shape.tokens, first + bucket * (FINE if bucket == 1 else COARSE))
    columns = -(-(stop - first) // bucket)
    if colour == "lanes":
        if layer is None or not 0 <= layer < shape.layers:
            raise AddressError(f"There is no layer {layer}.", f"Layers are 0 to {shape.layers - 1}.")
        return _pack(
            _lanes(cursor, shape, run, layer, first, stop, bucket), first, bucket, columns, [], colour, layer
        )
    if bucket == 1:
        arrays = _fine(cursor, shape, run, base, edited is not None, first, stop)
        return _pack(arrays, first, 1, columns, list(texts[first:stop]), colour, None)
    arrays = _coarse(cursor, shape, run, base, edited is not None, colour, first, stop, bucket)
    return _pack(arrays, first, bucket, columns, [], colour, None)


def colour_range(cursor: Any, run: int, colour: str) -> tuple[float, float] | None:
    """1st and 99th percentile of a quantity over a whole run, estimated; ``None`` where there are no values."""
    if colour not in _RANGES:
        return None
    table, column, condition = _RANGES[colour]
    row = cursor.execute(
        f"SELECT approx_quantile({column}, 0.01), approx_quantile({column}, 0.99) FROM {table} "
        f"WHERE run = ? AND {condition}",
        [run],
    ).fetchone()
    return None if row is None or row[0] is None else (float(row[0]), float(row[1]))


def load(cursor: Any, shape: Shape, run: int) -> tuple[replies.Load, list[memoryview]]:
    """Share of a layer's choices that every expert got, over all tokens of a run."""
    rows = _columns(
        cursor, "SELECT layer, expert, count(*) AS n FROM routing WHERE run = ? GROUP BY layer, expert", [run]
    )
    grid = np.zeros((shape.layers, shape.experts), np.float32)
    keep = (rows["layer"] < shape.layers) & (rows["expert"] < shape.experts)
    grid[rows["layer"][keep].astype(np.int64), rows["expert"][keep].astype(np.int64)] = rows["n"][keep]
    total = grid.sum(-1, keepdims=True)
    grid = np.divide(grid, total, out=np.full_like(grid, np.nan), where=total > 0)
    array = replies.MapArray(name="load", dtype="float32", shape=list(grid.shape))
    return replies.Load(run=str(run), array=array), [memoryview(grid.tobytes())]


def _exists(cursor: Any, colour: str, run: int) -> bool:
    table, column, _ = _RANGES[colour]
    return bool(
        cursor.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE run = ? AND {column} IS NOT NULL LIMIT 1)",
            [run],
        ).fetchone()[0]
    )


def _fine(cursor: Any, shape: Shape, run: int, base: int, edited: bool, first: int, stop: int) -> Arrays:
    """Every value of the tokens from ``first`` up to, not including, ``stop``."""
    layers, size = shape.layers, stop - first
    experts, weights = _choices(cursor, shape, run, first, stop)
    router = _columns(
        cursor,
        "SELECT layer, position, margin, entropy, edited FROM router WHERE run = ? AND position >= ? AND position < ?",
        [run, first, stop],
    )
    depth = _columns(
        cursor,
        "SELECT layer, position FROM depth WHERE run = ? AND position >= ? AND position < ? "
        "AND unit = 'block' AND event = 'skip'",
        [run, first, stop],
    )
    parts = _columns(cursor, "FROM part_tiles(?, ?, ?, 1)", [run, first, stop])
    skipped = np.zeros((layers, size), np.uint8)
    skipped[depth["layer"].astype(np.int64), depth["position"].astype(np.int64) - first] = 1
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
    return arrays | {"flip": flips, "edited": changed, "skipped": skipped.astype(np.float32)}


def _coarse(
    cursor: Any, shape: Shape, run: int, base: int, edited: bool, colour: str, first: int, stop: int, bucket: int
) -> Arrays:  # fmt: skip
    """What ``colour`` needs of columns of ``bucket`` tokens."""
    window = [run, first, stop, bucket]
    size = -(-(stop - first) // bucket)

    def grid(rows: Arrays, name: str) -> np.ndarray:
        return _grid(rows, name, shape.layers, size, first, bucket)

    arrays: Arrays = {}
    if colour in ("expert", "weight"):
        rows = _columns(
            cursor, "SELECT layer, position, expert, share, weight FROM choice_tiles(?, ?, ?, ?)", window
        )
        if colour == "weight":
            arrays["weights"] = grid(rows, "weight")[None]
        arrays["experts"] = np.nan_to_num(grid(rows, "expert"), nan=-1).astype(np.int16)[None]
        arrays["share"] = grid(rows, "share")
    elif colour == "flip":
        if edited:
            rows = _columns(cursor, "FROM flip_tiles(?, ?, ?, ?, ?)", [base, *window])
            arrays["flip"] = grid(rows, "flip")
        else:
            arrays["flip"] = np.zeros((shape.layers, size), np.float32)
    elif colour in ("margin", "entropy"):
        arrays[colour] = grid(_columns(cursor, "FROM router_tiles(?, ?, ?, ?)", window), colour)
    else:
        arrays[colour] = grid(_columns(cursor, "FROM part_tiles(?, ?, ?, ?)", window), colour)
    skips = _columns(
        cursor,
        "SELECT layer, (position // ?) * ? AS position, count(*) / ? AS share FROM depth WHERE run = ? AND position >= ? "
        "AND position < ? AND unit = 'block' AND event = 'skip' GROUP BY ALL",
        [bucket, bucket, bucket, run, first, stop],
    )
    return arrays | {"skipped": np.nan_to_num(grid(skips, "share"))}


def _lanes(cursor: Any, shape: Shape, run: int, layer: int, first: int, stop: int, bucket: int) -> Arrays:
    """Shares of tokens that chose each expert of a layer, [experts, columns]."""
    rows = _columns(cursor, "FROM lane_tiles(?, ?, ?, ?, ?)", [run, layer, first, stop, bucket])
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
    rows = _columns(
        cursor,
        "SELECT layer, position, expert, weight, "
        "row_number() OVER (PARTITION BY layer, position ORDER BY weight DESC, slot) - 1 AS place "
        "FROM routing WHERE run = ? AND position >= ? AND position < ? AND expert >= 0",
        [run, first, stop],
    )
    keep = rows["place"] < shape.choices
    place, layer, position = (rows[name][keep].astype(np.int64) for name in ("place", "layer", "position"))
    experts[place, layer, position - first] = rows["expert"][keep]
    weights[place, layer, position - first] = rows["weight"][keep]
    return experts, weights


def _pack(
    arrays: Arrays,
    first: int,
    bucket: int,
    columns: int,
    texts: list[str],
    colour: str = "",
    layer: int | None = None,
) -> tuple[replies.Tile, list[memoryview]]:
    described = [
        replies.MapArray(name=name, dtype=str(array.dtype), shape=list(array.shape))
        for name, array in arrays.items()
    ]
    piece = replies.Tile(
        first=first, bucket=bucket, columns=columns, colour=colour, layer=layer, texts=texts, arrays=described, range=None
    )  # fmt: skip
    return piece, [memoryview(array.tobytes()) for array in arrays.values()]


def _columns(cursor: Any, query: str, parameters: list[Any]) -> Arrays:
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
