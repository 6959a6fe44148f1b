"""What changed between two runs: aligned tokens, flips with margin and cause, where it began, and the text."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.analysis.flips import explain, score_noise
from workbench.analysis.source import Source
from workbench.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class RunDiff:
    """The difference of ``run`` from ``base``.

    Attributes
    ----------
    base, run
        The two run ids.
    tokens
        One row a pair of aligned positions: ``base_position``, ``position``, ``token`` (its id) and ``text``.
    flips
        One row a flip at aligned positions, in the order of execution (step, layer, position): ``position``, ``layer``,
        ``base_experts`` and ``run_experts`` (best weight first), ``base_margin``, ``run_margin``, ``cause`` (``'edit'``,
        ``'tie'``, ``'upstream'``), ``step`` and ``base_position``. Where the noise of the scores was measured,
        ``'upstream'`` is told apart into ``'precision'`` and ``'real'`` (:func:`workbench.analysis.flips.explain`).
    first_layer, first_position
        Where the first flip in that order is; ``None`` without a flip.
    first_expert
        The best-weighted expert that ``base`` chose there and ``run`` did not.
    text
        The text of both with ``[-what only base has-]`` and ``{+what only run has+}``.
    kl
        KL(base || run) of the next-token distributions at aligned positions, nats; filled in where logits are at hand.
    """

    base: int
    run: int
    tokens: pd.DataFrame
    flips: pd.DataFrame
    first_layer: int | None
    first_expert: int | None
    first_position: int | None
    text: str
    kl: Any = None

    def __str__(self) -> str:
        lines = [
            f"Run {self.run} against run {self.base}: {len(self.tokens)} aligned tokens, {len(self.flips)} flips."
        ]
        if self.first_layer is not None:
            causes = ", ".join(
                f"{count} {cause}" for cause, count in self.flips["cause"].value_counts().items()
            )
            lines.append(
                f"First flip: layer {self.first_layer}, position {self.first_position}, expert {self.first_expert} lost. "
                f"Causes: {causes}."
            )
        if self.kl is not None and len(self.kl):
            lines.append(f"KL of the next token: mean {float(sum(self.kl)) / len(self.kl):.4g} nats.")
        lines.append(f"Text: {self.text}")
        return "\n".join(lines)


def diff(source: Source, base_id: int, run_id: int, noise: tuple[int, int] | None = None) -> RunDiff:
    """Compare two recorded runs.

    Their token sequences are aligned by the longest common prefix, and by :mod:`difflib` (longest matching blocks) after it;
    a token that has no partner takes no part. A flip is a difference of the SETS of chosen experts.

    Parameters
    ----------
    source
        A bench, a store, what :func:`workbench.connect` gives, or a DuckDB connection.
    base_id, run_id
        The runs.
    noise
        Two runs of one text that differ as ``base`` and ``run`` do by their precision or implementation alone; with
        recorded scores, as ``base`` and ``run`` too.

    Raises
    ------
    StoreError
        One of the runs has no tokens in the store.
    """
    base, run = _tokens(source, base_id), _tokens(source, run_id)
    pairs = list(align([token for _, token, _ in base], [token for _, token, _ in run]))
    base_positions = [base[i][0] for i, _ in pairs]
    run_positions = [run[j][0] for _, j in pairs]
    flips = source.sql(
        "FROM flips_aligned(?, ?, ?, ?)", params=[base_id, run_id, base_positions, run_positions]
    ).df()  # fmt: skip
    if noise is not None:
        measured = score_noise(source, *noise)
        flips = flips.assign(cause=explain(source, base_id, run_id, flips, measured))
    first = None if flips.empty else flips.iloc[0]
    lost = None if first is None else [e for e in first["base_experts"] if e not in set(first["run_experts"])]
    import pandas as pd

    return RunDiff(
        base=base_id,
        run=run_id,
        tokens=pd.DataFrame(
            {
                "base_position": base_positions,
                "position": run_positions,
                "token": [run[j][1] for _, j in pairs],
                "text": [run[j][2] for _, j in pairs],
            }
        ),
        flips=flips,
        first_layer=None if first is None else int(first["layer"]),
        first_expert=int(lost[0]) if lost else None,
        first_position=None if first is None else int(first["position"]),
        text=_marked([text for _, _, text in base], [text for _, _, text in run], pairs),
    )


def _tokens(source: Source, run: int) -> list[tuple[int, int, str]]:
    """Position, token and text of ``run``; where a position was computed in several steps the last one stands."""
    rows = source.sql(
        "SELECT position, arg_max(token, step), coalesce(arg_max(text, step), '') FROM token WHERE run = ? "
        "GROUP BY position ORDER BY position",
        params=[run],
    ).fetchall()
    if not rows:
        raise StoreError(f"Run {run} has no tokens in the store.", "Record the run, or check its number.")
    return [(int(position), int(token), str(text)) for position, token, text in rows]


def align(base: Sequence[int], run: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of indices at which ``base`` and ``run`` are aligned, ascending in both; the values of a pair are equal."""
    prefix = 0
    while prefix < min(len(base), len(run)) and base[prefix] == run[prefix]:
        yield prefix, prefix
        prefix += 1
    # autojunk would leave out tokens that are frequent, which in a text are the common words.
    matcher = difflib.SequenceMatcher(None, base[prefix:], run[prefix:], autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            yield prefix + block.a + offset, prefix + block.b + offset


def _marked(base: Sequence[str], run: Sequence[str], pairs: Sequence[tuple[int, int]]) -> str:
    parts: list[str] = []
    i = j = 0
    for next_i, next_j in [*pairs, (len(base), len(run))]:
        if i < next_i:
            parts.append(f"[-{''.join(base[i:next_i])}-]")
        if j < next_j:
            parts.append(f"{{+{''.join(run[j:next_j])}+}}")
        if next_j < len(run):
            parts.append(run[next_j])
        i, j = next_i + 1, next_j + 1
    return "".join(parts)
