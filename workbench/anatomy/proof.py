"""Hold an anatomy to the model's own numbers: one tiny forward pass, watched by hooks that are gone afterwards.

For every sparse layer of a known family, the choice and its weights are recomputed from the router's own input and
compared with what the expert bank really received (the *contract*). For every block, the residual stream is checked to
be a sum of what attention and MLP give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.anatomy.parts import Anatomy, Block, Moe, Outlet
from workbench.anatomy.reader import router_weight
from workbench.anatomy.watch import Call, Watch, tensors, watched_pass
from workbench.errors import ContractError

_RELOAD = "Load the model anew and do not re-route it before this is understood; reading it stays possible."


@dataclass(frozen=True)
class LayerProof:
    """What was measured in one layer. Errors are largest absolute differences; ``None`` where nothing was compared.

    ``ids`` counts choices that differ from the model's, ``ties`` those among them that are ties in the model's own
    half-precision scores.
    """

    layer: int
    logits: float | None = None
    ids: int | None = None
    ties: int | None = None
    weights: float | None = None
    additive: float | None = None


@dataclass(frozen=True)
class Proof:
    """The result of :func:`prove`: one entry a layer, over ``tokens`` tokens of random ids."""

    layers: tuple[LayerProof, ...]
    tokens: int


def router_logits(router_output: Any, num_experts: int, place: int | None = None) -> Tensor:
    """The logits [T, E] in what a router returned, found by shape and dtype, never by position.

    Where every expert is chosen, weights have the shape of logits. ``place`` then says which of the floating tensors with
    ``num_experts`` columns the logits are, as :func:`prove` found by their values (``Moe.logits_place``).

    Raises :class:`~workbench.errors.ContractError` where no floating tensor has ``num_experts`` columns, or several
    have and no place is known, so that the logits cannot be told from weights.
    """
    found = _logit_shaped(router_output, num_experts)
    if place is not None and place < len(found):
        return found[place].reshape(-1, num_experts)
    if len(found) != 1:
        shapes = ", ".join(
            f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors(router_output)
        )
        raise ContractError(
            f"router_logits cannot be told among the router's outputs ({shapes or 'no tensors'}): {len(found)} of them "
            f"have {num_experts} columns.",
            "This router is outside the supported contract: open the model for reading only.",
        )
    return found[0] if found[0].dim() == 2 else found[0].reshape(-1, num_experts)


def _logit_shaped(router_output: Any, num_experts: int) -> list[Tensor]:
    """The tensors in what a router returned that could be logits by their shape and dtype."""
    return [
        t
        for t in tensors(router_output)
        if t.dim() >= 2 and t.shape[-1] == num_experts and t.dtype.is_floating_point
    ]


def expert_inputs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [T, H], ids [T, k] and weights [T, k] of one call of an expert bank, checked by shape and dtype.

    Raises :class:`~workbench.errors.ContractError` where the call is not of that form.
    """
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if len(tensors) != 3:
        raise ContractError(f"The expert bank was called with {len(tensors)} tensors instead of 3.", _RELOAD)
    hidden, ids, weights = tensors
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ContractError(f"expert_ids reach the expert bank as {ids.dtype}, which cannot be ids.", _RELOAD)
    if not weights.is_floating_point():
        raise ContractError(
            f"expert_weights reach the expert bank as {weights.dtype}, not as numbers.", _RELOAD
        )
    if ids.dim() != 2 or ids.shape != weights.shape or ids.shape[0] != hidden.shape[:-1].numel():
        raise ContractError(
            f"expert_ids {tuple(ids.shape)} and expert_weights {tuple(weights.shape)} do not give one choice per row of "
            f"the hidden states {tuple(hidden.shape)}.",
            _RELOAD,
        )
    return hidden, ids, weights


