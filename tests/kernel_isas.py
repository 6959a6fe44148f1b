"""What the tests of the C kernels share: the instruction sets that run here, and a call on one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import routing_kernels
import torch
from routing_kernels import dispatch
from routing_kernels.cpu import loader

ISAS = loader.load().isas
EXPERT_ISAS = (
    loader.load().named
)  # and those whose instructions are emulated: the expert layer alone has builds of them
NORM_TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = tuple(NORM_TOLERANCE)


@contextmanager
def using(isa: str) -> Iterator[None]:
    """The C backend on one instruction set, chosen as a user would: by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUTING_KERNELS_ISA", isa)
        dispatch.refresh()
        assert routing_kernels.resolve("cpu") == ("cpu", isa)
        yield
    dispatch.refresh()
