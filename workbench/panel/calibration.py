"""What masks by activation are chosen by: how active units are on the prompt in view, or on runs of the store."""

from __future__ import annotations

from typing import Any

from workbench.errors import PromptError
from workbench.panel import answers
from workbench.said import said

MOST_TOKENS = 512
"""Tokens of recorded runs that are read at most: the measurement keeps every activation of them until it is done."""

_TEXTS = """
WITH of_model AS (
    SELECT run, tokens FROM run WHERE checkpoint = $checkpoint AND kind IN ('forward', 'generate') AND tokens > 0
    ORDER BY run DESC LIMIT 256
), texts AS (
    SELECT run, list(token ORDER BY position) AS ids FROM (
        SELECT run, position, arg_max(token, step) AS token FROM token JOIN of_model USING (run) GROUP BY run, position
    ) GROUP BY run
)
SELECT ids FROM texts GROUP BY ids ORDER BY max(run) DESC
"""


def calibrated(seq: int, bench: Any, prompt: list[int] | None) -> answers.Calibrated:
    """Measure on the tokens of ``prompt``, or where there is none on the newest different texts of this model's runs."""
    texts = [prompt] if prompt is not None else _recorded(bench)
    source = bench.calibrate(texts)
    return answers.Calibrated(seq=seq, source=source, runs=len(texts), tokens=sum(map(len, texts)))


def _recorded(bench: Any) -> list[list[int]]:
    """Token ids of runs of the store, newest first, of :data:`MOST_TOKENS` tokens in all; the last one is cut to fit."""
    texts: list[list[int]] = []
    left = MOST_TOKENS
    cursor = bench.store.cursor().execute(_TEXTS, {"checkpoint": bench.checkpoint})
    while left > 0 and (row := cursor.fetchone()) is not None:
        texts.append([int(token) for token in row[0][: min(left, bench.context or left)]])
        left -= len(texts[-1])
    if not texts:
        raise PromptError(
            said("The store has no run of this model to measure activations on."),
            said("Run a prompt, or measure on the prompt."),
        )
    return texts
