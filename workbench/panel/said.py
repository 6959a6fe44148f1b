"""What the panel itself says to a person: English that a view can translate, because it knows what it was made of."""

from __future__ import annotations

import re
from typing import TypeAlias

from workbench.panel import replies

Value: TypeAlias = str | int | float


class Said(str):
    """A sentence, and the template and values it was made of.

    It is text like any other to whoever prints it; :func:`sentence` keeps the two apart, so that a view finds the template
    in its catalogue, as it does its own strings.
    """

    template: str
    values: tuple[Value, ...]


def said(template: str, *values: object) -> Said:
    """``template`` in English with ``%1``, ``%2``, ... where ``values`` stand; always a literal, for catalogues to list."""
    told: list[Value] = [value if isinstance(value, str | int | float) else str(value) for value in values]
    text = Said(re.sub(r"%(\d)", lambda place: str(told[int(place[1]) - 1]), template))
    text.template, text.values = template, tuple(told)
    return text


def sentence(text: str) -> replies.Sentence:
    """``text`` as a message carries it; what is not of the panel's own making is data, and stays as it is."""
    if isinstance(text, Said):
        return replies.Sentence(text=text.template, values=list(text.values))
    return replies.Sentence(text=text, values=None)
