"""Tiny random models of every family that the anatomy covers; the configurations are the conformance kit's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from workbench.conformance import families as kit
from workbench.conformance.families import DENSE, OPAQUE, SPARSE


def _build(model_type: str, seed: int = 0, **changes: Any) -> Any:
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    return kit.build(model_type, seed, **changes)


@pytest.fixture
def build() -> Callable[..., Any]:
    """``build("olmoe")`` is a tiny random model of that family; keywords change its configuration."""
    return _build


@pytest.fixture
def families() -> dict[str, dict[str, Any]]:
    """The configurations of every family with experts, proved or refused, by ``model_type``."""
    return SPARSE | OPAQUE


@pytest.fixture(params=SPARSE)
def sparse(request: pytest.FixtureRequest) -> Any:
    """A tiny model of each family with a routing rule."""
    model = _build(request.param)
    if reason := _too_old(model):
        pytest.skip(f"transformers {transformers.__version__}: {reason}, and is refused by name")
    return model


def _too_old(model: Any) -> str:
    """Why this family cannot be proved in the installed transformers, where an older one lays it out otherwise."""
    first = model.model.layers[0] if model.config.model_type in ("aria_text", "longcat_flash") else None
    if model.config.model_type == "aria_text" and hasattr(first.mlp.experts, "route_tokens_to_experts"):
        return "Aria's expert bank chooses inside"
    if model.config.model_type == "longcat_flash" and len(first.mlp.router(torch.zeros(1, 32))) == 2:
        return "LongCat-Flash's router returns no logits"
    return ""


@pytest.fixture(params=OPAQUE)
def opaque(request: pytest.FixtureRequest) -> Any:
    """A tiny model of each family that has experts and no rule."""
    model = _build(request.param)
    try:
        model(torch.tensor([[3, 4]]))
    except TypeError as error:
        pytest.skip(f"transformers {transformers.__version__} cannot run {request.param}: {error}")
    return model


@pytest.fixture(params=DENSE)
def dense(request: pytest.FixtureRequest) -> Any:
    """A tiny model of each dense family."""
    return _build(request.param)


@pytest.fixture(params=[*SPARSE, *DENSE])
def decoder(request: pytest.FixtureRequest) -> Any:
    """A tiny model of each family, sparse or dense."""
    return _build(request.param)
