"""Routes that another engine recorded become a run in the store: vLLM and SGLang arrays, Megatron's router records.

What they agree on is an array of expert ids by token, layer and slot; what they differ in is named here. No engine of the
three keeps combine weights with the ids, so that the rows carry NaN and a replay takes the family's own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import PromptError, StoreError
from workbench.runtime.labels import plain
from workbench.runtime.prompts import Prompt
from workbench.runtime.versions import versions
from workbench.store.ids import new_run_id

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

Array = np.ndarray[Any, Any]


def import_routes(
    bench: Bench,
    tokens: Prompt,
    routes: Any,
    *,
    source: str = "vllm",
    prompt_tokens: int | None = None,
    first: int = 0,
    layers: Sequence[int] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> int:
    """Write routes of the model that ``bench`` has open, as another engine recorded them, as a run of the store.

    Parameters
    ----------
    tokens
        All tokens of the sequence, prompt and continuation.
    routes
        Expert ids. ``vllm`` (``routed_experts`` of a completion): an array [tokens, layers, k]. ``sglang``
        (``meta_info["routed_experts"]``): the same as int32, also as the base64 text of the reply. ``megatron``
        (``RouterReplay``): a list with one array [tokens, k] a sparse layer, in order.
    prompt_tokens
        How many of the tokens are the prompt; all of them by default.
    first
        Absolute position of the first row: what was cached before it was not recorded.
    layers
        The layer each entry of the layer axis stands for. Without it the axis must have one entry a layer with experts, or
        one for every layer of the model (those of dense layers are left out).
    labels
        Kept with the run, beside ``source``.

    Returns
    -------
    int
        The run's id. The last token of a generation is never run, so that it may lack its row. A negative id, or the
        largest value of an unsigned dtype, stands for no expert: such slots, and cells that have nothing else, get no row.

    Raises
    ------
    StoreError
        The array does not fit the tokens, the layers or the experts of the model, or repeats an expert in a cell.
    """
    told = {"source": source, **plain(labels)}
    ids = bench.token_ids(tokens)
    chosen, numbers = _normalised(bench, routes, source, layers)
    rows = chosen.shape[0]
    if rows == 0 or not len(ids) - 1 <= first + rows <= len(ids):
        raise StoreError(
            f"There are {rows} rows of routes from position {first} for {len(ids)} tokens.",
            "Give the routes of every token, of all but the last, or the position that they start at.",
        )
    _check(bench, chosen, numbers)
    prompt = len(ids) if prompt_tokens is None else prompt_tokens
    if not 1 <= prompt <= len(ids):
        raise PromptError(
            f"A prompt of {prompt} tokens does not fit {len(ids)} tokens.", "Count its tokens again."
        )
    run = new_run_id()
    store = bench.store
    cell, layer_at, slot = np.nonzero(chosen >= 0)
    position = cell + first
    step = np.maximum(0, position - prompt + 1)
    if len(cell):
        store.write("routing", {
            "run": run, "step": step, "position": position, "layer": numbers[layer_at], "slot": slot,
            "expert": chosen[cell, layer_at, slot], "weight": np.full(len(cell), np.nan, np.float32), "rank": slot,
        })  # fmt: skip
    at = np.arange(len(ids))
    store.write("token", {
        "run": run, "step": np.maximum(0, at - prompt + 1), "position": at, "token": np.asarray(ids),
        "text": [bench.token_text(one) for one in ids],
        "part": ["prompt" if n < prompt else "generated" for n in at],
    })  # fmt: skip
    store.write(
        "run",
        {
            "run": [run],
            **{name: [value] for name, value in _about(bench, ids, prompt, source, told).items()},
        },
    )
    store.flush()
    return run


def _about(bench: Bench, ids: list[int], prompt: int, source: str, labels: dict[str, Any]) -> dict[str, Any]:
    moe = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe
    assert moe is not None  # checked with the routes
    text = "" if bench.tokenizer is None else bench.tokenizer.decode(ids)
    return {
        "started": datetime.now(UTC).replace(tzinfo=None), "kind": "import", "model": bench.name,
        "checkpoint": bench.checkpoint, "kernels": source, "num_layers": bench.anatomy.num_layers,
        "num_experts": moe.num_experts, "top_k": moe.top_k, "text": text,
        "prompt": "" if bench.tokenizer is None else bench.tokenizer.decode(ids[:prompt]),
        "prompt_tokens": prompt, "tokens": len(ids), "labels": json.dumps(labels),
        "versions": json.dumps(versions()),
    }  # fmt: skip


def _normalised(bench: Bench, routes: Any, source: str, layers: Sequence[int] | None) -> tuple[Array, Array]:
    """Ids [tokens, layers, k] int64 with -1 for no expert, and the layer of each entry of the layer axis."""
    moe_layers = bench.anatomy.moe_layers
    if not moe_layers:
        raise StoreError("This model has no experts to route to.", "Open the model that the routes are of.")
    if source == "sglang" and isinstance(routes, str):
        routes = _decoded(bench, routes, layers)
    elif source == "megatron":
        shapes = {np.shape(one) for one in routes}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise StoreError(
                f"Megatron's records have the shapes {sorted(shapes)}, not one [tokens, k] for all layers.",
                "Gather the records of all ranks and micro-batches first.",
            )
        routes = np.stack([np.asarray(one) for one in routes], axis=1)
    elif source not in ("vllm", "sglang"):
        raise StoreError(f"There is no import from {source!r}.", "Choose vllm, sglang or megatron.")
    array = np.asarray(routes)
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer):
        raise StoreError(
            f"Routes are an array of {array.dtype} with shape {array.shape}.",
            "Give integers by token, layer and slot.",
        )
    nothing = (
        array == np.iinfo(array.dtype).max if np.issubdtype(array.dtype, np.unsignedinteger) else array < 0
    )
    chosen = np.where(nothing, -1, array.astype(np.int64))
    if layers is not None:
        numbers = np.asarray(list(layers))
    elif array.shape[1] == len(moe_layers):
        numbers = np.asarray(moe_layers)
    elif array.shape[1] == bench.anatomy.num_layers:
        numbers = np.arange(array.shape[1])
        keep = np.isin(numbers, moe_layers)
        chosen, numbers = chosen[:, keep], numbers[keep]
    else:
        numbers = np.arange(0)
    if len(numbers) != chosen.shape[1] or not set(numbers.tolist()) <= set(moe_layers):
        raise StoreError(
            f"The routes have {array.shape[1]} layers; the model has {bench.anatomy.num_layers}, {len(moe_layers)} of them "
            "with experts.",
            "Say with layers= which layer each entry stands for.",
        )
    return chosen, numbers


def _decoded(bench: Bench, text: str, layers: Sequence[int] | None) -> Array:
    """SGLang's base64 of int32, whose shape the reply does not carry: every layer of the model, or those given."""
    try:
        flat = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.int32)
    except ValueError as error:
        raise StoreError(
            f"The routes are not base64 of int32: {error}.", "Give the reply's text unchanged."
        ) from None
    moe = bench.anatomy.layer(bench.anatomy.moe_layers[0]).moe
    assert moe is not None
    count = bench.anatomy.num_layers if layers is None else len(layers)
    if len(flat) == 0 or len(flat) % (count * moe.top_k):
        raise StoreError(
            f"{len(flat)} ids do not divide into {count} layers with {moe.top_k} choices.",
            "Say with layers= which layers were recorded.",
        )
    return flat.reshape(-1, count, moe.top_k)


