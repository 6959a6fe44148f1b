"""One call of a block, attention or MLP, so that it can be made again for some of its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from routing_kernels import gather_rows
from torch import Tensor

from workbench.errors import EditRefused
from workbench.runtime.passes import Pass

_CACHES = ("past_key_values", "past_key_value", "layer_past", "cache_params")


def _signature(own: Callable[..., Any]) -> inspect.Signature:
    """What ``own`` is called with. nnsight puts an object in the place of a forward that has been traced, which shows the
    signature of the class's function, ``self`` included."""
    found = inspect.signature(own)
    return found.replace(parameters=[one for name, one in found.parameters.items() if name != "self"])


@dataclass(frozen=True)
class Call:
    """The arguments of a call by name; ``first`` is the name of the hidden states [B, S, H]."""

    own: Callable[..., Any]
    named: dict[str, Any]
    first: str

    @classmethod
    def bind(cls, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Name the arguments of ``own(*args, **kwargs)``."""
        signature = _signature(own)
        named: dict[str, Any] = {}
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                raise EditRefused(
                    "This model calls its blocks with arguments that have no name, so tokens cannot be taken out.",
                    "Skip whole blocks for all tokens instead.",
                )
            else:
                named[name] = value
        return cls(own, named, next(iter(signature.parameters)))

    @property
    def hidden(self) -> Tensor:
        """The hidden states [B, S, H]."""
        return self.named[self.first]

    @property
    def cache(self) -> Any:
        """The cache, or ``None``."""
        return next((self.named[name] for name in _CACHES if self.named.get(name) is not None), None)

    @property
    def mask(self) -> Tensor | None:
        """The attention mask as the model made it."""
        return self.named.get("attention_mask")

    def run(self, hidden: Tensor, own: Callable[..., Any] | None = None, **changed: Any) -> Any:
        """The call with other hidden states, and whatever else is ``changed``."""
        return (own or self.own)(**(self.named | {self.first: hidden} | changed))

    def gathered(self, index: Tensor, mask: Tensor | None, cache: Any) -> dict[str, Any]:
        """The arguments, hidden states included, of the tokens ``index`` [B, K], with ``mask`` and ``cache`` instead."""
        rows, size = self.hidden.shape[:2]
        changed: dict[str, Any] = {self.first: gather(self.hidden, index)}
        for name, value in self.named.items():
            if name == self.first:
                continue
            if name == "attention_mask":
                changed[name] = mask
            elif name in _CACHES and value is not None:
                changed[name] = cache
            elif name == "position_embeddings" and isinstance(value, tuple | list):
                changed[name] = tuple(_take(part, index, rows) for part in value)
            elif isinstance(value, Tensor) and value.dim() >= 2 and value.shape[1] == size:
                changed[name] = _take(value, index, rows)
            elif isinstance(value, Tensor):
                raise EditRefused(
                    f"The blocks of this model are given {name} {list(value.shape)}, which has no place for a token.",
                    "Skip whole blocks for all tokens instead.",
                )
        if all(self.named.get(name) is None for name in _CACHES):
            changed["past_key_values"] = cache
        return changed


def gather(values: Tensor, index: Tensor) -> Tensor:
    """The tokens ``index`` [B, K] of ``values`` [B, S, H] as [B, K, H]."""
    rows, size, width = values.shape
    flat = (index + torch.arange(rows, device=index.device).unsqueeze(-1) * size).reshape(-1)
    return gather_rows(values.reshape(rows * size, width).contiguous(), flat).y.reshape(rows, -1, width)


def _take(values: Tensor, index: Tensor, rows: int) -> Tensor:
    """The tokens ``index`` [B, K] of ``values`` [B or 1, S, ...]."""
    values = values.expand(rows, *values.shape[1:])
    at = index.reshape(*index.shape, *(1,) * (values.dim() - 2)).expand(*index.shape, *values.shape[2:])
    return values.gather(1, at)


def chosen(run: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that ``run`` [B, S] names, ascending, as index [B, K] and valid [B, K]; K is the most of any row."""
    count = run.sum(-1)
    width = int(count.max())
    order = torch.argsort(~run, dim=-1, stable=True)[:, :width]
    valid = torch.arange(width, device=run.device) < count.unsqueeze(-1)
    return torch.where(valid, order, order[:, :1]), valid


def part_of(now: Pass, index: Tensor, valid: Tensor) -> Pass:
    """The pass as the tokens ``index`` [B, K] of it see it."""
    whole = bool(valid.all()) and now.valid is None
    inside = valid if now.valid is None else valid & now.valid.gather(1, index)
    return Pass(
        now.step, now.positions.gather(1, index), None if whole else inside, now.prompt_tokens,
        now.tokens.gather(1, index), None if now.rows is None else now.rows.gather(1, index), now.past,
    )  # fmt: skip


def _form(mask: Any) -> str:
    return f"of {mask.dim()} dimensions" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"


def mask_for(
    mask: Tensor | None, index: Tensor, valid: Tensor, present: Tensor | None, length: int, past: int,
    additive: bool, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """The attention mask [B, 1, K, keys] of gathered queries: the model's own rows of it, and no key that is not present.

    ``present`` [B, length] says which keys there are (``None``: all), ``past`` how many of them stood before this pass,
    ``additive`` that the model adds its masks. Padding queries see everything, so that no softmax is empty.
    """
    if mask is None:
        keys = torch.arange(length, device=index.device)
        allowed = (keys <= (index + past).unsqueeze(-1)).unsqueeze(1)
    elif isinstance(mask, Tensor) and mask.dim() == 4:
        rows = index.shape[0]
        at = index[:, None, :, None].expand(rows, mask.shape[1], -1, mask.shape[-1])
        allowed = mask.expand(rows, -1, -1, -1).gather(2, at)
    else:
        raise EditRefused(
            f"The attention mask of this model is {_form(mask)}, so single tokens cannot be taken out.",
            'Load the model with attn_implementation="sdpa" or "eager".',
        )
    lowest = torch.finfo(dtype).min
    if allowed.dtype != torch.bool:
        lowest = torch.finfo(allowed.dtype).min
    elif additive:
        allowed = torch.zeros(allowed.shape, dtype=dtype, device=index.device).masked_fill(~allowed, lowest)
    if present is not None:
        allowed = _without(allowed, ~present[:, None, None, -allowed.shape[-1] :], lowest)
    if not bool(valid.all()):
        padding = ~valid[:, None, :, None]
        allowed = allowed | padding if allowed.dtype == torch.bool else allowed.masked_fill(padding, 0.0)
    return allowed


def _without(allowed: Tensor, hidden: Tensor, lowest: float) -> Tensor:
    return allowed & ~hidden if allowed.dtype == torch.bool else allowed.masked_fill(hidden, lowest)
