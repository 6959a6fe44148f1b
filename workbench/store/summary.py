"""Sums of ended runs, kept so that questions about many runs do not read every choice again.

What the sums are is said once, by the ``*_cells`` macros: they read the kept sums of the runs in ``summarised`` and the rows
of all others. Keeping the sums of a run is storing what its cells are before it is in ``summarised``.

Sums by pairs of experts are nearly as many as choices, and in a run of few tokens many more: such a run keeps none of its
own. Those by place are many. They are summed once more, over blocks of runs, by the ``*_totals`` macros: those read whole
blocks where a question asks for them, and for the rest the sums of single runs, or their choices where those are fewer.
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

OF_PAIRS = ("pair_sum", "next_sum")
"""Those by pairs of experts, of the layer or of it and the next."""

WORTH = 3
"""Choices that a run has for each pair of experts it uses in a layer, where its sums by pairs are kept: with E experts they
are at most E (E + 1) / 2 of a layer and E E from it to the next, half as many as choices."""

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

FIRST = BLOCK // 32
"""Choices of runs without sums by pairs that make a block for the time being: few enough to be read until then. Such blocks
are joined to one of :data:`BLOCK` choices."""

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
        for table in (name for name in SUMS if name not in OF_PAIRS):
            _add(connection, table, ids)
        paired = _paired(connection, runs)
        for table in OF_PAIRS:
            _add(connection, table, sorted(paired))
        connection.execute(
            "INSERT INTO summarised SELECT unnest($1::BIGINT[]), unnest($2::BIGINT[]), unnest($3::BOOLEAN[])",
            [ids, [choices for _, choices in runs], [run in paired for run in ids]],
        )


def _add(connection: duckdb.DuckDBPyConnection, table: str, runs: Sequence[int]) -> None:
    connection.execute(f"INSERT INTO {table} SELECT * FROM {SUMS[table]}($1::BIGINT[])", [list(runs)])


def _paired(connection: duckdb.DuckDBPyConnection, runs: Sequence[tuple[int, int]]) -> set[int]:
    """Those of ``runs`` that have :data:`WORTH` choices or more for each pair of experts of a layer."""
    pairs = connection.execute(
        """
        SELECT e.run, CAST(sum(e.experts * e.experts) AS BIGINT)
        FROM (
            SELECT s.run, s.layer, count(DISTINCT s.expert) AS experts FROM expert_sum AS s
            WHERE s.run IN (SELECT unnest($1::BIGINT[])) GROUP BY s.run, s.layer
        ) AS e
        GROUP BY e.run
        """,
        [[run for run, _ in runs]],
    ).fetchall()
    most = dict(pairs)
    return {run for run, choices in runs if choices >= WORTH * most.get(run, 0)}


def due(connection: duckdb.DuckDBPyConnection) -> list[list[int]]:
    """Blocks that can be made, in this order, each as its runs.

    Summarised runs without sums by pairs that are in no block make one of :data:`FIRST` choices. Such small blocks, and runs
    that are in none, make one of :data:`BLOCK` choices; it takes the place of the small ones.
    """
    alone = connection.execute(
        "SELECT s.run, s.choices, s.pairs FROM summarised AS s WHERE s.run NOT IN (SELECT b.run FROM block_run AS b) "
        "ORDER BY s.run"
    ).fetchall()
    small = connection.execute(
        "SELECT list(b.run ORDER BY b.run), sum(s.choices) FROM block_run AS b JOIN summarised AS s ON s.run = b.run "
        "GROUP BY b.block HAVING sum(s.choices) < $1",
        [BLOCK],
    ).fetchall()
    first = _groups([([run], choices) for run, choices, pairs in alone if not pairs], FIRST)
    parts = [([run], choices) for run, choices, pairs in alone if pairs]
    parts += [(runs, choices) for runs, choices in first if choices < BLOCK]
    parts += [(runs, int(choices)) for runs, choices in small]
    return [runs for runs, _ in first] + [runs for runs, _ in _groups(sorted(parts), BLOCK)]


def _groups(parts: Sequence[tuple[list[int], int]], size: int) -> list[tuple[list[int], int]]:
    """Neighbouring ``parts`` (runs and their choices) joined until they have ``size`` choices; what is left is left out."""
    found: list[tuple[list[int], int]] = []
    group: list[int] = []
    total = 0
    for runs, choices in parts:
        group.extend(runs)
        total += choices
        if total >= size:
            found.append((group, total))
            group, total = [], 0
    return found


def close(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> None:
    """Make one block of ``runs``, in one transaction; it takes the place of the blocks that they make up."""
    block, ids = min(runs), list(runs)
    with transaction(connection):
        for table, (macro, keys, sums) in BLOCKS.items():
            added = ", ".join(f"sum(t.{name}) AS {name}" for name in sums)
            by = ", ".join(f"t.{name}" for name in keys)
            # Summed before the blocks it is made from go, of which one has the same number.
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE block_sums AS SELECT $1::BIGINT AS block, {by}, {added} "
                f"FROM {macro}($2::BIGINT[]) AS t GROUP BY {by}",
                [block, ids],
            )
            connection.execute(
                f"DELETE FROM {table} AS b WHERE b.block IN (SELECT w.block FROM whole_blocks($1::BIGINT[]) AS w)",
                [ids],
            )
            connection.execute(f"INSERT INTO {table} BY NAME FROM block_sums")
        connection.execute("DROP TABLE block_sums")
        connection.execute("DELETE FROM block_run AS b WHERE b.run IN (SELECT unnest($1::BIGINT[]))", [ids])
        connection.execute("INSERT INTO block_run SELECT $1, unnest($2::BIGINT[])", [block, ids])


def drop_blocks(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> None:
    """Drop the blocks that hold one of ``runs``; what is kept of their single runs stays."""
    found = connection.execute(
        "SELECT DISTINCT b.block FROM block_run AS b WHERE b.run IN (SELECT unnest($1::BIGINT[]))",
        [list(runs)],
    ).fetchall()
    blocks = [block for (block,) in found]
    for table in (*BLOCKS, "block_run"):
        connection.execute(
            f"DELETE FROM {table} AS b WHERE b.block IN (SELECT unnest($1::BIGINT[]))", [blocks]
        )
