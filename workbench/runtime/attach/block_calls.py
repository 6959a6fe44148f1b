"""What several askers want of one attention call, joined; and the call with kept blocks, on our kernel or as a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import routing_kernels
import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.runtime.attach.calls import AttentionCall, AttentionOptions, AttentionReport
from workbench.runtime.attach.mask_rule import MASKED

if TYPE_CHECKING:
    from workbench.runtime.attach.attention import AttentionModule


PLAIN_BLOCK = 64
"""The block of calls that keep everything."""


@dataclass
class Wanted:
    """The requests of one call, joined: the finest ``block`` of the masks, the rows of the batch grouped by the blocks
    that they keep ([N, query blocks, key blocks], ``None`` for all that can be seen), the block in which masses are
    taken, extra columns side by side, and the heads [B, N] that somebody drops. What is only reported has no say in
    ``block``: the size of the blocks decides in which order the output is summed, hence its bits."""

    asked: Sequence[AttentionOptions]
    call: AttentionCall
    block: int
    mass_block: int
    groups: list[tuple[Tensor, Tensor | None]]
    extra: Tensor | None
    lse: bool
    mass: bool
    dropped: Tensor | None

    @staticmethod
    def of(asked: Sequence[AttentionOptions], call: AttentionCall) -> Wanted | None:
        """The join, or ``None`` where nobody asks for anything."""
        asked = [a for a in asked if not (a.block_mask is None and a.sink is None and a.dropped is None)]
        if not asked:
            return None
        for one in asked:
            _check(one, call)
        block = min((one.block for one in asked if one.block_mask is not None), default=PLAIN_BLOCK)
        groups = _groups(asked, call, block)
        if all(kept is None for _, kept in groups):
            block = PLAIN_BLOCK
        finest = min((one.block for one in asked if one.want_block_mass), default=block)
        columns = [one.extra_values.float() for one in asked if one.extra_values is not None]
        gone = [one.dropped for one in asked if one.dropped is not None]
        return Wanted(
            asked, call, block, min(block, finest), groups, torch.cat(columns, 1) if columns else None,
            any(one.want_lse for one in asked), any(one.want_block_mass for one in asked),
            torch.stack(gone).any(0) if gone else None,
        )  # fmt: skip

    @property
    def reports(self) -> bool:
        """Whether anybody wants a tensor beside the output."""
        return self.lse or self.mass or self.extra is not None

    @property
    def stats(self) -> bool:
        """Whether the pass that gives the output has statistics on."""
        return self.lse or self.mass and self.mass_block == self.block

    def send(self, report: AttentionReport) -> None:
        """Give every sink its own part of ``report``, which has the finest masses and everybody's columns."""
        at = 0
        for one in self.asked:
            width = 0 if one.extra_values is None else one.extra_values.shape[1]
            sketch = None if report.sketch is None or not width else report.sketch[..., at : at + width]
            at += width
            mass = report.block_mass if one.want_block_mass else None
            if mass is not None and one.block != self.mass_block:
                mass = _pool(mass, self.call, self.mass_block, one.block)
            if one.sink is not None:
                one.sink(
                    AttentionReport(
                        sketch, report.lse if one.want_lse else None, mass, report.kernel, report.reason,
                        report.executed, report.skipped, report.ours, report.dropped,
                    )
                )  # fmt: skip


@dataclass
class Part:
    """Output [b, Q, N, Dv], the model's own map if it made one, and the report of some rows of a batch."""

    output: Tensor
    map: Tensor | None
    report: AttentionReport | None


def _check(one: AttentionOptions, call: AttentionCall) -> None:
    if one.block not in routing_kernels.BLOCKS:
        raise EditRefused(
            f"There are no attention blocks of {one.block} positions.",
            f"Use one of {', '.join(str(b) for b in routing_kernels.BLOCKS)}.",
        )
    _, rows, columns = call.grid(one.block)
    mask = one.block_mask
    if mask is not None and (
        mask.dtype != torch.bool or mask.dim() not in (2, 3, 4) or tuple(mask.shape[-2:]) != (rows, columns)
    ):
        raise EditRefused(
            f"The mask of blocks is {mask.dtype} {list(mask.shape)}.",
            f"Give booleans [..., {rows}, {columns}] for {call.queries} queries and {call.keys} keys.",
        )
    if one.dropped is not None and tuple(one.dropped.shape) != tuple(call.query.shape[:2]):
        raise EditRefused(
            f"The dropped heads are {list(one.dropped.shape)}.",
            f"Give booleans {list(call.query.shape[:2])}, one for each row and head.",
        )
    extra = one.extra_values
    if extra is not None and (extra.dim() != 2 or extra.shape[0] != call.keys):
        raise EditRefused(
            f"The extra values are {list(extra.shape)}.", f"Give a row for each of the {call.keys} keys."
        )


