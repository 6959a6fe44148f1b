"""One tiny forward pass of a model, watched by hooks that are gone afterwards."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from workbench.anatomy.parts import Anatomy, Block

_FLAGS = ("output_router_logits", "output_attentions", "output_hidden_states")


@dataclass
class Call:
    """One call of a module: copies of its tensors, and the originals, kept alive so that identity means something."""

    given: Tensor | None
    gave: Any
    original_given: Tensor | None
    original_gave: Tensor | None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def changed_since(self, given: bool) -> bool:
        """Whether what the module was given, or what it gave, has been changed in place after the call."""
        copy, original = (
            (self.given, self.original_given)
            if given
            else (next(tensors(self.gave), None), self.original_gave)
        )
        return copy is not None and original is not None and not torch.equal(copy, original)


@dataclass
class Watch:
    """The calls of the watched modules, in order, and what stopped the model, if anything did."""

    calls: dict[nn.Module, list[Call]]
    crash: Exception | None = None

    def once(self, module: nn.Module) -> Call | None:
        """The call of ``module`` if there was exactly one."""
        calls = self.calls.get(module, [])
        return calls[0] if len(calls) == 1 else None


def watched_pass(anatomy: Anatomy, tokens: int) -> Watch:
    """Run ``tokens`` random ids in two rows; blocks, their children and what stands in the anatomy are watched."""
    model = anatomy.model
    watched = {module for block in anatomy.blocks for module in _watched(block)}
    ids = torch.randint(
        anatomy.vocab_size, (2, (tokens + 1) // 2), generator=torch.Generator().manual_seed(0)
    )
    ids = ids.to(model.get_input_embeddings().weight.device)
    # Asked for in the configuration, these make transformers install hooks of its own for good.
    options: dict[str, Any] = {flag: False for flag in _FLAGS if getattr(model.config, flag, False)}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1  # nobody looks at them, and a vocabulary is wide
    watch = Watch(defaultdict(list))
    banks = [block.moe.experts for block in anatomy.blocks if block.moe is not None]
    with _untouched(model), _spared(banks), _hooked(watched, watch):
        try:
            model(input_ids=ids, use_cache=False, **options)
        # Whatever stops the model is reported, after the comparisons that may explain it.
        except Exception as error:
            watch.crash = error
    return watch


def _watched(block: Block) -> Iterator[nn.Module]:
    yield block.module
    yield from block.module.children()
    if block.attention is not None:
        yield block.attention.module
    if block.mlp is not None:
        yield block.mlp.module
    if block.moe is not None:
        yield from (block.moe.router, block.moe.experts)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and with the random state put back; every training flag is restored."""
    training = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, flag in training:
            module.training = flag


@contextmanager
def _spared(banks: list[nn.Module]) -> Iterator[None]:
    """Let banks of a class pass on what they are given, once one of the class has computed and kept shape and dtype.

    What is proved is what reaches a bank and what becomes of its output, whatever that is. Reading every expert of a large
    checkpoint from memory would take most of the time of a proof.
    """
    keeps: set[type[nn.Module]] = set()

    def spare(bank: nn.Module) -> None:
        own = bank.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = next(tensors((args, kwargs)), None)
            if type(bank) in keeps and hidden is not None:
                return hidden.clone()
            output = own(*args, **kwargs)
            if (
                isinstance(output, Tensor)
                and hidden is not None
                and (output.shape, output.dtype) == (hidden.shape, hidden.dtype)
            ):
                keeps.add(type(bank))
            return output

        bank.forward = forward

    # A forward that somebody has put on the instance may do more than compute (move weights, for example).
    chosen = [bank for bank in dict.fromkeys(banks) if "forward" not in vars(bank)]
    try:
        for bank in chosen:
            spare(bank)
        yield
    finally:
        for bank in chosen:
            vars(bank).pop("forward", None)


@contextmanager
def _hooked(modules: set[nn.Module], watch: Watch) -> Iterator[None]:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(tensors((args, kwargs)), None)
        copied_args, copied_kwargs = copies(args), copies(kwargs)
        copy = next(tensors((copied_args, copied_kwargs)), None)
        watch.calls[module].append(Call(copy, None, given, None, copied_args, copied_kwargs))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = watch.calls[module][-1]
        call.gave, call.original_gave = copies(output), next(tensors(output), None)

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        return iter((value,))
    if isinstance(value, (tuple, list)):
        found: list[Tensor] = []
        for item in value:
            if isinstance(item, Tensor):  # nearly always, and asked of every router in every pass
                found.append(item)
            else:
                found += tensors(item)
        return iter(found)
    return chain.from_iterable(map(tensors, value.values())) if isinstance(value, Mapping) else iter(())


def copies(value: Any) -> Any:
    """The same nest with its tensors copied: what a module gave may be changed in place later."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copies(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(copies(item) for item in value)
    return value
