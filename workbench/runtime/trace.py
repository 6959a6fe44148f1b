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
from workbench.errors import EditRefused
from workbench.interventions import Plan, mask, reroute, skip
from workbench.interventions.custom import Custom, edit
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
    """Takes the place of ``module`` while hooks are set, and keeps them; what else is asked of it the module answers."""

    path: str
    module: Any
    before: list[tuple[Callable[..., Any], bool]] = field(default_factory=list)
    after: list[tuple[Callable[..., Any], bool]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def register_forward_pre_hook(self, hook: Callable[..., Any], with_kwargs: bool = False) -> _Handle:
        self.before.append((hook, with_kwargs))
        return _Handle(self.before, self.before[-1])

    def register_forward_hook(self, hook: Callable[..., Any], with_kwargs: bool = False) -> _Handle:
        self.after.append((hook, with_kwargs))
        return _Handle(self.after, self.after[-1])

    def enter(self, root: Any) -> None:
        """Call the hooks before on what flows into the traced module, and write what they change."""
        if not self.before:
            return
        place = _at(root, self.path)
        for hook, with_kwargs in self.before:
            args, kwargs = place.inputs
            changed = hook(self.module, args, kwargs) if with_kwargs else hook(self.module, args)
            if changed is not None:
                place.inputs = changed if with_kwargs else (changed, kwargs)

    def leave(self, root: Any) -> None:
        """The same behind it. Hooks that ask for the inputs get those that the hooks before have left."""
        if not self.after:
            return
        place = _at(root, self.path)
        inputs = place.inputs if any(with_kwargs for _, with_kwargs in self.after) else ((), {})
        for hook, with_kwargs in self.after:
            given = (*inputs, place.output) if with_kwargs else ((), place.output)
            changed = hook(self.module, *given)
            if changed is not None:
                place.output = changed


def _at(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = root[int(name)] if name.isdigit() else getattr(root, name)
    return root


@edit("attn_out")
def _no_attention(value: Any, place: Any) -> Any:
    return torch.zeros_like(value)


@edit("mlp_out")
def _no_mlp(value: Any, place: Any) -> Any:
    return torch.zeros_like(value)


def write(bench: Bench, plan: Plan | Edit, traced: Any, prompt: Prompt) -> None:
    """Write ``plan`` into the nnsight trace that is running; call it inside ``with traced.trace(ids):``.

    Parameters
    ----------
    plan
        Re-routes; masks of heads, experts and directions; functions of the residual stream, of heads and of the router;
        skips of blocks and attention for all tokens, and of MLPs. A skipped unit is run and adds nothing. Other edits
        change how the model is called, or run it again, which a trace cannot, and are refused.
    traced
        The nnsight model whose trace it is, of the architecture that ``bench`` has open.
    prompt
        What the trace reads: one sequence, the same as the trace's own, from which scopes are resolved.

    Raises
    ------
    EditRefused
        The plan holds an edit that cannot act in a trace, or on this model.
    """
    plan = Plan.of(plan)
    ids = bench.token_ids(prompt)
    bench.check(plan, len(ids), len(ids))
    plan = Plan([some for one in plan.active for some in _traceable(one)])
    bench.check(plan, len(ids), len(ids))
    steps: dict[int, list[Callable[[Any], None]]] = {}
    blocks = tuple(_shadow(block, steps) for block in bench.anatomy.blocks)
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
            for play in steps[block.layer]:
                play(traced)


def _traceable(one: Edit) -> list[Edit]:
    """``one`` as edits that write what flows through modules; raises :class:`EditRefused` where there are none."""
    scope = {name: getattr(one, name) for name in ("tokens", "where", "phase", "rows", "steps")}
    if isinstance(one, skip.Mlp):
        return [_no_mlp(one.layers, **scope)]
    if isinstance(one, skip.Attention | skip.Block):
        if not one.whole_run:
            raise EditRefused(
                f"{one.kind} of some tokens cannot be written into a trace: the others would still attend to them.",
                "Skip it for all tokens, or run the plan with bench.run.",
            )
        found: list[Edit] = [_no_attention(one.layers, **scope)]
        return found if isinstance(one, skip.Attention) else [*found, _no_mlp(one.layers, **scope)]
    if isinstance(one, Custom) and one.site not in ("expert_out", "mlp_act"):
        return [one]
    by_attention = isinstance(one, reroute.Smooth) and one.by == "attention"
    if isinstance(one, reroute.Reroute | mask.Heads | mask.Experts | mask.Direction) and not by_attention:
        return [one]
    why = {
        "patch": "it reads another run, for which the model would have to run within the trace",
        "reroute.smooth": "the attention of the layer does not flow through any module",
        "custom": f"it needs the weights of the experts, which a trace does not hold ({one.site})",
    }
    raise EditRefused(
        f"{one.kind} cannot be written into a trace: "
        + why.get(one.kind, "it changes how a module computes, not what flows through it")
        + ".",
        "Run this one with bench.run.",
    )


def _with_blocks(anatomy: Anatomy, blocks: tuple[Block, ...]) -> Anatomy:
    return replace(anatomy, blocks=blocks)


def _shadow(block: Block, steps: dict[int, list[Callable[[Any], None]]]) -> Block:
    """``block`` with stand-ins where an edit sets hooks; ``steps`` plays them in the order in which the model calls the
    modules."""
    mine = steps.setdefault(block.layer, [])
    attention, mlp, moe = block.attention, block.mlp, block.moe
    changed: dict[str, Any] = {}
    whole = changed["module"] = _StandIn(block.path, block.module)
    mine.append(whole.enter)
    if attention is not None:
        out = _StandIn(attention.out_proj_path, attention.out_proj)
        mine.append(out.enter)
        changed["attention"] = replace(attention, out_proj=out)  # type: ignore[arg-type]
    if block.attn_outlet is not None:
        left = _StandIn(block.attn_outlet.path, block.attn_outlet.module)
        mine.append(left.leave)
        changed["attn_outlet"] = replace(block.attn_outlet, module=left)  # type: ignore[arg-type]
    if moe is not None:
        router, experts = _StandIn(moe.router_path, moe.router), _StandIn(moe.experts_path, moe.experts)
        mine += [router.leave, experts.enter, experts.leave]
        changed["moe"] = replace(moe, router=router, experts=experts)  # type: ignore[arg-type]
    elif mlp is not None and mlp.down_proj is not None and mlp.down_proj_path is not None:
        down = _StandIn(mlp.down_proj_path, mlp.down_proj)
        mine.append(down.enter)
        changed["mlp"] = replace(mlp, down_proj=down)  # type: ignore[arg-type]
    if block.mlp_outlet is not None:
        left = _StandIn(block.mlp_outlet.path, block.mlp_outlet.module)
        mine.append(left.leave)
        changed["mlp_outlet"] = replace(block.mlp_outlet, module=left)  # type: ignore[arg-type]
    mine.append(whole.leave)
    return replace(block, **changed)
