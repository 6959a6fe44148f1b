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


# Who may stand between a call and its kernel. Names that torch does not promise: where one is gone, somebody may be there.
_MODES = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_TRANSFORM = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: True)
_PROFILED = getattr(torch.autograd, "_profiler_enabled", lambda: True)
_TRACED = getattr(torch._C, "_get_tracing_state", lambda: True)
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter, str, bool, int, float, type(None)})


def undispatched(op: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """``op`` for calls that want no gradient, as ``call`` itself where nobody stands between.

    The dispatcher's way to an implementation in Python costs as much as a small layer does on one token. It is taken where
    a compiler, a mode, a function transform, a profiler or a tensor of another class is to see the op.
    """

    def run(*arguments: Any) -> Any:
        seen = torch.compiler.is_compiling() or _TRACED() or _MODES() or _TRANSFORM() or _PROFILED()
        if seen or not _PLAIN.issuperset(map(type, arguments)):
            return op(*arguments)
        return call(*arguments)

    return run


def differentiable(name: str, backward: Callable[..., Any], save: Callable[..., None] | None = None) -> None:
    """Gives the op ``name`` its gradient; ``save`` keeps on the context what ``backward`` needs."""
    torch.library.register_autograd(f"routing_kernels::{name}", backward, setup_context=save, lib=_library)
