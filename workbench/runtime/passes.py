"""One forward pass as the edits see it: which token of which run stands in which row of the tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions.edit import Edit, Span


@dataclass(frozen=True)
class Pass:
    """B rows, S positions of each.

    Attributes
    ----------
    step
        Number of the pass within its run, from 0.
    phase
        ``prefill`` while the prompt is read, ``decode`` for the tokens after it.
    positions
        Absolute token positions [B, S] int64 on the model's device.
    valid
        [B, S] bool, false at padding; ``None`` where nothing is padded.
    prompt_tokens
        Length of each row's prompt [B] int64 on the model's device.
    rows
        Where tokens were taken out of a pass: the row of the batch [B', S'] int64 that each one is from; ``None`` where
        row ``b`` is row ``b``.
    start
        Tokens before the pass that this one is a part of; ``None`` for a whole pass, which starts at its first position.
    """

    step: int
    phase: Literal["prefill", "decode"]
    positions: Tensor
    valid: Tensor | None
    prompt_tokens: Tensor
    rows: Tensor | None = None
    start: int | None = None

    @property
    def past(self) -> int:
        """Tokens before this pass."""
        return int(self.positions.min()) if self.start is None else self.start

    def of_rows(self, values: Tensor) -> Tensor:
        """``values`` [B] of the rows of the batch, at each token [B', S']."""
        return values.unsqueeze(-1).expand_as(self.positions) if self.rows is None else values[self.rows]


def scope(edit: Edit, now: Pass, rows: Tensor) -> Tensor | None:
    """The tokens of this pass an edit holds for, as a mask [B, S]; ``None`` if it holds for none of them.

    ``rows`` [B] bool says which rows of the batch have the edit in their plan.
    """
    if edit.phase not in ("all", now.phase):
        return None
    where = now.of_rows(rows)
    prompt = now.of_rows(now.prompt_tokens)
    tokens = edit.tokens
    if tokens == "prompt":
        where = where & (now.positions < prompt)
    elif tokens == "generated":
        where = where & (now.positions >= prompt)
    elif tokens == "prompt_last":
        where = where & (now.positions == prompt - 1)
    elif tokens == "each_step":
        where = where & (now.positions >= prompt - 1)
    elif isinstance(tokens, Span):
        where = where & (now.positions >= tokens.start)
        if tokens.stop is not None:
            where = where & (now.positions < tokens.stop)
    elif isinstance(tokens, tuple):
        where = where & torch.isin(now.positions, torch.tensor(tokens, device=now.positions.device))
    return where if bool(where.any()) else None


def check_tokens(edit: Edit, prompt_tokens: int, total_tokens: int) -> None:
    """Refuse a token scope that no token of the run can fall in.

    ``total_tokens`` counts the tokens that are computed: the prompt, and every generated token but the last.
    """
    generates = total_tokens > prompt_tokens
    if not generates and (edit.tokens == "generated" or edit.phase == "decode"):
        raise EditRefused(
            f"{edit.kind} is scoped to generated tokens, but this run only reads its prompt.",
            "Use bench.generate, or scope the edit to the prompt.",
        )
    first = edit.tokens.start if isinstance(edit.tokens, Span) else None
    beyond = [first] if first is not None else list(edit.tokens) if isinstance(edit.tokens, tuple) else []
    for token in beyond:
        if token >= total_tokens:
            raise EditRefused(
                f"{edit.kind} names token {token}, but the run computes tokens 0 to {total_tokens - 1}.",
                "Name a position that exists; positions count from 0.",
            )
