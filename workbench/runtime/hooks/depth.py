"""Hooks of depth: which layers' forwards are replaced, by what their edits ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from workbench.anatomy import Anatomy, Block
from workbench.errors import EditRefused
from workbench.interventions import Plan, mask, skip
from workbench.interventions.edit import Edit
from workbench.runtime.cache import new_cache
from workbench.runtime.depth.decide import Decider
from workbench.runtime.depth.engine import Engine, Layer
from workbench.runtime.depth.received import Received
from workbench.runtime.hooks.scene import Planned, Scene


def depth_key(plan: Plan, anatomy: Anatomy) -> tuple[Any, ...]:
    """What rows of a batch must share: the path, the aliases, and which units run for no token at all."""
    out, fixed = [], []
    for edit in plan.active:
        if isinstance(edit, skip.Path | skip.Alias):
            fixed.append(edit.model_dump_json())
        elif isinstance(edit, skip.Skip) and edit.whole_run:
            size = anatomy.num_layers
            out += [
                (edit.acts_on, layer) for layer in edit.layers_in(anatomy) if edit.leaves_out(layer, size)
            ]
    return (tuple(fixed), frozenset(out))


def plan_depth(
    scene: Scene,
    edits: Mapping[int, Planned[Edit]],
    plans: Sequence[Plan],
    manage: bool,
) -> tuple[Engine, bool] | None:
    """The engine for the edits of depth among ``edits``, and whether it needs a cache; ``None`` if there are none.

    ``manage`` asks for one all the same, because tokens in the cache left no keys and values in some layer.
    """
    of_depth = {
        layer: [(e, rows) for e, rows in some if isinstance(e, skip.Skip)] for layer, some in edits.items()
    }
    found = [edit for some in of_depth.values() for edit, _ in some]
    hidden = any(isinstance(edit, mask.TokenMask) for some in edits.values() for edit, _ in some)
    if not found and not manage and not hidden:
        return None
    fixed = {depth_key(plan, scene.anatomy)[0] for plan in plans}
    if len(fixed) > 1:
        raise EditRefused(
            "The rows of a batch run different paths or aliases, but a place runs one block for the whole batch.",
            "Run those plans as separate batches.",
        )
    path = next((edit for edit in found if isinstance(edit, skip.Path)), None)
    received = Received(scene)
    layers = {
        block.layer: _layer(scene, block, of_depth[block.layer], received)
        for block in scene.anatomy.blocks
        if manage or of_depth[block.layer]
    }
    scene.managed = frozenset(layers)
    static = all(isinstance(edit, skip.Removal) and edit.whole_run for edit in found)
    received.wanted = {
        layer - 1
        for layer, some in of_depth.items()
        if any(isinstance(edit, skip.Tokens) and edit.score == "attention" for edit, _ in some)
    }
    return Engine(scene, layers, path, scene.attachment.adds_masks, received), not static or hidden


def hook_depth(scene: Scene, engine: Engine, needs_cache: bool, undo: ExitStack) -> None:
    """Put ``engine`` in place; every pass gets a cache where it needs one, for what a token leaves to later ones."""
    engine.install(undo)

    def with_cache(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is None and needs_cache:
            cache = new_cache(model)
            kwargs = kwargs | {"past_key_values": cache, "use_cache": True}
        scene.cache = cache
        return args, kwargs

    engine.received.listen(undo)
    undo.callback(scene.anatomy.model.register_forward_pre_hook(with_cache, with_kwargs=True).remove)


def _layer(scene: Scene, block: Block, edits: Planned[Any], received: Received) -> Layer:
    deciders: dict[str, Decider] = {}
    sources: dict[str, Block] = {}
    for edit, _ in edits:
        if isinstance(edit, skip.Alias):
            sources[edit.unit] = scene.anatomy.layer(edit.source)
    repeats = {edit.unit for edit, _ in edits if isinstance(edit, skip.Repeat)}
    for unit in ("block", "attention", "mlp"):
        own = [
            (edit, rows)
            for edit, rows in edits
            if not isinstance(edit, skip.Alias | skip.Path)
            and ("block" if isinstance(edit, skip.Repeat) else edit.acts_on) == unit
        ]
        other = {"attention": "mlp", "mlp": "attention"}.get(unit)
        if own or unit in sources or other in repeats:
            deciders[unit] = Decider(scene, block.layer, scene.anatomy.num_layers, own, received)
    gated = any(isinstance(edit, skip.Tokens) and edit.gate == "mlp" for edit, _ in edits)
    return Layer(block, deciders, sources, gated)
