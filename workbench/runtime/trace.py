"""A plan inside an nnsight trace: the same edits, written through nnsight's own handles instead of hooks.

The model that a trace runs may live elsewhere (nnsight's remote execution), where no hook of ours can be. The hooks that a
run would set are therefore collected on stand-ins for the modules and played at the trace's own places, in the order in
which the model calls them: the arithmetic is that of a local run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from workbench.anatomy import Anatomy, Block
from workbench.errors import EditRefused, PlanError
from workbench.interventions import Plan, mask, reroute
from workbench.interventions.edit import Edit
from workbench.runtime.instrument import Session
from workbench.runtime.passes import Pass
from workbench.runtime.prompts import Prompt

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench


@dataclass(eq=False)
class _Handle:
    """What a hook registration gives back."""

    hooks: list[Any]
    hook: Any

    def remove(self) -> None:
        self.hooks.remove(self.hook)


@dataclass(eq=False)
class _StandIn:
    """Takes the place of a module while hooks are set, and keeps them."""

    path: str
    before: list[tuple[Callable[..., Any], bool]] = field(default_factory=list)
    after: list[Callable[..., Any]] = field(default_factory=list)

    def register_forward_pre_hook(self, hook: Callable[..., Any], with_kwargs: bool = False) -> _Handle:
        self.before.append((hook, with_kwargs))
        return _Handle(self.before, self.before[-1])

    def register_forward_hook(self, hook: Callable[..., Any]) -> _Handle:
        self.after.append(hook)
        return _Handle(self.after, hook)

    def play(self, root: Any) -> None:
        """Call the hooks on what flows through the traced module, and write what they change."""
        if not self.before and not self.after:
            return
        place = root
        for name in self.path.split("."):
            place = place[int(name)] if name.isdigit() else getattr(place, name)
        for hook, with_kwargs in self.before:
            args, kwargs = place.inputs
            changed = hook(None, args, kwargs) if with_kwargs else hook(None, args)
            if changed is not None:
                place.inputs = changed if with_kwargs else (changed, kwargs)
        for hook in self.after:
            hook(None, (), place.output)


def write(bench: Bench, plan: Plan | Edit, traced: Any, prompt: Prompt) -> None:
    """Write ``plan`` into the nnsight trace that is running; call it inside ``with traced.trace(ids):``.

    Parameters
    ----------
    plan
        Re-routes and head masks. Other edits change how the model is called, which a trace cannot, and are refused.
    traced
        The nnsight model whose trace it is, of the architecture that ``bench`` has open.
    prompt
        What the trace reads: one sequence, the same as the trace's own, from which scopes are resolved.

    Raises
    ------
    EditRefused
        The plan holds an edit that cannot act in a trace, or on this model.
    """
    plan = Plan([plan]) if isinstance(plan, Edit) else plan
    if not isinstance(plan, Plan):
        raise PlanError(f"A {type(plan).__name__} is not a plan.", "Make one with wb.Plan([...]).")
    for edit in plan.active:
        if not isinstance(edit, reroute.Reroute | mask.Heads):
            raise EditRefused(
                f"{edit.kind} cannot be written into a trace.",
                "Re-routes and mask.heads can; run this one with bench.run.",
            )
    ids = bench.token_ids(prompt)
    bench.check(plan, len(ids), len(ids))
    stand_ins: dict[int, list[_StandIn]] = {}
    blocks = tuple(_shadow(block, stand_ins) for block in bench.anatomy.blocks)
    device = next(bench.model.parameters()).device
    tokens = torch.tensor([ids], device=device)
    now = Pass(
        0,
        torch.arange(len(ids), device=device).unsqueeze(0),
        None,
        torch.tensor([len(ids)], device=device),
        tokens,
    )
    session: Session = bench.session([plan], None, [{}], anatomy=_with_blocks(bench.anatomy, blocks))
    with session:
        session.begin(now)
        for block in blocks:
            for one in stand_ins[block.layer]:
                one.play(traced)


def _with_blocks(anatomy: Anatomy, blocks: tuple[Block, ...]) -> Anatomy:
    return replace(anatomy, blocks=blocks)


def _shadow(block: Block, stand_ins: dict[int, list[_StandIn]]) -> Block:
    """``block`` with stand-ins where an edit sets hooks, kept in the order in which the model calls their modules."""
    mine = stand_ins.setdefault(block.layer, [])
    attention, moe = block.attention, block.moe
    if attention is not None:
        mine.append(_StandIn(attention.out_proj_path))
        attention = replace(attention, out_proj=mine[-1])  # type: ignore[arg-type]
    if moe is not None:
        router, experts = _StandIn(moe.router_path), _StandIn(moe.experts_path)
        mine += [router, experts]
        moe = replace(moe, router=router, experts=experts)  # type: ignore[arg-type]
    return replace(block, attention=attention, moe=moe)
