"""Rows of the signals that are recorded on request: logit effects, the neuron census and the neurons of chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from workbench.runtime.held import tensor
from workbench.runtime.pieces import Piece, Pieces, known

UNITS = ("embed", "attn", "mlp", "block", "head", "expert")


def request_rows(pieces: Sequence[Piece]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of ``logit_effect``, ``metric``, ``neuron_rate`` and ``neuron_chunk`` of ``pieces``."""
    for piece in pieces:
        if piece.kept.effects is not None and piece.taken.facts.record.has_layer(piece.layer):
            yield from _effects(piece)
        if piece.kept.census is not None:
            yield "neuron_rate", _census(piece)
        if piece.kept.chunks is not None:
            yield from _chunks(piece)


def _effects(piece: Piece) -> Iterator[tuple[str, Mapping[str, Any]]]:
    effects, at = piece.kept.effects, torch.from_numpy(piece.tokens.at)
    assert effects is not None
    targets = tensor(effects.targets)[at].numpy()
    key = Pieces([piece]).cells
    for unit in UNITS:
        if unit not in effects.values:
            continue
        values = tensor(effects.values[unit])[at].float().numpy()
        count = values.shape[1]
        number: Any = np.tile(np.arange(count, dtype=np.int16), len(values)) if unit == "head" else None
        if unit == "expert":
            number = piece.kept["ids"][piece.tokens.at].reshape(-1).astype(np.int16)
        rows = np.repeat(np.arange(len(values)), count)
        ran = np.ones(len(rows), dtype=bool) if unit != "expert" else number >= 0
        yield "logit_effect", {name: column[rows][ran] for name, column in key.items()} | {
            "unit": unit, "number": None if number is None else number[ran],
            "target": targets[rows][ran], "effect": values.reshape(-1)[ran],
        }  # fmt: skip
    if "error" in effects.values and len(at):
        error = tensor(effects.values["error"])[at].abs().squeeze(-1).numpy()
        runs, first = np.unique(piece.tokens.run, return_index=True)
        largest = [float(error[piece.tokens.run == run].max()) for run in runs]
        yield (
            "metric",
            {"run": runs, "step": piece.taken.step, "name": "logit_effect_error", "value": largest},
        )


def _census(piece: Piece) -> dict[str, Any]:
    census, moe = piece.kept.census, piece.taken.facts.anatomy.layer(piece.layer).moe
    assert census is not None
    came, *each = map(tensor, census)
    row, expert = (came > 0).nonzero(as_tuple=True)
    width = census.active.shape[-1]
    tokens = came[row, expert].unsqueeze(-1).expand(-1, width).reshape(-1)
    active, total, largest = (part[row, expert].reshape(-1) for part in each)
    return {
        "run": np.repeat(piece.taken.runs[row.numpy()], width), "layer": piece.layer,
        "expert": -1 if moe is None else np.repeat(expert.numpy(), width),
        "neuron": np.tile(np.arange(width), len(row)), "rate": (active / tokens).float().numpy(),
        "tokens": tokens.numpy(), "mean": (total / tokens).float().numpy(), "largest": largest.float().numpy(),
    }  # fmt: skip


def _chunks(piece: Piece) -> Iterator[tuple[str, Mapping[str, Any]]]:
    chunks = piece.kept.chunks
    assert chunks is not None
    start, union, expected = map(tensor, chunks)
    if not union.numel():
        return
    whole = ~union.isnan()
    row = whole.nonzero()[:, 0].numpy()
    yield "neuron_chunk", {
        "run": piece.taken.runs[row], "step": piece.taken.step, "layer": piece.layer, "chunk": 8,
        "position": start[whole].numpy(), "union_share": known(union[whole].numpy()),
        "null_share": known(expected[whole].numpy()),
    }  # fmt: skip
