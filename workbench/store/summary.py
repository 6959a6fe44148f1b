"""Sums of ended runs, kept so that questions about many runs do not read every choice again.

What the sums are is said once, by the ``*_cells`` macros: they read the kept sums of the runs in ``summarised`` and the rows
of all others. Keeping the sums of a run is storing what its cells are before it is in ``summarised``.

Sums by pairs of experts are nearly as many as choices, and in a run of few tokens many more: such a run keeps none of its
own. Those by place are many. They are summed once more, over blocks of runs, by the ``*_totals`` macros: those read whole
blocks where a question asks for them, and for the rest the sums of single runs, or their choices where those are fewer.
Sums by pairs of layers and by label are kept of large blocks alone.

Questions that compare choice sets one by one read them as bits (``set_sum``), an eighth of the rows where eight are chosen.
Those that ask by token id begin with a pool (:mod:`workbench.store.pools`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import duckdb

from workbench.store import pools
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

LARGE = {
    "across_block": (
        "across_totals",
        ("layer", "other_layer", "expert", "other_expert", "opening"),
        ("tokens",),
    ),
}
"""The same for those of large blocks alone: in a small one they are as many as choices."""

BLOCK_TABLES = (*BLOCKS, *LARGE, "label_block", "block_label")
"""All that is kept of blocks; ``block_run`` says which there are."""

BLOCK = 2**23
"""Choices that make a block: many times the sums of a block, few enough to be read one run at a time until then."""

FIRST = BLOCK // 32
"""Choices of runs without sums by pairs that make a block for the time being: few enough to be read until then. Such blocks
are joined to one of :data:`BLOCK` choices."""

PIECE = 1_000_000
"""Choices that are summed in one transaction (a longer run goes alone): every question scans the table once."""

SETS = 4
"""Choices that a run has for each word of its choice sets, where they are kept as bits; below that they are hardly fewer."""

VALUES = 64
"""Values that a label of tokens has in a block at most, where its sums are kept: those of a label that names every token
would be as many as choices."""


def work(connection: duckdb.DuckDBPyConnection, runs: Sequence[int] | None = None) -> Iterator[int]:
    """Keep all sums that are due, of ``runs`` alone if given; yields after each transaction how many it summed."""
    for piece in pieces(ended(connection, runs)):
        keep(connection, piece)
        yield len(piece)
    for piece in pieces(unset(connection)):
        keep_sets(connection, piece)
        yield 0
    for block in due(connection):
        close(connection, block)
        yield 0
    for _ in pools.fill(connection):
        yield 0


def waiting(connection: duckdb.DuckDBPyConnection) -> int:
    """About how many choices the runs have that have ended and of which no sums are kept."""
    ((found,),) = connection.execute(
        "SELECT coalesce(sum(r.tokens * r.num_layers * r.top_k), 0) FROM run AS r "
        "WHERE r.run NOT IN (SELECT s.run FROM summarised AS s)"
    ).fetchall()
    return int(found)


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


def unset(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    """Summarised runs of which it is not settled whether their choice sets are kept as bits, with their choices."""
    return connection.execute(
        "SELECT s.run, s.choices FROM summarised AS s WHERE s.run NOT IN (SELECT q.run FROM set_run AS q) ORDER BY s.run"
    ).fetchall()


def keep_sets(connection: duckdb.DuckDBPyConnection, runs: Sequence[tuple[int, int]]) -> None:
    """Keep the choice sets of those of ``runs`` (with their choices) that are few words beside them, in one transaction."""
    ids = [run for run, _ in runs]
    with transaction(connection):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE set_words AS FROM set_cells($1::BIGINT[]) "
            "ORDER BY run, layer, step, position, word",
            [ids],
        )
        words = dict(
            connection.execute("SELECT w.run, count(*) FROM set_words AS w GROUP BY w.run").fetchall()
        )
        kept = {run for run, choices in runs if choices >= SETS * words.get(run, 0)}
        connection.execute(
            "INSERT INTO set_sum FROM set_words AS w WHERE w.run IN (SELECT unnest($1::BIGINT[]))",
            [sorted(kept)],
        )
        connection.execute(
            "INSERT INTO set_run SELECT unnest($1::BIGINT[]), unnest($2::BOOLEAN[])",
            [ids, [run in kept for run in ids]],
        )
        connection.execute("DROP TABLE set_words")


def due(connection: duckdb.DuckDBPyConnection) -> list[list[int]]:
    """Blocks that can be made, in this order, each as its runs, all of the same weights.

    Summarised runs without sums by pairs that are in no block make one of :data:`FIRST` choices. Such small blocks, and runs
    that are in none, make one of :data:`BLOCK` choices; it takes the place of the small ones.
    """
    alone = connection.execute(
        f"SELECT w.weights, s.run, s.choices, s.pairs FROM summarised AS s JOIN {pools.WEIGHTS} AS w ON w.run = s.run "
        "WHERE s.run NOT IN (SELECT b.run FROM block_run AS b) ORDER BY s.run"
    ).fetchall()
    small = connection.execute(
        "SELECT any_value(w.weights), list(b.run ORDER BY b.run), sum(s.choices) FROM block_run AS b "
        f"JOIN summarised AS s ON s.run = b.run JOIN {pools.WEIGHTS} AS w ON w.run = b.run "
        "GROUP BY b.block HAVING sum(s.choices) < $1",
        [BLOCK],
    ).fetchall()
    firsts: list[list[int]] = []
    larger: list[list[int]] = []
    for weights in dict.fromkeys(row[0] for row in (*alone, *small)):
        runs = [row[1:] for row in alone if row[0] == weights]
        first = _groups([([run], choices) for run, choices, pairs in runs if not pairs], FIRST)
        parts = [([run], choices) for run, choices, pairs in runs if pairs]
        parts += [(group, choices) for group, choices in first if choices < BLOCK]
        parts += [(group, int(choices)) for of, group, choices in small if of == weights]
        firsts += [group for group, _ in first]
        larger += [group for group, _ in _groups(sorted(parts), BLOCK)]
    return firsts + larger


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
        large = _choices(connection, ids) >= BLOCK
        # Summed before the blocks it is made from go, of which one has the same number.
        added = {
            table: _added(connection, table, macro, keys, sums, ids)
            for table, (macro, keys, sums) in (BLOCKS | LARGE if large else BLOCKS).items()
        }
        labels = _label_sums(connection, ids) if large else []
        _drop(connection, connection.execute("FROM whole_blocks($1::BIGINT[])", [ids]).fetchall())
        for table, sums in added.items():
            connection.execute(
                f"INSERT INTO {table} BY NAME SELECT $1::BIGINT AS block, s.* FROM {sums} AS s", [block]
            )
            connection.execute(f"DROP TABLE {sums}")
        connection.execute("INSERT INTO block_run SELECT $1, unnest($2::BIGINT[]), $3", [block, ids, large])
        if labels:
            connection.execute(
                "INSERT INTO label_block BY NAME SELECT $1::BIGINT AS block, s.* FROM label_sums AS s",
                [block],
            )
            connection.execute("DROP TABLE label_sums")
            connection.execute(
                "INSERT INTO block_label FROM label_marks($1::BIGINT[]) AS m "
                "WHERE m.label IN (SELECT unnest($2::VARCHAR[]))",
                [ids, labels],
            )


def _choices(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> int:
    (found,) = connection.execute(
        "SELECT coalesce(sum(s.choices), 0) FROM summarised AS s WHERE s.run IN (SELECT unnest($1::BIGINT[]))",
        [list(runs)],
    ).fetchall()
    return int(found[0])


def _added(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    macro: str,
    keys: Sequence[str],
    sums: Sequence[str],
    runs: Sequence[int],
) -> str:
    """Name of a table of the sums over ``runs`` that ``table`` keeps of a block."""
    name = f"added_{table}"
    by = ", ".join(f"t.{key}" for key in keys)
    total = ", ".join(f"sum(t.{each}) AS {each}" for each in sums)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {by}, {total} FROM {macro}($1::BIGINT[]) AS t GROUP BY {by}",
        [list(runs)],
    )
    return name


def _label_sums(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> list[str]:
    """Labels of the tokens of ``runs`` that have few values; their sums go to the table ``label_sums``."""
    found = connection.execute(
        "SELECT t.label FROM token_label AS t WHERE t.run IN (SELECT unnest($1::BIGINT[])) GROUP BY t.label "
        "HAVING count(DISTINCT t.value) BETWEEN 1 AND $2 ORDER BY t.label",
        [list(runs), VALUES],
    ).fetchall()
    labels = [label for (label,) in found]
    for number, label in enumerate(labels):
        connection.execute(
            ("INSERT INTO label_sums " if number else "CREATE OR REPLACE TEMP TABLE label_sums AS ")
            + "SELECT $2::VARCHAR AS label, t.value, t.layer, t.expert, t.opening, sum(t.choices) AS choices "
            "FROM label_totals($1::BIGINT[], $2::VARCHAR) AS t GROUP BY t.value, t.layer, t.expert, t.opening",
            [list(runs), label],
        )
    return labels


def drop_blocks(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> None:
    """Drop the blocks that hold one of ``runs``; what is kept of their single runs stays."""
    found = connection.execute(
        "SELECT DISTINCT b.block FROM block_run AS b WHERE b.run IN (SELECT unnest($1::BIGINT[]))",
        [list(runs)],
    ).fetchall()
    _drop(connection, found)


def _drop(connection: duckdb.DuckDBPyConnection, blocks: Sequence[tuple[int]]) -> None:
    ids = [block for (block,) in blocks]
    for table in ("block_run", *BLOCK_TABLES):
        connection.execute(f"DELETE FROM {table} AS b WHERE b.block IN (SELECT unnest($1::BIGINT[]))", [ids])