def prove(anatomy: Anatomy, tokens: int | None = None) -> Proof:
    """Run ``tokens`` random ids in two rows through the model and mark what holds, in ``anatomy`` itself.

    Not given, they are 8, or 4 where at least four layers route: as much evidence for less work.

    Sets ``proved``, ``observable`` and ``reason`` of every sparse part, and ``additive``, the outlets and ``reason`` of
    every block. The model is left as it was: no hooks, no change of training or gradient mode, no random numbers drawn.

    Raises :class:`~workbench.errors.ContractError`, naming the tensor and the largest difference, where a family that
    the rules know disagrees with its rule; what was marked until then stays, so that the model can be read.
    """
    if tokens is None:
        tokens = 8 if len(anatomy.moe_layers) < 4 else 4
    watch = watched_pass(anatomy, tokens)
    layers = [_additive(block, watch) for block in anatomy.blocks]
    for block, following in zip(anatomy.blocks, (*anatomy.blocks[1:], None), strict=True):
        block.streams = _streams(watch.once(block.module), anatomy.hidden_size)
        block.hands_on = following is not None and _takes_over(watch.once(following.module))
    failures: list[ContractError] = []
    for number, block in enumerate(anatomy.blocks):
        if block.moe is None:
            continue
        block.moe.proved = block.moe.observable = False
        if watch.crash is not None and block.moe.experts not in watch.calls:
            block.moe.reason = "the model stopped before it reached this layer"
            continue
        try:
            layers[number] = _contract(
                block.layer, block.moe, watch, anatomy.hidden_size, layers[number].additive
            )
        except ContractError as error:
            block.moe.reason = block.moe.no_rule or error.problem.rstrip(".")
            if block.moe.rule is not None:
                failures.append(ContractError(f"Layer {block.layer}: {error.problem}", error.remedy))
    if failures:
        raise failures[0]
    if watch.crash is not None:
        raise ContractError(f"The model cannot run {tokens} tokens: {watch.crash}.", _RELOAD) from watch.crash
    return Proof(tuple(layers), tokens)


def _contract(layer: int, moe: Moe, watch: Watch, hidden_size: int, additive: float | None) -> LayerProof:
    router, bank = watch.once(moe.router), watch.once(moe.experts)
    if bank is None:
        raise _fails(f"the expert bank was called {len(watch.calls.get(moe.experts, []))} times in one pass")
    _, ids, weights = expert_inputs(bank.args, bank.kwargs)
    moe.observable, moe.top_k = True, ids.shape[1]
    rule = moe.rule
    if rule is None:
        moe.reason = moe.no_rule
        return LayerProof(layer, additive=additive)
    if router is None or router.given is None:
        raise _fails(f"the router was called {len(watch.calls.get(moe.router, []))} times in one pass")
    if not any(t.is_floating_point() and t.shape[-1:] == (moe.num_experts,) for t in tensors(router.gave)):
        moe.reason = f"{type(moe.router).__name__} returns no logits in this release of transformers"
        return LayerProof(layer, additive=additive)
    moe.logits_place = _place(moe, router, hidden_size)
    logits = router_logits(router.gave, moe.num_experts, moe.logits_place)
    logits_error = _compare_logits(moe, router.given, logits, hidden_size)
    scores = rule.scores(logits)
    selection = rule.selection(scores)
    chosen = rule.choose(selection)
    if chosen.shape != ids.shape:
        raise _fails(f"expert_ids are {tuple(ids.shape)}, where the rule gives {tuple(chosen.shape)}")
    differing, ties = _compare_ids(chosen, ids, selection, exact=logits.dtype == torch.float32)
    expected = rule.weigh(scores, ids.long()).to(weights.dtype)
    error = _largest(expected, weights)
    if not error <= _tolerance(weights.dtype, expected, factor=2):
        raise _fails(f"expert_weights differ from the rule's by up to {error:.3g}")
    moe.proved, moe.reason = True, ""
    return LayerProof(layer, logits_error, differing, ties, error, additive)


