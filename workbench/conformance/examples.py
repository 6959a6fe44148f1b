"""One example of every kind of edit, fitted to a model: a form that must act, a neutral one and an impossible one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from workbench.errors import EditRefused
from workbench.interventions import mask, reroute, skip
from workbench.interventions.custom import edit
from workbench.interventions.edit import Edit
from workbench.interventions.patch import patch

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench
    from workbench.runtime.run import Run

Choice: TypeAlias = Mapping[int, float]
"""The experts of one token in one layer, with their weights."""


@dataclass(frozen=True)
class Subject:
    """The model under examination: what examples need to know of it.

    ``layer`` has experts whose rule is proved, if any layer has; ``used`` are the experts that the base run chose there,
    busiest first; ``experts`` and ``k`` are its numbers, 0 where there is no such layer. ``attended`` is a layer with
    softmax attention, the same where that has it; ``heads`` are its heads, 0 where no layer has any.
    """

    bench: Bench
    base: Run
    layer: int
    attended: int
    experts: int
    k: int
    used: tuple[int, ...]
    heads: int

    @property
    def beyond(self) -> int:
        """A layer that the model does not have."""
        return self.bench.anatomy.num_layers

    def fair(self) -> float:
        """The least factor at which the layer's choices can be balanced: where tokens choose among a few groups, the mean
        load may not be reachable."""
        for factor in (1.0, 1.25, 1.5, 2.0):
            try:
                self.bench.run(
                    self.base.tokens.tolist(), reroute.balanced(self.layer, factor, pool="step"), record=None
                )
            except EditRefused:
                continue
            return factor
        return 3.0

    def tau(self) -> float:
        """A temperature that moves the weights: those of SparseMixer compare near rivals, which only a low one parts."""
        moe = self.bench.anatomy.layer(self.layer).moe
        return 0.01 if moe is not None and moe.rule is not None and moe.rule.score == "sparsemixer" else 8.0

    def earlier(self) -> int:
        """A layer with experts before ``layer``, or ``layer`` itself where there is none."""
        return max((n for n in self.bench.anatomy.moe_layers if n < self.layer), default=self.layer)


@dataclass(frozen=True)
class Example:
    """Forms of one kind.

    Attributes
    ----------
    effect
        Must change the logits.
    holds
        How the choice of a token before and after must differ; ``None`` where the kind does not re-route.
    identity
        Must change no bit; ``None`` where the kind has no neutral form.
    refused
        Must be refused, whatever the model; ``None`` where every form is possible.
    read_back
        For other kinds: what the store or a site must show of the run, as a sentence that says what is wrong, or nothing.
    """

    effect: Edit
    holds: Callable[[Choice, Choice], bool] | None = None
    identity: Edit | None = None
    refused: Callable[[], Edit] | None = None
    read_back: Callable[[Subject, Run], str] | None = None


def _make(kind: str, *args: Any, **fields: Any) -> Edit:
    """An edit by its kind's name, so that the table may name kinds that this version does not have yet."""
    verb, _, name = kind.partition(".")
    return getattr({"reroute": reroute, "skip": skip, "mask": mask}[verb], name)(*args, **fields)


def _close(one: Choice, other: Choice) -> bool:
    return one.keys() == other.keys() and all(
        abs(one[e] - other[e]) <= 1e-3 + 1e-2 * abs(other[e]) for e in one
    )


def _skips(subject: Subject, run: Run) -> str:
    rows = subject.bench.sql(
        "SELECT count(*) FROM depth WHERE run = ? AND event <> 'execute'", [run.id]
    ).fetchall()
    return "" if rows[0][0] else "the store holds no depth event of it"


def _silent_heads(subject: Subject, run: Run) -> str:
    heads = run.tensor("attn_head_out", layers=subject.attended, tokens="all")
    return "" if float(heads[..., 0, :].abs().max()) == 0.0 else "the masked head still gives something"


def _silent_channels(subject: Subject, run: Run) -> str:
    stream = run.tensor("resid_post", layers=subject.layer)
    half = subject.bench.anatomy.hidden_size // 2
    return "" if float(stream[..., :half].abs().max()) == 0.0 else "the masked channels still hold something"


@edit("resid_post")
def _conformance_scaled(value: Any, place: Any, by: float = 2.0) -> Any:
    """Every other channel of the residual stream by a factor (a norm takes away what all of them share): what a
    researcher's own edit may be."""
    factors = torch.ones(value.shape[-1], dtype=value.dtype, device=value.device)
    factors[::2] = by
    return value * factors


