"""What a session sets on the model, so that it can be taken off again, and set again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, ParamSpec, TypeVar

from torch import nn

P = ParamSpec("P")
T = TypeVar("T")


class Mounts(ExitStack):
    """Hooks and other things that are set on a model until :meth:`close`.

    What is set by :meth:`after`, :meth:`before` and :meth:`during` alone can be set again, behind whatever hooks there are
    by then: to register a hook and to remove it costs many times what it costs to put it into its place. What is undone by
    a callback cannot.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repeatable = True
        self._pairs: list[tuple[Callable[[], Any], Callable[[], Any]]] = []

    def after(self, module: Any, hook: Callable[..., Any]) -> None:
        """A forward hook."""
        handle = module.register_forward_hook(hook)
        if not isinstance(module, nn.Module):  # stands for one elsewhere: in a trace
            self.callback(handle.remove)
            return
        self._hook(module._forward_hooks, handle.id, hook)

    def before(self, module: Any, hook: Callable[..., Any], *, with_kwargs: bool = False) -> None:
        """A forward pre-hook."""
        handle = module.register_forward_pre_hook(hook, with_kwargs=with_kwargs)
        if not isinstance(module, nn.Module):
            self.callback(handle.remove)
            return
        self._hook(module._forward_pre_hooks, handle.id, hook)
        if with_kwargs:
            self._hook(module._forward_pre_hooks_with_kwargs, handle.id, True)

    def _hook(self, hooks: dict[int, Any], key: int, value: Any) -> None:
        self._pairs.append((partial(hooks.__setitem__, key, value), partial(hooks.pop, key, None)))

    def during(self, put: Callable[[], Any], take: Callable[[], Any]) -> None:
        """Anything that ``put`` does now and whenever this is set again, and ``take`` undoes."""
        put()
        self._pairs.append((put, take))

    def callback(self, callback: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[P, T]:
        """Call ``callback`` in the end, once."""
        self.repeatable = False
        return super().callback(callback, *args, **kwargs)

    def again(self) -> None:
        """Set everything again after :meth:`close`."""
        for put, _ in self._pairs:
            put()

    def __exit__(self, *error: Any) -> bool:
        """Take everything off, whatever a callback raises; so does :meth:`close`."""
        try:
            return bool(super().__exit__(*error))
        finally:
            for _, take in reversed(self._pairs):
                take()
