"""One forward pass as the edits see it: which token of which run stands in which row of the tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from workbench.errors import EditRefused
from workbench.interventions import Plan
from workbench.interventions.condition import Comparison, evaluate
from workbench.interventions.edit import Edit, Span


@dataclass(frozen=True)
class Pass:
    """B rows, S positions of each.

    Attributes
    ----------
    step
        Number of the pass within its run, from 0.
    positions
        Absolute token positions [B, S] int64 on the model's device.
    valid
        [B, S] bool, false at padding; ``None`` where nothing is padded.
    prompt_tokens
        Length of each row's prompt [B] int64 on the model's device.
    tokens
        Token ids [B, S] int64 on the model's device.
    rows
        Where tokens were taken out of a pass: the row of the batch [B', S'] int64 that each one is from; ``None`` where
        row ``b`` is row ``b``.
    start
        Tokens before the pass that this one is a part of; ``None`` for a whole pass, which starts at its first position.
    """

    step: int
    positions: Tensor
    valid: Tensor | None
    prompt_tokens: Tensor
    tokens: Tensor
    rows: Tensor | None = None
    start: int | None = None

    @property
    def past(self) -> int:
        """Tokens before this pass."""
        return int(self.positions.min()) if self.start is None else self.start

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of every row; padding stands behind them."""
        rows, width = self.positions.shape
        return [width] * rows if self.valid is None else self.valid.sum(-1).tolist()

    def of_rows(self, values: Tensor) -> Tensor:
        """``values`` [B] of the rows of the batch, at each token [B', S']."""
        return values.unsqueeze(-1).expand_as(self.positions) if self.rows is None else values[self.rows]


Fact: TypeAlias = Callable[[Comparison], Tensor]
"""What a comparison says of each token of a pass, as a mask [B, S]."""


def scope(edit: Edit, now: Pass, rows: Tensor, fact: Fact) -> Tensor | None:
    """The tokens of this pass an edit holds for, as a mask [B, S]; ``None`` if it holds for none of them.

    ``rows`` [B] bool says which rows of the batch have the edit in their plan, ``fact`` answers its condition. Phase and
    step belong to the token, not to the pass that reads it, so that cached and uncached passes agree.
    """
    positions, prompt = now.positions, now.of_rows(now.prompt_tokens)
    where = now.of_rows(rows)
    tokens = edit.tokens
    if tokens == "prompt" or edit.phase == "prefill":
        where = where & (positions < prompt)
    if tokens == "generated" or edit.phase == "decode":
        where = where & (positions >= prompt)
    if tokens == "prompt_last":
        where = where & (positions == prompt - 1)
    elif tokens == "each_step":
        where = where & (positions >= prompt - 1)
    elif not isinstance(tokens, str):
        where = where & _among(positions, tokens)
    if not isinstance(edit.steps, str):
        where = where & _among((positions - prompt + 1).clamp(min=0), edit.steps)
    if not bool(where.any()):
        return None
    if edit.condition is not None:
        where = where & evaluate(edit.condition, fact)
        return where if bool(where.any()) else None
    return where


def _among(numbers: Tensor, wanted: Span | tuple[int, ...]) -> Tensor:
    if isinstance(wanted, tuple):
        return torch.isin(numbers, torch.tensor(wanted, device=numbers.device))
    inside = numbers >= wanted.start
    return inside if wanted.stop is None else inside & (numbers < wanted.stop)


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
    for token in _named(edit.tokens):
        if token >= total_tokens:
            raise EditRefused(
                f"{edit.kind} names token {token}, but the run computes tokens 0 to {total_tokens - 1}.",
                "Name a position that exists; positions count from 0.",
            )
    for step in _named(edit.steps):
        if step > total_tokens - prompt_tokens:
            raise EditRefused(
                f"{edit.kind} names step {step}, but the run has steps 0 to {total_tokens - prompt_tokens}.",
                "Step 0 reads the prompt, step n the n-th generated token.",
            )


def check_causal(edit: Edit, prompt_tokens: int, total_tokens: int) -> None:
    """Refuse an edit that looks at later tokens in a generation, unless it is scoped to the prompt or pools by step."""
    generates = total_tokens > prompt_tokens and edit.phase != "prefill" and edit.tokens != "prompt"
    if edit.looks_ahead() and generates and not edit.by_step():
        raise EditRefused(
            f"{edit.kind} looks at later tokens (causal=False), which do not exist while a text is generated.",
            'Scope it to the prompt with phase="prefill", use a causal rule, or where it has a pool choose pool="step".',
        )


def check_whole_prompt(plan: Plan) -> None:
    """Refuse a plan that looks at later tokens where the prompt is read in pieces."""
    for edit in plan.active:
        if edit.looks_ahead() and not edit.by_step():
            raise EditRefused(
                f"{edit.kind} looks at later tokens (causal=False), which a prompt read in pieces does not have yet.",
                "Leave out prefill, or use a causal rule.",
            )


def _named(value: str | Span | tuple[int, ...]) -> tuple[int, ...]:
    """The numbers that must exist for a scope to hold at all."""
    return () if isinstance(value, str) else value if isinstance(value, tuple) else (value.start,)


def rows_of(plans: Sequence[Plan]) -> list[Plan]:
    """The plan of each prompt of a batch, with the row scopes resolved; refuses rows that no prompt of the plan has."""
    for plan in plans:
        for edit in plan.active:
            if edit.rows == "all":
                continue
            if edit.rows[-1] >= len(plans):
                raise EditRefused(
                    f"{edit.kind} names row {edit.rows[-1]}, but there are {len(plans)} prompts.",
                    "Rows number the prompts of one call of bench.run, from 0.",
                )
            if not any(plans[row] == plan for row in edit.rows):
                raise EditRefused(
                    f"{edit.kind} names rows whose prompts have another plan.",
                    "Remove the row scope of the edit.",
                )
    return [plan.for_row(row) for row, plan in enumerate(plans)]
