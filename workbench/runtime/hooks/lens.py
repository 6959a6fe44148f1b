"""Hooks at the two ends of the model: what every part adds to a logit, and what each layer would already predict.

Everything is computed when the head runs, from the parts that the pass left on its way; the parts are let go then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy import Block, expert_inputs
from workbench.errors import SetupError
from workbench.runtime.attach import bank_of, each_choice
from workbench.runtime.capture import Effects
from workbench.runtime.hooks.mounts import Mounts
from workbench.runtime.hooks.scene import Scene
from workbench.signals import logit_effect


def hook_lens(scene: Scene, mounts: Mounts) -> None:
    """Measure logit effects and the logit lens as the record of ``scene`` asks. The blocks must be hooked for
    contributions, which keep their parts."""
    anatomy, record = scene.anatomy, scene.record
    assert record is not None
    streams_of = max(block.streams for block in anatomy.blocks)
    if streams_of > 1:
        raise SetupError(
            f"The blocks of this model hand on {streams_of} residual streams side by side; its head reads a mix of them.",
            "Record without logit_lens and logit_effect.",
        )
    model = anatomy.model
    norm = None if anatomy.norm_path is None else model.get_submodule(anatomy.norm_path)
    head = model.get_submodule(anatomy.head_path)
    streams: list[Tensor] = []

    def enter(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        streams[:] = [args[0]]

    def compute(_: nn.Module, __: Any, logits: Tensor) -> None:
        final = streams.pop()
        if logits.shape[:-1] == final.shape[:-1]:  # else only some of the tokens go on to the head
            if record.logit_lens:
                _lens(scene, norm, head, logits)
            if record.logit_effect:
                _effects(scene, norm, head, final.flatten(0, 1), logits)
        for capture in scene.captures.values():
            capture.parts = {}

    mounts.before(head if norm is None else norm, enter)
    mounts.after(head, compute)
    if record.logit_effect:
        for block in anatomy.blocks:
            _keep_inputs(scene, block, mounts)


def _keep_inputs(scene: Scene, block: Block, mounts: Mounts) -> None:
    """Keep what enters the output projection of attention, and the experts, where nothing but a factor comes behind them."""
    layer, attention, moe = block.layer, block.attention, block.moe
    if not block.additive or block.attn_outlet is None or block.mlp_outlet is None or block.mlp is None:
        return

    def heads(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        scene.captures[layer].parts["heads"] = args[0]

    def experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scene.captures[layer].parts["experts"] = expert_inputs(args, kwargs)[0]

    plain = attention is not None and block.attn_outlet.module is attention.module
    if attention is not None and plain and isinstance(attention.out_proj, nn.Linear):
        mounts.before(attention.out_proj, heads)
    plain = block.mlp_outlet.module is block.mlp.module
    if moe is not None and plain and bank_of(moe.experts) is not None:
        mounts.before(moe.experts, experts, with_kwargs=True)


def _lens(scene: Scene, norm: nn.Module | None, head: nn.Module, logits: Tensor) -> None:
    """How far the prediction of every layer but the last is from the model's own."""
    last = max(scene.captures)
    for layer, capture in scene.captures.items():
        if "post" in capture.parts and layer != last and scene.recorded(layer) is not None:
            stream = capture.parts["post"]
            # The forward itself: a call would run the hooks at the head again.
            early = head.forward(stream if norm is None else norm.forward(stream))
            capture.lens_kl = logit_effect.lens_divergence(logits, early)


def _effects(scene: Scene, norm: nn.Module | None, head: Any, final: Tensor, logits: Tensor) -> None:
    """Give every capture the effects of its parts on the logit of the next token, behind the last of the likeliest."""
    targets = logits.argmax(-1)
    tokens = scene.now.tokens
    targets[:, :-1] = tokens[:, 1:]
    if scene.now.valid is not None:
        ends = (
            scene.now.valid.sum(-1) - 1
        )  # behind the last token of a shorter row stands padding, not what comes next
        rows = torch.arange(len(ends), device=ends.device)
        targets[rows, ends] = logits.argmax(-1)[rows, ends]
    flat = targets.reshape(-1)
    bias = None if getattr(head, "bias", None) is None else head.bias[flat]
    try:
        of = logit_effect.direction(norm, final, head.weight[flat], bias)
    except ValueError as error:
        raise SetupError(str(error), "Record without logit_effect.") from error
    ran = [block for block in scene.anatomy.blocks if "post" in scene.captures[block.layer].parts]
    total = of.constant
    for block in ran:
        capture = scene.captures[block.layer]
        parts = capture.parts
        values: dict[str, Tensor] = {}
        if block is ran[0]:
            values["embed"] = _sum_effect(parts["pre"], of)
        for unit in ("attn", "mlp") if "attn" in parts else ("block",):
            values[unit] = _sum_effect(parts["post"] - parts["pre"] if unit == "block" else parts[unit], of)
        total = total + torch.cat(list(values.values()), dim=-1).sum(-1)
        if "heads" in parts:
            values["head"] = _heads(block, parts["heads"], of)
        if "experts" in parts:
            values["expert"] = _experts(block, capture, of)
        capture.effects = Effects(flat, values)
    if ran:
        logit = logit_effect.effect(final, of) + of.constant
        values["error"] = (total - logit).unsqueeze(-1)


def _sum_effect(part: Tensor, of: logit_effect.Direction) -> Tensor:
    return logit_effect.effect(part.flatten(0, 1), of).unsqueeze(-1)


def _heads(block: Block, entered: Tensor, of: logit_effect.Direction) -> Tensor:
    attention, outlet = block.attention, block.attn_outlet
    assert attention is not None and outlet is not None
    weight: Any = attention.out_proj.weight
    return (
        logit_effect.head_effects(entered.flatten(0, -2), weight, of, attention.num_heads) * outlet.multiplier
    )


def _experts(block: Block, capture: Any, of: logit_effect.Direction) -> Tensor:
    """The selected experts run once more, each slot alone and without its weight."""
    moe, outlet = block.moe, block.mlp_outlet
    assert moe is not None and outlet is not None
    alone = each_choice(moe.experts, capture.parts["experts"].flatten(0, -2), capture.ids)
    return logit_effect.expert_effects(alone, capture.weights, of) * outlet.multiplier