def _reroutes(s: Subject) -> dict[str, Callable[[], Example]]:
    layer, e, k, used, last = s.layer, s.experts, s.k, s.used, s.experts - 1
    # A model may send every token of a prompt to few experts; what is banned must leave k to choose from.
    some = used[: max(1, min(len(used), e - k, 3))]
    rare = next((x for x in range(e) if x not in used), used[-1])

    def merged(b: Choice) -> dict[int, float]:
        found = {x: w for x, w in b.items() if x != used[0]}
        return found | ({rare: found.get(rare, 0.0) + b[used[0]]} if used[0] in b else {})

    return {
        "reroute.ban": lambda: Example(
            reroute.ban(layer, some), lambda b, a: len(a) == k and not set(a) & set(some),
            refused=lambda: reroute.ban(layer, list(range(e - k + 1)))),
        "reroute.allow": lambda: Example(
            reroute.allow(layer, [x for x in range(e) if x not in some]), lambda b, a: not set(a) & set(some),
            reroute.allow(layer, list(range(e))), lambda: reroute.allow(layer, list(range(k - 1)) or [e])),
        "reroute.force": lambda: Example(
            reroute.force(layer, rare), lambda b, a: rare in a and len(set(a) - set(b)) <= 1,
            refused=lambda: reroute.force(layer, list(range(k + 1)))),
        "reroute.bias": lambda: Example(
            reroute.bias(layer, {last: 1e3}), lambda b, a: last in a, reroute.bias(layer, [0.0] * e),
            lambda: reroute.bias(layer, {e: 1.0})),
        "reroute.temperature": lambda: Example(
            reroute.temperature(layer, s.tau()), lambda b, a: len(a) == len(b), reroute.temperature(layer, 1.0),
            lambda: reroute.temperature(s.beyond, 2.0)),
        "reroute.scores": lambda: Example(
            reroute.scores(layer, [1.0 / (x + 2) for x in range(e)]), lambda b, a: len(a) == k,
            reroute.scores(layer, [1.0 / e] * e, alpha=0.0), lambda: reroute.scores(layer, [1.0] * (e + 1))),
        "reroute.top_k": lambda: Example(
            reroute.top_k(layer, k + 1), lambda b, a: len(a) == k + 1, reroute.top_k(layer, k),
            lambda: reroute.top_k(layer, e + 1)),
        "reroute.top_p": lambda: Example(
            reroute.top_p(layer, 0.999), lambda b, a: set(b) <= set(a) or set(a) <= set(b),
            refused=lambda: reroute.top_p(s.beyond, 0.5)),
        "reroute.threshold": lambda: Example(
            reroute.threshold(layer, 0.9), lambda b, a: 1 <= len(a) <= k, refused=lambda: reroute.threshold(s.beyond, 0.5)),
        "reroute.rank_offset": lambda: Example(
            reroute.rank_offset(layer, 1), lambda b, a: len(a) == k and set(a) != set(b), reroute.rank_offset(layer, 0),
            lambda: reroute.rank_offset(layer, e)),
        "reroute.random": lambda: Example(
            reroute.random(layer, seed=3), lambda b, a: len(a) == k, refused=lambda: reroute.random(s.beyond)),
        "reroute.permute": lambda: Example(
            reroute.permute(layer, [(x + 1) % e for x in range(e)]),
            lambda b, a: _close(a, {(x + 1) % e: w for x, w in b.items()}), reroute.permute(layer, range(e)),
            lambda: reroute.permute(layer, [1, 0][: max(1, e - 1)])),
        "reroute.uniform": lambda: Example(
            reroute.uniform(layer), lambda b, a: _close(a, dict.fromkeys(b, sum(b.values()) / len(b))),
            refused=lambda: reroute.uniform(s.beyond)),
        "reroute.weights": lambda: Example(
            reroute.weights(layer, scale=0.5, normalise="as-is"), lambda b, a: _close(a, {x: w / 2 for x, w in b.items()}),
            reroute.weights(layer, scale=1.0), lambda: reroute.weights(layer, values=[1.0] * (k + 1))),
        "reroute.replay": lambda: Example(
            reroute.replay(s.bench.run(s.base.tokens.tolist(), reroute.rank_offset(layer, 1)), layers=layer),
            lambda b, a: set(a) != set(b), reroute.replay(s.base), lambda: reroute.replay(1)),
        "reroute.smooth": lambda: Example(
            _make("reroute.smooth", layer, by="attention"), lambda b, a: len(a) == k,
            _make("reroute.smooth", layer, by="window", window=1), lambda: _make("reroute.smooth", s.beyond)),
        "reroute.group": lambda: Example(
            _make("reroute.group", layer, by="sample", take="running"), lambda b, a: len(a) == k,
            _make("reroute.group", layer, by="sample", alpha=0.0)),
        "reroute.copy_layer": lambda: Example(
            _make("reroute.copy_layer", layer, s.earlier()), lambda b, a: len(a) == k,
            refused=lambda: _make("reroute.copy_layer", layer, layer)),
        "reroute.capacity": lambda: Example(
            _make("reroute.capacity", layer, 0.5), lambda b, a: set(a) <= set(b), _make("reroute.capacity", layer, 100.0),
            lambda: _make("reroute.capacity", s.beyond)),
        "reroute.expert_choice": lambda: Example(
            _make("reroute.expert_choice", layer, pool="step"), lambda b, a: True,
            refused=lambda: _make("reroute.expert_choice", s.beyond)),
        "reroute.balanced": lambda: Example(
            _make("reroute.balanced", layer, s.fair(), pool="step"), lambda b, a: len(a) == k,
            _make("reroute.balanced", layer, 100.0)),
        "reroute.merge": lambda: Example(
            _make("reroute.merge", layer, {used[0]: rare}), lambda b, a: _close(a, merged(b)),
            _make("reroute.merge", layer, {0: 0}), lambda: _make("reroute.merge", layer, {e: 0})),
        "reroute.pseudo": lambda: Example(
            _make("reroute.pseudo", layer, list(some), output="copy"), lambda b, a: set(a) <= set(b),
            refused=lambda: _make("reroute.pseudo", s.beyond, 0)),
    }  # fmt: skip


