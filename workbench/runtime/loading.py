"""Opening a model: from a name, a folder or a live object to a decoder in evaluation mode and its tokenizer."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.errors import ModelError

DEMO = "demo"


@dataclass(frozen=True)
class Loaded:
    """A decoder, its tokenizer (``None``: prompts are ids), the name to show, and where it came from."""

    model: Any
    tokenizer: Any | None
    name: str
    revision: str | None


def demo_path() -> Path:
    """The folder of the model that ships with the project: in the wheel, or in ``data/`` of a checkout."""
    package = Path(str(resources.files("workbench")))
    for folder in (package / "demo", package.parent / "data" / "demo"):
        if (folder / "config.json").is_file():
            return folder
    raise ModelError(
        "The demo model is not installed.", "Install the project again, or open a model by its name."
    )


def load(
    model: Any, tokenizer: Any | None, *, device: Any, dtype: Any, revision: str | None, device_map: Any
) -> Loaded:
    """Load what :func:`workbench.open` was given; raises :class:`ModelError` with what to do."""
    if model is None:
        model = DEMO
    # What torch.compile wraps: our hooks stand in the model itself.
    model, tokenizer = _front_door(getattr(model, "_orig_mod", model), tokenizer)
    if isinstance(model, str | Path):
        return _from_name(
            str(model), tokenizer, device=device, dtype=dtype, revision=revision, device_map=device_map
        )
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"A value of type {type(model).__name__} is not a model.",
            "Give a name, a folder, or a transformers model object.",
        )
    if device is not None or dtype is not None or device_map is not None or revision is not None:
        raise ModelError(
            "A live model keeps its own device, dtype and revision.",
            "Move it with model.to(...) before opening it.",
        )
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
    return Loaded(model, tokenizer, name, None)


def _front_door(model: Any, tokenizer: Any | None) -> tuple[Any, Any | None]:
    """The transformers model inside a TransformerLens bridge or an nnsight model, with the tokenizer it carries.

    Known by their modules' names, so that neither package is imported, or needs to be installed.
    """
    package = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "transformer_lens" in package and hasattr(model, "original_model"):
        return model.original_model, tokenizer or model.tokenizer
    if "nnsight" in package:
        inner = model._module
        if any(parameter.is_meta for parameter in inner.parameters()):
            raise ModelError(
                "The weights of this nnsight model are not loaded.",
                "Open it with dispatch=True, or call .dispatch().",
            )
        return inner, tokenizer or model.__dict__.get("tokenizer")
    return model, tokenizer


def _from_name(
    name: str, tokenizer: Any | None, *, device: Any, dtype: Any, revision: str | None, device_map: Any
) -> Loaded:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    path = str(demo_path()) if name == DEMO else name
    local = Path(path).exists()
    options: dict[str, Any] = {"revision": revision, "local_files_only": local}
    if local:
        # A bar for a download says something; one for reading a file is noise in a notebook and on a terminal.
        transformers_logging.disable_progress_bar()
    try:
        chosen = _dtype(dtype) if dtype is not None else torch.float32 if name == DEMO else "auto"
        model = AutoModelForCausalLM.from_pretrained(path, dtype=chosen, device_map=device_map, **options)
        if tokenizer is None:
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError) as error:
        raise _not_found(name, local, error) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if device_map is None:
        model = model.to(_device(device))
    return Loaded(model.eval(), tokenizer, name, revision)


def _not_found(name: str, local: bool, error: Exception) -> ModelError:
    if local:
        return ModelError(
            f"The folder {name} does not hold a decoder that transformers can load ({_first_line(error)}).",
            "It needs a config.json with a causal language model and its weights.",
        )
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return ModelError(
            f"There is no model {name!r} on this machine, and the Hugging Face hub is switched off.",
            'Give a local folder, unset HF_HUB_OFFLINE, or open "demo", the model that ships with the workbench.',
        )
    return ModelError(
        f"There is no model {name!r}: it is no folder here, and the Hugging Face hub did not give it "
        f"({_first_line(error)}).",
        'Check the name, or open "demo", the model that ships with the workbench.',
    )


def _first_line(error: Exception) -> str:
    return (
        str(error).strip().splitlines()[0].rstrip(".")[:200] if str(error).strip() else type(error).__name__
    )


def _dtype(dtype: Any) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"{dtype!r} is not a dtype for weights.", "Use float32, bfloat16 or float16.")
    return found


def _device(device: Any) -> torch.device:
    try:
        found = torch.device("cpu" if device is None else device)
    except RuntimeError:
        raise ModelError(
            f"{device!r} is not a device.", 'Use "cpu", or "cuda" where there is a GPU.'
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("There is no CUDA device, or torch was installed without CUDA.", 'Use device="cpu".')
    return found


def fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that name the weights: SHA-256 over every parameter's name, shape, dtype and up to
    1,024 evenly spaced elements, so that opening a large checkpoint does not read it twice."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1024)][:1024].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(sample.tobytes())
    return digest.hexdigest()[:16]
