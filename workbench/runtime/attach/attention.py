"""Attention in a model: our kernel where it computes the same and is not slower, else the model's own function.

The model's own function stays the measure: before ours gives an output of a module, both run on the module's own call, and a
module where they disagree keeps its own. Masks go through the registry under the same name, because a name without
a mask function silently loses the padding mask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workbench.errors import EditRefused
from workbench.runtime.attach import block_calls
from workbench.runtime.attach.calls import AttentionAsker, AttentionCall, AttentionOptions, AttentionReport

AttentionSink: TypeAlias = Callable[[AttentionCall], None]

_PROOF = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-9}
"""How far, relative to its norm, our output may be from the model's own on the module's first call. Rounding stays far
below; another formula does not."""

# Measured against eager and SDPA with a mask, float32 and bfloat16, 6 heads of 32 and 16 of 64: below this many queries, and
# queries times keys, the calls themselves cost more than the skipped half of the map saves.
_WORTH = {"eager": (64, 1 << 14), "sdpa": (128, 1 << 14)}


@dataclass
class AttentionModule:
    """How one attention module runs: ``backend`` is that of our kernel, empty where only the model's own may run."""

    layer: int
    own: str
    backend: str
    demanded: bool
    unfit: str = ""
    proved: bool = False
    askers: list[AttentionAsker] = field(default_factory=list)


MODULES: WeakKeyDictionary[nn.Module, AttentionModule] = WeakKeyDictionary()


def asks_attention(module: nn.Module) -> bool:
    """Whether the attention ``module`` can be asked: whether it goes through transformers' registry."""
    return module in MODULES


def ask_attention(module: nn.Module, asker: AttentionAsker) -> Callable[[], None]:
    """Show every call of the attention ``module`` to ``asker``, which answers with what it wants of it, or ``None``.

    Returns a function that ends it. Askers of one module answer in the order in which they came.
    """
    askers = askers_of(module)
    askers.append(asker)
    return lambda: askers.remove(asker)


def askers_of(module: nn.Module) -> list[AttentionAsker]:
    """Those who see every call of the attention ``module``, in order."""
    if module not in MODULES:
        raise EditRefused(
            f"The attention {type(module).__name__} does not go through transformers' registry.",
            "Ask it of a layer whose attention does; workbench doctor --model NAME lists them.",
        )
    return MODULES[module].askers


