"""From what a pass captured to rows in the store: one copy off the device a pass, then columns.

The recorder never touches the model's tensors in place and runs after the pass, so logits are the same bits with and
without it. Padding is left out of every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.interventions.ragged import NOTHING
from workbench.runtime.capture import Capture
from workbench.runtime.passes import Pass
from workbench.runtime.record import Record
from workbench.signals import routing, sparsity
from workbench.store import Store

Columns: TypeAlias = Mapping[str, Any]


class _Tokens(NamedTuple):
    """The valid tokens of a pass: flat index, run id, row of the batch and absolute position of each."""

    at: NDArray[np.int64]
    run: NDArray[np.int64]
    row: NDArray[np.int64]
    position: NDArray[np.int64]


class Recorder:
    """Writes the rows of one run, or of a batch of runs of which row ``b`` is ``runs[b]``."""

    def __init__(
        self, store: Store, record: Record, anatomy: Anatomy, runs: Sequence[int], kernels: str, isa: str
    ) -> None:
        self._store = store
        self._record = record
        self._anatomy = anatomy
        self._runs = np.asarray(runs, dtype=np.int64)
        self._kernels = kernels
        self._isa = isa

    def take(self, now: Pass, captures: Mapping[int, Capture]) -> None:
        """Write what ``captures`` (by layer) hold of the pass ``now``."""
        tokens = self._tokens(now)
        routed = {layer: c for layer, c in sorted(captures.items()) if c.ids is not None}
        if self._record.routing and routed:
            self._routing(now, tokens, routed)
        if self._record.scores and routed:
            self._scores(now, tokens, routed)
        if self._record.contribution:
            self._contribution(now, tokens, captures)
        if self._record.sparsity:
            self._sparsity(now, tokens, captures)
        if self._record.attention_rank:
            self._attention_rank(now, captures)
        self._depth(now, tokens, captures)

    def _tokens(self, now: Pass) -> _Tokens:
        positions = _numpy(now.positions)
        valid = np.ones(positions.size, dtype=bool) if now.valid is None else _numpy(now.valid).reshape(-1)
        index = np.flatnonzero(valid)
        row = np.repeat(np.arange(positions.shape[0]), positions.shape[1])[index]
        return _Tokens(index, self._runs[row], row, positions.reshape(-1)[index])

    def _routing(self, now: Pass, tokens: _Tokens, routed: Mapping[int, Capture]) -> None:
        for layers in _groups(routed, lambda c: c.ids.shape[-1]):  # type: ignore[union-attr]
            captures = [routed[layer] for layer in layers]
            ids = _stack(c.ids for c in captures)[:, tokens.at]
            weights = _stack(c.weights for c in captures)[:, tokens.at]
            count, size, k = ids.shape
            ordered = np.where(ids == NOTHING, np.inf, -weights)  # unused slots come last
            rank = np.argsort(np.argsort(ordered, axis=-1, kind="stable"), axis=-1, kind="stable")
            norm = None
            if all(c.experts is not None for c in captures):
                norm = _stack(c.experts.slot_norm for c in captures)[:, tokens.at]  # type: ignore[union-attr]
            rows = (count, size, k)
            used = (ids != NOTHING).reshape(-1)
            self._store.write("routing", {
                "run": _spread(tokens.run[:, None], rows)[used], "step": now.step,
                "position": _spread(tokens.position[:, None], rows)[used],
                "layer": _spread(np.asarray(layers)[:, None, None], rows)[used],
                "slot": _spread(np.arange(k), rows)[used], "expert": ids.reshape(-1)[used],
                "weight": weights.reshape(-1)[used], "rank": rank.reshape(-1)[used],
                "norm": None if norm is None else norm.reshape(-1)[used],
            })  # fmt: skip
            self._router(now, tokens, layers, captures, ids)
            if norm is not None:
                self._experts(now, tokens, layers, captures, ids, weights, norm)

    def _router(
        self,
        now: Pass,
        tokens: _Tokens,
        layers: Sequence[int],
        captures: Sequence[Capture],
        ids: NDArray[Any],
    ) -> None:
        rows = (len(layers), tokens.at.size)
        margin, tie, entropy = (self._per_layer(layers, captures, tokens, part) for part in (0, 1, 2))
        edited = np.zeros(rows, dtype=bool)
        for n, capture in enumerate(captures):
            if capture.edited is not None:
                edited[n] = _numpy(capture.edited)[tokens.at]
        experts = np.asarray([self._experts_in(layer) for layer in layers])[:, None, None]
        dropped = ((ids < 0) | (ids >= experts)).sum(axis=-1)
        self._store.write("router", {
            "run": _spread(tokens.run, rows), "step": now.step, "position": _spread(tokens.position, rows),
            "layer": _spread(np.asarray(layers)[:, None], rows), "margin": _known(margin), "entropy": _known(entropy),
            "tie": tie,
            "dropped": dropped.reshape(-1), "edited": edited.reshape(-1),
            "native": _where_edited(edited, captures, tokens, "native_ids"),
            "native_weights": _where_edited(edited, captures, tokens, "native_weights"),
        })  # fmt: skip

    def _per_layer(
        self, layers: Sequence[int], captures: Sequence[Capture], tokens: _Tokens, part: int
    ) -> Any:
        """Margin, tie or entropy of every layer, or ``None`` where the router's logits are not proved."""
        values = []
        for layer, capture in zip(layers, captures, strict=True):
            signals = self._router_signals(layer, capture)
            if signals is None:
                return None
            values.append(_numpy(signals[part])[tokens.at])
        return np.concatenate(values)

    def _router_signals(self, layer: int, capture: Capture) -> tuple[Tensor, Tensor, Tensor] | None:
        rule = self._anatomy.layer(layer).moe.rule  # type: ignore[union-attr]
        if capture.logits is None or rule is None or capture.ids is None:
            return None
        if capture.selection is None:
            capture.selection = rule.selection(rule.scores(capture.logits))
        margin, tie = routing.margins(capture.selection, capture.ids.shape[-1])
        return margin, tie, routing.entropy(capture.logits, rule.score)

    def _experts(
        self, now: Pass, tokens: _Tokens, layers: Sequence[int], captures: Sequence[Capture],
        ids: NDArray[Any], weights: NDArray[Any], norm: NDArray[Any],
    ) -> None:  # fmt: skip
        """Per-expert sums of each run, and what the kernel counted of its own work."""
        alone = len(self._runs) == 1 and now.valid is None
        for n, layer in enumerate(layers):
            experts = self._experts_in(layer)
            size = (len(self._runs), experts)
            inside = (ids[n] >= 0) & (ids[n] < experts)
            key = (tokens.row[:, None] * experts + ids[n])[inside]
            w, v = np.abs(weights[n][inside]).astype(np.float64), norm[n][inside].astype(np.float64)
            kernel = captures[n].experts
            assert kernel is not None
            counts = _numpy(kernel.counts) if alone else np.bincount(key, minlength=size[0] * size[1])
            highest = np.zeros(size[0] * size[1])
            np.maximum.at(highest, key, v)
            used = np.flatnonzero(counts)
            self._store.write("expert_stat", {
                "run": self._runs[used // experts], "step": now.step, "layer": layer, "expert": used % experts,
                "tokens": counts.reshape(-1)[used], "weight_sum": np.bincount(key, w, size[0] * size[1])[used],
                "norm_sum": np.bincount(key, v, size[0] * size[1])[used],
                "weighted_norm_sum": np.bincount(key, w * v, size[0] * size[1])[used], "norm_max": highest[used],
            })  # fmt: skip
            executed = np.bincount(tokens.row, inside.sum(axis=-1), len(self._runs)).astype(np.int64)
            asked = np.bincount(tokens.row, minlength=len(self._runs)) * ids.shape[-1]
            self._store.write("cost", {
                "run": self._runs, "step": now.step, "layer": layer, "op": "moe_experts", "backend": self._kernels,
                "isa": self._isa, "executed": executed, "skipped": asked - executed,
            })  # fmt: skip

    def _scores(self, now: Pass, tokens: _Tokens, routed: Mapping[int, Capture]) -> None:
        for layer, capture in routed.items():
            if self._router_signals(layer, capture) is None:
                continue
            assert capture.selection is not None and capture.logits is not None
            self._store.write("router_scores", {
                "run": tokens.run, "step": now.step, "position": tokens.position, "layer": layer,
                "scores": list(_numpy(capture.selection)[tokens.at]),
                "logits": list(_numpy(capture.logits)[tokens.at]),
            })  # fmt: skip

    def _contribution(self, now: Pass, tokens: _Tokens, captures: Mapping[int, Capture]) -> None:
        layers = [layer for layer, c in sorted(captures.items()) if c.contribution is not None]
        if not layers:
            return
        rows = (len(layers), tokens.at.size)
        columns: dict[str, Any] = {
            "run": _spread(tokens.run, rows), "step": now.step, "position": _spread(tokens.position, rows),
            "layer": _spread(np.asarray(layers)[:, None], rows),
        }  # fmt: skip
        for name in ("attn_norm", "attn_cos", "mlp_norm", "mlp_cos", "block_norm", "influence"):
            values = [getattr(captures[layer].contribution, name) for layer in layers]
            shape = next((v.shape for v in values if v is not None), None)
            if shape is None:
                columns[name] = None
                continue
            filled = [torch.full(shape, torch.nan) if v is None else v for v in values]
            columns[name] = _known(_stack(filled).reshape(len(layers), -1)[:, tokens.at])
        self._store.write("contribution", columns)

    def _sparsity(self, now: Pass, tokens: _Tokens, captures: Mapping[int, Capture]) -> None:
        for layer, capture in sorted(captures.items()):
            if capture.experts is not None and capture.ids is not None:
                self._expert_sparsity(now, tokens, layer, capture)
            if capture.activation is not None:
                found = capture.activation
                self._write_sparsity(
                    now, layer, tokens.run, tokens.position, -1, capture.width, found, tokens.at
                )

    def _expert_sparsity(self, now: Pass, tokens: _Tokens, layer: int, capture: Capture) -> None:
        out, mlp = capture.experts, self._anatomy.layer(layer).mlp
        assert out is not None and mlp is not None and capture.ids is not None
        found = sparsity.from_sums(
            mlp.act_width, out.hidden_zero, out.hidden_below, out.hidden_l1, out.hidden_l2
        )
        ids = _numpy(capture.ids)[tokens.at]
        k = ids.shape[-1]
        slots = (tokens.at[:, None] * k + np.arange(k)).reshape(-1)
        ran = ((ids >= 0) & (ids < self._experts_in(layer))).reshape(-1)
        self._write_sparsity(
            now, layer, np.repeat(tokens.run, k)[ran], np.repeat(tokens.position, k)[ran], ids.reshape(-1)[ran],
            mlp.act_width, found, slots[ran],
        )  # fmt: skip

    def _write_sparsity(
        self, now: Pass, layer: int, run: NDArray[Any], position: NDArray[Any], expert: Any, width: int,
        found: sparsity.Sparsity, index: NDArray[Any],
    ) -> None:  # fmt: skip
        self._store.write("sparsity", {
            "run": run, "step": now.step, "position": position, "layer": layer, "expert": expert, "width": width,
            "zero_share": _numpy(found.zero_share).reshape(-1)[index], "threshold": self._record.threshold,
            "below_share": _numpy(found.below_share).reshape(-1)[index],
            "hoyer": _known(_numpy(found.hoyer).reshape(-1)[index]),
        })  # fmt: skip

    def _attention_rank(self, now: Pass, captures: Mapping[int, Capture]) -> None:
        for layer, capture in sorted(captures.items()):
            if capture.ranks is None:
                continue
            parts = [_numpy(part) for part in capture.ranks]
            rows, heads = parts[0].shape
            self._store.write("attention_rank", {
                "run": np.repeat(self._runs, heads), "step": now.step, "layer": layer,
                "head": np.tile(np.arange(heads), rows), "tokens": capture.rank_tokens,
                "submatrix": "sampled" if capture.rank_sampled else "full", "method": "svd",
                "tolerance": self._record.rank_tolerance, "dtype": "float32",
                **{
                    name: _known(part)
                    for name, part in zip(("rank", "stable_rank", "effective_rank", "entropy"), parts, strict=True)
                },
            })  # fmt: skip

    def _depth(self, now: Pass, tokens: _Tokens, captures: Mapping[int, Capture]) -> None:
        for layer, capture in sorted(captures.items()):
            if capture.skipped:
                self._store.write("depth", {
                    "run": tokens.run, "step": now.step, "position": tokens.position, "layer": layer, "unit": "block",
                    "event": "skip", "kv": "absent",
                })  # fmt: skip

    def _experts_in(self, layer: int) -> int:
        moe = self._anatomy.layer(layer).moe
        assert moe is not None
        return moe.num_experts


def _where_edited(
    edited: NDArray[np.bool_], captures: Sequence[Capture], tokens: _Tokens, name: str
) -> list[list[Any] | None] | None:
    """The native ids or weights of the edited tokens, ``None`` for the others (or for all)."""
    if not edited.any():
        return None
    values: list[list[Any] | None] = []
    for flags, capture in zip(edited, captures, strict=True):
        native = _numpy(getattr(capture, name))[tokens.at]
        values.extend(native[n].tolist() if flag else None for n, flag in enumerate(flags))
    return values


def _groups(routed: Mapping[int, Capture], key: Callable[[Capture], int]) -> list[list[int]]:
    """Layers that can be stacked: those with the same number of choices."""
    found: dict[int, list[int]] = {}
    for layer, capture in routed.items():
        found.setdefault(key(capture), []).append(layer)
    return list(found.values())


def _spread(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    return np.broadcast_to(values, shape).reshape(-1)


def _stack(tensors: Any) -> NDArray[Any]:
    """Tensors of equal shape as one array, with one copy off the device."""
    tensors = list(tensors)
    device = tensors[0].device
    return _numpy(torch.stack([t.to(device) for t in tensors]))


def _known(values: NDArray[Any] | None) -> pa.Array | None:
    """A column in which what is undefined (NaN: no runner-up, a zero vector) is NULL."""
    return None if values is None else pa.array(values.reshape(-1), from_pandas=True)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.cpu().numpy()
