"""Matched random controls: the same amount of intervention, on units drawn at random."""

from __future__ import annotations

import random

from workbench.anatomy import Anatomy
from workbench.errors import PlanError
from workbench.interventions import Edit, Plan, mask, reroute, skip
from workbench.interventions.blob import Blob, blob


def matched_random(plan: Plan, anatomy: Anatomy, seed: int) -> Plan:
    """A plan with the scopes of ``plan`` and random units in place of its own.

    Bans, forces and head masks name as many experts or heads, drawn without replacement from all of the layer; a bias keeps
    its numbers and permutes its experts; skipped blocks become as many others, drawn from all layers. An edit on
    several layers draws for each. Disabled edits are left out. The same seed gives the same plan.

    Raises :class:`PlanError` for any other kind, of which there is no random counterpart with the same amount of change.
    """
    rng = random.Random(f"{seed}/{plan.hash}")
    edits: list[Edit] = []
    skipped = sorted(
        {n for edit in plan.active if isinstance(edit, skip.Block) for n in edit.layers_in(anatomy)}
    )
    for edit in plan.active:
        if not isinstance(edit, skip.Block | mask.Heads | reroute.Ban | reroute.Force | reroute.Bias):
            raise PlanError(f"{edit.kind} has no matched random control.", "Remove it from the plan.")
        if not isinstance(edit, skip.Block):
            edits.extend(_one_layer(edit, layer, anatomy, rng) for layer in edit.layers_in(anatomy))
    if skipped:
        edits.append(skip.Block(layers=tuple(rng.sample(range(anatomy.num_layers), len(skipped)))))
    return Plan(edits)


def _one_layer(edit: Edit, layer: int, anatomy: Anatomy, rng: random.Random) -> Edit:
    data = edit.model_dump() | {"layers": (layer,)}
    block = anatomy.layer(layer)
    if isinstance(edit, mask.Heads):
        assert block.attention is not None  # the plan was checked
        data["heads"] = rng.sample(range(block.attention.num_heads), len(edit.heads))
        return mask.Heads(**data)
    assert block.moe is not None
    experts = range(block.moe.num_experts)
    if isinstance(edit, reroute.Bias):
        vector = edit.vector(block.moe.num_experts)
        order = rng.sample(experts, len(experts))
        data["delta"] = (
            blob(vector.numbers[..., order]) if isinstance(vector, Blob) else tuple(vector[n] for n in order)
        )
        return reroute.Bias(**data)
    assert isinstance(edit, reroute.Ban | reroute.Force)  # matched_random lets no other kind through
    data["experts"] = rng.sample(experts, len(edit.experts))
    return type(edit)(**data)
