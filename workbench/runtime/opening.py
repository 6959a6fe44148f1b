"""Opening a model: found, read, its routing proved, its parts put on our kernels, and a store opened beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from workbench.anatomy import Anatomy, prove, read
from workbench.errors import StoreError
from workbench.runtime.attach import Attachment, Kernels
from workbench.runtime.bench import Bench
from workbench.runtime.loading import load
from workbench.runtime.running import uncompiled
from workbench.store import Store


def open(
    model: Any = None,
    tokenizer: Any | None = None,
    *,
    store: str | Path | Store | None = None,
    device: Any = None,
    dtype: Any = None,
    revision: str | None = None,
    device_map: Any = None,
    kernels: Kernels = "auto",
) -> Bench:
    """Open a decoder on the bench.

    Parameters
    ----------
    model
        A hub id or local folder, a live transformers model, or nothing for the demo model.
    tokenizer
        Its tokenizer; loaded with a named model, optional where prompts are token ids.
    store
        The DuckDB file to record into (``":memory:"`` for none on disk), or an open :class:`~workbench.store.Store`, with
        options of its own. Without it, ``./workbench.duckdb``; if another process owns that file, a numbered one beside it.
    kernels
        ``auto`` takes our kernels for each part of the model where they compute the same and are not slower, ``model``
        leaves the model's own; ``cpu``, ``reference`` and ``triton`` demand one. ``kernel_paths`` says what runs.

    Raises
    ------
    ModelError, ContractError
        The model cannot be found, is no decoder, or its router contradicts its family's rule.
    StoreError
        The file is not a DuckDB file, cannot be written, or belongs to another process; or the store is closed.
    """
    if not isinstance(store, str | Path | Store | None):
        raise StoreError(
            f"A value of type {type(store).__name__} is not a store.", "Give a path, or an open Store."
        )
    found = load(model, tokenizer, device=device, dtype=dtype, revision=revision, device_map=device_map)
    anatomy = read(found.model)
    with Attachment.idle(found.model):
        arity = _prove(anatomy)
    opened = store.join() if isinstance(store, Store) else Store.open(store)
    try:
        attachment = Attachment.of(found.model, anatomy, kernels)
    except BaseException:
        opened.close()
        raise
    return Bench(found.model, found.tokenizer, anatomy, opened, attachment, found.name, found.revision, arity)


def _prove(anatomy: Anatomy) -> dict[nn.Module, int]:
    """Prove the contract, and see on the way how many things each block, attention and MLP returns in a tuple (what is
    skipped must return the same); 0 for a bare tensor."""
    arity: dict[nn.Module, int] = {}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        arity[module] = len(output) if isinstance(output, tuple) else 0

    units = [
        part.module
        for block in anatomy.blocks
        for part in (block, block.attention, block.mlp)
        if part is not None
    ]
    handles = [module.register_forward_hook(look) for module in units]
    try:
        with uncompiled():
            prove(anatomy)
    finally:
        for handle in handles:
            handle.remove()
    return arity
