"""The plan of a panel with its past and its future: undo, redo, and taking back what the model refused."""

from __future__ import annotations

from workbench.errors import PlanError
from workbench.interventions import Edit, Plan
from workbench.said import said


class History:
    """Plans in the order in which they were made, and the one that holds now.

    ``version`` grows with every move, so that a view which speaks of "edit number 2" can say of which plan.
    """

    def __init__(self) -> None:
        self._plans: list[Plan] = [Plan()]
        self._proved: list[bool] = [True]
        self._now = 0
        self.version = 0

    @property
    def plan(self) -> Plan:
        """The plan that holds now."""
        return self._plans[self._now]

    @property
    def earlier(self) -> Plan | None:
        """The plan that undoing gives back."""
        return self._plans[self._now - 1] if self._now > 0 else None

    @property
    def later(self) -> Plan | None:
        """The plan that redoing gives back."""
        return self._plans[self._now + 1] if self._now + 1 < len(self._plans) else None

    def push(self, plan: Plan) -> None:
        """Make ``plan`` hold; what had been undone is forgotten."""
        del self._plans[self._now + 1 :], self._proved[self._now + 1 :]
        self._plans.append(plan)
        self._proved.append(False)
        self._now += 1
        self.version += 1

    def undo(self) -> None:
        """Go one plan back."""
        if self.earlier is None:
            raise PlanError(said("There is nothing to undo."), said("The plan is as it was at the start."))
        self._now -= 1
        self.version += 1

    def redo(self) -> None:
        """Go one plan forward again."""
        if self.later is None:
            raise PlanError(said("There is nothing to redo."), said("Undo a change first."))
        self._now += 1
        self.version += 1

    def expect(self, version: int) -> None:
        """Raise if a view speaks of a plan that does not hold any more."""
        if version != self.version:
            raise PlanError(
                said("The plan has changed since that click, so the edit it meant is not certain."),
                said("Click once more."),
            )

    def edit(self, index: int) -> Edit:
        """Edit number ``index`` of the plan that holds now."""
        edits = self.plan.edits
        if not 0 <= index < len(edits):
            raise PlanError(
                said("The plan has no edit number %1.", index), said("It has %1, counted from 0.", len(edits))
            )
        return edits[index]

    def prove(self) -> None:
        """The plan that holds now has run."""
        self._proved[self._now] = True

    def retract(self) -> bool:
        """Drop the newest plan if it has never run; whether another one holds now."""
        if self._now == 0 or self._now + 1 < len(self._plans) or self._proved[self._now]:
            return False
        del self._plans[self._now], self._proved[self._now]
        self._now -= 1
        self.version += 1
        return True
