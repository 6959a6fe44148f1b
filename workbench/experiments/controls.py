"""Matched random controls: the same amount of intervention, on units drawn at random."""

from __future__ import annotations

import random

import numpy as np

from workbench.anatomy import Anatomy
from workbench.errors import PlanError
from workbench.interventions import Edit, Plan, mask, reroute, skip
from workbench.interventions.blob import Blob, blob
from workbench.runtime.artefacts import opened
from workbench.runtime.sae import Sae


def matched_random(plan: Plan, anatomy: Anatomy, seed: int) -> Plan:
    """A plan with the scopes of ``plan`` and random units in place of its own.

    * Bans, forces and masks of heads, experts, neurons or channels name as many units, drawn without replacement from all
      of the layer; a bias keeps its numbers and permutes its experts. An edit on several layers draws for each.
    * Skips of blocks (together, at the end), attention or MLPs name as many others; token-wise depth with a capacity scores
      at random; a uniform or middle policy becomes skips of as many layers.
    * Activation sparsity, attention masks and weight masks with a share keep it and choose at random.
    * A direction becomes a random one of the same length, features of an autoencoder become as many others of it.

    Disabled edits are left out. The same seed gives the same plan.

    Raises :class:`PlanError` for an edit of which there is no random counterpart with the same amount of change known
    before the run: a replay, a path, an alias, thresholds and masses.
    """
    rng = random.Random(f"{seed}/{plan.hash}")
    edits: list[Edit] = []
    whole = [edit for edit in plan.active if isinstance(edit, skip.Block) and edit.whole_run]
    for edit in plan.active:
        if edit in whole:
            continue
        if isinstance(edit, skip.Skip):
            edits.append(_other_depth(edit, anatomy, rng))
        elif isinstance(edit, mask.Activations | mask.AttentionMask | mask.WeightMask):
            edits.append(_drawn(edit, rng))
        elif isinstance(edit, mask.Direction):
            edits.append(_other_direction(edit, rng))
        elif isinstance(edit, mask.UnitMask | reroute.Bias | reroute.Ban | reroute.Force):
            edits.extend(_one_layer(edit, layer, anatomy, rng) for layer in edit.layers_in(anatomy))
        else:
            raise _none(edit)
    if gone := {n for edit in whole for n in edit.layers_in(anatomy)}:
        edits.append(skip.Block(layers=tuple(sorted(rng.sample(range(anatomy.num_layers), len(gone))))))
    return Plan(edits)


def _none(edit: Edit) -> PlanError:
    return PlanError(
        f"{edit.kind} has no matched random control.",
        "Remove it from the plan, or say how much it changes (a share, a capacity, named units).",
    )


def _other_depth(edit: skip.Skip, anatomy: Anatomy, rng: random.Random) -> Edit:
    size = anatomy.num_layers
    if isinstance(edit, skip.Removal):
        having = [
            n for n in range(size) if edit.acts_on != "attention" or anatomy.layer(n).attention is not None
        ]
        if edit.acts_on == "mlp":
            having = [n for n in range(size) if anatomy.layer(n).mlp is not None]
        count = len(edit.layers_in(anatomy))
        return edit.model_copy(update={"layers": tuple(sorted(rng.sample(having, count)))})
    if isinstance(edit, skip.Tokens) and edit.capacity is not None and edit.gate == "none":
        return edit.model_copy(update={"score": "random", "seed": rng.randrange(2**31), "router": None})
    if isinstance(edit, skip.Policy) and not edit.decides and edit.unit == "block":
        gone = [n for n in range(size) if edit.leaves_out(n, size)]
        if gone:
            layers = tuple(sorted(rng.sample(range(size), len(gone))))
            return skip.Block(
                layers=layers, tokens=edit.tokens, phase=edit.phase, steps=edit.steps, where=edit.where
            )
        return edit
    raise _none(edit)


def _drawn(edit: Edit, rng: random.Random) -> Edit:
    seed = rng.randrange(2**31)
    if isinstance(edit, mask.Activations) and edit.sparsity is not None:
        change = {"method": "random", "source": None, "rank": None, "seed": seed}
        return mask.Activations(**edit.model_dump() | change)
    if isinstance(edit, mask.AttentionMask) and edit.keep is not None:
        change = {"pattern": "random", "channels": None, "clusters": None, "seed": seed}
        return mask.AttentionMask(**edit.model_dump() | change)
    if isinstance(edit, mask.WeightMask) and edit.criterion != "given":
        return mask.WeightMask(**edit.model_dump() | {"criterion": "random", "source": None, "seed": seed})
    raise _none(edit)


def _other_direction(edit: mask.Direction, rng: random.Random) -> Edit:
    if edit.sae is not None and edit.features is not None:
        known = Sae.of(opened(edit.sae, "sae")).features
        return edit.model_copy(
            update={"features": tuple(sorted(rng.sample(range(known), len(edit.features))))}
        )
    numbers = np.asarray(
        edit.vector.numbers if isinstance(edit.vector, Blob) else edit.vector, dtype=np.float32
    )
    drawn = np.random.default_rng(rng.randrange(2**31)).normal(size=numbers.shape)
    lengths = np.linalg.norm(numbers, axis=-1, keepdims=True) / np.linalg.norm(drawn, axis=-1, keepdims=True)
    return mask.Direction(**edit.model_dump(exclude={"vector"}), vector=(drawn * lengths).astype(np.float32))


def _one_layer(edit: Edit, layer: int, anatomy: Anatomy, rng: random.Random) -> Edit:
    data = edit.model_dump() | {"layers": (layer,)}
    block = anatomy.layer(layer)
    if isinstance(edit, mask.UnitMask):
        if edit.named is None:
            needed = edit.replacement in ("mean", "resample")
            change = {
                "criterion": "random",
                "seed": rng.randrange(2**31),
                "source": edit.source if needed else None,
            }
            return type(edit)(**data | change)
        name = edit.kind.removeprefix("mask.")
        return type(edit)(**data | {name: rng.sample(range(edit.units_of(block)), len(edit.named))})
    assert block.moe is not None
    experts = range(block.moe.num_experts)
    if isinstance(edit, reroute.Bias):
        vector = edit.vector(block.moe.num_experts)
        order = rng.sample(experts, len(experts))
        if isinstance(vector, Blob):
            numbers = vector.numbers
            if numbers.ndim > 1 and edit.layers != "all":
                numbers = numbers[[edit.layers.index(layer)]]
            data["delta"] = blob(numbers[..., order])
        else:
            data["delta"] = tuple(vector[n] for n in order)
        return reroute.Bias(**data)
    assert isinstance(edit, reroute.Ban | reroute.Force)  # matched_random lets no other kind through
    data["experts"] = rng.sample(experts, len(edit.experts))
    return type(edit)(**data)