def _others(s: Subject) -> dict[str, Callable[[], Example]]:
    layer, attended, count, hidden = s.layer, s.attended, s.beyond, s.bench.anatomy.hidden_size
    mlp = s.bench.anatomy.layer(layer).mlp
    width = 0 if mlp is None else mlp.act_width
    push = [
        1.0 if unit % 2 else -1.0 for unit in range(hidden)
    ]  # a constant one is what a LayerNorm takes away
    swapped = [*range(count - 2), count - 1, count - 2]
    return {
        "skip.block": lambda: Example(_make("skip.block", layer), read_back=_skips,
                                      refused=lambda: _make("skip.block", count)),
        "skip.attention": lambda: Example(_make("skip.attention", attended), read_back=_skips,
                                          refused=lambda: _make("skip.attention", count)),
        "skip.mlp": lambda: Example(_make("skip.mlp", layer), read_back=_skips, refused=lambda: _make("skip.mlp", count)),
        "skip.repeat": lambda: Example(_make("skip.repeat", attended, 2), None, _make("skip.repeat", attended, 1),
                                       lambda: _make("skip.repeat", count), _skips),
        "skip.alias": lambda: Example(_make("skip.alias", layer, 0 if layer else 1), None,
                                      _make("skip.alias", layer, layer), lambda: _make("skip.alias", layer, count)),
        "skip.path": lambda: Example(_make("skip.path", swapped), None, _make("skip.path", list(range(count))),
                                     lambda: _make("skip.path", [0, count])),
        "skip.tokens": lambda: Example(_make("skip.tokens", attended, capacity=0.5), None,
                                       _make("skip.tokens", attended, capacity=1.0),
                                       lambda: _make("skip.tokens", count, capacity=0.5), _skips),
        "skip.policy": lambda: Example(_make("skip.policy", "middle", radius=1), None,
                                       _make("skip.policy", "middle", radius=0),
                                       lambda: _make("skip.policy", "middle", radius=count), _skips),
        "mask.heads": lambda: Example(_make("mask.heads", attended, [0]), None, _make("mask.heads", attended, ratio=0),
                                      lambda: _make("mask.heads", attended, s.heads), _silent_heads),
        "mask.experts": lambda: Example(
            _make("mask.experts", layer, list(s.used[:3])), lambda b, a: set(a) <= set(b),
            _make("mask.experts", layer, ratio=0), lambda: _make("mask.experts", layer, s.experts)),
        "mask.neurons": lambda: Example(
            _make("mask.neurons", layer, range(max(1, width // 2))), None, _make("mask.neurons", layer, ratio=0),
            lambda: _make("mask.neurons", layer, width)),
        "mask.channels": lambda: Example(
            _make("mask.channels", layer, range(hidden // 2)), None, _make("mask.channels", layer, ratio=0),
            lambda: _make("mask.channels", layer, hidden), _silent_channels),
        "mask.tokens": lambda: Example(
            _make("mask.tokens", attended, tokens=[2, 3]), refused=lambda: _make("mask.tokens", attended)),
        "mask.activations": lambda: Example(
            _make("mask.activations", layer, "random", sparsity=0.5), None,
            _make("mask.activations", layer, "random", sparsity=0),
            lambda: _make("mask.activations", layer, "given", neurons=[width])),
        "mask.attention": lambda: Example(
            _make("mask.attention", attended, "explicit", blocks=[], block=16, sinks=0), None,
            _make("mask.attention", attended, "explicit", blocks=[(1, 0)], block=16, sinks=0),
            lambda: _make("mask.attention", count, "window", window=4)),
        "mask.weights": lambda: Example(
            _make("mask.weights", layer, ratio=0.5), None, _make("mask.weights", layer, ratio=0),
            lambda: _make("mask.weights", layer, ratio=0.5, tokens=[1])),
        "mask.direction": lambda: Example(
            _make("mask.direction", layer, push, op="add"), None,
            _make("mask.direction", layer, push, op="add", value=0.0),
            lambda: _make("mask.direction", layer, [1.0])),
        "patch": lambda: Example(
            patch("resid_post", s.bench.run([*reversed(s.base.tokens.tolist())]), layer), None, None,
            lambda: patch("resid_post", 1, layer)),
        "custom": lambda: Example(
            _conformance_scaled(layer, by=2.0), None, _conformance_scaled(layer, by=1.0),
            lambda: _conformance_scaled(count)),
    }  # fmt: skip


def example_of(kind: str, subject: Subject) -> Example | None:
    """The example of ``kind`` on this model; ``None`` where the kit has none."""
    maker = (_reroutes(subject) if kind.startswith("reroute.") else _others(subject)).get(kind)
    return None if maker is None else maker()
