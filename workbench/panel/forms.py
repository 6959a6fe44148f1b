"""What every kind of edit takes, out of its JSON schema: a kind that the plan knows has a form without a line here."""

from __future__ import annotations

from functools import cache
from typing import Any

from workbench.interventions import Plan
from workbench.panel import answers
from workbench.panel.replies import Sentence

_SHARED = ("kind", "enabled")
"""Fields that a form does not show."""


@cache
def forms() -> answers.Forms:
    """Every kind of edit that a plan may hold, in the order of its families."""
    definitions = Plan.json_schema()["$defs"]
    kinds = []
    for definition in definitions.values():
        properties = definition.get("properties", {})
        kind = properties.get("kind", {}).get("const")
        if kind is None:
            continue
        kinds.append(
            answers.Form(
                kind=kind,
                about=_prose(definition.get("description", "")),
                hints={
                    name: _prose(value["description"])
                    for name, value in properties.items()
                    if name not in _SHARED and "description" in value
                },
                parameters={
                    "properties": _without_prose(
                        {name: value for name, value in properties.items() if name not in _SHARED}
                    ),
                    "required": definition.get("required", []),
                },
            )
        )
    order = {"reroute": 0, "skip": 1, "mask": 2}
    kinds.sort(key=lambda form: (order.get(form.kind.split(".")[0], 3), form.kind))
    used = {name: value for name, value in definitions.items() if "kind" not in value.get("properties", {})}
    return answers.Forms(kinds=kinds, definitions=_without_prose(used))


def _prose(text: str) -> Sentence:
    """A docstring, or what is said of a field: catalogues list both where they are declared."""
    return Sentence(text=" ".join(text.replace("``", "").split()), values=[])


def _without_prose(definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in body.items() if key != "description"}
        for name, body in definitions.items()
    }