def _check(bench: Bench, chosen: Array, numbers: Array) -> None:
    for at, number in enumerate(numbers.tolist()):
        moe = bench.anatomy.layer(number).moe
        assert moe is not None
        ids = chosen[:, at]
        if int(ids.max(initial=-1)) >= moe.num_experts:
            raise StoreError(
                f"Layer {number} has {moe.num_experts} experts; the routes name expert {int(ids.max())}.",
                "Open the model that the routes are of, or mark missing choices with -1.",
            )
        ranked = np.sort(ids, axis=-1)
        twice = (ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)
        if twice.any():
            raise StoreError(
                f"Layer {number} names an expert twice for row {int(np.nonzero(twice.any(-1))[0][0])}.",
                "Rows that were never filled hold zeros: leave them out, or mark them with -1.",
            )


def read_file(path: str) -> dict[str, Any]:
    """What :func:`import_routes` needs from a file.

    ``.npz`` with ``tokens`` and ``routes``; ``.json`` with ``tokens`` and ``routes`` (nested lists or SGLang's text), or an
    SGLang reply (``output_ids``, ``meta_info``) together with ``input_ids``. Other fields (``prompt_tokens``, ``first``,
    ``layers``, ``source``) are taken as they stand. Raises :class:`~workbench.errors.StoreError` for anything else.
    """
    try:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as file:
                found: dict[str, Any] = {name: file[name] for name in file.files}
            found = {name: v if name == "routes" else v.tolist() for name, v in found.items()}
        else:
            with open(path, encoding="utf-8") as text:
                found = dict(json.load(text))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} cannot be read as routes: {error}.", "Give a .npz or .json file.") from None
    if "meta_info" in found and "input_ids" in found:
        prompt = list(found["input_ids"])
        found = {
            "tokens": prompt + list(found.get("output_ids", [])), "prompt_tokens": len(prompt), "source": "sglang",
            "routes": found["meta_info"].get("routed_experts"),
        }  # fmt: skip
    unknown = set(found) - {"tokens", "routes", "source", "prompt_tokens", "first", "layers", "labels"}
    if unknown or found.get("routes") is None or "tokens" not in found:
        raise StoreError(
            f"{path} holds {', '.join(sorted(found)) or 'nothing'}, not tokens and routes.",
            "Save them under the names tokens and routes.",
        )
    return found
