"""Labels of runs: from what a user gives to what the store keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import PromptError


def labels_of(
    labels: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, count: int
) -> list[dict[str, Any]]:
    """The labels of each of ``count`` prompts, as :func:`plain` makes them."""
    if labels is None or isinstance(labels, Mapping):
        return [plain(labels)] * count
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise _no_labels(labels)
    if len(labels) != count:
        raise PromptError(
            f"There are {len(labels)} sets of labels for {count} prompts.",
            "Give one for all, or one for each.",
        )
    return [plain(each) for each in labels]


def plain(labels: Mapping[str, Any] | None) -> dict[str, Any]:
    """``labels`` as JSON has them: numbers of numpy and torch as numbers, dates as text, what is missing as ``None``.

    Raises
    ------
    PromptError
        They are no labels by name, or hold what JSON cannot.
    """
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise _no_labels(labels)
    return {_name(name): _value(value, name) for name, value in labels.items()}


def _no_labels(labels: Any) -> PromptError:
    return PromptError(
        f"A value of type {type(labels).__name__} is not a set of labels.", 'Give {"name": value, ...}.'
    )


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise PromptError(f"The label {name!r} has no text for a name.", 'Give {"name": value, ...}.')
    return name


def _value(value: Any, name: str) -> Any:
    if isinstance(value, float):
        if math.isinf(value):
            raise PromptError(f"The label {name!r} is infinite.", "Give a finite number, or None.")
        return None if math.isnan(value) else float(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {_name(key): _value(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each, name) for each in value]
    if str(value) in ("<NA>", "NaT"):  # what pandas has for a missing value
        return None
    if getattr(value, "ndim", None) == 0:
        return _value(value.item(), name)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise PromptError(
        f"The label {name!r} is a value of type {type(value).__name__}, which the store cannot keep.",
        "Give text, a number, True, False or None.",
    )
