"""From what a user gives as a prompt to token ids that the model can take."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workbench.errors import PromptError

Prompt: TypeAlias = "str | Sequence[int] | NDArray[np.integer[Any]] | Tensor"
"""Text, or the token ids of one sequence ([S] or [1, S])."""


def token_ids(prompt: Prompt, tokenizer: Any | None, *, context: int | None, vocab_size: int) -> list[int]:
    """The ids of ``prompt``; raises :class:`PromptError` if it is empty, too long, or of the wrong kind."""
    ids = _read(prompt, tokenizer)
    if not ids:
        raise PromptError("The prompt has no tokens.", "Type at least one character.")
    if context is not None and len(ids) > context:
        raise PromptError(
            f"The prompt has {len(ids)} tokens, but the model's context holds {context}.",
            f"Shorten it by {len(ids) - context} tokens.",
        )
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        wrong = next(i for i in ids if not 0 <= i < vocab_size)
        raise PromptError(
            f"Token id {wrong} is outside the vocabulary of {vocab_size}.",
            "Use ids of this model's tokenizer.",
        )
    return ids


def several(prompts: Sequence[Prompt]) -> list[Prompt]:
    """``prompts`` as a list; raises :class:`PromptError` where they are none, or one prompt that would be taken apart."""
    alone = isinstance(prompts, str | Tensor | np.ndarray) or any(
        isinstance(prompt, Integral) for prompt in prompts
    )
    if alone or not len(prompts):
        raise PromptError(
            "One prompt stands where a list of them is read." if alone else "There are no prompts.",
            'Give a list: ["text", ...].',
        )
    return list(prompts)


def _read(prompt: Prompt, tokenizer: Any | None) -> list[int]:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise PromptError("This bench has no tokenizer.", "Open the model with one, or give token ids.")
        if not prompt:
            raise PromptError("The prompt is empty.", "Type at least one character.")
        return list(tokenizer(prompt)["input_ids"])
    if isinstance(prompt, Tensor | np.ndarray):
        if prompt.ndim not in (1, 2) or (prompt.ndim == 2 and prompt.shape[0] != 1):
            raise PromptError(
                f"Token ids of shape {tuple(prompt.shape)} are not one sequence.", "Give [S] or [1, S]."
            )
        ids = prompt.reshape(-1).tolist()
        if set(map(type, ids)) - {int}:
            raise PromptError(f"Token ids of dtype {prompt.dtype} are not integers.", "Give integers.")
        return ids
    if isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        kinds = set(map(type, prompt))
        if all(issubclass(kind, Integral) and kind is not bool for kind in kinds):
            return list(map(int, prompt))
    raise PromptError(
        f"A value of type {type(prompt).__name__} is not a prompt.", "Give text, or a list of token ids."
    )