def attention_function(own: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """What stands in transformers' registry in place of the attention called ``own``."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        here = MODULES.get(module)
        function = own_function(own, module)
        if here is not None and (here.askers or _worth(here, query, key, attention_mask)):
            call = _call(here, module, query, key, value, attention_mask, options)
            asked = [wanted for asker in list(here.askers) if (wanted := asker(call)) is not None]
            # Whoever only looks, as recording does, leaves the call to the model's own function as it is.
            if asked or _worth(here, query, key, attention_mask):
                return _Runner(here, module, function, options).run(call, asked)
        return function(module, query, key, value, attention_mask, **options)

    return attention


def own_function(own: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The model's own attention function."""
    from transformers import AttentionInterface

    if own != "eager":
        return AttentionInterface()[own]
    # Eager attention is not in the registry: each model file has its own.
    return sys.modules[type(module).__module__].eager_attention_forward


def _worth(here: AttentionModule, query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Whether our kernel is not slower on a call without requests."""
    if not here.backend or here.unfit:
        return False
    if here.demanded:
        return True
    if mask is None:
        return False  # plain causal attention: torch's dense kernel is the faster one
    queries, area = _WORTH[here.own]
    return query.shape[2] >= queries and query.shape[2] * key.shape[2] >= area


def _call(
    here: AttentionModule, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    options: dict[str, Any],
) -> AttentionCall:  # fmt: skip
    scale = options.get("scaling")
    causal = here.own != "eager" and query.shape[2] > 1  # without a mask, eager attention sees everything
    if causal and options.get("is_causal", getattr(module, "is_causal", True)) is False:
        causal = False
    return AttentionCall(
        query, key, value, mask, query.shape[-1] ** -0.5 if scale is None else scale, options.get("softcap"),
        options.get("s_aux"), causal or query.shape[2] == 1,
    )  # fmt: skip


@dataclass
class _Runner:
    """One call of one module."""

    here: AttentionModule
    module: nn.Module
    function: Callable[..., tuple[Tensor, Tensor | None]]
    options: dict[str, Any]

    def run(self, call: AttentionCall, asked: Sequence[AttentionOptions]) -> tuple[Tensor, Tensor | None]:
        """The output [B, Q, N, Dv] and, from the model's own function, its map."""
        call = block_calls.narrowed(call, asked, self.here.own)
        wanted = block_calls.Wanted.of(asked, call)
        if wanted is None:
            if not _worth(self.here, call.query, call.key, call.mask) or self._unfit(call):
                return self._own(call, call.mask)
            return self._ours(call).output, None
        unfit = self._unfit(call)
        parts = [self._part(call.rows(rows), kept, wanted, unfit, rows) for rows, kept in wanted.groups]
        joined = block_calls.join(parts, [rows for rows, _ in wanted.groups], call)
        if isinstance(joined.report, AttentionReport):
            wanted.send(joined.report)
        return joined.output, joined.map

    def _part(
        self, call: AttentionCall, kept: Tensor | None, wanted: block_calls.Wanted, unfit: str, rows: Tensor
    ) -> block_calls.Part:
        """The ``rows`` of the batch that keep the same blocks."""
        if not unfit and (kept is not None or _worth(self.here, call.query, call.key, call.mask)):
            dropped = None if wanted.dropped is None else wanted.dropped[rows]
            return block_calls.ours(call, kept, wanted, self.here.backend, dropped)
        output, attention = self._own(call, block_calls.joined_mask(call, kept, wanted.block, self.here.own))
        if kept is not None:
            output = block_calls.silence_empty(output, call, kept, wanted.block)
        reason = unfit or "the model's own is the faster one on this call"
        return block_calls.Part(
            output, attention, block_calls.look(call, kept, wanted, unfit, self.here, reason)
        )

    def _ours(self, call: AttentionCall) -> block_calls.Part:
        """The call as it is."""
        return block_calls.ours(call, None, None, self.here.backend)

    def _own(self, call: AttentionCall, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.function(self.module, call.query, call.key, call.value, mask, **self.options)

    def _unfit(self, call: AttentionCall) -> str:
        """Why our kernel cannot take this call; empty where it can."""
        here, options = self.here, self.options
        if here.unfit:
            return here.unfit
        if torch.compiler.is_compiling():
            return "a compiled model keeps its own attention"
        if options.get("dropout") and self.module.training:
            return "dropout is on"
        for name in ("position_bias", "cache", "output_attentions"):
            if options.get(name) is not None and options.get(name) is not False:
                return f"the call has {name}"
        if call.rule is None:
            return "its mask is more than causality, a window and padding"
        if not call.rule.causal and call.queries != call.keys:
            return "it reads a cache without causality"
        if not here.proved:
            here.unfit = self._disproof(call)
            here.proved = not here.unfit
        return here.unfit

    def _disproof(self, call: AttentionCall) -> str:
        """Compares both on this call; says how they differ."""
        with torch.no_grad():
            own = self._own(call, call.mask)[0]
            ours = self._ours(call).output
        if ours.shape != own.shape:
            return f"its attention returns {list(own.shape)}, ours {list(ours.shape)}"
        seen = block_calls.queries_that_see(call)[:, :, None, None]
        own, ours = own.double() * seen, ours.double() * seen
        difference = float((ours - own).norm() / own.norm().clamp(min=1e-30))
        if difference <= _PROOF[call.query.dtype]:
            return ""
        return f"its attention is not the plain softmax: on its first call the outputs differ by {difference:.1e}"
