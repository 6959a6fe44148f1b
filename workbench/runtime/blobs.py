"""The arrays and files that plans name by their content: written beside the runs that used them, and brought back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.interventions.blob import Blob, keep
from workbench.runtime.artefacts import Artefact, Artefacts
from workbench.store import Store

LARGEST = 64 << 20
"""Bytes of a file that a store keeps at most; a larger one must be brought again."""
FILE = "safetensors"
"""What stands for the dtype of a whole file."""


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


def write_artefacts(store: Store, known: Artefacts, plans: Iterable[Plan], written: set[str]) -> None:
    """Write the files that ``plans`` name and ``store`` does not have, up to ``LARGEST`` bytes each."""
    for name in (name for plan in plans for edit in plan.active for name in edit.artefacts()):
        found = known.known.get(name)
        if name in written or found is None:
            continue
        written.add(name)
        if (
            found.size > LARGEST
            or store.sql("SELECT 1 FROM blob WHERE blob = ?", [name]).fetchone() is not None
        ):
            continue
        content = found.to_bytes()
        store.write("blob", {"blob": [name], "dtype": [FILE], "shape": [[len(content)]], "data": [content]})


def load_artefacts(store: Store, known: Artefacts, plan: Plan) -> None:
    """Bring the files of ``plan`` that are not at hand back from ``store``; raises :class:`EditRefused` for a broken one.

    One that the store does not have is refused where it is asked for.
    """
    for name in (name for edit in plan.active for name in edit.artefacts()):
        if name in known.known:
            continue
        row = store.sql("SELECT data FROM blob WHERE blob = ? AND dtype = ?", [name, FILE]).fetchone()
        if row is None:
            continue
        found = Artefact.from_bytes(bytes(row[0]), f"The store's entry {name}")
        if found.hash != name:
            raise EditRefused(
                f"The file {name} in this store is not the one that the plan names.",
                "Load its file with bench.add(path).",
            )
        known.add(found)


def _named(plan: Plan) -> list[Blob]:
    return [blob for edit in plan.active for blob in edit.blobs() if not blob.live]
