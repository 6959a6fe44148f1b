"""How much the edits of recorded runs changed, layer by layer, as the rows of those runs say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import PlanError
from workbench.runtime.run import Run

PHASES = ("prefill", "decode")


class Visits(NamedTuple):
    """What became of the tokens of which a run decided in one layer: positions that were skipped, ran once, and ran more
    often (with how often)."""

    skipped: tuple[int, ...]
    once: tuple[int, ...]
    repeated: tuple[int, ...]

    @property
    def share(self) -> float:
        """Share of the tokens that ran."""
        total = len(self.skipped) + len(self.once) + len(self.repeated)
        return 1 - len(self.skipped) / total if total else 1.0


class Realised:
    """The amounts of ``runs``, which must have been recorded under one plan by one bench."""

    def __init__(self, runs: Sequence[Run], plan_hash: str) -> None:
        for run in runs:
            if run.id is None:
                raise PlanError(
                    "A run that was not recorded does not say how much its plan changed.",
                    "Run it with record=wb.Record().",
                )
            if run.plan.hash != plan_hash:
                raise PlanError(
                    f"Run {run.id} was made under another plan.", "Give a run of the plan itself in like."
                )
        self._runs = list(runs)
        self._ids = [run.id for run in runs]

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._runs[0].bench.sql(query, [self._ids, *values]).fetchall()

    def visits(self, unit: str, layer: int, protect: Sequence[int]) -> Visits:
        """The tokens of the runs whose run of ``unit`` (``block``, ``attn``, ``mlp``) was decided in ``layer``, but those
        at the positions ``protect``."""
        rows = self._rows(
            "SELECT position, event FROM depth WHERE list_contains(?, run) AND unit = ? AND layer = ? ORDER BY ALL",
            unit, layer,
        )  # fmt: skip
        if len(self._runs) > 1 and any(event == "repeat" for _, event in rows):
            raise PlanError(
                f"Several runs repeated tokens of layer {layer}, each at positions of its own.",
                "Give one of them in like, and control each by itself.",
            )
        kinds: dict[str, list[int]] = {"skip": [], "execute": [], "repeat": []}
        for position, event in rows:
            if position not in protect:
                kinds["execute" if event == "reuse" else event].append(position)
        return Visits(*(tuple(kinds[event]) for event in ("skip", "execute", "repeat")))

    def left_out(self, op: str, layer: int) -> float | None:
        """Share of the units of ``op`` that were left out or masked in ``layer``; ``None`` where nothing was counted."""
        ((asked, gone),) = self._rows(
            "SELECT sum(executed + skipped), sum(skipped + masked) FROM cost "
            "WHERE list_contains(?, run) AND op = ? AND layer = ?",
            op, layer,
        )  # fmt: skip
        return float(gone / asked) if asked else None

    def hidden(self, layer: int) -> int:
        """How many tokens of a run were hidden in ``layer``, the mean over the runs, rounded."""
        ((masked,),) = self._rows(
            "SELECT sum(masked) FROM cost WHERE list_contains(?, run) AND op = 'attention_tokens' AND layer = ?",
            layer,
        )
        return round(int(masked or 0) / len(self._runs))

    @property
    def length(self) -> int:
        """Tokens that every one of the runs computed."""
        return min(len(run.logits) for run in self._runs)

    @property
    def prompt(self) -> int:
        """Tokens of the shortest prompt."""
        return min(run.prompt_tokens for run in self._runs)

    def keep(
        self, layer: int, heads: Sequence[int] | None, block: int, sinks: int, phase: str
    ) -> float | None:
        """The share of blocks at which a random mask is expected to keep as much of the causal maps as was kept in
        ``layer``, mean over ``heads`` (``None``: all), by the queries of a ``phase``; ``None`` where no map was masked."""
        rows = self._rows(
            "SELECT run, step, head, density FROM attention_mask WHERE list_contains(?, run) AND layer = ? "
            "AND (step = 0) = ?",
            layer,
            phase == "prefill",
        )
        found: dict[tuple[int, int], list[float]] = {}
        for run, step, head, density in rows:
            if heads is None or head in heads:
                found.setdefault((run, step), []).append(density)
        if not found:
            return None
        prompts = {run.id: run.prompt_tokens for run in self._runs}
        spans = {
            (run, step): (0, prompts[run]) if step == 0 else (prompts[run] + step - 1, prompts[run] + step)
            for run, step in found
        }
        wanted = sum(
            float(np.mean(densities)) * int((np.arange(*spans[at]) + 1).sum())
            for at, densities in found.items()
        )
        query = np.concatenate([np.arange(*span) for span in spans.values()])
        return _share_of_blocks(query, block, sinks, wanted)


def _share_of_blocks(query: NDArray[np.int64], block: int, sinks: int, wanted: float) -> float:
    """The share of the blocks it can see that each of the positions ``query`` keeps, so that together they keep about
    ``wanted`` entries: the middle of the range of shares that say the same."""
    seen, diagonal = query // block + 1, query % block + 1
    always = 1 + np.minimum(-(-sinks // block), seen - 1)

    def entries(share: float) -> float:
        kept = np.minimum(np.maximum(np.ceil(seen * share), always), seen)
        return float((diagonal + (kept - 1) * block).sum())

    def last(bound: float) -> float:
        """The largest share with no more entries than ``bound``."""
        low, high = 0.0, 1.0
        if entries(high) <= bound:
            return high
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if entries(middle) <= bound else (low, middle)
        return low

    below = entries(last(wanted))
    above = entries(min(1.0, last(wanted) + 1e-9))
    best = min((below, above), key=lambda found: abs(found - wanted))
    return max((last(best - 0.5) + last(best)) / 2, 1e-6)
