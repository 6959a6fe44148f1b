"""What earlier passes of a run leave for later ones: token ids, router scores, and who was assigned to whom.

A cached pass computes only its own tokens. An edit that looks back (a mean over a sentence, the places already taken) finds
the others here, so that cached and uncached passes agree. Rewinding cuts what lies behind the point it goes back to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions.assignment import Assigned
from workbench.interventions.reroute import Pooled


class History:
    """The past of a batch of B runs that advance together."""

    def __init__(self) -> None:
        self.tokens: Tensor | None = None
        self._scores: dict[int, Tensor] = {}
        self._assigned: dict[tuple[str, int], list[tuple[int, Assigned]]] = {}

    def begin(self, start: int, tokens: Tensor) -> None:
        """A pass reads ``tokens`` [B, S] from position ``start`` on; what is known of later positions is forgotten."""
        if self.tokens is None or self.tokens.shape[1] < start:
            if start:
                self.tokens = None
                return
            self.tokens = tokens
        else:
            self.tokens = torch.cat([self.tokens[:, :start], tokens], dim=1)
        self._scores = {layer: scores[:, :start] for layer, scores in self._scores.items()}
        self._assigned = {
            key: [(first, one) for first, one in entries if first < start]
            for key, entries in self._assigned.items()
        }

    def scores(self, layer: int, start: int, now: Tensor) -> Tensor:
        """The scores [B, start + S, E] of all tokens so far in ``layer``, of which the last are ``now`` [B, S, E]."""
        past = self._scores.get(layer)
        if start and (past is None or past.shape[1] < start):
            raise EditRefused(
                f"An edit of layer {layer} needs the scores of the {start} tokens before, which were not kept.",
                "Use the plan from the first token on.",
            )
        self._scores[layer] = now if past is None or not start else torch.cat([past[:, :start], now], dim=1)
        return self._scores[layer]

    def earlier(self, edit: Pooled, layer: int) -> Sequence[Assigned]:
        """What earlier passes assigned under ``edit`` in ``layer``."""
        return [one for _, one in self._assigned.get((edit.model_dump_json(), layer), [])]

    def assigned(self, edit: Pooled, layer: int, start: int, what: Assigned) -> None:
        """Keep what the pass that began at ``start`` assigned."""
        self._assigned.setdefault((edit.model_dump_json(), layer), []).append((start, what))

    def copy(self) -> History:
        """Another history with the same past."""
        twin = History()
        twin.tokens, twin._scores = self.tokens, dict(self._scores)
        twin._assigned = {key: list(entries) for key, entries in self._assigned.items()}
        return twin

    def repeated(self, rows: int) -> History:
        """The past of one run as that of ``rows`` equal ones."""
        twin = History()
        if self.tokens is not None:
            twin.tokens = self.tokens.expand(rows, -1)
        twin._scores = {layer: scores.expand(rows, -1, -1) for layer, scores in self._scores.items()}
        for key, entries in self._assigned.items():
            by_row = 2**32 if '"pool":"step"' in key[0] else 1
            twin._assigned[key] = [(first, _repeated(one, rows, by_row)) for first, one in entries]
        return twin


def _repeated(one: Assigned, rows: int, step: int) -> Assigned:
    """The assignment of row 0 for every row, whose pools are numbered ``step`` apart."""
    pools = [torch.where(one.pools >= 0, one.pools + row * step, one.pools) for row in range(rows)]
    return Assigned(torch.cat(pools), one.ids.repeat(rows, 1))