def narrowed(call: AttentionCall, asked: Sequence[AttentionOptions], own: str) -> AttentionCall:
    """The call with what ``asked`` allows in its mask."""
    parts = [one.allowed for one in asked if one.allowed is not None]
    if not parts:
        return call
    allowed = parts[0]
    for part in parts[1:]:
        allowed = allowed & part
    mask = call.mask
    if mask is None and call.causal:
        key = torch.arange(call.keys, device=allowed.device)
        allowed = allowed & (key <= torch.arange(call.first_query, call.keys, device=allowed.device)[:, None])
    if mask is not None and mask.dtype == torch.bool:
        return replace(call, mask=mask & allowed)
    if mask is None and own != "eager":
        return replace(call, mask=allowed)
    base = call.query.new_zeros(1, 1, call.queries, call.keys) if mask is None else mask
    return replace(call, mask=base.masked_fill(~allowed, torch.finfo(base.dtype).min))


def _groups(
    asked: Sequence[AttentionOptions], call: AttentionCall, block: int
) -> list[tuple[Tensor, Tensor | None]]:
    batch, heads = call.query.shape[:2]
    everybody = torch.arange(batch, device=call.query.device)
    masks = [_refine(a.block_mask, call, a.block, block) for a in asked if a.block_mask is not None]
    if not masks:
        return [(everybody, None)]
    kept = masks[0]
    for other in masks[1:]:
        kept = kept & other
    kept = kept.expand(batch, heads, *kept.shape[2:])
    seen = visible(call, block)
    whole = (kept | ~seen[:, None]).flatten(1).all(1)
    same: list[tuple[list[int], Tensor | None]] = []
    for row in range(batch):
        mine = None if whole[row] else kept[row] & seen[row]
        for rows, theirs in same:
            if mine is None and theirs is None:
                rows.append(row)
                break
            if mine is not None and theirs is not None and torch.equal(mine, theirs):
                rows.append(row)
                break
        else:
            same.append(([row], mine))
    return [(everybody[rows], theirs) for rows, theirs in same]


def _refine(mask: Tensor, call: AttentionCall, block: int, finest: int) -> Tensor:
    """A mask over blocks as [B or 1, N or 1, query blocks, key blocks] over the finer blocks of the call."""
    mask = mask.reshape((1,) * (4 - mask.dim()) + tuple(mask.shape))
    if block == finest:
        return mask
    rows, columns = _coarse_of(call, finest, block)
    return mask[..., rows, :][..., columns]


def _coarse_of(call: AttentionCall, finest: int, block: int) -> tuple[Tensor, Tensor]:
    """For each query block and key block of the finer grid, the coarse one that holds it."""
    first, rows, columns = call.grid(finest)
    device = call.query.device
    of_rows = (torch.arange(rows, device=device) + first) * finest // block - call.grid(block)[0]
    return of_rows, torch.arange(columns, device=device) * finest // block


def _pool(mass: Tensor, call: AttentionCall, finest: int, block: int) -> Tensor:
    rows, columns = _coarse_of(call, finest, block)
    _, coarse_rows, coarse_columns = call.grid(block)
    pooled = mass.new_zeros(*mass.shape[:2], coarse_rows, mass.shape[3]).index_add_(2, rows, mass)
    return mass.new_zeros(*mass.shape[:2], coarse_rows, coarse_columns).index_add_(3, columns, pooled)


