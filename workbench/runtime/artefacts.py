"""Tensors that plans name by content hash: calibrations, trained routers, given masks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import PlanError


@dataclass(frozen=True)
class Artefact:
    """Named tensors with a ``kind`` (``calibration``, ``router``, ``masks``) and what else must be known to use them."""

    kind: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of kind, meta and tensors."""
        digest = hashlib.sha256(f"{self.kind} {json.dumps(self.meta, sort_keys=True)}".encode())
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> Path:
        """Write a safetensors file into ``folder``, named by the hash; gives its path."""
        from safetensors.torch import save_file

        path = Path(folder) / f"{self.hash}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"kind": self.kind, "meta": self.meta})
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        save_file(tensors, path, {"workbench": about})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Artefact:
        """Read what :meth:`save` wrote; raises :class:`PlanError` for anything else, or content that is not its name."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})["workbench"])
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
            found = cls(about["kind"], tensors, about["meta"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise PlanError(
                f"{path} holds no tensors of a plan: {error}.", "Name a file that save() wrote."
            ) from None
        if Path(path).stem != found.hash:
            raise PlanError(
                f"{path} holds {found.hash}, not what its name says.", "Save it again under its hash."
            )
        return found


@dataclass
class Artefacts:
    """What a bench knows, by hash."""

    known: dict[str, Artefact] = field(default_factory=dict)

    def add(self, artefact: Artefact) -> str:
        """Make ``artefact`` known; gives its hash, by which plans name it."""
        name = artefact.hash
        self.known[name] = artefact
        return name

    def open(self, name: str, kind: str) -> Artefact:
        """The artefact with that hash; raises :class:`PlanError` where it is not known or of another kind."""
        found = self.known.get(name)
        if found is None:
            raise PlanError(f"{name} is not known to this bench.", "Load its file with bench.add(path).")
        if found.kind != kind:
            raise PlanError(f"{name} is of the kind {found.kind}, not {kind}.", f"Name a {kind}.")
        return found