def _place(moe: Moe, router: Call, hidden_size: int) -> int | None:
    """Which of several tensors of the shape of logits they are: the only one that is router input times router weight.

    ``None`` where shape and dtype tell, and where values do not: a router whose choice leaves its logits unchanged.
    """
    assert router.given is not None
    found = _logit_shaped(router.gave, moe.num_experts)
    if len(found) < 2:
        return None
    alike = [
        place
        for place, tensor in enumerate(found)
        if tensor.shape[:-1].numel() == router.given.numel() // hidden_size
        and _logits_error(moe, router.given, tensor.reshape(-1, moe.num_experts), hidden_size)[1]
    ]
    return alike[0] if len(alike) == 1 else None


def _compare_logits(moe: Moe, given: Tensor, logits: Tensor, hidden_size: int) -> float:
    """The largest difference of ``logits`` from router input times router weight; refused where rounding is too little."""
    if given.numel() // hidden_size != logits.shape[0]:
        raise _fails(f"router_logits are {tuple(logits.shape)} for {given.numel() // hidden_size} tokens")
    error, within = _logits_error(moe, given, logits, hidden_size)
    if not within:
        raise _fails(f"router_logits differ from router input times router weight by up to {error:.3g}")
    return error


def _logits_error(moe: Moe, given: Tensor, logits: Tensor, hidden_size: int) -> tuple[float, bool]:
    """The largest difference of ``logits`` [T, E] from router input times router weight; whether rounding explains it."""
    found = router_weight(moe.router, moe.num_experts, hidden_size)
    if found is None:
        raise _fails(f"the router has no weight of shape ({moe.num_experts}, {hidden_size})")
    weight, bias = found
    if weight.is_meta:
        raise _fails("the router's weight is offloaded, so that its logits cannot be recomputed")
    rows = given.reshape(-1, hidden_size).to(weight.device)
    rows = rows.float() if moe.rule is not None and moe.rule.upcast else rows.to(weight.dtype)
    expected = F.linear(
        rows, weight.detach().to(rows.dtype), None if bias is None else bias.detach().to(rows.dtype)
    )
    if moe.rule is not None and moe.rule.softcap > 0:
        expected = (expected.float() / moe.rule.softcap).tanh() * moe.rule.softcap
    error = _largest(expected, logits)
    return error, error <= _tolerance(rows.dtype, expected, factor=4)


def _compare_ids(chosen: Tensor, ids: Tensor, selection: Tensor, exact: bool) -> tuple[int, int]:
    """Count the choices that differ, and those of them that are ties; anything else fails."""
    differs = chosen != ids
    # Half-precision scores tie often, and top-k breaks ties differently in different dtypes on some devices.
    tied = differs & (
        selection.gather(-1, chosen) == selection.gather(-1, ids.long().clamp(0, selection.shape[-1] - 1))
    )
    wrong = differs if exact else differs & ~tied
    if wrong.any():
        token = int(wrong.any(-1).nonzero()[0])
        raise _fails(
            f"expert_ids differ from the rule's in {int(wrong.sum())} of {ids.numel()} choices, first at token {token}: "
            f"{ids[token].tolist()} where the rule gives {chosen[token].tolist()}",
        )
    return int(differs.sum()), int(tied.sum())


def _streams(call: Call | None, hidden_size: int) -> int:
    """How many residual streams go into a block: side by side as [B, S, C, H], or as one of the width C x H."""
    given = None if call is None else call.given
    if given is None or given.dim() < 3:
        return 1
    return given.shape[2:].numel() // hidden_size


def _takes_over(call: Call | None) -> bool:
    """Whether a block hands on the very indices that it was given: those of a block before it, which it worked with."""
    if call is None:
        return False
    given = [t for t in tensors((call.args, call.kwargs)) if not t.is_floating_point()]
    gave = [t for t in tensors(call.gave) if not t.is_floating_point()]
    return any(torch.equal(one, other) for one in gave for other in given)


def _additive(block: Block, watch: Watch) -> LayerProof:
    error, block.reason = _sum_error(block, watch)
    block.additive = not block.reason
    if not block.additive:
        block.attn_outlet = block.mlp_outlet = None
    return LayerProof(block.layer, additive=error)


