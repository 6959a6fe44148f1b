"""The arrays and files that plans name by their content: written beside the runs that used them, and brought back from
there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.interventions.blob import at_hand, keep, numbers
from workbench.store import Store


def write_blobs(store: Store, plans: Iterable[Plan], written: set[str]) -> None:
    """Write the arrays of ``plans`` that ``store`` does not have; ``written`` remembers those that it has."""
    for name in (name for plan in plans for name in _named(plan)):
        if name in written:
            continue
        written.add(name)
        if store.sql("SELECT 1 FROM blob WHERE blob = ?", [name]).fetchone() is None:
            values = np.ascontiguousarray(numbers(name))
            little = values.astype(values.dtype.newbyteorder("<"))
            store.write("blob", {
                "blob": [name], "dtype": [str(values.dtype)], "shape": [list(values.shape)], "data": [little.tobytes()],
            })  # fmt: skip


def load_blobs(store: Store, plan: Plan) -> None:
    """Bring the arrays of ``plan`` that are not at hand back from ``store``; raises :class:`EditRefused` for a broken one.

    One that the store does not have is refused by the edit that asks for its numbers.
    """
    for name in _named(plan):
        if at_hand(name):
            continue
        found = store.sql("SELECT dtype, shape, data FROM blob WHERE blob = ?", [name]).fetchone()
        if found is None:
            continue
        dtype, shape, data = found
        values = (
            np.frombuffer(bytes(data), dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
        )
        if keep(values).blob != name:
            raise EditRefused(
                f"The numbers {name} in this store are not those that the plan names.",
                "Make them again with wb.blob.",
            )


def _named(plan: Plan) -> list[str]:
    return [name for edit in plan.active for name in edit.blobs()]
