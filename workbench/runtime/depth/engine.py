"""Runs blocks, attentions and MLPs for the tokens that go through them, as often as they do.

A unit's forward is replaced for the time of a session. Tokens that do not run are taken out before it and put back behind
it, so that nothing of the unit is computed for them; while it runs, the session sees a pass of those tokens alone, and
every edit and every recording inside keeps working by absolute position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from routing_kernels import scatter_add_rows
from torch import Tensor, nn

from workbench.anatomy import Attention, Block, Outlet
from workbench.errors import EditRefused
from workbench.interventions.skip import Path
from workbench.runtime.depth.call import Call, chosen, mask_for, part_of
from workbench.runtime.depth.decide import Decider, Decision
from workbench.runtime.depth.kv import Shared, Slot, Store, View, forgets, memory_of, slot_of
from workbench.runtime.depth.left import Left
from workbench.runtime.depth.places import leave_empty, put_back
from workbench.runtime.depth.received import Received
from workbench.runtime.hooks.scene import DepthEvent, Scene
from workbench.runtime.passes import Pass
from workbench.runtime.replace import replace_forward


@dataclass(frozen=True)
class Layer:
    """What is done in one layer: who decides for each unit, and whose weights run in its place."""

    block: Block
    deciders: Mapping[str, Decider]
    sources: Mapping[str, Block]
    gated: bool


class Engine:
    """The depth of one session.

    Parameters
    ----------
    layers
        By number, those whose depth is edited (or all, where a cache holds tokens that left nothing behind).
    path
        The order of the blocks, where a plan gives it.
    additive
        Whether the model adds its attention masks (eager attention) instead of selecting by them.
    received
        Who measures the attention that tokens received, where an edit scores by it.
    """

    def __init__(
        self, scene: Scene, layers: Mapping[int, Layer], path: Path | None, additive: bool, received: Received
    ) -> None:
        self._scene = scene
        self._layers = layers
        self._path = path
        self._additive = additive
        self.received = received
        self._own: dict[nn.Module, Callable[..., Any]] = {}
        gated = {
            layer.block.attention.module
            for layer in layers.values()
            if layer.block.attention is not None and "attention" in layer.deciders
        }
        self._left = Left(scene, self._own, gated)
        self._off: dict[tuple[int, str], Tensor] = {}
        self._gates: dict[int, Tensor] = {}
        self._silent: dict[tuple[int, str], Tensor] = {}

    # Installing

    def install(self, undo: ExitStack) -> None:
        """Replace the forwards that the edits need."""
        for (
            block
        ) in self._scene.anatomy.blocks:  # sources and path blocks too: their own forward is asked for
            for module in _units(block).values():
                self._own[module] = module.forward
        for layer in self._layers.values():
            self._install(layer, undo)

    def _install(self, layer: Layer, undo: ExitStack) -> None:
        block = layer.block
        self._replace(block.module, self._block_forward(layer), undo)
        if block.attention is not None and "attention" in layer.deciders:
            self._replace(block.attention.module, self._attention_forward(layer), undo)
            self._silence("attention", block, block.attention.module, block.attn_outlet, undo)
        if block.mlp is not None and "mlp" in layer.deciders:
            self._replace(block.mlp.module, self._mlp_forward(layer), undo)
            self._silence("mlp", block, block.mlp.module, block.mlp_outlet, undo)
        if layer.gated:
            assert block.mlp_outlet is not None  # the edit was checked against the anatomy
            undo.callback(block.mlp_outlet.module.register_forward_hook(self._scale(block.layer)).remove)

    def _replace(self, module: nn.Module, forward: Callable[..., Any], undo: ExitStack) -> None:
        undo.callback(replace_forward(module, forward))

    def _silence(
        self, unit: str, block: Block, module: nn.Module, outlet: Outlet | None, undo: ExitStack
    ) -> None:
        """A norm behind a skipped sublayer may have a bias: what it says of skipped tokens is zero."""
        if outlet is None or outlet.module is module:
            return

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            silent = self._silent.get((block.layer, unit))
            return None if silent is None else output.masked_fill(silent.unsqueeze(-1), 0.0)

        undo.callback(outlet.module.register_forward_hook(hook).remove)

    def _scale(self, layer: int) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            gate = self._gates.get(layer)
            if gate is None:
                return None
            added = output[0] if isinstance(output, tuple) else output
            scaled = added * gate.reshape(*added.shape[:-1], 1).to(added.dtype)
            return (scaled, *output[1:]) if isinstance(output, tuple) else scaled

        return hook

    def _pack(self, module: nn.Module, hidden: Tensor) -> Any:
        """``hidden`` in the form in which ``module`` returns it."""
        parts = self._scene.arity.get(module, 0)
        return (hidden, *[None] * (parts - 1)) if parts else hidden

    # Blocks

    def _block_forward(self, layer: Layer) -> Callable[..., Any]:
        own, module = self._own[layer.block.module], layer.block.module

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = Call.bind(own, args, kwargs)
            if self._path is not None:
                return self._pack(module, self._walk(call) if layer.block.layer == 0 else call.hidden)
            decision = layer.deciders["block"](call.hidden, call.cache) if "block" in layer.deciders else None
            source = layer.sources.get("block", layer.block)
            past = self._scene.now.past
            if (
                source is layer.block
                and (decision is None or decision.once)
                and not self._gaps(layer, call, past)
            ):
                self._note(layer.block.layer, "block", decision)
                self._scene.entered[layer.block.layer] = call.hidden
                with self._scene.around(layer.block.layer, call.hidden) as leave:
                    output = own(*args, **kwargs)
                    leave(output)
                self._extend(layer.block, call, past)
                return output
            if decision is None:
                decision = _all_once(call.hidden)
            self._note(layer.block.layer, "block", decision, source.layer)
            hidden = self._run_block(layer, source, call, decision, past)
            self._extend(layer.block, call, past)
            return self._pack(module, hidden)

        return forward

    def _extend(self, block: Block, call: Call, past: int) -> None:
        """Give the tokens of the pass placeholders in the slots of visits that none of them made."""
        if call.cache is None or block.attention is None:
            return
        for (layer, _), number in memory_of(call.cache).slots.items():
            slot = Slot(call.cache, number, past, call.hidden.shape[1])
            if layer == block.layer and not slot.written:
                leave_empty(slot, block.attention, call.hidden)

    def _gaps(self, layer: Layer, call: Call, past: int) -> bool:
        """Whether some token before left nothing in the layer's own slot."""
        cache = call.cache
        if cache is None or layer.block.attention is None:
            return False
        return memory_of(cache).known(layer.block.layer, call.hidden.shape[0], past) is not None

    def _run_block(self, layer: Layer, source: Block, call: Call, decision: Decision, past: int) -> Tensor:
        hidden = call.hidden
        if decision.repeat_kv == "overwrite" and bool((decision.visits > 1).any()) and hidden.shape[1] > 1:
            return self._token_by_token(
                call,
                past,
                lambda part, at: self._run_block(layer, source, part, _at(decision, at), past + at),
            )
        number, cache = layer.block.layer, call.cache
        first = (
            None if cache is None or source.attention is None else Slot(cache, number, past, hidden.shape[1])
        )
        most = int(decision.visits.max())
        if most == 0:
            self._left.behind(layer.block, call, decision, first)
            return hidden
        for visit in range(most):
            index, valid = chosen(decision.visits > visit)
            view = None
            if first is not None:
                store = first if visit == 0 else self._again(first, visit, decision, number)
                filled = self._left.filled(layer.block, call, decision, first) if visit == 0 else None
                if visit and store is first:  # what later visits do not replace stays
                    filled = first.take_back()
                view = View(store, index, valid, filled)
            self._switch_off(layer.block, decision, visit, index)
            gate = None if decision.gate is None else decision.gate.gather(1, index)
            if decision.gated == "mlp" and gate is not None:
                self._gates[number] = gate
            out = self._visit(source, number, call, index, valid, view, decision.reindex, keep=visit == 0)
            self._gates.pop(number, None)
            call = replace(call, named=call.named | {call.first: put_back(
                call.hidden, out, index, valid, gate if decision.gated == "both" else None
            )})  # fmt: skip
        for unit in ("attention", "mlp"):
            self._off.pop((number, unit), None)
        return call.hidden

    def _again(self, first: Slot, visit: int, decision: Decision, layer: int) -> Store:
        """Where a repeated visit keeps its keys and values."""
        if forgets(first.cache, layer):
            raise EditRefused(
                f"Layer {layer} keeps a window of keys and values only, so it cannot be repeated with a cache.",
                "Repeat a layer without a sliding window.",
            )
        if decision.parts == "mlp" or decision.repeat_kv == "share-first":
            return Shared(first)
        if decision.repeat_kv == "overwrite":
            return first
        return Slot(first.cache, slot_of(first.cache, layer, visit), first.past, first.size)

    def _switch_off(self, block: Block, decision: Decision, visit: int, index: Tensor) -> None:
        """In the repeats of one sublayer, keep the other from running again."""
        visits = decision.visits.gather(1, index)
        if decision.parts == "attention":
            self._off[block.layer, "mlp"] = visits > visit + 1
        elif decision.parts == "mlp":
            self._off[block.layer, "attention"] = torch.full_like(visits, visit > 0, dtype=torch.bool)

    def _visit(
        self, source: Block, place: int, call: Call, index: Tensor, valid: Tensor, view: View | None, reindex: bool,
        keep: bool,
    ) -> Tensor:  # fmt: skip
        """Run ``source`` for the tokens ``index``; what it captures is ``place``'s."""
        part = part_of(self._scene.now, index, valid)
        if view is None:
            changed = call.gathered(index, None, call.cache)
        else:
            changed = call.gathered(index, self._mask(call, index, valid, view), view)
        if reindex and view is not None:
            changed["position_embeddings"] = self._counted_anew(changed[call.first], view)
        with self._scene.within(part, source.layer, place, keep):
            self._scene.entered[source.layer] = changed[call.first]
            with self._scene.around(place if keep else None, changed[call.first]) as leave:
                output = self._own[source.module](**(call.named | changed))
                leave(output)
        return _tensor(output)

    def _mask(self, call: Call, index: Tensor, valid: Tensor, view: View) -> Tensor:
        return mask_for(
            call.mask, index, valid, view.presence(torch.ones_like(valid)), view.length, view.length - view.root_size,
            self._additive, call.hidden.dtype,
        )  # fmt: skip

    def _counted_anew(self, hidden: Tensor, view: View) -> Any:
        """Position encodings that count the kept tokens of the layer from 0."""
        rotary = self._scene.rotary()
        size = view.index.shape[1]
        present = view.presence(torch.zeros_like(view.valid))
        past = view.length - view.root_size
        before = (
            torch.full((hidden.shape[0], 1), past, device=hidden.device)
            if present is None
            else present[:, :past].sum(-1, keepdim=True)
        )
        return rotary(hidden, before + torch.arange(size, device=hidden.device))

    # Attention and MLP

    def _attention_forward(self, layer: Layer) -> Callable[..., Any]:
        attention = layer.block.attention
        assert attention is not None
        own = self._own[attention.module]
        source = layer.sources.get("attention")

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = Call.bind(own, args, kwargs)
            decision = self._decide(layer, "attention", call)
            self._note(layer.block.layer, "attn", decision, None if source is None else source.layer)
            gone = decision.visits == 0
            self._silent[layer.block.layer, "attention"] = gone
            runs = own if source is None else self._own[source.attention.module]  # type: ignore[union-attr]
            if decision.once:
                return call.run(call.hidden, runs, **self._in_place(call, layer.block.layer, source))
            return self._pack(attention.module, self._run_attention(layer, attention, call, decision, runs))

        return forward

    def _in_place(self, call: Call, layer: int, source: Block | None) -> dict[str, Any]:
        """The cache of a borrowed attention, which would else write to its own layer's slot."""
        cache = call.cache
        if source is None or cache is None or isinstance(cache, View):
            return {}
        size = call.hidden.shape[1]
        index = torch.arange(size, device=call.hidden.device).expand(call.hidden.shape[0], -1)
        view = View(
            Slot(cache, layer, self._scene.now.past, size), index, torch.ones_like(index, dtype=torch.bool)
        )
        return {"past_key_values": view}

    def _run_attention(
        self, layer: Layer, attention: Attention, call: Call, decision: Decision, own: Callable[..., Any]
    ) -> Tensor:
        hidden, cache = call.hidden, call.cache
        store: Store | None = None
        if isinstance(cache, View):
            store = cache
        elif cache is not None:
            store = Slot(cache, layer.block.layer, self._scene.now.past, hidden.shape[1])
        run = decision.visits > 0
        filled = None if store is None else self._left.filled(layer.block, call, decision, store)
        if not bool(run.any()):
            if store is not None and filled is not None:
                store.put(*filled)
            elif store is not None:
                leave_empty(store, attention, hidden)
            return torch.zeros_like(hidden)
        index, valid = chosen(run)
        part = part_of(self._scene.now, index, valid)
        if store is None:
            changed = call.gathered(index, None, None)
        else:
            view = View(store, index, valid, filled)
            changed = call.gathered(index, self._mask(call, index, valid, view), view)
        with self._scene.within(part, layer.block.layer, layer.block.layer, keep=True):
            out = _tensor(own(**(call.named | changed)))
        gate = None if decision.gate is None else decision.gate.gather(1, index)
        return put_back(torch.zeros_like(hidden), out, index, valid, gate)

    def _mlp_forward(self, layer: Layer) -> Callable[..., Any]:
        mlp = layer.block.mlp
        assert mlp is not None
        own = self._own[mlp.module]
        source = layer.sources.get("mlp")

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = Call.bind(own, args, kwargs)
            decision = self._decide(layer, "mlp", call)
            self._note(layer.block.layer, "mlp", decision, None if source is None else source.layer)
            run = decision.visits > 0
            self._silent[layer.block.layer, "mlp"] = ~run
            runs = own if source is None or source.mlp is None else self._own[source.mlp.module]
            if decision.once and source is None:
                return own(*args, **kwargs)
            hidden = call.hidden
            flat = hidden.reshape(-1, hidden.shape[-1])
            at = run.reshape(-1).nonzero().squeeze(-1)
            if not len(at):
                return self._pack(mlp.module, torch.zeros_like(hidden))
            now = self._scene.now
            rows = now.rows if now.rows is not None else _row_numbers(now.positions)
            part = Pass(
                now.step, now.positions.reshape(1, -1)[:, at], None, now.prompt_tokens, now.tokens.reshape(1, -1)[:, at],
                rows.reshape(1, -1)[:, at], now.past,
            )  # fmt: skip
            with self._scene.within(part, (source or layer.block).layer, layer.block.layer, keep=True):
                out = _tensor(call.run(flat[at].unsqueeze(0), runs))
            gate = None if decision.gate is None else decision.gate.reshape(-1)[at]
            added = scatter_add_rows(torch.zeros_like(flat), out.reshape(len(at), -1), at, gate)
            return self._pack(mlp.module, added.y.reshape(hidden.shape))

        return forward

    def _decide(self, layer: Layer, unit: str, call: Call) -> Decision:
        cache = call.cache
        root = cache.root()[0].cache if isinstance(cache, View) else cache
        entered = self._scene.entered[layer.block.layer].reshape(*self._scene.now.positions.shape, -1)
        decision = layer.deciders[unit](entered, root if unit == "attention" else self._scene.cache)
        off = self._off.get((layer.block.layer, unit))
        if off is not None:
            decision.visits = decision.visits.masked_fill(off, 0)
        return decision

    # Paths

    def _walk(self, call: Call) -> Tensor:
        """Run the blocks in the order of the path."""
        assert self._path is not None
        past, size = self._scene.now.past, call.hidden.shape[1]
        visits = {block.layer: self._path.path.count(block.layer) for block in self._scene.anatomy.blocks}
        for layer, count in visits.items():
            once = torch.full(self._scene.now.positions.shape, count, device=call.hidden.device)
            self._note(layer, "block", Decision(once, torch.zeros_like(once), repeat_kv=self._path.kv))
        if self._path.kv == "overwrite" and size > 1 and max(visits.values()) > 1:
            hidden = self._token_by_token(call, past, lambda part, at: self._steps(part, past + at))
        else:
            hidden = self._steps(call, past)
        for layer, count in visits.items():
            attention = self._scene.anatomy.layer(layer).attention
            if count == 0 and call.cache is not None and attention is not None:
                leave_empty(Slot(call.cache, layer, past, size), attention, hidden)
        return hidden

    def _steps(self, call: Call, past: int) -> Tensor:
        assert self._path is not None
        seen: dict[int, int] = {}
        size = call.hidden.shape[1]
        index = torch.arange(size, device=call.hidden.device).expand(call.hidden.shape[0], -1)
        valid = torch.ones_like(index, dtype=torch.bool)
        policy = Decision(index, index, repeat_kv=self._path.kv)
        for layer in self._path.path:
            visit = seen.get(layer, 0)
            seen[layer] = visit + 1
            block = self._scene.anatomy.layer(layer)
            view = None
            if call.cache is not None and block.attention is not None:
                first = Slot(call.cache, layer, past, size)
                store = first if visit == 0 else self._again(first, visit, policy, layer)
                view = View(store, index, valid, first.take_back() if visit and store is first else None)
            out = self._visit(block, layer, call, index, valid, view, False, keep=visit == 0)
            call = replace(call, named=call.named | {call.first: out})
        return call.hidden

    def _token_by_token(self, call: Call, past: int, run: Callable[[Call, int], Tensor]) -> Tensor:
        """Run the tokens one after the other, so that each finds what the last visit of those before it left."""
        rows, size = call.hidden.shape[:2]
        outs = []
        now = self._scene.now
        for at in range(size):
            index = torch.full((rows, 1), at, device=call.hidden.device)
            valid = torch.ones_like(index, dtype=torch.bool)
            mask = call.mask
            sliced = None if mask is None else mask[:, :, at : at + 1, : past + at + 1]
            changed = call.gathered(index, sliced, call.cache)
            part = replace(part_of(now, index, valid), start=past + at)
            with self._scene.seeing(part):
                outs.append(run(replace(call, named=call.named | changed), at))
        return torch.cat(outs, dim=1)

    # What happened

    def _note(self, layer: int, unit: str, decision: Decision | None, source: int | None = None) -> None:
        borrowed = source is not None and source != layer
        if decision is None or (decision.once and decision.chosen is None and not borrowed):
            return
        self._scene.events.append(DepthEvent(
            layer, unit, self._scene.now, decision.visits.clone(), decision.kv.clone(), decision.repeat_kv,
            decision.chosen, borrowed,
        ))  # fmt: skip


def _units(block: Block) -> dict[str, nn.Module]:
    found = {"block": block.module}
    if block.attention is not None:
        found["attention"] = block.attention.module
    if block.mlp is not None:
        found["mlp"] = block.mlp.module
    return found


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _all_once(hidden: Tensor) -> Decision:
    ones = torch.ones(hidden.shape[:2], dtype=torch.int64, device=hidden.device)
    return Decision(ones, torch.zeros_like(ones))


def _at(decision: Decision, token: int) -> Decision:
    part = slice(token, token + 1)
    return replace(
        decision, visits=decision.visits[:, part], kv=decision.kv[:, part],
        gate=None if decision.gate is None else decision.gate[:, part],
    )  # fmt: skip


def _row_numbers(positions: Tensor) -> Tensor:
    return torch.arange(positions.shape[0], device=positions.device).unsqueeze(-1).expand_as(positions)
