"""Named tensors as one blob: calibrations, trained routers, given masks. A plan names them by content like any array."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from workbench.errors import EditRefused, PlanError
from workbench.interventions.blob import Blob, keep, numbers


@dataclass(frozen=True)
class Artefact:
    """Named tensors with a ``kind`` (``calibration``, ``router``, ``masks``) and what else must be known to use them."""

    kind: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def blob(self) -> Blob:
        """The tensors with kind and meta as bytes (safetensors), at hand for every plan of this process."""
        from safetensors.torch import save

        about = json.dumps({"kind": self.kind, "meta": self.meta}, sort_keys=True)
        # Copies: safetensors takes no two names of one memory.
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in self.tensors.items()}
        return keep(np.frombuffer(save(tensors, {"workbench": about}), dtype=np.uint8))

    @property
    def hash(self) -> str:
        """The name of :attr:`blob`, by which plans name the artefact."""
        return self.blob.blob

    def save(self, folder: str | Path) -> Path:
        """Write a safetensors file into ``folder``, named by the hash; gives its path."""
        path = Path(folder) / f"{self.hash}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(numbers(self.hash).tobytes())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Artefact:
        """Read what :meth:`save` wrote; raises :class:`PlanError` for anything else, or content that is not its name."""
        try:
            found = _read(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise PlanError(
                f"{path} holds no tensors of a plan: {error}.", "Name a file that save() wrote."
            ) from None
        if Path(path).stem != found.hash:
            raise PlanError(
                f"{path} holds {found.hash}, not what its name says.", "Save it again under its hash."
            )
        return found


def opened(name: str, kind: str) -> Artefact:
    """The artefact with that hash; raises :class:`PlanError` where it is not at hand or of another kind."""
    try:
        found = _opened(name)
    except EditRefused:
        raise PlanError(
            f"{name} is not at hand.",
            "Load its file with bench.add(path), or open the store in which a run under this plan was recorded.",
        ) from None
    except ValueError:
        raise PlanError(f"{name} is an array, not a {kind}.", f"Name a {kind}.") from None
    if found.kind != kind:
        raise PlanError(f"{name} is of the kind {found.kind}, not {kind}.", f"Name a {kind}.")
    return found


@lru_cache(maxsize=16)
def _opened(name: str) -> Artefact:
    return _read(numbers(name).tobytes())


def _read(content: bytes) -> Artefact:
    """The artefact whose bytes these are; raises ValueError for any others."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        size = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["workbench"])
        return Artefact(about["kind"], load(content), about["meta"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
