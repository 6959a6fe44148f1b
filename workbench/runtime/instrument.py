"""Hooks of one session: at each site read the signal, apply the plan, keep what was executed.

A session is open while a run goes on and leaves nothing behind: it removes exactly the handles it made and gives skipped
blocks their own forward back, so the user's hooks stay where they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import torch
from routing_kernels import MoeExperts
from torch import Tensor, nn

from workbench.anatomy import Anatomy, Block, expert_inputs, router_logits
from workbench.errors import EditRefused
from workbench.interventions import Plan, mask, reroute, skip
from workbench.interventions.edit import Edit
from workbench.interventions.routing import NOTHING, Native, route
from workbench.runtime.attach import Attachment, AttentionCall, AttentionSink, bank_of, listen_to_attention
from workbench.runtime.passes import Pass, scope
from workbench.runtime.record import Record
from workbench.signals import attention_rank, contribution, sparsity

E = TypeVar("E", bound=Edit)
Planned: TypeAlias = list[tuple[E, Tensor]]
"""Edits, each with the rows [B] bool that have it in their plan."""


@dataclass(frozen=True)
class SourceRoutes:
    """The routes of one layer of another run, by absolute position: ids and weights [P, k], known [P] bool."""

    ids: Tensor
    weights: Tensor
    known: Tensor


Lookup: TypeAlias = Callable[[int, int], SourceRoutes]
"""(run id, layer) -> its routes; raises :class:`EditRefused` where the run has none."""


@dataclass
class Capture:
    """What one layer did in one pass. T = B x S tokens, k choices, N heads; ``None`` where it was not asked for."""

    logits: Tensor | None = None
    selection: Tensor | None = None
    ids: Tensor | None = None
    weights: Tensor | None = None
    native_ids: Tensor | None = None
    native_weights: Tensor | None = None
    edited: Tensor | None = None
    experts: MoeExperts | None = None
    contribution: contribution.Contribution | None = None
    activation: sparsity.Sparsity | None = None
    width: int = 0
    ranks: attention_rank.Ranks | None = None
    rank_tokens: int = 0
    rank_sampled: bool = False
    skipped: bool = False
    _stream: dict[str, Tensor] = field(default_factory=dict)


class Session:
    """The hooks of one run or batch of runs.

    Parameters
    ----------
    plans
        One plan per row of the batch; skipped blocks must agree, because a block either runs or does not.
    record
        What to keep, or ``None`` for nothing.
    lookup
        Where replayed routes come from.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        attachment: Attachment,
        plans: Sequence[Plan],
        record: Record | None,
        lookup: Lookup,
        tuple_blocks: frozenset[int],
    ) -> None:
        self._anatomy = anatomy
        self._attachment = attachment
        self._record = record
        self._lookup = lookup
        self._tuple_blocks = tuple_blocks
        self._edits = _by_layer(anatomy, plans)
        self._undo = ExitStack()
        self._now: Pass | None = None
        self.captures: dict[int, Capture] = {}

    def __enter__(self) -> Session:
        with ExitStack() as undo:
            for block in self._anatomy.blocks:
                self._hook_block(block, undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()
        self._now = None
        self.captures = {}

    def watch_routing(self, layer: int) -> None:
        """Keep the routing of ``layer`` in the captures even if nothing is recorded there."""
        block = self._anatomy.layer(layer)
        if not any(isinstance(edit, skip.Block | reroute.Reroute) for edit, _ in self._edits[layer]):
            self._hook_moe(block, [], None, self._undo)

    def begin(self, now: Pass) -> None:
        """Start a forward pass; what the last one captured is let go."""
        self._now = now
        self.captures = {}

    def _capture(self, layer: int) -> Capture:
        return self.captures.setdefault(layer, Capture())

    @property
    def now(self) -> Pass:
        """The pass that is running."""
        if self._now is None:
            raise RuntimeError("a hook ran outside a pass")
        return self._now

    def _hook_block(self, block: Block, undo: ExitStack) -> None:
        edits = self._edits[block.layer]
        record = self._record if self._record is not None and self._record.has_layer(block.layer) else None
        if any(isinstance(edit, skip.Block) for edit, _ in edits):
            undo.callback(_replace_forward(block.module, self._pass_through(block)))
            return
        reroutes = [(edit, rows) for edit, rows in edits if isinstance(edit, reroute.Reroute)]
        wanted = record is not None and (record.routing or record.scores or record.sparsity)
        if block.moe is not None and block.moe.observable and (reroutes or wanted):
            self._hook_moe(block, reroutes, record, undo)
        heads = [(edit, rows) for edit, rows in edits if isinstance(edit, mask.Heads)]
        if heads:
            assert block.attention is not None  # the plan was checked against the anatomy
            silence = self._mask_heads(block.attention.num_heads, heads)
            undo.callback(block.attention.out_proj.register_forward_pre_hook(silence).remove)
        if record and record.contribution:
            self._hook_contribution(block, undo)
        if record and record.sparsity and block.mlp is not None and block.mlp.down_proj is not None:
            read = self._read_activation(block.layer, record.threshold)
            undo.callback(block.mlp.down_proj.register_forward_pre_hook(read).remove)
        if (
            record
            and record.attention_rank
            and block.attention is not None
            and self._attachment.sees_attention
        ):
            attention = block.attention.module
            listen_to_attention(attention, self._read_attention(block.layer, record))
            undo.callback(listen_to_attention, attention, None)

    # Routing

    def _hook_moe(
        self, block: Block, edits: Planned[reroute.Reroute], record: Record | None, undo: ExitStack
    ) -> None:
        moe = block.moe
        assert moe is not None
        layer = block.layer
        bank = bank_of(moe.experts)

        def read_logits(_: nn.Module, __: Any, output: Any) -> None:
            self._capture(layer).logits = router_logits(output, moe.num_experts)

        def apply(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            capture = self._capture(layer)
            ids, weights = expert_inputs(args, kwargs)[1:]
            capture.native_ids, capture.native_weights = ids, weights
            capture.ids, capture.weights = ids, weights
            scoped = [(edit, where.reshape(-1)) for edit, where in self._scoped(edits)]
            if scoped:
                # A re-route is refused where the router's logits and rule are not proved.
                assert capture.logits is not None and moe.rule is not None
                native = Native(capture.logits, ids, weights, self.now.positions.reshape(-1), layer)
                routed = route(scoped, native, moe.rule, lambda edit: self._routes(edit, layer))
                capture.ids, capture.weights = routed.ids, routed.weights
                capture.selection, capture.edited = routed.selection, routed.edited
                # Our kernels leave an unused slot out; the model's own know none, so it gets a valid id and no weight.
                executed = (
                    routed.ids if bank is not None else routed.ids.masked_fill(routed.ids == NOTHING, 0)
                )
                return _with_choice(args, kwargs, ids, weights, executed, routed.weights)
            return None

        if moe.proved:
            undo.callback(moe.router.register_forward_hook(read_logits).remove)
        undo.callback(moe.experts.register_forward_pre_hook(apply, with_kwargs=True).remove)
        if record is not None and bank is not None:

            def keep_statistics(out: MoeExperts) -> None:
                self._capture(layer).experts = out

            bank.sink, bank.threshold = keep_statistics, record.threshold
            undo.callback(setattr, bank, "sink", None)

    def _scoped(self, edits: Planned[E]) -> Planned[E]:
        pairs = ((edit, scope(edit, self.now, rows)) for edit, rows in edits)
        return [(edit, where) for edit, where in pairs if where is not None]

    def _routes(self, edit: reroute.Replay, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        source = self._lookup(edit.run, layer)
        positions = self.now.positions.reshape(-1)
        inside = positions < source.known.shape[0]
        at = positions.clamp(max=source.known.shape[0] - 1)
        return source.ids[at], source.weights[at], source.known[at] & inside

    # Attention

    def _mask_heads(self, num_heads: int, edits: Planned[mask.Heads]) -> Callable[..., Any]:
        def apply(_: nn.Module, args: tuple[Tensor, ...]) -> Any:
            out = args[0]
            heads = out.reshape(*out.shape[:2], num_heads, -1)
            for edit, where in self._scoped(edits):
                silenced = torch.zeros(num_heads, dtype=torch.bool, device=out.device)
                silenced[list(edit.heads)] = True
                heads = heads.masked_fill((where.unsqueeze(-1) & silenced).unsqueeze(-1), 0.0)
            return (heads.reshape(out.shape), *args[1:])

        return apply

    def _read_attention(self, layer: int, record: Record) -> AttentionSink:
        def read(call: AttentionCall) -> None:
            tokens = call.query.shape[2]
            if tokens < 2 or tokens != call.key.shape[2]:
                return
            rows = attention_rank.sample(tokens, limit=record.rank_tokens, seed=layer)
            attention = attention_rank.attention_map(
                call.query, call.key, call.scale, call.mask, rows, softcap=call.softcap, sinks=call.sinks
            )
            capture = self._capture(layer)
            capture.ranks = attention_rank.ranks(attention, record.rank_tolerance, rows)
            capture.rank_tokens, capture.rank_sampled = attention.shape[-2], rows is not None

        return read

    # Contribution and sparsity

    def _hook_contribution(self, block: Block, undo: ExitStack) -> None:
        layer = block.layer

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._capture(layer)._stream["pre"] = args[0] if args else kwargs["hidden_states"]

        def keep(name: str, multiplier: float) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                added = _tensor(output)
                self._capture(layer)._stream[name] = added if multiplier == 1.0 else added * multiplier

            return hook

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            capture = self._capture(layer)
            stream = capture._stream
            capture._stream = {}
            pre, post = stream["pre"], _tensor(output)
            if block.additive and "attn" in stream and "mlp" in stream:
                attn, mlp = stream["attn"].reshape(pre.shape), stream["mlp"].reshape(pre.shape)
                capture.contribution = contribution.block(pre, attn, pre + attn, mlp, post)
            else:
                capture.contribution = contribution.whole_block(pre, post)

        undo.callback(block.module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        undo.callback(block.module.register_forward_hook(leave).remove)
        if block.additive:
            for name, outlet in (("attn", block.attn_outlet), ("mlp", block.mlp_outlet)):
                if outlet is not None:
                    undo.callback(outlet.module.register_forward_hook(keep(name, outlet.multiplier)).remove)

    def _read_activation(self, layer: int, threshold: float) -> Callable[..., None]:
        def read(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            capture = self._capture(layer)
            capture.activation = sparsity.activation(args[0], threshold)
            capture.width = args[0].shape[-1]

        return read

    # Skips

    def _pass_through(self, block: Block) -> Callable[..., Any]:
        """A forward that returns its input. The cache gets placeholder keys, which no token ever attends to, so that
        every layer of it counts the same tokens (transformers takes the mask's length from the first)."""

        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._capture(block.layer).skipped = True
            cache = kwargs.get("past_key_values")
            if cache is not None and block.attention is not None:
                shape = (hidden_states.shape[0], block.attention.num_kv_heads, hidden_states.shape[1], 1)
                empty = hidden_states.new_zeros(shape)
                cache.update(empty, empty, block.layer)
            return (hidden_states,) if block.layer in self._tuple_blocks else hidden_states

        return forward


def _by_layer(anatomy: Anatomy, plans: Sequence[Plan]) -> dict[int, Planned[Edit]]:
    """The enabled edits of every layer, in plan order, each with the rows of the batch that have it."""
    rows_of: dict[str, list[int]] = {}
    plan_of: dict[str, Plan] = {}
    for row, plan in enumerate(plans):
        text = plan.to_json()
        rows_of.setdefault(text, []).append(row)
        plan_of[text] = plan
    if len({skipped_layers(plan, anatomy) for plan in plans}) > 1:
        raise EditRefused(
            "The rows of a batch skip different blocks, but a block runs for the whole batch or not at all.",
            "Run plans with different skips as separate batches.",
        )
    device = next(anatomy.model.parameters()).device
    found: dict[int, Planned[Edit]] = {block.layer: [] for block in anatomy.blocks}
    for text, plan in plan_of.items():
        rows = torch.zeros(len(plans), dtype=torch.bool, device=device)
        rows[rows_of[text]] = True
        for edit in plan.active:
            for layer in edit.layers_in(anatomy):
                found[layer].append((edit, rows))
    return found


def skipped_layers(plan: Plan, anatomy: Anatomy) -> frozenset[int]:
    """The layers whose block ``plan`` leaves out."""
    return frozenset(
        n for edit in plan.active if isinstance(edit, skip.Block) for n in edit.layers_in(anatomy)
    )


def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Give ``module`` another forward; the returned function takes it away again, exactly."""
    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward

    def restore() -> None:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = own

    return restore


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _with_choice(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    ids: Tensor,
    weights: Tensor,
    new_ids: Tensor,
    new_weights: Tensor,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def swap(value: Any) -> Any:
        return new_ids if value is ids else new_weights if value is weights else value

    return tuple(swap(value) for value in args), {name: swap(value) for name, value in kwargs.items()}
