"""Tensors that plans name by content hash: calibrations, trained routers, given masks, sparse autoencoders."""

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
    """Named tensors with a ``kind`` (``calibration``, ``router``, ``masks``, ``sae``) and what else must be known to use
    them."""

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

    @property
    def size(self) -> int:
        """Bytes of the tensors."""
        return sum(value.numel() * value.element_size() for value in self.tensors.values())

    def to_bytes(self) -> bytes:
        """Tensors, kind and meta as the content of a safetensors file."""
        from safetensors.torch import save

        about = json.dumps({"kind": self.kind, "meta": self.meta})
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        return save(tensors, {"workbench": about})

    @classmethod
    def from_bytes(cls, content: bytes, whence: str) -> Artefact:
        """The inverse of :meth:`to_bytes`; raises :class:`PlanError`, which names ``whence``, for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(content)
            head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            about = json.loads(head["__metadata__"]["workbench"])
            return cls(about["kind"], tensors, about["meta"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise PlanError(
                f"{whence} holds no tensors of a plan: {error}.", "Name a file that save() wrote."
            ) from None

    def save(self, folder: str | Path) -> Path:
        """Write a safetensors file into ``folder``, named by the hash; gives its path."""
        path = Path(folder) / f"{self.hash}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.to_bytes())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Artefact:
        """Read what :meth:`save` wrote; raises :class:`PlanError` for anything else, or content that is not its name."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise PlanError(
                f"{path} holds no tensors of a plan: {error}.", "Name a file that save() wrote."
            ) from None
        found = cls.from_bytes(content, str(path))
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
            raise PlanError(
                f"{name} is not known to this bench.",
                "Load its file with bench.add(path), or open the store in which a run under this plan was recorded.",
            )
        if found.kind != kind:
            raise PlanError(f"{name} is of the kind {found.kind}, not {kind}.", f"Name a {kind}.")
        return found