def visible(call: AttentionCall, block: int) -> Tensor:
    """bool [B, query blocks, key blocks]: some query of the block sees some key of the other. A mask that is no rule may
    hide more; then every block up to the diagonal counts."""
    rule = call.rule
    first, rows, columns = call.grid(block)
    device = call.query.device
    start = ((torch.arange(rows, device=device) + first) * block).clamp(min=call.first_query)
    end = ((torch.arange(rows, device=device) + first + 1) * block).clamp(max=call.keys)
    batch = call.query.shape[0]
    low = torch.zeros(batch, rows, dtype=torch.int64, device=device)
    high = torch.full((batch, rows), call.keys, device=device)
    if rule is None or rule.causal:
        high = torch.minimum(high, end)
    if rule is not None and rule.window:
        low = torch.maximum(low, start - rule.window + 1)
    if rule is not None and rule.starts is not None:
        low = torch.maximum(low, rule.starts[:, None])
    if rule is not None and rule.lengths is not None:
        high = torch.minimum(high, rule.lengths[:, None])
    begin = torch.arange(columns, device=device) * block
    return torch.maximum(low[..., None], begin) < torch.minimum(high[..., None], begin + block)


def queries_that_see(call: AttentionCall) -> Tensor:
    """bool [B, Q]: queries with at least one key to see; the others are padding, and what comes out of them is not read."""
    return visible_tokens(call).any(-1).expand(call.query.shape[0], -1)


def visible_tokens(call: AttentionCall) -> Tensor:
    """bool [B or 1, Q, K], from the rule; only for a call that has one."""
    rule = call.rule
    assert rule is not None
    position = torch.arange(call.first_query, call.keys, device=call.query.device)[:, None]
    key = torch.arange(call.keys, device=call.query.device)
    seen = torch.ones(1, call.queries, call.keys, dtype=torch.bool, device=call.query.device)
    if rule.causal:
        seen = seen & (key <= position)
    if rule.window:
        seen = seen & (key > position - rule.window)
    if rule.starts is not None:
        seen = seen & (key >= rule.starts[:, None, None])
    if rule.lengths is not None:
        seen = seen & (key < rule.lengths[:, None, None])
    return seen


def ours(
    call: AttentionCall,
    kept: Tensor | None,
    wanted: Wanted | None,
    backend: str,
    dropped: Tensor | None = None,
) -> Part:
    """The call on our kernel, without the heads that its rows have ``dropped`` [b, N]."""
    if wanted is None:
        found = _kernel(call, call.value, kept, PLAIN_BLOCK, None, False, backend)
        return Part(found.o.transpose(1, 2).contiguous(), None, None)
    if dropped is not None and not wanted.reports and bool(dropped.any()):
        patterns, of_row = torch.unique(dropped, dim=0, return_inverse=True)
        rows = [(of_row == n).nonzero().squeeze(-1) for n in range(len(patterns))]
        return join(
            [_without(call.rows(r), kept, wanted, backend, p) for r, p in zip(rows, patterns, strict=True)],
            rows,
            call,
        )
    found = _kernel(call, call.value, kept, wanted.block, wanted.extra, wanted.stats, backend)
    _finer_mass(call, found, kept, wanted, backend)
    return Part(found.o.transpose(1, 2).contiguous(), None, _report(call, found, wanted, backend, ""))


def _without(call: AttentionCall, kept: Tensor | None, wanted: Wanted, backend: str, dropped: Tensor) -> Part:
    """Rows that drop the same heads [N]: those keep no block."""
    kept = _all_seen(call, wanted.block) if kept is None else kept
    found = _kernel(call, call.value, kept & ~dropped[:, None, None], wanted.block, None, False, backend)
    gone = dropped.expand(call.query.shape[0], -1)
    return Part(found.o.transpose(1, 2).contiguous(), None, _report(call, found, wanted, backend, "", gone))


def _finer_mass(
    call: AttentionCall, found: _Found, kept: Tensor | None, wanted: Wanted, backend: str
) -> None:
    """Masses in blocks finer than those of the output take a pass of their own, without values."""
    if not wanted.mass or wanted.mass_block == wanted.block:
        return
    if kept is not None:
        kept = _refine(kept, call, wanted.block, wanted.mass_block)[0]
    nothing = call.value[..., :0]
    found.mass = _kernel(call, nothing, kept, wanted.mass_block, None, True, backend).mass


