"""The arrays that plans name by their content: written beside the runs that used them, and brought back from there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.interventions.blob import Blob, keep
from workbench.store import Store


def write_blobs(store: Store, plans: Iterable[Plan], written: set[str]) -> None:
    """Write the arrays of ``plans`` that ``store`` does not have; ``written`` remembers those that it has."""
    for blob in (blob for plan in plans for blob in _named(plan)):
        if blob.blob in written:
            continue
        written.add(blob.blob)
        if store.sql("SELECT 1 FROM blob WHERE blob = ?", [blob.blob]).fetchone() is None:
            numbers = np.ascontiguousarray(blob.numbers)
            little = numbers.astype(numbers.dtype.newbyteorder("<"))
            store.write("blob", {
                "blob": [blob.blob], "dtype": [blob.dtype], "shape": [list(blob.shape)], "data": [little.tobytes()],
            })  # fmt: skip


def load_blobs(store: Store, plan: Plan) -> None:
    """Bring the arrays of ``plan`` that are not at hand back from ``store``; raises :class:`EditRefused` for a broken one.

    One that the store does not have is refused by the edit that asks for its numbers.
    """
    for blob in _named(plan):
        if blob.known:
            continue
        found = store.sql("SELECT dtype, shape, data FROM blob WHERE blob = ?", [blob.blob]).fetchone()
        if found is None:
            continue
        dtype, shape, data = found
        numbers = (
            np.frombuffer(bytes(data), dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
        )
        if keep(numbers).blob != blob.blob:
            raise EditRefused(
                f"The numbers {blob.blob} in this store are not those that the plan names.",
                "Make them again with wb.blob.",
            )


def _named(plan: Plan) -> list[Blob]:
    return [blob for edit in plan.active for blob in edit.blobs() if not blob.live]
