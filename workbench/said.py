"""What the workbench itself says to a person: English that a view can translate, because it knows what it was made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from typing import TypeAlias

Value: TypeAlias = str | int | float
"""What stands in a template; a sentence among them has a template of its own."""


class Said(str):
    """A sentence, and the template and values it was made of.

    It is text like any other to whoever prints it; the panel sends the two apart, so that a view finds the template in its
    catalogue, as it does its own strings.
    """

    template: str
    values: tuple[Value, ...]


def said(template: str, *values: object) -> Said:
    """``template`` in English with ``%1``, ``%2``, ... where ``values`` stand; always a literal, for catalogues to list."""
    told: list[Value] = [value if isinstance(value, str | int | float) else str(value) for value in values]
    text = Said(re.sub(r"%(\d)", lambda place: str(told[int(place[1]) - 1]), template))
    text.template, text.values = template, tuple(told)
    return text


def listed(parts: Iterable[Said]) -> Said:
    """At least one part, with commas between them."""
    return reduce(lambda before, part: said("%1, %2", before, part), parts)


def numbers(values: Iterable[int]) -> str:
    """Numbers with commas between them: no words, so nothing to translate."""
    return ", ".join(map(str, values))
