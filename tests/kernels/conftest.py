"""What the kernel tests share: a fresh look at the environment around each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from routing_kernels import dispatch


@pytest.fixture(autouse=True)
def fresh_environment() -> Iterator[None]:
    dispatch.refresh()
    yield
    dispatch.refresh()
