"""How the ops are made known to torch.

They are registered through `torch.library`'s definitions rather than its `custom_op` decorator: the same op for the
compiler, autograd and `opcheck`, at half the cost a call, which counts at the sizes of a small model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("routing_kernels", "DEF")


def define(name: str, schema: str, call: Callable[..., Any], shapes: Callable[..., Any]) -> Any:
    """An op with one implementation for every device, which itself chooses the backend; ``shapes`` is its fake."""
    _library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, call, "CompositeExplicitAutograd")
    torch.library.register_fake(f"routing_kernels::{name}", shapes, lib=_library)
    return getattr(torch.ops.routing_kernels, name).default


def differentiable(name: str, backward: Callable[..., Any], save: Callable[..., None] | None = None) -> None:
    """Gives the op ``name`` its gradient; ``save`` keeps on the context what ``backward`` needs."""
    torch.library.register_autograd(f"routing_kernels::{name}", backward, setup_context=save, lib=_library)
