"""How far the loading of a model is, as transformers itself counts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_EVERY = 0.1
"""Seconds between two reports, so that a model of thousands of tensors is not slowed by telling of them."""


@contextmanager
def loading(tell: Callable[[float], None]) -> Iterator[None]:
    """While the body loads a model, ``tell`` is called with the share of it that is done."""
    from transformers.utils import logging

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        bar = factory(*args, **options)
        total = options.get("total") or _length(args[0] if args else options.get("iterable"))
        return bar if not total else _Counted(bar, total, tell)

    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _length(items: Any) -> int:
    return len(items) if hasattr(items, "__len__") else 0


class _Counted:
    """A progress bar that also tells how far it is; all else is the bar's own."""

    def __init__(self, bar: Any, total: int, tell: Callable[[float], None]) -> None:
        self._bar, self._total, self._tell = bar, total, tell
        self._last = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)

    def __iter__(self) -> Iterator[Any]:
        items: Iterable[Any] = self._bar
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - self._last >= _EVERY or done == self._total:
                self._last = now
                self._tell(min(1.0, done / self._total))

    def __enter__(self) -> _Counted:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)
