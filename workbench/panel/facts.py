"""What the store says of one cell of a run: its slots, its router, its parts, and what became of its block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.panel import replies
from workbench.panel.ran import finite

if TYPE_CHECKING:
    from workbench.panel.ran import Ran

_PARTS = ("attn_norm", "attn_cos", "mlp_norm", "mlp_cos", "block_norm", "influence")
_SPARSITY = ("zero_share", "below_share", "hoyer")
_HERE = "WHERE run = $run AND layer = $layer AND position = $position"
# One statement for all of it: a question to the store costs a millisecond, whatever it asks.
_QUERY = f"""
SELECT (SELECT list(struct_pack(expert := expert, weight := weight, norm := norm)) FROM routing {_HERE} AND expert >= 0),
       (SELECT struct_pack(margin := margin, entropy := entropy, tie := tie, edited := edited) FROM router {_HERE} LIMIT 1),
       (SELECT struct_pack(scores := scores, logits := logits) FROM router_scores {_HERE} LIMIT 1),
       (SELECT [{", ".join(_PARTS)}] FROM contribution {_HERE} LIMIT 1),
       (SELECT [{", ".join(f"avg({name})" for name in _SPARSITY)}] FROM sparsity {_HERE}),
       (SELECT list(DISTINCT unit || ' ' || event ORDER BY unit || ' ' || event) FROM depth {_HERE} AND event <> 'execute')
"""


class Slot(NamedTuple):
    """One chosen expert: its combine weight, and the norm of what it adds, where the kernels gave it."""

    weight: float
    output: float | None


@dataclass(frozen=True)
class CellFacts:
    """One cell as it was executed. ``slots`` by expert; ``events`` as ``block skip`` or ``mlp repeat``."""

    slots: dict[int, Slot]
    scores: list[float] | None
    logits: list[float] | None
    margin: float | None
    entropy: float | None
    tie: bool
    edited: bool
    parts: dict[str, float | None]
    events: list[str]


class Facts:
    """The cells that were asked for last: a click changes the plan, not what has run."""

    MOST = 64

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, int, int], CellFacts] = {}

    def of(self, cursor: Callable[[], Any], ran: Ran, cell: replies.Cell) -> CellFacts:
        """The facts of a cell, by a ``cursor`` of the store where they are not known; of a token that the model has not
        read yet they are not kept."""
        key = (ran.id, cell.layer, cell.position)
        with self._lock:
            found = self._kept.get(key)
        if found is None:
            found = _read(cursor(), ran.id, cell)
            with self._lock:
                if cell.position < ran.computed:
                    self._kept[key] = found
                while len(self._kept) > self.MOST:
                    del self._kept[next(iter(self._kept))]
        return found


def _read(cursor: Any, run: int, cell: replies.Cell) -> CellFacts:
    where = {"run": run, "layer": cell.layer, "position": cell.position}
    slots, router, scores, parts, sparsity, events = cursor.execute(_QUERY, where).fetchone()
    named = dict(zip(_PARTS + _SPARSITY, (parts or [None] * len(_PARTS)) + sparsity, strict=True))
    router = router or {"margin": None, "entropy": None, "tie": False, "edited": False}
    return CellFacts(
        slots={
            int(slot["expert"]): Slot(
                float(slot["weight"]), None if slot["norm"] is None else float(slot["weight"] * slot["norm"])
            )
            for slot in slots or []
        },
        scores=scores and scores["scores"],
        logits=scores and scores["logits"],
        margin=finite(router["margin"]),
        entropy=finite(router["entropy"]),
        tie=bool(router["tie"]),
        edited=bool(router["edited"]),
        parts={name: finite(value) for name, value in named.items() if finite(value) is not None},
        events=list(events or []),
    )
