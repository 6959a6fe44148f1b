"""The workbench's place in transformers' registries: experts and attention functions, put in at open, taken out at close.

Experts run on :mod:`routing_kernels` where every expert bank of the model fits the kernel, else on the model's own
implementation, with the reason kept. Attention always runs the model's own function; ours only hands the queries and keys
to whoever asked for them. The same attention name is registered for masks too, because a name without a mask function
silently loses the padding mask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import routing_kernels
import torch
from torch import Tensor, nn

from workbench.anatomy import Anatomy
from workbench.errors import SetupError

Kernels: TypeAlias = Literal["auto", "model", "reference", "cpu", "triton"]
KERNELS = ("auto", "model", "reference", "cpu", "triton")

NAME = "workbench"
_ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")


@dataclass
class Bank:
    """How one expert bank runs: kernel backend, activation, and who wants the statistics of the next call."""

    backend: str
    act: str
    threshold: float = 0.01
    sink: Callable[[routing_kernels.MoeExperts], None] | None = None


_BANKS: WeakKeyDictionary[nn.Module, Bank] = WeakKeyDictionary()


@dataclass(frozen=True)
class AttentionCall:
    """What one attention call was given: queries [B, N, S, D] and keys [B, Nkv, S', D] after position encoding, the
    mask as the model made it (``None``: causal), and what else enters its softmax."""

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scale: float
    softcap: float | None
    sinks: Tensor | None


AttentionSink: TypeAlias = Callable[[AttentionCall], None]

_ATTENTION_SINKS: WeakKeyDictionary[nn.Module, AttentionSink] = WeakKeyDictionary()


def run_experts(module: Any, hidden: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """The experts function: hidden [T, H], ids [T, k], weights [T, k] -> [T, H], in transformers' calling order."""
    bank = _BANKS.get(module)
    if bank is None:  # a copy of an attached model: same kernels, nobody listening
        bank = _BANKS[module] = Bank("auto", _activation(module) or "silu")
    out = routing_kernels.moe_experts(
        hidden, ids, weights, module.gate_up_proj, module.down_proj,
        act=bank.act, stats=bank.sink is not None, threshold=bank.threshold, backend=bank.backend,
    )  # fmt: skip
    if bank.sink is not None:
        bank.sink(out)
    return out.y


def listen_to_attention(module: nn.Module, sink: AttentionSink | None) -> None:
    """Hand every call of the attention ``module`` to ``sink``; ``None`` stops it."""
    if sink is None:
        _ATTENTION_SINKS.pop(module, None)
    else:
        _ATTENTION_SINKS[module] = sink


def bank_of(module: nn.Module) -> Bank | None:
    """How ``module`` runs, if it runs on our kernels."""
    return _BANKS.get(module)


class Attachment:
    """One model's use of our functions, from :meth:`__init__` to :meth:`detach`.

    ``kernels`` is what runs the experts (``"model"``, ``"reference"``, ``"cpu"``), ``isa`` its instruction set and
    ``reason`` why it is not ours where it is not.
    """

    def __init__(self, model: Any, anatomy: Anatomy, kernels: Kernels) -> None:
        self._model = model
        self._experts_before: str | None = None
        self._attention_before: str | None = None
        self._banks: list[Any] = [block.moe.experts for block in anatomy.blocks if block.moe is not None]
        self.kernels, self.isa, self.reason = self._choose(kernels, anatomy)
        if self.kernels != "model":
            self._attach_experts()
        self._attach_attention(anatomy)

    def _choose(self, kernels: Kernels, anatomy: Anatomy) -> tuple[str, str, str]:
        if kernels not in KERNELS:
            raise SetupError(
                f"There are no kernels called {kernels!r}.", f"Choose one of {', '.join(KERNELS)}."
            )
        if kernels == "model":
            return "model", "", "the model's own kernels were asked for"
        reason = self._unfit(anatomy)
        if not reason:
            device = next(self._model.parameters()).device
            known = routing_kernels.backends()
            if kernels != "auto" and not (kernels in known and known[kernels].available):
                why = known[kernels].reason if kernels in known else "this version does not have it"
                raise SetupError(
                    f"The {kernels} kernels cannot be used: {why}.", 'Open with kernels="auto" instead.'
                )
            if kernels == "auto" and device.type != "cpu":
                reason = f"our kernels have not been proved on {device.type}"
            else:
                backend, isa = routing_kernels.resolve(kernels, device)
                return backend, isa, ""
        if kernels != "auto":
            raise SetupError(
                f"The {kernels} kernels cannot run this model: {reason}.", 'Open with kernels="auto" instead.'
            )
        return "model", "", reason

    def _unfit(self, anatomy: Anatomy) -> str:
        if not self._banks:
            return "the model has no experts"
        for block in anatomy.blocks:
            if block.moe is None:
                continue
            bank: Any = block.moe.experts
            if not hasattr(bank, "_apply_gate"):
                return f"{type(bank).__name__} is not in transformers' experts registry"
            for flag, wanted in (("has_gate", True), ("has_bias", False), ("is_transposed", False),
                                 ("is_concatenated", True), ("has_post_expert_norm", False)):  # fmt: skip
                if bool(getattr(bank, flag, wanted)) is not wanted:
                    return f"{type(bank).__name__} has {flag}={not wanted}, which the kernel does not cover"
            if type(bank)._apply_gate.__qualname__ != "_default_apply_gate":
                return f"{type(bank).__name__} gates its neurons in its own way"
            if _activation(bank) is None:
                return f"the activation {type(bank.act_fn).__name__} is not in the kernel"
        return ""

    def _attach_experts(self) -> None:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        ALL_EXPERTS_FUNCTIONS.register(NAME, run_experts)
        for bank in self._banks:
            _BANKS[bank] = Bank(self.kernels, _activation(bank) or "silu")
        self._experts_before = self._model.config._experts_implementation
        self._model.set_experts_implementation(NAME)

    def _attach_attention(self, anatomy: Anatomy) -> None:
        """Take the place of the model's own attention function, if it goes through the registry at all."""
        from transformers import AttentionInterface, AttentionMaskInterface

        before = getattr(self._model.config, "_attn_implementation", None)
        masks = AttentionMaskInterface()
        if (
            before not in ("eager", "sdpa")
            or before not in masks
            or not self._model._can_set_attn_implementation()
        ):
            return
        name = f"{NAME}_{before}"
        AttentionInterface.register(name, _attention(before))
        AttentionMaskInterface.register(name, masks[before])
        self._attention_before = before
        self._model.set_attn_implementation(name)

    @property
    def sees_attention(self) -> bool:
        """Whether queries and keys can be listened to."""
        return self._attention_before is not None

    @property
    def adds_masks(self) -> bool:
        """Whether attention adds its masks to the scores (eager) instead of selecting by them."""
        return self._attention_before == "eager"

    def detach(self) -> None:
        """Give the model back its own functions."""
        if self._experts_before is not None:
            self._model.set_experts_implementation(self._experts_before)
        if self._attention_before is not None:
            self._model.set_attn_implementation(self._attention_before)
        for bank in self._banks:
            _BANKS.pop(bank, None)
        self._experts_before = self._attention_before = None


def _attention(name: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention function called ``name`` by transformers, with a listener in front."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        sink = _ATTENTION_SINKS.get(module)
        if sink is not None:
            scale = options.get("scaling")
            scale = query.shape[-1] ** -0.5 if scale is None else scale
            sink(
                AttentionCall(query, key, attention_mask, scale, options.get("softcap"), options.get("s_aux"))
            )
        return _original(name, module)(module, query, key, value, attention_mask, **options)

    return attention


def _original(name: str, module: nn.Module) -> Callable[..., Any]:
    from transformers import AttentionInterface

    if name != "eager":
        return AttentionInterface()[name]
    # Eager attention is not in the registry: each model file has its own.
    return sys.modules[type(module).__module__].eager_attention_forward


def _activation(bank: Any) -> str | None:
    """The name the kernel has for the bank's activation, or ``None``."""
    from transformers.activations import ACT2FN

    for name in _ACTIVATIONS:
        known = ACT2FN[name]
        if type(bank.act_fn) is type(known) and repr(bank.act_fn) == repr(known):
            return name
    return None


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device
