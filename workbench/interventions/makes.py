"""What help says about a function that makes edits."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from workbench.interventions.edit import Edit, Scope

F = TypeVar("F", bound=Callable[..., Any])

_SCOPE = "Scope\n-----\n" + (inspect.getdoc(Edit) or "").partition("Attributes\n----------\n")[2]
"""The scope, which every edit has."""

_AS_GIVEN = {name: getattr(kind, "__forward_arg__", kind) for name, kind in Scope.__annotations__.items()}
"""What the parts of the scope may be given as, which is more than what they are kept as."""


def makes(kind: type[Edit]) -> Callable[[F], F]:
    """Say of a function that makes edits of ``kind`` what they do and all options it takes, in docstring and signature."""

    def tell(function: F) -> F:
        own = inspect.signature(function)
        told = (inspect.getdoc(function), inspect.getdoc(kind), _described(kind), _SCOPE)
        function.__doc__ = "\n\n".join(text for text in told if text)
        given = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        for each in own.parameters.values():
            if each.kind is each.VAR_KEYWORD:
                given += _options(kind, "Scope" in str(each.annotation), set(own.parameters))
        function.__signature__ = own.replace(parameters=given)  # type: ignore[attr-defined]
        return function

    return tell


def _described(kind: type[Edit]) -> str:
    """What the fields of ``kind`` mean, those that its docstring leaves to them."""
    told = inspect.getdoc(kind) or ""
    lines = [
        f"{name}\n    {field.description}"
        for name, field in kind.model_fields.items()
        if field.description and name not in Edit.model_fields and f"\n{name}\n    " not in told
    ]
    return "\n".join(["Options", "-------", *lines]) if lines else ""


def _options(kind: type[Edit], scope_alone: bool, named: set[str]) -> Iterator[inspect.Parameter]:
    """The fields of ``kind`` that are not ``named``, its own before those of the scope."""
    scope = set(Edit.model_fields) - {"kind", "layers"}
    left = scope if scope_alone else set(kind.model_fields) - kind.derived - {"kind"}
    for name in sorted(kind.model_fields, key=scope.__contains__):
        if name in left - named:
            field = kind.model_fields[name]
            yield inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.is_required() else field.default,
                annotation=_AS_GIVEN.get(name, field.annotation),
            )
