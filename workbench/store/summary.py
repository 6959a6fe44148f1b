"""Sums of ended runs, kept so that questions about many runs do not read every choice again.

What the sums are is said once, by the ``*_cells`` macros: they read the kept sums of the runs in ``summarised`` and the rows
of all others. Keeping the sums of a run is storing what its cells are before it is in ``summarised``.

Sums by pairs of experts are nearly as many as choices, and those by place are many. They are summed once more, over blocks
of runs, by the ``*_totals`` macros: those read whole blocks where a question asks for them, and the sums of single runs for
the rest.
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

BLOCKS = {
    "pair_block": ("pair_totals", ("layer", "expert", "other", "opening"), ("tokens",)),
    "next_block": (
        "next_totals",
        ("layer", "next_layer", "expert", "next_expert", "opening"),
        ("tokens", "seen", "tried"),
    ),
    "place_block": ("place_totals", ("layer", "place", "expert", "opening"), ("choices",)),
}
"""By table of sums over blocks of runs: the macro that defines it, its keys and its sums."""

BLOCK = 2**23
"""Choices that make a block: many times the sums of a block, few enough to be read one run at a time until then."""

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


def due(connection: duckdb.DuckDBPyConnection) -> list[list[int]]:
    """Blocks that can be made: summarised runs that are in none, in groups of :data:`BLOCK` choices or a little more."""
    waiting = connection.execute(
        "SELECT s.run, s.choices FROM summarised AS s WHERE s.run NOT IN (SELECT b.run FROM block_run AS b) ORDER BY s.run"
    ).fetchall()
    found: list[list[int]] = []
    group: list[int] = []
    total = 0
    for run, choices in waiting:
        group.append(run)
        total += choices
        if total >= BLOCK:
            found.append(group)
            group, total = [], 0
    return found


def close(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> None:
    """Make one block of ``runs``, in one transaction."""
    with transaction(connection):
        for table, (macro, keys, sums) in BLOCKS.items():
            added = ", ".join(f"sum(t.{name})" for name in sums)
            by = ", ".join(f"t.{name}" for name in keys)
            connection.execute(
                f"INSERT INTO {table} SELECT $1, {by}, {added} FROM {macro}($2::BIGINT[]) AS t GROUP BY {by}",
                [runs[0], list(runs)],
            )
        connection.execute("INSERT INTO block_run SELECT $1, unnest($2::BIGINT[])", [runs[0], list(runs)])


def drop_blocks(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> None:
    """Drop the blocks that hold one of ``runs``; the sums of their single runs stay."""
    found = connection.execute(
        "SELECT DISTINCT b.block FROM block_run AS b WHERE b.run IN (SELECT unnest($1::BIGINT[]))",
        [list(runs)],
    ).fetchall()
    blocks = [block for (block,) in found]
    for table in (*BLOCKS, "block_run"):
        connection.execute(
            f"DELETE FROM {table} AS b WHERE b.block IN (SELECT unnest($1::BIGINT[]))", [blocks]
        )
