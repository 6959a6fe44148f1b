"""The plan: an ordered tuple of edits as plain data, with a hash that names what it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import EditRefused, PlanError
from workbench.interventions import custom, mask, patch, reroute, skip
from workbench.interventions.edit import Edit, Facts, MoeFacts, plan_error, scopes_disjoint
from workbench.said import Said, numbers, said

KINDS: tuple[type[Edit], ...] = (*reroute.KINDS, *skip.KINDS, *mask.KINDS, *patch.KINDS, *custom.KINDS)
"""Every kind of edit, in the order in which docs and forms list them."""

if TYPE_CHECKING:
    AnyEdit: TypeAlias = Edit
else:
    AnyEdit = Annotated[Union[KINDS], Field(discriminator="kind")]  # noqa: UP007 (a tuple has no |)

_BAN_OR_FORCE = (reroute.Ban, reroute.Force)


class Plan(BaseModel):
    """Edits in the order in which they apply. Frozen: every change makes a new plan, so undo is keeping the old one.

    ``Plan([...])`` takes edits; ``plan + edit`` appends; ``plan.hash`` is equal for two plans exactly when they do the
    same: edits that commute (different sites or disjoint scopes) may stand in any order, and disabled edits do not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    edits: tuple[AnyEdit, ...] = ()

    def __init__(self, edits: Iterable[Edit] = (), **data: Any) -> None:
        try:
            super().__init__(edits=tuple(edits), **data)
        except ValidationError as error:
            raise _invalid(error, data) from None

    @classmethod
    def of(cls, given: Plan | Edit | None) -> Plan:
        """What a user gives as a plan: one, a single edit, or nothing.

        Raises
        ------
        PlanError
            It is something else.
        """
        if given is None:
            return _NOTHING
        if isinstance(given, Plan):
            return given
        if isinstance(given, Edit):
            return cls([given])
        raise PlanError(
            f"A value of type {type(given).__name__} is not a plan.",
            "Make one with wb.Plan([...]), or read it with Plan.from_json.",
        )

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        return self.to_python()

    def __iter__(self) -> Iterator[Edit]:  # type: ignore[override]
        return iter(self.edits)

    def __len__(self) -> int:
        return len(self.edits)

    def __bool__(self) -> bool:
        return True  # an empty plan is a plan: `plan or other` must not replace it

    def __add__(self, other: Edit | Plan) -> Plan:
        return Plan(self.edits + (other.edits if isinstance(other, Plan) else (other,)))

    def replace(self, index: int, edit: Edit) -> Plan:
        """The plan with its edit number ``index`` replaced."""
        return Plan((*self.edits[: self._index(index)], edit, *self.edits[index + 1 :]))

    def without(self, index: int) -> Plan:
        """The plan with its edit number ``index`` removed."""
        return Plan((*self.edits[: self._index(index)], *self.edits[index + 1 :]))

    def _index(self, index: int) -> int:
        if not 0 <= index < len(self.edits):
            raise PlanError(
                f"The plan has no edit number {index}.", f"It has {len(self.edits)} edits, counted from 0."
            )
        return index

    @property
    def active(self) -> tuple[Edit, ...]:
        """The edits that are enabled, in order."""
        return tuple(edit for edit in self.edits if edit.enabled)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the plan's normal form.

        The normal form is the smallest sequence that keeps the order of every pair of edits that do not commute (the
        lexicographic normal form of a trace; Cartier and Foata 1969).
        """
        left = [(_canonical(edit), edit) for edit in self.active]
        normal: list[str] = []
        while left:
            ready = [
                (text, n)
                for n, (text, edit) in enumerate(left)
                if all(edit.commutes(before) and before.commutes(edit) for _, before in left[:n])
            ]
            text, n = min(ready)
            normal.append(text)
            del left[n]
        return hashlib.sha256("\n".join(normal).encode()).hexdigest()[:16]

    def for_row(self, row: int) -> Plan:
        """The part of the plan that holds for prompt number ``row`` of a batch, with no row scope left in it."""
        if all(edit.rows == "all" for edit in self.edits):
            return self
        return Plan(
            edit.model_copy(update={"rows": "all"})
            for edit in self.edits
            if edit.rows == "all" or row in edit.rows
        )

    def check(self, facts: Facts) -> None:
        """Raise :class:`EditRefused` with the reason if an enabled edit cannot act on the model ``facts`` describes."""
        if not self.active:
            return
        for edit in self.active:
            edit.check(facts)
        self._check_exclusive()
        self._check_path()
        for layer in facts.moe_layers:
            self._check_left(layer, facts.layer(layer).moe)

    def _check_path(self) -> None:
        """A path says of every block whether and how often it runs, so that no other edit of blocks could."""
        of_blocks = [edit for edit in self.active if isinstance(edit, skip.Skip) and edit.acts_on == "block"]
        repeats = [edit for edit in self.active if isinstance(edit, skip.Repeat) and edit not in of_blocks]
        paths = [edit for edit in of_blocks if isinstance(edit, skip.Path)]
        others = [edit for edit in of_blocks + repeats if edit not in paths[:1]]
        if paths and others:
            raise EditRefused(
                f"skip.path and {others[0].kind} cannot hold together: a path says of every block how often it runs.",
                "Write the skips and repeats into the path.",
            )

    def _check_left(self, layer: int, moe: MoeFacts) -> None:
        """The bans and allow-lists of the whole plan must leave enough experts."""
        left, needed = set(range(moe.num_experts)), moe.top_k
        for edit in self.active:
            if (edit.layers != "all" and layer not in edit.layers) or not edit.everywhere:
                continue
            if isinstance(edit, reroute.Ban | reroute.Allow) and edit.short == "shrink":
                needed = 1
            if isinstance(edit, reroute.Ban):
                left -= set(edit.experts)
            elif isinstance(edit, reroute.Allow):
                left &= set(edit.experts)
        if len(left) < needed:
            raise EditRefused(
                f"The plan leaves {len(left)} of {moe.num_experts} experts in layer {layer}, fewer than the {moe.top_k} "
                "each token needs.",
                "Ban fewer experts.",
            )

    def _check_exclusive(self) -> None:
        """A replay fixes every choice in its scope and a policy decides it whole, so a second one could not act."""
        reroutes = [edit for edit in self.active if isinstance(edit, reroute.Reroute)]
        for n, first in enumerate(reroutes):
            for second in reroutes[n + 1 :]:
                replays = reroute.Stage.REPLAY in (first.stage, second.stage)
                policies = first.stage == second.stage and first.stage in (
                    reroute.Stage.POLICY,
                    reroute.Stage.CAPACITY,
                )
                if (replays or policies) and not scopes_disjoint(first, second):
                    raise EditRefused(
                        f"{first.kind} and {second.kind} both decide the whole choice of the same tokens."
                        if policies
                        else f"{first.kind} and {second.kind} cannot hold together: a replay fixes the whole choice.",
                        "Give the two edits different layers or tokens.",
                    )

    def collisions(self) -> list[Said]:
        """One line for every ban and force of the same expert in overlapping scopes: the later of the two holds."""
        lines = []
        for n, first in enumerate(self.active):
            for second in self.active[n + 1 :]:
                if scopes_disjoint(first, second) or type(first) is type(second):
                    continue
                if not isinstance(first, _BAN_OR_FORCE) or not isinstance(second, _BAN_OR_FORCE):
                    continue
                if both := sorted(set(first.experts) & set(second.experts)):
                    lines.append(
                        said(
                            "Expert %1 is both banned and forced; the later edit holds: %2.",
                            numbers(both),
                            second.describe(),
                        )
                    )
        return lines

    @property
    def trained(self) -> bool:
        """Whether an enabled edit holds a tensor in training."""
        return any(edit.trained() for edit in self.active)

    def to_json(self, *, indent: int | None = None) -> str:
        """The plan as JSON text; :meth:`from_json` reads it back. Refused while a tensor in it is trained."""
        for edit in self.edits:
            if edit.trained():
                raise PlanError(
                    f"{edit.kind} holds a tensor in training, which is no data yet.",
                    "Put param.freeze() in its place.",
                )
        return json.dumps(
            {"version": self.version, "edits": [_data(edit) for edit in self.edits]}, indent=indent
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Read a plan; raises :class:`PlanError` that names the edit and the field that are wrong."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise PlanError(f"The plan is not JSON: {error}.", "Save a plan with plan.to_json().") from None
        if not isinstance(data, dict):
            raise PlanError(
                "The plan is not a JSON object.", 'It starts with {"version": 1, "edits": [...]}.'
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise _invalid(error, data) from None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """The JSON schema of a plan, from which the panel's types are generated."""
        return cls.model_json_schema(mode="serialization")

    def to_python(self) -> str:
        """The plan as a Python expression that makes it again (with ``import workbench as wb``)."""
        lines = []
        for edit in self.edits:
            data = edit.model_dump(exclude_defaults=True, exclude={"kind", "enabled", *edit.derived})
            for part in ("tokens", "steps"):
                if isinstance(span := data.get(part), dict):
                    data[part] = slice(span.get("start", 0), span.get("stop"))
            data = {"layers": edit.layers, **data}
            call = f"wb.{edit.kind}({', '.join(f'{k}={_literal(v)}' for k, v in data.items())})"
            lines.append(call if edit.enabled else f"{call}.model_copy(update={{'enabled': False}})")
        return "wb.Plan([" + "".join(f"\n    {line}," for line in lines) + ("\n])" if lines else "])")

    def describe(self) -> str:
        """One line per edit for people."""
        if not self.edits:
            return "no edits"
        return "\n".join(("" if edit.enabled else "(off) ") + edit.describe() for edit in self.edits)


_NOTHING = Plan()


def _data(edit: Edit) -> dict[str, Any]:
    return edit.model_dump(mode="json")


def _canonical(edit: Edit) -> str:
    # Defaults are left out, so that a field that a later version adds does not change the hash of an older plan.
    data = edit.model_dump(mode="json", exclude_defaults=True, exclude={"enabled"}) | {"kind": edit.kind}
    return json.dumps(data, sort_keys=True)


def _literal(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _invalid(error: ValidationError, data: dict[str, Any]) -> PlanError:
    finding = error.errors(include_url=False)[0]
    if finding["type"] in ("union_tag_invalid", "union_tag_not_found"):
        number = finding["loc"][1] if len(finding["loc"]) > 1 else "?"
        found = finding.get("ctx", {}).get("tag")
        known = ", ".join(kinds())
        what = f"has the unknown kind {found!r}" if found is not None else "has no kind"
        return PlanError(f"Edit {number} of the plan {what}.", f"Known kinds are: {known}.")
    return plan_error(error, "The plan is not valid")


def kinds() -> tuple[str, ...]:
    """Every kind of edit, as written in a plan."""
    return tuple(kind.model_fields["kind"].default for kind in KINDS)
