"""Hold an open model to the examples: four checks a kind, each ends in one of five states."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from workbench.conformance.examples import Choice, Example, Subject, example_of
from workbench.errors import WorkbenchError
from workbench.interventions import reroute
from workbench.interventions.plan import kinds

if TYPE_CHECKING:
    from workbench.interventions.edit import Edit
    from workbench.runtime.bench import Bench
    from workbench.runtime.run import Run

Outcome: TypeAlias = Literal["right", "wrong", "refused", "not applicable", "crashed"]
Check: TypeAlias = Literal["effect", "read-back", "identity", "refusal"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "refused", "not applicable", "crashed")
CHECKS: tuple[Check, ...] = ("effect", "read-back", "identity", "refusal")

_TOKENS = 20  # two blocks of an attention mask
# A write that moves no logit by this share of their spread is a write without effect: rounding alone moves them less.
_EFFECT = 1e-4


@dataclass(frozen=True)
class Verdict:
    """What became of one check of one kind. ``detail`` says why for everything but ``right``; ``size`` is the largest
    change of a logit in units of their standard deviation, for the check of the effect."""

    kind: str
    check: Check
    outcome: Outcome
    detail: str = ""
    size: float | None = None


@dataclass(frozen=True)
class Report:
    """All verdicts on one model."""

    family: str
    verdicts: tuple[Verdict, ...]

    def counts(self) -> dict[Outcome, int]:
        """How many checks ended in each state."""
        found = Counter(verdict.outcome for verdict in self.verdicts)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def failures(self) -> tuple[Verdict, ...]:
        """The checks that are wrong or crashed."""
        return tuple(v for v in self.verdicts if v.outcome in ("wrong", "crashed"))

    def of(self, kind: str) -> dict[Check, Verdict]:
        """The verdicts on one kind."""
        return {v.check: v for v in self.verdicts if v.kind == kind}


def examine(bench: Bench, prompt: Sequence[int] | None = None, only: Sequence[str] | None = None) -> Report:
    """Examine every kind of edit that this version has, or ``only`` some, on the model of ``bench``.

    Parameters
    ----------
    prompt
        Token ids to run; by default twelve random ones. Runs are recorded in the bench's store.

    Returns
    -------
    Report
        ``right``: does what it says. ``wrong``: does not, or has no effect, or was not recorded as executed.
        ``refused``: refused with a reason, which is the detail. ``not applicable``: the model has no such part, or the kind
        no such form. ``crashed``: an error that is not the workbench's own.
    """
    if prompt is None:
        random = torch.Generator().manual_seed(0)
        prompt = torch.randint(3, bench.anatomy.vocab_size, (_TOKENS,), generator=random).tolist()
    subject = _subject(bench, list(prompt))
    verdicts: list[Verdict] = []
    for kind in kinds() if only is None else only:
        verdicts += _examine(kind, subject)
    return Report(bench.anatomy.model_type, tuple(verdicts))


def _subject(bench: Bench, prompt: list[int]) -> Subject:
    base = bench.run(prompt)
    proved = [b for b in bench.anatomy.blocks if b.moe is not None and b.moe.proved]
    # With experts before it, which an edit may copy from and must leave alone.
    block = next((b for b in proved[1:] if b.layer > 0), proved[0] if proved else None)
    layer = bench.anatomy.num_layers // 2 if block is None else block.layer
    attends = [b.layer for b in bench.anatomy.blocks if b.attention is not None]
    attended = layer if layer in attends or not attends else max(attends)
    busiest: Counter[int] = Counter()
    for (number, _), choice in _choices(bench, base).items():
        if number == layer:
            busiest.update(choice.keys())
    attention = bench.anatomy.layer(attended).attention
    return Subject(
        bench=bench,
        base=base,
        layer=layer,
        attended=attended,
        experts=0 if block is None or block.moe is None else block.moe.num_experts,
        k=0 if block is None or block.moe is None else block.moe.top_k,
        used=tuple(expert for expert, _ in busiest.most_common()),
        heads=0 if attention is None else attention.num_heads,
    )


def _examine(kind: str, subject: Subject) -> list[Verdict]:
    absent = _absent(kind, subject)
    if absent:
        return [Verdict(kind, check, "not applicable", absent) for check in CHECKS]
    if kind.startswith(("reroute.", "mask.experts")) and not subject.experts:
        return [_unproved(kind, check, subject) for check in CHECKS]
    try:
        example = example_of(kind, subject)
    except (
        Exception
    ) as error:  # an example that cannot even be made is a finding about the kind, not the end of the kit
        return [Verdict(kind, check, "crashed", _said(error)) for check in CHECKS]
    if example is None:
        return [
            Verdict(kind, check, "not applicable", "the kit has no example of this kind") for check in CHECKS
        ]
    return [
        *_effect(kind, example, subject),
        _identity(kind, example, subject),
        _refusal(kind, example, subject),
    ]


def _absent(kind: str, subject: Subject) -> str:
    """Why the model has no part for ``kind``, or nothing."""
    anatomy = subject.bench.anatomy
    if kind.startswith(("reroute.", "mask.experts")) and not anatomy.moe_layers:
        return anatomy.no_experts or "the model has no experts"
    if kind in ("mask.heads", "mask.attention") and subject.heads == 0:
        return "no layer has one softmax attention of its own"
    return ""


def _effect(kind: str, example: Example, subject: Subject) -> list[Verdict]:
    base = subject.base
    try:
        run = subject.bench.run(base.tokens.tolist(), example.effect)
        again = subject.bench.run(base.tokens.tolist(), example.effect, record=None)
    except WorkbenchError as error:
        return [Verdict(kind, check, "refused", error.problem) for check in CHECKS[:2]]
    except Exception as error:
        return [Verdict(kind, check, "crashed", _said(error)) for check in CHECKS[:2]]
    spread = float(base.logits.float().std())
    size = float((run.logits.float() - base.logits.float()).abs().max()) / max(spread, 1e-12)
    if not size > _EFFECT:
        effect = Verdict(
            kind, "effect", "wrong", f"it moves no logit by more than {size:.1e} of their spread", size
        )
    elif not torch.equal(run.logits, again.logits):
        effect = Verdict(kind, "effect", "wrong", "recording it changes the logits", size)
    else:
        effect = Verdict(kind, "effect", "right", size=size)
    try:
        fault = _read_back(example, subject, run)
    except Exception as error:
        return [effect, Verdict(kind, "read-back", "crashed", _said(error))]
    if fault is None:
        return [
            effect,
            Verdict(kind, "read-back", "not applicable", "what it does is seen in the logits alone"),
        ]
    return [effect, Verdict(kind, "read-back", "wrong" if fault else "right", fault)]


def _read_back(example: Example, subject: Subject, run: Run) -> str | None:
    """What the store tells wrongly of ``run``; nothing where it tells all, ``None`` where it is not asked."""
    if example.read_back is not None:
        return example.read_back(subject, run)
    if example.holds is None:
        return None
    before, after = _choices(subject.bench, subject.base), _choices(subject.bench, run)
    moved = 0
    for cell, native in before.items():
        if cell[0] < subject.layer and after.get(cell) != native:
            return f"layer {cell[0]}, before the edit, was recorded with another choice"
        if cell[0] == subject.layer:
            executed = after.get(cell, {})
            moved += executed != native
            if not example.holds(native, executed):
                return f"token {cell[1]} was recorded with {dict(executed)}, native {dict(native)}"
    return "" if moved else "no choice was recorded as changed"


def _identity(kind: str, example: Example, subject: Subject) -> Verdict:
    if example.identity is None:
        return Verdict(kind, "identity", "not applicable", "the kind has no neutral form")
    return _bit_equal(kind, example.identity, subject)


def _bit_equal(kind: str, edit: Edit, subject: Subject) -> Verdict:
    try:
        run = subject.bench.run(subject.base.tokens.tolist(), edit, record=None)
    except WorkbenchError as error:
        return Verdict(kind, "identity", "refused", error.problem)
    except Exception as error:
        return Verdict(kind, "identity", "crashed", _said(error))
    if torch.equal(run.logits, subject.base.logits):
        return Verdict(kind, "identity", "right")
    off = float((run.logits - subject.base.logits).abs().max())
    return Verdict(kind, "identity", "wrong", f"the neutral form moves a logit by {off:.1e}")


def _refusal(kind: str, example: Example, subject: Subject) -> Verdict:
    if example.refused is None:
        return Verdict(kind, "refusal", "not applicable", "every form of the kind is possible")
    try:
        subject.bench.run(subject.base.tokens.tolist(), example.refused(), record=None)
    except WorkbenchError as error:
        complete = bool(error.problem and error.remedy)
        return Verdict(
            kind, "refusal", "right" if complete else "wrong", "" if complete else "it says no remedy"
        )
    except Exception as error:
        return Verdict(kind, "refusal", "crashed", _said(error))
    return Verdict(kind, "refusal", "wrong", "a form that cannot act was run")


def _unproved(kind: str, check: Check, subject: Subject) -> Verdict:
    """No layer is proved: a re-route must be refused, which a plain one shows."""
    try:
        subject.bench.run(subject.base.tokens.tolist(), reroute.uniform("all"), record=None)
    except WorkbenchError as error:
        return Verdict(kind, check, "refused", error.problem)
    except Exception as error:
        return Verdict(kind, check, "crashed", _said(error))
    return Verdict(kind, check, "wrong", "a router that is not proved was re-routed")


def _choices(bench: Bench, run: Run) -> dict[tuple[int, int], Choice]:
    rows = bench.sql("SELECT layer, position, expert, weight FROM routing WHERE run = ?", [run.id]).fetchall()
    found: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for layer, position, expert, weight in rows:
        found[layer, position][expert] = found[layer, position].get(expert, 0.0) + weight
    return dict(found)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
