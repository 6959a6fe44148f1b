"""Matched random controls: the same amount of intervention, on units drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from workbench.anatomy import Anatomy
from workbench.errors import EditRefused, PlanError
from workbench.experiments.realised import PHASES, Realised, Visits
from workbench.interventions import Edit, Plan, mask, reroute, skip
from workbench.interventions.blob import Blob, blob
from workbench.interventions.edit import Span
from workbench.interventions.mask.weights import PARTS
from workbench.runtime.artefacts import opened
from workbench.runtime.run import Run
from workbench.runtime.sae import Sae

TRIES = 200
"""Draws of layers that are tried until the model takes them."""


def matched_random(plan: Plan, anatomy: Anatomy, seed: int, like: Run | Sequence[Run] | None = None) -> Plan:
    """A plan with the scopes of ``plan`` and random units in place of its own, which changes as much.

    What is matched, kind by kind:

    * **Units** (bans, allow-lists, forces, masks of heads, experts, neurons, channels): as many, drawn without
      replacement from all of the layer, edit by edit and layer by layer; what two edits share they share in the control,
      and nothing else. A bias keeps its numbers and permutes its experts. A ratio is kept and chosen at random.
    * **Layers** (skips of blocks, attentions and MLPs, repeats, aliases): the layers change their names. As many layers are
      skipped, repeated as often, and aliased to as many sources as in the plan, and no layer falls together with another.
    * **Paths**: as many steps; as many layers left out, and run twice, three times, ...; as many pairs of steps in
      descending order. A path that begins with layer 0, or ends with the last, still does.
    * **Schedules**: ``uniform`` and ``middle`` skip as many layers, and run the first and the last if the policy does;
      ``decay`` skips as many at each generated token, from the layers behind its first.
    * **Tokens of a depth edit**: a capacity is kept and scored at random (evenly spread positions become a random share); a
      gate is dropped, since the probability of a router has no random counterpart. Thresholds, early exit and learned
      routers: each layer runs the share of tokens that it ran in ``like``, at random; where a router repeated
      tokens, exactly as many positions are skipped and repeated.
    * **Hidden tokens**: as many positions as in ``like``, from all the tokens of the part of the text that the edit names.
    * **Activations**: the share of neurons that ``like`` left out, layer by layer; where it does not say, the sparsity asked
      for.
      Given neurons become as many others. Inputs are never left out by chance.
    * **Attention masks**: ``keep`` stays. Other patterns keep the density that ``like`` had, layer by layer, of the prompt
      and of the generated tokens, as closely as whole blocks can.
    * **Weight masks**: the ratio, or n of m, stays. Given masks become random ones of the same share in every projection.
    * **Directions**: a random one of the same length; features of an autoencoder become as many others of it.

    Disabled edits are left out. The same arguments give the same plan.

    Parameters
    ----------
    like
        Recorded runs of ``plan``, from which amounts are taken that only a run knows.

    Raises
    ------
    PlanError
        An edit of which there is no random counterpart (a replay, a patch, ...), an amount that only a run knows where none
        was given, or one that the rows of ``like`` do not tell apart from what another edit did.
    """
    runs = [like] if isinstance(like, Run) else list(like or [])
    realised = Realised(runs, plan.hash) if runs else None
    plan.check(anatomy)
    refused: EditRefused | None = None
    for attempt in range(TRIES):
        draw = _Draw(plan, anatomy, random.Random(f"{seed}/{plan.hash}/{attempt}"), realised)
        control = Plan(made for edit in plan.active for made in draw.control(edit))
        try:
            control.check(anatomy)
        except EditRefused as error:  # a layer that cannot be skipped, a source of another kind
            refused = error
            continue
        return control
    raise PlanError(
        f"In {TRIES} draws of other layers this model took none: {refused}",
        "Control an edit that more layers of this model can have.",
    )


class _Draw:
    """One draw of a control for ``plan``: which layer and which unit stands for which."""

    def __init__(self, plan: Plan, anatomy: Anatomy, rng: random.Random, realised: Realised | None) -> None:
        self.plan, self.anatomy, self.rng, self._realised = plan, anatomy, rng, realised
        self.size = anatomy.num_layers
        self._layers = rng.sample(range(self.size), self.size)
        self._units: dict[tuple[str, int, int | None], list[int]] = {}

    def control(self, edit: Edit) -> Iterable[Edit]:
        """What stands for ``edit``."""
        found = _maker(edit)(edit, self)
        return [found] if isinstance(found, Edit) else found

    def seed(self) -> int:
        """A seed for an edit that draws by itself."""
        return self.rng.randrange(2**31)

    def layers(self, layers: Iterable[int]) -> tuple[int, ...]:
        """The layers that stand for ``layers``."""
        return tuple(sorted(self._layers[layer] for layer in layers))

    def units(self, what: str, layer: int, size: int, expert: int | None = None) -> list[int]:
        """The unit of ``what`` that stands for each of the ``size`` units of ``layer``, or of one ``expert`` of it."""
        key = (what, layer, expert)
        if key not in self._units:
            self._units[key] = self.rng.sample(range(size), size)
        return self._units[key]

    def beside(self, edit: Edit, kinds: tuple[type[Edit], ...]) -> tuple[Edit, int] | None:
        """Another edit of ``kinds`` that acts on the same in a layer of ``edit``, and that layer."""
        mine = set(edit.layers_in(self.anatomy))
        for other in self.plan.active:
            if other is edit or not isinstance(other, kinds):
                continue
            both = mine & set(other.layers_in(self.anatomy))
            if both and getattr(other, "acts_on", None) == getattr(edit, "acts_on", None):
                return other, min(both)
        return None

    def tells(self, edit: Edit, alone: tuple[type[Edit], ...]) -> bool:
        """Whether runs were given that say how much ``edit`` changed; see :meth:`like`."""
        return self._realised is not None and self.beside(edit, alone) is None

    def like(self, edit: Edit, alone: tuple[type[Edit], ...]) -> Realised:
        """The runs that say how much ``edit`` changed: no other edit of the kinds ``alone`` may act in its layers."""
        if self._realised is None:
            raise PlanError(
                f"Only a run knows how much {edit.kind} changes here, so that it has no matched random control before one.",
                "Give a recorded run of the plan: matched_random(plan, anatomy, seed, like=run).",
            )
        found = self.beside(edit, alone)
        if found is not None:
            other, layer = found
            raise PlanError(
                f"{edit.kind} and {other.kind} act together in layer {layer}, so that the run does not say how much of it "
                "was whose.",
                "Control them in plans of their own.",
            )
        return self._realised


_Make: TypeAlias = Callable[[Any, _Draw], Edit | list[Edit]]


def require_controls(plan: Plan) -> None:
    """Raise :class:`PlanError` if an edit of ``plan`` has no random counterpart, whatever a run may say."""
    for edit in plan.active:
        _maker(edit)


def _maker(edit: Edit) -> _Make:
    for kind, make in _CONTROLS.items():
        if isinstance(edit, kind):
            return make
    raise PlanError(f"{edit.kind} has no matched random control.", "Remove it from the plan.")


_UNIT = {"block": "block", "attention": "attn", "mlp": "mlp"}
"""How the rows of ``depth`` call a unit."""


def _scope(edit: Edit) -> dict[str, Any]:
    return {name: getattr(edit, name) for name in ("tokens", "where", "phase", "rows", "steps")}


def _changed(edit: Edit, **values: Any) -> Edit:
    """The edit with other values, checked anew."""
    return type(edit)(**{name: getattr(edit, name) for name in type(edit).model_fields} | values)


# Units of a layer


def _units(edit: mask.UnitMask, draw: _Draw) -> list[Edit]:
    made: list[Edit] = []
    name = edit.kind.removeprefix("mask.")
    for layer in edit.layers_in(draw.anatomy):
        if edit.named is None:
            needed = edit.replacement in ("mean", "resample")
            change = {"criterion": "random", "seed": draw.seed(), "source": edit.source if needed else None}
        else:
            size = edit.units_of(draw.anatomy.layer(layer))
            order = draw.units(name, layer, size, getattr(edit, "expert", None))
            change = {name: [order[unit] for unit in edit.named]}
        made.append(_changed(edit, layers=(layer,), **change))
    return made


def _experts(edit: reroute.Ban | reroute.Allow | reroute.Force, draw: _Draw) -> list[Edit]:
    return [
        _changed(edit, layers=(layer,), experts=[_order(layer, draw)[expert] for expert in edit.experts])
        for layer in edit.layers_in(draw.anatomy)
    ]


def _bias(edit: reroute.Bias, draw: _Draw) -> list[Edit]:
    made: list[Edit] = []
    for layer in edit.layers_in(draw.anatomy):
        order = _order(layer, draw)
        vector = edit.vector(len(order))
        came = sorted(range(len(order)), key=order.__getitem__)
        if isinstance(vector, Blob):
            numbers = vector.numbers
            if numbers.ndim > 1 and edit.layers != "all":
                numbers = numbers[[edit.layers.index(layer)]]
            made.append(_changed(edit, layers=(layer,), delta=blob(numbers[..., came])))
        else:
            made.append(_changed(edit, layers=(layer,), delta=tuple(vector[expert] for expert in came)))
    return made


def _order(layer: int, draw: _Draw) -> list[int]:
    moe = draw.anatomy.layer(layer).moe
    assert moe is not None  # the plan was checked against the anatomy
    return draw.units("experts", layer, moe.num_experts)


# Depth that is known before the run


def _other_layers(edit: skip.Removal | skip.Repeat, draw: _Draw) -> Edit:
    return edit if edit.layers == "all" else _changed(edit, layers=draw.layers(edit.layers))


def _alias(edit: skip.Alias, draw: _Draw) -> Edit:
    source = draw.layers([edit.source])[0]
    return _changed(edit, layers=draw.layers(edit.layers_in(draw.anatomy)), source=source)


def _path(edit: skip.Path, draw: _Draw) -> Edit:
    path, last = list(edit.path), draw.size - 1
    front, back = path[:1] == [0], path[-1:] == [last] and len(path) > 1
    middle = path[front : len(path) - back]
    fixed = {0} if front else set()
    fixed |= {last} if back else set()
    free = [layer for layer in range(draw.size) if layer not in fixed]
    times = [middle.count(layer) for layer in free]
    draw.rng.shuffle(times)
    counts = dict(zip(free, times, strict=True)) | {layer: middle.count(layer) for layer in fixed}
    steps = [layer for layer in range(draw.size) for _ in range(counts[layer])]
    for _ in range(descents(middle)):
        at = draw.rng.choice([n for n in range(len(steps) - 1) if steps[n] < steps[n + 1]])
        steps[at], steps[at + 1] = steps[at + 1], steps[at]
    return _changed(edit, path=(*path[:front], *steps, *path[len(path) - back :]))


def descents(path: Sequence[int]) -> int:
    """Pairs of steps of which the earlier runs a later layer."""
    return sum(one > other for one, other in combinations(path, 2))


def _policy(edit: skip.Policy, draw: _Draw) -> Edit | list[Edit]:
    if edit.policy == "random":
        return _changed(edit, seed=draw.seed())
    if edit.policy == "decay":
        return _changed(edit, scattered=True, seed=draw.seed())
    if edit.policy in ("early_exit", "learned"):
        return _shares(edit, draw)
    gone = [layer for layer in range(draw.size) if edit.leaves_out(layer, draw.size)]
    free = [n for n in range(draw.size) if 0 < n < draw.size - 1 or n in gone]
    return _left_out(edit, draw.rng.sample(free, len(gone)), draw) if gone else edit


def _left_out(edit: skip.Dynamic, layers: list[int], draw: _Draw, **scope: Any) -> Edit:
    """No token of the scope of ``edit``, or of another one, runs in ``layers`` but the protected ones."""
    common = _scope(edit) | {"layers": layers} | scope
    if edit.protect:
        return skip.Tokens(
            **common,
            threshold=1.0,
            score="random",
            seed=draw.seed(),
            unit=edit.unit,
            kv=edit.kv,
            protect=edit.protect,
        )
    if edit.unit == "mlp":
        return skip.Mlp(**common)
    return (skip.Block if edit.unit == "block" else skip.Attention)(**common, kv=edit.kv)


# Depth that a run decides


def _tokens(edit: skip.Tokens, draw: _Draw) -> Edit | list[Edit]:
    if edit.threshold is not None:
        return _shares(edit, draw)
    change = {"score": "random", "seed": draw.seed(), "router": None, "gate": "none"}
    if edit.score == "position":  # evenly spread: exactly this share, at any length
        change |= {"capacity": None, "threshold": 1.0 - (edit.capacity or 0.0)}
    return _changed(edit, **change)


def _shares(edit: skip.Tokens | skip.Policy, draw: _Draw) -> list[Edit]:
    """Each layer runs the share of tokens that it ran, and repeats as many."""
    realised, made = draw.like(edit, (skip.Skip,)), []
    for layer in edit.layers_in(draw.anatomy):
        visits = realised.visits(_UNIT[edit.acts_on], layer, edit.protect)
        if visits.repeated:
            made += _positions(edit, layer, visits, draw)
        elif visits.skipped:
            change: dict[str, Any] = {"layers": (layer,), "seed": draw.seed(), "router": None}
            if isinstance(edit, skip.Tokens):
                change |= {"threshold": 1.0 - visits.share, "score": "random", "gate": "none", "causal": True}
            else:
                change |= {"policy": "random", "share": visits.share, "similarity": None}
            made.append(_changed(edit, **change))
    return made


def _positions(edit: skip.Dynamic, layer: int, visits: Visits, draw: _Draw) -> list[Edit]:
    """As many of the positions are skipped, and as many repeated."""
    every = [*visits.skipped, *visits.once, *visits.repeated]
    drawn = draw.rng.sample(every, len(visits.skipped) + len(visits.repeated))
    skipped, repeated = drawn[: len(visits.skipped)], drawn[len(visits.skipped) :]
    made: list[Edit] = [
        skip.Repeat(layers=(layer,), rows=edit.rows, times=2, unit=edit.unit, tokens=repeated)
    ]
    if skipped:
        made.append(_left_out(edit, [layer], draw, tokens=skipped, where=None))
    return made


# Masks


def _hidden(edit: mask.TokenMask, draw: _Draw) -> list[Edit]:
    realised = draw.like(edit, (mask.TokenMask,))
    layers = edit.layers_in(draw.anatomy)
    counts = {layer: realised.hidden(layer) for layer in layers}
    among = _among(edit, realised)
    if len(set(counts.values())) == 1:
        groups = [(edit.layers, counts[layers[0]])]
    else:
        groups = [((layer,), counts[layer]) for layer in layers]
    return [
        _changed(edit, layers=where, where=None, tokens=draw.rng.sample(among, min(count, len(among))))
        for where, count in groups
        if count
    ]


def _among(edit: mask.TokenMask, realised: Realised) -> list[int]:
    """The positions from which hidden tokens are drawn: those the edit names, where a condition chooses among them; else
    all of the text of its phase."""
    first = realised.prompt if edit.phase == "decode" else 0
    stop = realised.prompt if edit.phase == "prefill" else realised.length
    tokens = edit.tokens if edit.where is not None else "all"
    named = {
        "prompt": (0, realised.prompt), "generated": (realised.prompt, realised.length),
        "prompt_last": (realised.prompt - 1, realised.prompt), "each_step": (realised.prompt - 1, realised.length),
    }  # fmt: skip
    if isinstance(tokens, tuple):
        return [position for position in tokens if first <= position < stop]
    if isinstance(tokens, Span):
        low, high = tokens.start, realised.length if tokens.stop is None else tokens.stop
    else:
        low, high = named.get(tokens, (first, stop))
    return list(range(max(first, low), min(stop, high)))


def _activations(edit: mask.Activations, draw: _Draw) -> list[Edit] | Edit:
    plain = {"threshold": None, "input_threshold": None, "source": None, "rank": None, "neurons": None}
    if edit.neurons is not None:
        layers = edit.layers_in(draw.anatomy)
        orders = [
            draw.units("neurons", layer, draw.anatomy.layer(layer).mlp.act_width)  # type: ignore[union-attr]
            for layer in layers
        ]
        return [
            _changed(edit, layers=(layer,), neurons=[order[neuron] for neuron in edit.neurons])
            for layer, order in zip(layers, orders, strict=True)
        ]
    alone = (mask.Activations, mask.Neurons)
    if edit.sparsity is not None and not draw.tells(edit, alone):
        return _changed(edit, **plain, method="random", seed=draw.seed())
    realised, made = draw.like(edit, alone), []
    for layer in edit.layers_in(draw.anatomy):
        gone = realised.left_out("sparse_mlp", layer)
        if gone is not None:
            share = min(gone, 1 - 2**-20)  # all but a trace
            made.append(
                _changed(edit, **plain, layers=(layer,), method="random", sparsity=share, seed=draw.seed())
            )
    return made


def _attention(edit: mask.AttentionMask, draw: _Draw) -> list[Edit] | Edit:
    own = {"window": None, "stride": None, "channels": None, "clusters": None, "blocks": None, "mass": None}
    if edit.keep is not None:
        return _changed(edit, **own, pattern="random", seed=draw.seed())
    if edit.where is not None or edit.tokens not in ("all", "prompt", "generated"):
        raise PlanError(
            f"mask.attention({edit.pattern!r}) at some tokens has no matched random control: rows say what share of a whole "
            "map was kept.",
            "Give keep=, or scope it by layers, heads and phase.",
        )
    realised, made = draw.like(edit, (mask.AttentionMask, mask.TokenMask)), []
    for layer in edit.layers_in(draw.anatomy):
        seed = draw.seed()
        found = {phase: realised.keep(layer, edit.heads, edit.block, edit.sinks, phase) for phase in PHASES}
        keeps = {phase: keep for phase, keep in found.items() if keep is not None}
        for phase, keep in keeps.items():
            where = phase if len(keeps) > 1 else edit.phase
            made.append(
                _changed(edit, **own, layers=(layer,), pattern="random", keep=keep, seed=seed, phase=where)
            )
    return made


def _weights(edit: mask.WeightMask, draw: _Draw) -> list[Edit] | Edit:
    if edit.criterion != "given":
        return _changed(edit, criterion="random", source=None, seed=draw.seed())
    assert edit.source is not None
    given = opened(edit.source, "masks").tensors
    made: list[Edit] = []
    for layer in edit.layers_in(draw.anatomy):
        shares: dict[str, list[float]] = {}
        for name, kept in given.items():
            number, part = name.split(".", 1)
            part = part if part in PARTS else "experts"
            if int(number) == layer and (not edit.parts or part in edit.parts):
                shares.setdefault(part, []).append(1 - float(kept.float().mean()))
        made += [
            _changed(edit, layers=(layer,), parts=(part,), criterion="random", source=None, seed=draw.seed(),
                     shape="unstructured", ratio=min(float(np.mean(gone)), 1 - 2**-20))
            for part, gone in shares.items()
        ]  # fmt: skip
    return made


def _direction(edit: mask.Direction, draw: _Draw) -> Edit:
    if edit.sae is not None and edit.features is not None:
        known = Sae.of(opened(edit.sae, "sae")).features
        return _changed(edit, features=sorted(draw.rng.sample(range(known), len(edit.features))))
    numbers = np.asarray(
        edit.vector.numbers if isinstance(edit.vector, Blob) else edit.vector, dtype=np.float32
    )
    drawn = np.random.default_rng(draw.seed()).normal(size=numbers.shape)
    lengths = np.linalg.norm(numbers, axis=-1, keepdims=True) / np.linalg.norm(drawn, axis=-1, keepdims=True)
    return _changed(edit, vector=(drawn * lengths).astype(np.float32))


_CONTROLS: dict[type[Edit], _Make] = {
    reroute.Bias: _bias, reroute.Ban: _experts, reroute.Allow: _experts, reroute.Force: _experts,
    skip.Removal: _other_layers, skip.Repeat: _other_layers, skip.Alias: _alias, skip.Path: _path,
    skip.Policy: _policy, skip.Tokens: _tokens,
    mask.UnitMask: _units, mask.TokenMask: _hidden, mask.Activations: _activations, mask.AttentionMask: _attention,
    mask.WeightMask: _weights, mask.Direction: _direction,
}  # fmt: skip
"""How each kind is controlled; a kind that is not here has no random counterpart."""
