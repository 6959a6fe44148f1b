"""Numbers of runs: ordered by time, unique across processes, stores and machines."""

from __future__ import annotations

import os
import secrets
import threading
import time

_RANDOM_BITS = 22
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01 UTC: 41 bits of milliseconds last until 2094

_lock = threading.Lock()
_last = 0


def new_run_id() -> int:
    """A new run id: 41 bits of milliseconds since 2025, then 22 random bits; a positive 63-bit integer.

    Ids of one process strictly increase. Two processes collide only if they draw the same 22 random bits in the
    same millisecond.
    """
    global _last
    with _lock:
        drawn = ((time.time_ns() // 1_000_000 - _EPOCH_MS) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        _last = max(drawn, _last + 1)
        return _last


def _forget_last() -> None:
    # A forked child must not go on counting from its parent's last id, as the parent does the same.
    global _last, _lock
    _last = 0
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_last)
