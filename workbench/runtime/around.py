"""What the routing of a layer asks of the rest of the run: other runs, other layers, other tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions import reroute
from workbench.interventions.assignment import Assigned
from workbench.interventions.blob import Blob

if TYPE_CHECKING:
    from workbench.runtime.hooks.scene import Scene


class Around:
    """The surroundings of ``layer`` in the running pass; see :class:`workbench.interventions.routing.Surroundings`."""

    def __init__(self, scene: Scene, layer: int) -> None:
        self._scene = scene
        self._layer = layer
        self._start = int(scene.now.positions[0, 0])

    def routes(self, edit: reroute.Replay) -> tuple[Tensor, Tensor, Tensor]:
        """The routes of the other run for the tokens of this pass."""
        source = self._scene.lookup(edit.run, edit.layer_map.get(self._layer, self._layer))
        positions = self._scene.now.positions.reshape(-1)
        if edit.token_map:
            mapped = positions.clone()
            for here, there in edit.token_map.items():
                mapped[positions == here] = there
            positions = mapped
        inside = positions < source.known.shape[0]
        at = positions.clamp(max=source.known.shape[0] - 1)
        return source.ids[at], source.weights[at], source.known[at] & inside

    def executed(self, layer: int) -> tuple[Tensor, Tensor]:
        """What ``layer`` executed in this pass."""
        capture = self._scene.captures.get(layer)
        if capture is None or capture.ids is None or capture.weights is None:
            raise EditRefused(
                f"The choice of layer {layer} cannot be copied, because that layer did not run.",
                "Choose a source that is not skipped.",
            )
        return capture.ids, capture.weights

    def mixed(self, edit: reroute.Mixed, scores: Tensor) -> Tensor:
        """The scores of the tokens that ``edit`` mixes, by its weights."""
        self._check_whole(edit)
        now = self._scene.now
        shaped = scores.reshape(*now.positions.shape, -1)
        every = self._scene.history.scores(self._layer, self._start, shaped)
        total = every.shape[1]
        weights = self._weights(edit, total).to(every.dtype)
        if now.valid is not None:  # padding stands behind the tokens, so it is in this pass
            known = torch.ones(len(every), total, dtype=torch.bool, device=every.device)
            known[:, self._start :] = now.valid
            weights = weights * known.unsqueeze(1)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return (weights @ every).reshape(scores.shape)

    def earlier(self, edit: reroute.Pooled) -> Sequence[Assigned]:
        """What earlier passes assigned under ``edit``."""
        self._check_whole(edit)
        return self._scene.history.earlier(edit, self._layer)

    def assigned(self, edit: reroute.Pooled, what: Assigned) -> None:
        """Keep what this pass assigned."""
        self._scene.history.assigned(edit, self._layer, self._start, what)

    def _check_whole(self, edit: reroute.Reroute) -> None:
        if self._scene.partial:
            raise EditRefused(
                f"{edit.kind} looks at all tokens, but only some of them run in layer {self._layer}.",
                "Give the edit that skips tokens other layers.",
            )

    def _weights(self, edit: reroute.Mixed, total: int) -> Tensor:
        """Weights [B, S, total] of all tokens so far for each token of the pass, not yet divided by their sum."""
        rows, size = self._scene.now.positions.shape
        device = self._scene.now.positions.device
        here = torch.arange(self._start, self._start + size, device=device).unsqueeze(-1)
        there = torch.arange(total, device=device)
        if isinstance(edit, reroute.Group):
            groups = _groups(edit, self._scene, total)
            same = groups[:, self._start :].unsqueeze(-1) == groups.unsqueeze(1)
            if edit.take == "first":
                return same & (same.int().argmax(-1, keepdim=True) == there)
            return same if edit.take == "mean" else same & (there <= here)
        assert isinstance(edit, reroute.Smooth)
        if edit.by == "attention":
            return self._attention(total)
        if edit.window is not None:
            return ((there <= here) & (there > here - edit.window)).expand(rows, -1, -1)
        assert isinstance(edit.matrix, Blob)
        given = torch.as_tensor(edit.matrix.numbers).to(device)
        weights = torch.eye(max(total, len(given)), dtype=given.dtype, device=device)
        weights[: len(given), : len(given)] = given
        return weights[self._start : self._start + size, :total].expand(rows, -1, -1)

    def _attention(self, total: int) -> Tensor:
        """The layer's attention probabilities [B, S, total], mean over heads."""
        maps = self._scene.captures[self._layer].attended
        if maps is None or maps.shape[-1] != total:
            raise EditRefused(
                f"The attention of layer {self._layer} does not reach all {total} tokens, so it cannot weigh their scores.",
                "Smooth by a window or a matrix.",
            )
        return maps


def _groups(edit: reroute.Group, scene: Scene, total: int) -> Tensor:
    """The number [B, total] of the group each token so far belongs to."""
    tokens = scene.history.tokens
    if tokens is None or tokens.shape[1] < total:
        raise EditRefused(
            f"{edit.kind} needs the tokens before, which were not kept.",
            "Use the plan from the first token on.",
        )
    if edit.by == "sample":
        return torch.zeros_like(tokens)
    ends = _matching(tokens, re.compile(edit.ends).search, scene.token_text).long()
    return ends.cumsum(-1) - ends


def _matching(tokens: Tensor, search: Callable[[str], object], text: Callable[[int], str]) -> Tensor:
    ids, where = torch.unique(tokens, return_inverse=True)
    return torch.tensor([search(text(i)) is not None for i in ids.tolist()], device=tokens.device)[where]