def _sum_error(block: Block, watch: Watch) -> tuple[float | None, str]:
    """Find the outlets of ``block``; the error of the sum, and why it is not one (empty where it is)."""
    name = type(block.module).__name__
    if block.attention is None or block.mlp is None or block.mlp.module is block.module:
        return None, f"{name} is not made of one attention and one MLP"
    whole = watch.once(block.module)
    attn = _outlet(block, block.attention.path, block.attention.module, watch)
    mlp = _outlet(block, block.mlp.path, block.mlp.module, watch)
    before, after = (None, None) if whole is None else (whole.given, next(tensors(whole.gave), None))
    if before is None or after is None or attn is None or mlp is None:
        return None, f"{name} or one of its sublayers did not run exactly once in a pass"
    (attn_path, attn_module, attn_out), (mlp_path, mlp_module, mlp_out) = attn, mlp
    if not (before.shape == after.shape == attn_out.shape and mlp_out.numel() == after.numel()):
        shapes = ", ".join(str(tuple(t.shape)) for t in (before, attn_out, mlp_out, after))
        return None, f"resid_pre, attn_out, mlp_out and resid_post have shapes {shapes}, which do not add up"
    for what, call in (
        ("resid_pre", whole),
        ("attn_out", watch.once(attn_module)),
        ("mlp_out", watch.once(mlp_module)),
    ):
        if call is not None and call.changed_since(what == "resid_pre"):
            return None, f"{name} changes {what} in place, so that it cannot be read after the fact"
    error = float("inf")
    for multiplier in dict.fromkeys((1.0, float(getattr(block.module, "residual_multiplier", 1.0)))):
        parts = _wide(before), multiplier * _wide(attn_out), multiplier * _wide(mlp_out).reshape(before.shape)
        error = min(error, _largest(sum(parts, torch.zeros_like(parts[0])), after))
        # One rounding of each part, of the first sum and of the second, element by element: a bound on the largest
        # elements alone would let a small third contribution pass in half precision.
        size = sum((part.abs() for part in parts), (parts[0] + parts[1]).abs() + _wide(after).abs())
        off = (sum(parts, -_wide(after)).abs() - torch.finfo(after.dtype).eps * size).max()
        if float(off) <= 0:
            block.attn_outlet = Outlet(attn_path, attn_module, multiplier)
            block.mlp_outlet = Outlet(mlp_path, mlp_module, multiplier)
            return error, ""
    return error, f"resid_post differs from resid_pre + attn_out + mlp_out by up to {error:.3g}"


def _outlet(block: Block, path: str, module: nn.Module, watch: Watch) -> tuple[str, nn.Module, Tensor] | None:
    """The last module that the output of ``module`` passes through before it is added: itself, or a norm behind it."""
    call = watch.once(module)
    if call is None or call.original_gave is None:
        return None
    for name, child in block.module.named_children():
        behind = watch.once(child)
        if (
            child is module
            or behind is None
            or behind.original_given is None
            or isinstance(child, nn.Dropout)
        ):
            continue
        if _same(behind.original_given, call.original_gave) and behind.original_gave is not None:
            path, module, call = f"{block.path}.{name}", child, behind
            break
    return path, module, next(tensors(call.gave))


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.numel() == b.numel() > 0 and a.data_ptr() == b.data_ptr() and a.dtype == b.dtype)


def _wide(values: Tensor) -> Tensor:
    """The same numbers in fp64 on the CPU: layers may lie on different devices, not all of which know fp64."""
    return values.detach().cpu().double()


def _largest(a: Tensor, b: Tensor) -> float:
    difference = (_wide(a) - _wide(b)).abs()
    # A NaN that both sides share is agreement of a broken model, which is no proof: it counts as infinitely far.
    return float(difference.nan_to_num(nan=float("inf")).max()) if difference.numel() else 0.0


def _tolerance(dtype: torch.dtype, expected: Tensor, factor: float) -> float:
    """Largest error to accept; NaN where ``expected`` is not finite, which no error is less than."""
    scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
    return 1e-6 * scale if dtype == torch.float32 else factor * torch.finfo(dtype).eps * scale


def _fails(problem: str) -> ContractError:
    return ContractError(f"{problem}.", _RELOAD)
