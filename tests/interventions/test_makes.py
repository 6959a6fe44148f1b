"""Help on a function that makes edits says what the edit does, and names every option it takes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import workbench as wb
from workbench.errors import PlanError
from workbench.interventions.edit import Edit, Scope
from workbench.interventions.patch import Patch

MAKERS = {
    f"{verb.__name__.rpartition('.')[2]}.{name}": getattr(verb, name)
    for verb in (wb.reroute, wb.skip, wb.mask)
    for name in verb.__all__
    if inspect.isfunction(getattr(verb, name))
} | {"patch": wb.patch}
KINDS: dict[str, type[Edit]] = {
    kind.model_fields["kind"].default: kind for verb in (wb.reroute, wb.skip, wb.mask) for kind in verb.KINDS
} | {"patch": Patch}


def test_every_kind_has_its_function() -> None:
    assert MAKERS.keys() == KINDS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_help_is_whole(name: str) -> None:
    told = inspect.getdoc(MAKERS[name]) or ""
    assert (inspect.getdoc(KINDS[name]) or "").splitlines()[0] in told
    own = inspect.signature(MAKERS[name]).parameters
    assert all(each.kind is not each.VAR_KEYWORD for each in own.values()), "no option hides behind **"
    assert set(Scope.__annotations__) <= set(own)
    fields = set(KINDS[name].model_fields) - KINDS[name].derived - {"kind"}
    assert [each for each in sorted(fields) if f"\n{each}\n    " not in told] == []


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mask.attention", {"layers": 1, "pattern": "window", "window": 16}),
        ("mask.neurons", {"layers": 1, "ratio": 0.5}),
        ("mask.heads", {"layers": 1, "heads": 2}),
        ("mask.experts", {"layers": 1, "experts": 2}),
        ("mask.channels", {"layers": 1, "channels": [1, 2]}),
        ("mask.activations", {"layers": 1, "threshold": 0.5}),
        ("mask.weights", {"layers": 1, "ratio": 0.5}),
        ("mask.tokens", {"tokens": 3}),
        ("skip.policy", {"policy": "middle", "radius": 1.0}),
        ("skip.tokens", {"layers": 1, "capacity": 0.5}),
        ("reroute.group", {"layers": 1}),
        ("reroute.ban", {"layers": 1, "experts": 3}),
    ],
)
def test_every_named_option_is_taken(name: str, given: dict[str, Any]) -> None:
    make = MAKERS[name]
    edit = make(**given)
    for option, each in inspect.signature(make).parameters.items():
        if option not in given and each.default is not each.empty:
            assert make(**given, **{option: each.default}) == edit, option
    with pytest.raises((PlanError, TypeError), match="nonsense"):
        make(**given, nonsense=1)
