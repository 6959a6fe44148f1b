"""One model's use of our kernels, from open to close."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias
from weakref import WeakValueDictionary

import routing_kernels
import torch
from torch import nn

from workbench.anatomy import Anatomy, Block
from workbench.errors import SetupError
from workbench.runtime.attach import attention, experts, mlp
from workbench.runtime.attach.paths import KernelPath

Kernels: TypeAlias = Literal["auto", "model", "reference", "cpu", "triton"]
KERNELS = ("auto", "model", "reference", "cpu", "triton")
NAME = "workbench"

_FALLS_BACK = (
    "plain causal attention and short calls run on the model's own function, which is the faster one there"
)


_registry = threading.RLock()
_attached: WeakValueDictionary[int, Attachment] = WeakValueDictionary()
"""By id of the model, those in use."""


class Attachment:
    """What stands in the model's place, from :meth:`of` until each of its users has called :meth:`release`.

    Attributes
    ----------
    lock
        Held while passes run: hooks of one pass must not see another.
    kernels
        The backend of our kernels, or ``model`` where none is in use; ``isa`` is its instruction set.
    reason
        Why it is ``model``.
    ops
        The backend to name in a call of :mod:`routing_kernels` on this model's tensors.
    paths
        What runs each part of each layer, and why. Attention that turns out, at its first call, to compute something else
        than ours is ``model`` from then on.
    """

    @classmethod
    def of(cls, model: Any, anatomy: Anatomy, kernels: Kernels) -> Attachment:
        """The attachment of ``model``: that of the benches on which it is open already, or a new one.

        Raises
        ------
        SetupError
            It is open with other kernels, or these cannot run it.
        """
        with _registry:
            there = _attached.get(id(model))  # it holds the model, whose id is no other's then
            if there is None:
                there = _attached[id(model)] = cls(model, anatomy, kernels)
            elif there._asked != kernels:
                raise SetupError(
                    f"The model is open on another bench with kernels={there._asked!r}.",
                    "Close that bench first, or open with the same kernels.",
                )
            there._users += 1
            return there

    @staticmethod
    def idle(model: Any) -> AbstractContextManager[object]:
        """A context in which no bench runs ``model``."""
        there = _attached.get(id(model))
        return nullcontext() if there is None else there.lock

    def __init__(self, model: Any, anatomy: Anatomy, kernels: Kernels) -> None:
        self._model = model
        self._asked = kernels
        self._users = 0
        self.lock = threading.RLock()
        self._undo: list[Callable[[], None]] = []
        self._attention_seen = self._adds_masks = False
        self._demanded = kernels not in ("auto", "model")
        self.kernels, self.isa, self.reason = self._choose(kernels)
        self.ops = "reference" if self.kernels == "model" else self.kernels
        self._experts_paths = [self._bank_path(b) for b in anatomy.blocks if b.moe is not None]
        self._refuse_demand(kernels)
        try:
            self._attach_experts(anatomy)
            self._attach_attention(anatomy)
            self._mlp_paths = [p for p in map(self._attach_mlp, anatomy.blocks) if p is not None]
        except BaseException:
            self._detach()
            raise

    def _choose(self, kernels: Kernels) -> tuple[str, str, str]:
        if kernels not in KERNELS:
            raise SetupError(
                f"There are no kernels called {kernels!r}.", f"Choose one of {', '.join(KERNELS)}."
            )
        if kernels == "model":
            return "model", "", "the model's own kernels were asked for"
        known = routing_kernels.backends()
        if kernels != "auto" and not (kernels in known and known[kernels].available):
            why = known[kernels].reason if kernels in known else "this version does not have it"
            raise SetupError(
                f"The {kernels} kernels cannot be used: {why}.", 'Open with kernels="auto" instead.'
            )
        first = next(self._model.parameters())
        if kernels == "auto" and first.device.type != "cpu":
            return "model", "", f"our kernels have not been proved on {first.device.type}"
        backend, isa = routing_kernels.resolve(kernels, first.device, first.dtype)
        if kernels == "auto" and backend == "reference":
            return "model", "", "only the slow reference could run here"
        return backend, isa, ""

    def _refuse_demand(self, kernels: Kernels) -> None:
        wrong = next((p for p in self._experts_paths if p.path == "model"), None)
        if self._demanded and wrong is not None:
            raise SetupError(
                f"The {kernels} kernels cannot run this model: {wrong.reason} (layer {wrong.layer}).",
                'Open with kernels="auto" instead.',
            )

    # Experts

    def _bank_path(self, block: Block) -> KernelPath:
        assert block.moe is not None
        bank = block.moe.experts
        fused = experts.unfit_bank(bank)
        if self.reason or not fused:
            return KernelPath(block.layer, "experts", "model" if self.reason else "ours", self.reason)
        parts = experts.unfit_parts(bank, self.kernels)
        path: Literal["model", "composed"] = "model" if parts else "composed"
        return KernelPath(block.layer, "experts", path, parts or fused)

    def _attach_experts(self, anatomy: Anatomy) -> None:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        ours = [p.layer for p in self._experts_paths if p.path != "model"]
        if not ours:
            return
        before = self._model.config._experts_implementation
        name = f"{NAME}_{before}"
        ALL_EXPERTS_FUNCTIONS.register(name, experts.experts_function(before))
        for layer in ours:
            moe = anatomy.layer(layer).moe
            assert moe is not None
            experts.attach_bank(moe.experts, self.kernels)
            self._undo.append(lambda bank=moe.experts: experts.detach_bank(bank))  # type: ignore[misc]
        self._model.set_experts_implementation(name)
        self._undo.append(lambda: self._model.set_experts_implementation(before))

    # Attention

    def _attach_attention(self, anatomy: Anatomy) -> None:
        """Take the place of the model's own attention function, if it goes through the registry at all."""
        from transformers import AttentionInterface, AttentionMaskInterface

        self._attention_modules = {
            b.layer: b.attention.module for b in anatomy.blocks if b.attention is not None
        }
        if any(hasattr(module, "hook_pattern") for module in self._attention_modules.values()):
            return  # a TransformerLens bridge computes attention itself and asks no registry
        before = getattr(self._model.config, "_attn_implementation", None)
        masks = AttentionMaskInterface()
        if (
            before not in ("eager", "sdpa")
            or before not in masks
            or not self._model._can_set_attn_implementation()
        ):
            return
        backend = "" if self.kernels == "model" else self.kernels
        for layer, module in self._attention_modules.items():
            attention.MODULES[module] = attention.AttentionModule(
                layer, before, backend, self._demanded, unfit=self.reason
            )
            self._undo.append(partial(_forget, module))
        name = f"{NAME}_{before}"
        AttentionInterface.register(name, attention.attention_function(before))
        AttentionMaskInterface.register(name, masks[before])
        self._model.set_attn_implementation(name)
        self._attention_seen = True
        self._adds_masks = before == "eager"
        self._undo.append(lambda: self._model.set_attn_implementation(before))

    @property
    def sees_attention(self) -> bool:
        """Whether attention can be listened to and asked."""
        return self._attention_seen

    @property
    def adds_masks(self) -> bool:
        """Whether attention adds its masks to the scores (eager) instead of selecting by them."""
        return self._adds_masks

    def _attention_path(self, layer: int, module: nn.Module) -> KernelPath:
        here = attention.MODULES.get(module)
        if here is None:
            reason = self.reason or "its attention does not go through transformers' registry"
            return KernelPath(layer, "attention", "model", reason)
        if here.unfit:
            return KernelPath(layer, "attention", "model", here.unfit)
        return KernelPath(
            layer, "attention", "ours" if here.demanded else "mixed", "" if here.demanded else _FALLS_BACK
        )

    # Dense MLPs

    def _attach_mlp(self, block: Block) -> KernelPath | None:
        if block.mlp is None or block.mlp.down_proj is None:
            return None
        reason = mlp.unfit_mlp(block.mlp.module)
        if not reason:
            self._undo.append(mlp.attach_mlp(block.mlp.module, self.ops))
            reason = self.reason or mlp.OWN
        return KernelPath(block.layer, "mlp", "model", reason)

    # All of them

    @property
    def paths(self) -> list[KernelPath]:
        """What runs each part of each layer, by layer."""
        attended = [self._attention_path(*one) for one in self._attention_modules.items()]
        return sorted([*self._experts_paths, *attended, *self._mlp_paths], key=lambda p: (p.layer, p.part))

    def release(self) -> None:
        """One user less; the last one gives the model back its own functions."""
        with _registry:
            self._users -= 1
            if not self._users:
                _attached.pop(id(self._model), None)
                self._detach()

    def _detach(self) -> None:
        while self._undo:
            self._undo.pop()()


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device


def _forget(module: nn.Module) -> None:
    attention.MODULES.pop(module, None)
