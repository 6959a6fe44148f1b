"""What requests do to a plan: one function, so that every way of changing it is seen in one place."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from workbench.errors import EditRefused, PlanError, WorkbenchError
from workbench.interventions import Edit, Plan, reroute
from workbench.interventions.edit import Facts
from workbench.panel import answers, requests
from workbench.panel.history import History
from workbench.panel.replies import sentence
from workbench.said import said

MOST_KEPT = 32
"""Plans kept under a name."""


def change(history: History, request: requests.Request) -> Plan | None:
    """The plan that ``request`` asks for; ``None`` where it has moved in the history by itself."""
    plan = history.plan
    match request:
        case requests.Undo():
            history.undo()
        case requests.Redo():
            history.redo()
        case requests.Clear():
            return Plan() if plan.edits else None
        case requests.LoadPlan():
            return Plan.from_json(request.plan)
        case requests.Exchange():
            here = [request.position]
            removed = reroute.ban(request.layer, request.removed, tokens=here)
            return plan + removed + reroute.force(request.layer, request.expert, tokens=here)
        case requests.MoveEdit():
            history.expect(request.version)
            edits: list[Edit] = list(plan.edits)
            history.edit(request.to)
            edit = history.edit(request.index)
            del edits[request.index]
            edits.insert(request.to, edit)
            return Plan(edits)
        case requests.AddEdit():
            return plan + read_edit(request.edit)
        case requests.ReplaceEdit():
            history.expect(request.version)
            history.edit(request.index)
            return plan.replace(request.index, read_edit(request.edit))
        case requests.RemoveEdit():
            history.expect(request.version)
            history.edit(request.index)
            return plan.without(request.index)
        case requests.EnableEdit():
            history.expect(request.version)
            edit = history.edit(request.index).model_copy(update={"enabled": request.enabled})
            return plan.replace(request.index, edit)
        case _:
            raise TypeError(f"no handler for {type(request).__name__}")
    return None


def read_edit(data: dict[str, Any]) -> Edit:
    """An edit from its JSON form."""
    edits = Plan.from_json(json.dumps({"version": 1, "edits": [data]})).edits
    if not edits:
        raise EditRefused(said("The panel sent no edit."), said("Click once more."))
    return edits[0]


def imitation(layer: int, position: int, route: Sequence[tuple[int, float]]) -> list[Edit]:
    """Edits that give a cell the experts of ``route`` at their weights."""
    if not route:
        raise EditRefused(
            said("That token has no route in layer %1.", layer),
            said("Choose a token whose block ran and was routed."),
        )
    return [reroute.force(layer, expert, tokens=[position], weight=weight) for expert, weight in route]


def preview(seq: int, data: dict[str, Any], plan: Plan, facts: Facts) -> answers.Previewed:
    """What an edit (in its JSON form) would do on top of ``plan``, in words, or why it cannot."""
    text = None
    try:
        edit = read_edit(data)
        text = sentence(edit.describe())
        (plan + edit).check(facts)
    except WorkbenchError as error:
        return answers.Previewed(
            seq=seq, text=text, refused=[sentence(error.problem), sentence(error.remedy)]
        )
    return answers.Previewed(seq=seq, text=text, refused=[])


class Shelf:
    """Plans kept under a name while the one in force goes on being edited."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    @property
    def names(self) -> list[str]:
        return list(self._plans)

    def handle(self, request: requests.Request, plan: Plan, push: Callable[[Plan], None]) -> None:
        """Keep ``plan``, take up a kept one by ``push``, or forget one."""
        match request:
            case requests.KeepPlan():
                name = request.name.strip()
                if not name:
                    raise PlanError(said("The plan has no name."), said("Type one and keep it again."))
                if name not in self._plans and len(self._plans) >= MOST_KEPT:
                    raise PlanError(
                        said("%1 plans are kept already.", MOST_KEPT),
                        said("Forget one, or save it as a file."),
                    )
                self._plans[name] = plan
            case requests.RecallPlan():
                if request.name not in self._plans:
                    raise PlanError(
                        said("No plan is kept as %1.", repr(request.name)), said("Choose one from the list.")
                    )
                push(self._plans[request.name])
            case requests.ForgetPlan():
                self._plans.pop(request.name, None)