def look(
    call: AttentionCall, kept: Tensor | None, wanted: Wanted, unfit: str, here: AttentionModule, reason: str
) -> AttentionReport:
    """The report of a call that the model's own function computes: by a pass of our kernel that leaves the values out, or,
    where it cannot take the call, from the whole map."""
    seen = int(visible(call, wanted.block).sum()) * call.query.shape[1]
    none = _none_dropped(call)
    if not wanted.reports:
        return AttentionReport(None, None, None, here.own, reason, seen, 0, none[:, 0], none)
    if not unfit:
        nothing = call.value[..., :0]
        found = _kernel(call, nothing, kept, wanted.block, wanted.extra, wanted.stats, here.backend)
        _finer_mass(call, found, kept, wanted, here.backend)
        return _report(call, found, wanted, here.own, reason)
    mask = joined_mask(call, kept, wanted.block, "sdpa")
    attention, lse = _whole_map(call, mask)
    mass = None
    if wanted.mass:
        first, rows, columns = call.grid(wanted.mass_block)
        of_query = (
            torch.arange(call.first_query, call.keys, device=attention.device) // wanted.mass_block - first
        )
        of_key = torch.arange(call.keys, device=attention.device) // wanted.mass_block
        some = attention.new_zeros(*attention.shape[:2], rows, call.keys).index_add_(2, of_query, attention)
        mass = attention.new_zeros(*attention.shape[:2], rows, columns).index_add_(3, of_key, some)
    sketch = None if wanted.extra is None else attention @ wanted.extra.to(attention)
    return AttentionReport(
        sketch, lse if wanted.lse else None, mass, here.own, reason, seen, 0, none[:, 0], none
    )


