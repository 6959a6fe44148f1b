"""Sums of ended runs, kept so that questions about many runs do not read every choice again.

What the sums are is said once, by the ``*_cells`` macros: they read the kept sums of the runs in ``summarised`` and the rows
of all others. Keeping the sums of a run is storing what its cells are before it is in ``summarised``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import duckdb

from workbench.store.transaction import transaction

SUMS = {
    "expert_sum": "expert_cells",
    "rank_sum": "rank_cells",
    "pair_sum": "pair_cells",
    "next_sum": "next_cells",
    "layer_sum": "layer_cells",
    "place_sum": "place_cells",
    "router_sum": "router_cells",
    "part_sum": "part_cells",
    "sparsity_sum": "sparsity_cells",
}
"""Which macro defines which table."""

PIECE = 250_000
"""Choices that are summed in one transaction (a longer run goes alone)."""


def ended(connection: duckdb.DuckDBPyConnection, runs: Sequence[int] | None) -> list[tuple[int, int]]:
    """Runs that have ended and of which no sums are kept, with their choices; of ``runs`` alone where they are given."""
    among = "" if runs is None else "AND i.run IN (SELECT unnest($runs::BIGINT[]))"
    return connection.execute(
        f"""
        WITH waiting AS (
            SELECT DISTINCT i.run FROM run AS i
            WHERE i.run NOT IN (SELECT s.run FROM summarised AS s) {among}
        ), counted AS (
            SELECT r.run, count(*) AS choices FROM routing AS r
            WHERE r.run IN (SELECT w.run FROM waiting AS w) GROUP BY r.run
        )
        SELECT w.run, coalesce(c.choices, 0) FROM waiting AS w LEFT JOIN counted AS c ON c.run = w.run ORDER BY w.run
        """,
        {} if runs is None else {"runs": list(runs)},
    ).fetchall()


def pieces(runs: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """``runs`` with their choices in groups of about :data:`PIECE` choices."""
    before = itertools.accumulate((choices for _, choices in runs), initial=0)
    numbered = zip((total // PIECE for total in before), runs, strict=False)
    for _, group in itertools.groupby(numbered, key=lambda pair: pair[0]):
        yield [run for _, run in group]


def keep(connection: duckdb.DuckDBPyConnection, runs: Sequence[tuple[int, int]]) -> None:
    """Keep the sums of ``runs`` (with their choices), in one transaction."""
    ids = [run for run, _ in runs]
    with transaction(connection):
        for table, macro in SUMS.items():
            connection.execute(f"INSERT INTO {table} SELECT * FROM {macro}($1::BIGINT[])", [ids])
        connection.execute(
            "INSERT INTO summarised SELECT unnest($1::BIGINT[]), unnest($2::BIGINT[])",
            [ids, [choices for _, choices in runs]],
        )
