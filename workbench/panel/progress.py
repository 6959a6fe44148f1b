"""How far the opening of a model is, as transformers and the hub's client themselves count it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Tell: TypeAlias = Callable[[tuple[float, float] | None, float], None]
"""Called with the megabytes that are there and that there will be while files are downloaded, else ``None``, and with the
share that is done."""

_EVERY = 0.1
"""Seconds between two reports, so that a model of thousands of tensors is not slowed by telling of them."""

_FEW = 1000
"""Most files of a model that are downloaded as one; no smaller file is worth a report."""


@contextmanager
def loading(tell: Tell) -> Iterator[None]:
    """While the body opens a model, ``tell`` is called with how much of its files has come and of its weights been read."""
    with _downloads(tell), _tensors(tell):
        yield


@contextmanager
def _tensors(tell: Tell) -> Iterator[None]:
    from transformers.utils import logging

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        bar = factory(*args, **options)
        total = options.get("total") or _length(args[0] if args else options.get("iterable"))
        return bar if not total else _Counted(bar, total, lambda share: tell(None, share))

    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


@contextmanager
def _downloads(tell: Tell) -> Iterator[None]:
    """The hub's client updates a bar for every file, drawn or not; while the body runs those updates are counted as well.

    It offers no hook for that: the class it takes for its bars is given for the time of the body another ``update``.
    """
    from huggingface_hub.utils import tqdm as bar_class

    # By the bar's identity; the bar stays in it, so that no other one gets its number.
    files: dict[int, tuple[Any, float, float]] = {}
    lock = threading.Lock()
    last = 0.0
    own = bar_class.__dict__.get("update")
    update = bar_class.update

    def counted(bar: Any, amount: float | None = 1) -> Any:
        nonlocal last
        total = getattr(bar, "total", None)
        # A bar that is not drawn forgets its unit: a total of a few is one of files.
        if total and total > _FEW and getattr(bar, "unit", "B") == "B":
            with lock:
                _, _, so_far = files.get(id(bar), (bar, total, bar.n))
                files[id(bar)] = (bar, total, min(total, so_far + (amount or 0)))
                done = sum(so_far for _, _, so_far in files.values())
                whole = sum(size for _, size, _ in files.values())
                now = time.monotonic()
                due = now - last >= _EVERY or done >= whole
                last = now if due else last
            if due:
                tell((done / 1e6, whole / 1e6), done / whole)
        return update(bar, amount)

    bar_class.update = counted
    try:
        yield
    finally:
        if own is None:
            del bar_class.update
        else:
            bar_class.update = own


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
