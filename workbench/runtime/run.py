"""What a run gives back: tokens, logits and text at hand, and its rows as DuckDB relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from routing_kernels import token_logprob
from torch import Tensor

from workbench.address import integers
from workbench.interventions import Plan

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from workbench.runtime.bench import Bench


@dataclass(frozen=True)
class Step:
    """One generated token: its number (from 0), absolute position, token id and text."""

    number: int
    position: int
    token: int
    text: str


@dataclass(frozen=True)
class Done:
    """What a run was, before it is described in rows: its id (``None`` if unrecorded), kind, tokens, plan, labels, the
    run it continues, the seconds its passes took, the seed of its sampling, the plans it switched to as (first step,
    plan), and the rows that were not kept, by table."""

    run: int | None
    kind: str
    tokens: list[int]
    prompt_tokens: int
    plan: Plan
    labels: Mapping[str, Any]
    seconds: float
    seed: int | None = None
    parent: int | None = None
    plans: tuple[tuple[int, Plan], ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """One recorded forward pass or generation of one sequence.

    Attributes
    ----------
    id
        The run's key in the store; ``None`` if nothing was recorded.
    tokens
        Token ids [S] int64 on the CPU: the prompt, then what was generated.
    logits
        Next-token logits fp32 (fp64 of a model in fp64) on the CPU: [S, V] for a forward pass; [S - 1, V] for a
        generation, whose last token was never fed back.
    plan
        The plan the run was made with.
    prompt_tokens
        How many of the tokens are the prompt.
    labels
        What was said about the run.
    """

    id: int | None
    tokens: Tensor
    logits: Tensor
    plan: Plan
    prompt_tokens: int
    bench: Bench
    labels: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def logprob(self) -> Tensor:
        """Log-probability [S - 1] in nats of every token but the first."""
        return token_logprob(self.logits[: len(self.tokens) - 1], self.tokens[1:])

    @cached_property
    def loss(self) -> float:
        """Mean negative log-likelihood in nats of every token but the first; NaN for a single token."""
        return (
            -float(self.logprob.detach().numpy().mean(dtype=np.float64))
            if len(self.tokens) > 1
            else float("nan")
        )

    @cached_property
    def text(self) -> str:
        """The whole text, prompt included; empty without a tokenizer."""
        return "" if self.bench.tokenizer is None else self.bench.tokenizer.decode(self.tokens.tolist())

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each token."""
        return tuple(self.bench.token_text(i) for i in self.tokens.tolist())

    def _rows(self, table: str) -> DuckDBPyRelation:
        return self.bench.sql(f"FROM {table} WHERE run = ?", [self.id])

    @property
    def routing(self) -> DuckDBPyRelation:
        """The choices of this run: one row a token, layer and slot."""
        return self._rows("routing")

    @property
    def attention_rank(self) -> DuckDBPyRelation:
        """The attention ranks of this run: one row a layer and head."""
        return self._rows("attention_rank")

    @property
    def contribution(self) -> DuckDBPyRelation:
        """What each sublayer added to the residual stream: one row a token and layer."""
        return self._rows("contribution")

    @property
    def sparsity(self) -> DuckDBPyRelation:
        """Activation sparsity: one row a token, layer and executed expert (-1: the dense MLP)."""
        return self._rows("sparsity")

    def tensor(self, site: str, *, layers: int | Sequence[int], tokens: Any = "all") -> Tensor:
        """Any read site as a tensor on the model's device, computed anew under this run's plan.

        ``tokens`` are positions, a slice, or ``all``, ``prompt``, ``generated``, ``prompt_last``. Returns [layers, tokens,
        ...], without the first axis for a single layer and without the token axis for ``prompt_last`` or one position;
        ``attn_pattern`` is [layers, heads, tokens, S]. See :data:`workbench.runtime.sites.READABLE`.
        """
        from workbench.runtime.sites import read

        single_layer = isinstance(layers, Integral)
        single_token = isinstance(tokens, Integral) or (isinstance(tokens, str) and tokens == "prompt_last")
        value = read(self.bench, self, site, list(integers(layers, "layer")), tokens)
        if single_token:
            value = value.squeeze(2 if site == "attn_pattern" else 1)
        return value[0] if single_layer else value

    def next_tokens(self, top: int = 10) -> list[dict[str, Any]]:
        """The ``top`` most likely next tokens after the last computed position: token id, text, probability."""
        probability = self.logits[-1].softmax(-1)
        values, ids = probability.topk(min(top, probability.shape[-1]))
        return [
            {"token": int(i), "text": self.bench.token_text(int(i)), "probability": float(p)}
            for p, i in zip(values, ids, strict=True)
        ]

    def __repr__(self) -> str:
        edits = f", {len(self.plan.active)} edits" if self.plan.active else ""
        return f"Run(id={self.id}, tokens={len(self.tokens)}, loss={self.loss:.4f}{edits}, text={self.text[-60:]!r})"
