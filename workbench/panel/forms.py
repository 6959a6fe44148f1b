"""What every kind of edit takes, out of its JSON schema: a kind that the plan knows has a form without a line here."""

from __future__ import annotations

import re
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
        fields = {name: value for name, value in properties.items() if name not in _SHARED}
        about, meanings = _read(definition.get("description", ""))
        kinds.append(
            answers.Form(
                kind=kind,
                about=[_sentence(paragraph) for paragraph in about],
                hints={
                    name: _sentence(meanings.get(name) or value["description"])
                    for name, value in fields.items()
                    if "description" in value or name in meanings
                },
                parameters={"properties": _without_prose(fields), "required": definition.get("required", [])},
            )
        )
    order = {"reroute": 0, "skip": 1, "mask": 2}
    kinds.sort(key=lambda form: (order.get(form.kind.split(".")[0], 3), form.kind))
    used = {name: value for name, value in definitions.items() if "kind" not in value.get("properties", {})}
    return answers.Forms(kinds=kinds, definitions=_without_prose(used))


def _read(documentation: str) -> tuple[list[str], dict[str, str]]:
    """The paragraphs of a kind's documentation, and what its section of attributes says of each field."""
    prose, _, section = documentation.partition("Attributes\n----------\n")
    named = re.split(r"^(\w+(?:, \w+)*)\n", section, flags=re.MULTILINE)[1:]
    meanings = {
        name: _flowing(meaning)
        for names, meaning in zip(named[::2], named[1::2], strict=True)
        for name in names.split(", ")
    }
    return [_flowing(paragraph) for paragraph in re.split(r"\n\s*\n", prose.strip())], meanings


def _flowing(text: str) -> str:
    """Text without its line breaks and marks of code; each point of a list keeps a line of its own."""
    plain = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"\1", text).replace("``", "")
    points = re.split(r"^\s*\* ", plain, flags=re.MULTILINE)
    lead, *rest = (" ".join(point.split()) for point in points)
    return "\n".join([*([lead] if lead else []), *(f"• {point}" for point in rest)])


def _sentence(text: str) -> Sentence:
    """A docstring, or what is said of a field: catalogues list both where they are declared."""
    return Sentence(text=text, values=[])


def _without_prose(definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in body.items() if key != "description"}
        for name, body in definitions.items()
    }