def _whole_map(call: AttentionCall, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Probabilities [B, N, Q, K] and lse [B, N, Q] in float32, with zeros where a query sees nothing."""
    heads, kv_heads = call.query.shape[1], call.key.shape[1]
    scores = call.query.float() @ call.key.float().repeat_interleave(heads // kv_heads, 1).mT * call.scale
    if call.softcap is not None:
        scores = torch.tanh(scores / call.softcap) * call.softcap
    if mask is None:
        key = torch.arange(call.keys, device=scores.device)
        mask = key <= torch.arange(call.first_query, call.keys, device=scores.device)[:, None]
        mask = mask if call.causal else torch.ones_like(mask)
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    else:
        scores = (scores + mask.float()).masked_fill(mask < MASKED, -torch.inf)
    joined = scores
    if call.sinks is not None:
        sinks = call.sinks.float().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        joined = torch.cat([scores, sinks], dim=-1)
    lse = torch.logsumexp(joined, dim=-1)
    return torch.where(scores == -torch.inf, 0.0, torch.exp(scores - lse[..., None])), lse


@dataclass
class _Found:
    o: Tensor
    sketch: Tensor | None
    lse: Tensor | None
    mass: Tensor | None
    executed: int


def _kernel(
    call: AttentionCall, value: Tensor, kept: Tensor | None, block: int, extra: Tensor | None, stats: bool,
    backend: str,
) -> _Found:  # fmt: skip
    """Our kernel on the call. Its blocks of queries begin at its first query, ours at the first key: queries that begin
    inside a block and reach into the next run in two calls."""
    _, rows, columns = call.grid(block)
    inside = call.first_query % block
    head = block - inside if inside and rows > 1 else 0
    kept = _all_seen(call, block) if kept is None else kept
    if not head:
        return _one_kernel(call, call.query, call.key, value, kept, block, extra, stats, backend)
    keys = call.first_query + head
    width = -(-keys // block)
    first = _one_kernel(
        call, call.query[:, :, :head], call.key[:, :, :keys], value[:, :, :keys], kept[:, :1, :width], block,
        None if extra is None else extra[:keys], stats, backend,
    )  # fmt: skip
    rest = _one_kernel(
        call, call.query[:, :, head:], call.key, value, kept[:, 1:], block, extra, stats, backend
    )
    mass = None
    if first.mass is not None and rest.mass is not None:
        padded = torch.nn.functional.pad(first.mass, (0, columns - width))
        mass = torch.cat([padded, rest.mass], dim=2)
    return _Found(
        torch.cat([first.o, rest.o], dim=2), _beside(first.sketch, rest.sketch), _beside(first.lse, rest.lse), mass,
        first.executed + rest.executed,
    )  # fmt: skip


def _all_seen(call: AttentionCall, block: int) -> Tensor:
    """The blocks [N, query blocks, key blocks] in which any row of the call sees something."""
    return visible(call, block).any(0).expand(call.query.shape[1], -1, -1)


def _beside(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else torch.cat([one, other], dim=2)


def _one_kernel(
    call: AttentionCall, query: Tensor, key: Tensor, value: Tensor, kept: Tensor, block: int, extra: Tensor | None,
    stats: bool, backend: str,
) -> _Found:  # fmt: skip
    rule = call.rule
    assert rule is not None  # a call without one is not given to the kernel
    ptr, col = routing_kernels.block_rows(kept)
    lengths = rule.lengths if rule.lengths is None else rule.lengths.clamp(max=key.shape[2])
    out = routing_kernels.block_attention(
        query, key, value, ptr, col, block, call.scale, rule.causal, lengths, call.sinks, extra, rule.window,
        call.softcap or 0.0, rule.starts, stats, backend,
    )  # fmt: skip
    mass = None
    if stats:
        mass = out.block_mass.new_zeros(query.shape[0], *kept.shape)
        mass[:, kept] = out.block_mass
    return _Found(
        out.o, None if extra is None else out.sketch, out.lse if stats else None, mass, int(out.executed)
    )


def _none_dropped(call: AttentionCall) -> Tensor:
    return torch.zeros(call.query.shape[:2], dtype=torch.bool, device=call.query.device)


def _report(
    call: AttentionCall,
    found: _Found,
    wanted: Wanted,
    kernel: str,
    reason: str,
    dropped: Tensor | None = None,
) -> AttentionReport:
    seen = int(visible(call, wanted.block).sum()) * call.query.shape[1]
    executed = seen if reason else found.executed
    dropped = _none_dropped(call) if dropped is None else dropped
    return AttentionReport(
        found.sketch, found.lse if wanted.lse else None, found.mass if wanted.mass else None, kernel, reason,
        executed, seen - executed, torch.full_like(dropped[:, 0], not reason), dropped,
    )  # fmt: skip


def joined_mask(call: AttentionCall, kept: Tensor | None, block: int, own: str) -> Tensor | None:
    """The model's mask with the blocks that are not kept masked too, in the form that its own function takes."""
    if kept is None:
        return call.mask
    first, _, _ = call.grid(block)
    device = call.query.device
    rows = torch.arange(call.first_query, call.keys, device=device) // block - first
    columns = torch.arange(call.keys, device=device) // block
    tokens = kept[:, rows][:, :, columns][None]
    mask = call.mask
    if mask is None:
        key = torch.arange(call.keys, device=device)
        causal = key <= torch.arange(call.first_query, call.keys, device=device)[:, None]
        tokens = tokens & causal if call.causal else tokens
        mask = tokens if own != "eager" else _additive(tokens, call.query.dtype)
        return mask
    return (
        mask & tokens if mask.dtype == torch.bool else mask.masked_fill(~tokens, torch.finfo(mask.dtype).min)
    )


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def silence_empty(output: Tensor, call: AttentionCall, kept: Tensor, block: int) -> Tensor:
    """The model's own output [b, Q, N, Dv] with zeros where a query is left without any key."""
    mask = joined_mask(call, kept, block, "sdpa")
    assert mask is not None
    allowed = mask if mask.dtype == torch.bool else mask > MASKED
    nothing = ~allowed.any(-1).expand(output.shape[0], output.shape[2], output.shape[1])
    return output.masked_fill(nothing.transpose(1, 2)[..., None], 0.0)


def join(parts: Sequence[Part], rows: Sequence[Tensor], call: AttentionCall) -> Part:
    """Parts of the batch put back in order."""
    if len(parts) == 1:
        return parts[0]
    order = torch.cat(list(rows)).argsort()

    def together(tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [t for t in tensors if t is not None]
        return torch.cat(there)[order] if len(there) == len(tensors) else None

    reports = [part.report for part in parts if part.report is not None]
    output = together([part.output for part in parts])
    assert output is not None and len(reports) == len(parts)
    kernels, reasons = (sorted({getattr(r, name) for r in reports} - {""}) for name in ("kernel", "reason"))
    return Part(
        output, together([part.map for part in parts]),
        AttentionReport(
            together([r.sketch for r in reports]), together([r.lse for r in reports]),
            together([r.block_mass for r in reports]), "+".join(kernels), "; ".join(reasons),
            sum(r.executed for r in reports), sum(r.skipped for r in reports),
            torch.cat([r.ours for r in reports])[order], torch.cat([r.dropped for r in reports])[order],
        ),
    )  # fmt: skip
