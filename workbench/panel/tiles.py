"""The routing map out of the store: all of it where it is small, else tiles at the level of detail of a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import AddressError
from workbench.panel import grids, replies
from workbench.panel.grids import Arrays, Kept, Shape
from workbench.said import said

if TYPE_CHECKING:
    from workbench.panel.ran import Ran

FINE, COARSE = 256, 256
"""Columns of a tile of single tokens, and of one of aggregated tokens."""

COLOURS = ("expert", "weight", "margin", "entropy", "flip", "influence", "contribution", "sparsity", "depth")
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


def routing_map(
    cursor: Any, kept: Kept, base: Ran, edited: Ran | None
) -> tuple[replies.RoutingMap, list[memoryview]]:
    """The map of the edited run, or of the base run where there is none; its one tile if it is small."""
    ran = edited or base
    run, shape = ran.id, ran.shape
    piece: replies.Tile | None = None
    buffers: list[memoryview] = []
    if shape.whole:
        arrays = kept.cells(cursor, shape, run, base.id, edited is not None, min(base.computed, ran.computed))
        piece, buffers = _pack(arrays, 0, 1, shape.tokens, ran.texts)
        found = [
            name
            for name in COLOURS
            if (
                shape.choices
                if name in ("expert", "weight", "flip")
                else arrays["depth"].any()
                if name == "depth"
                else np.isfinite(arrays[name]).any()
            )
        ]
    else:
        found = [name for name in COLOURS if name in _ROUTED and shape.choices or _exists(cursor, name, run)]
    message = replies.RoutingMap(
        run=str(run), base=str(base.id), edited=edited is not None, tokens=shape.tokens, layers=list(range(shape.layers)),
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
            said("There is no tile from token %1 on with %2 tokens a column.", first, bucket),
            said("The run has %1 tokens; a column holds a power of two of them.", shape.tokens),
        )
    if colour not in (*COLOURS, "lanes"):
        raise AddressError(
            said("The map has no colour %1.", repr(colour)), said("Choose one of %1.", ", ".join(COLOURS))
        )
    run = base if edited is None else edited
    stop = min(shape.tokens, first + bucket * (FINE if bucket == 1 else COARSE))
    columns = -(-(stop - first) // bucket)
    if colour == "lanes":
        if layer is None or not 0 <= layer < shape.layers:
            raise AddressError(
                said("There is no layer %1.", layer), said("Layers are 0 to %1.", shape.layers - 1)
            )
        return _pack(
            grids.lanes(cursor, shape, run, layer, first, stop, bucket),
            first,
            bucket,
            columns,
            [],
            colour,
            layer,
        )
    if bucket == 1:
        arrays = grids.fine(cursor, shape, run, base, edited is not None, first, stop)
        return _pack(arrays, first, 1, columns, list(texts[first:stop]), colour, None)
    arrays = grids.coarse(cursor, shape, run, base, edited is not None, colour, first, stop, bucket)
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
    rows = grids.columns(
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
    table, condition = "depth", "event <> 'execute'"
    if colour != "depth":
        table, column, _ = _RANGES[colour]
        condition = f"{column} IS NOT NULL"
    found = cursor.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE run = ? AND {condition} LIMIT 1)", [run]
    )
    return bool(found.fetchone()[0])


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
