"""Choices by layer, token id and expert, kept over many runs of one model: the pools of ``macros/pools.sql``.

A pool takes runs in and gives them back; its cells are always those of the runs that ``pool_run`` says it has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import duckdb

from workbench.store.transaction import transaction

INTAKE = 2**21
"""Choices of waiting runs that a pool takes in at least: few enough to be counted by every question until then, many enough
that the rows of frequent ids are not made anew for every run."""

PIECE = 2**23
"""Choices that it takes in at once (a longer run goes alone): that many are held in memory."""

LARGEST = 2**28
"""Choices of a pool after which the next runs begin another."""

TABLES = ("token_pool", "expert_pool")
"""What is kept of pools; ``pool_run`` says which there are."""

WEIGHTS = (
    "(SELECT i.run, any_value(coalesce(i.checkpoint, i.model, '')) AS weights FROM run AS i GROUP BY i.run)"
)
"""Which weights a run was made with: the numbers of the experts of others mean other experts."""


def fill(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Take summarised runs into pools, where enough of them wait; yields after each transaction."""
    for weights, runs in _waiting(connection):
        with transaction(connection):
            pool = _open_pool(connection, weights) or min(runs)
            _change(connection, pool, runs, sign=1)
            connection.execute("INSERT INTO pool_run SELECT $1, unnest($2::BIGINT[])", [pool, runs])
        yield


def take_off(connection: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> None:
    """Take ``runs`` off the pools they are in, while their rows are still there; in the transaction of the caller."""
    found = connection.execute(
        "SELECT p.pool, list(p.run) FROM pool_run AS p WHERE p.run IN (SELECT unnest($1::BIGINT[])) GROUP BY p.pool",
        [list(runs)],
    ).fetchall()
    connection.execute("DELETE FROM pool_run WHERE run IN (SELECT unnest($1::BIGINT[]))", [list(runs)])
    for pool, members in found:
        _change(connection, pool, members, sign=-1)


def _waiting(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, list[int]]]:
    """Summarised runs of the same weights that are in no pool, in groups of about :data:`PIECE` choices; what is left is a
    group from :data:`INTAKE` on."""
    waiting = connection.execute(
        f"""
        SELECT w.weights, s.run, s.choices FROM summarised AS s JOIN {WEIGHTS} AS w ON w.run = s.run
        WHERE s.choices > 0 AND s.run NOT IN (SELECT p.run FROM pool_run AS p)
        ORDER BY w.weights, s.run
        """
    ).fetchall()
    for weights, rows in itertools.groupby(waiting, key=lambda row: row[0]):
        group: list[int] = []
        total = 0
        for _, run, choices in rows:
            group.append(run)
            total += choices
            if total >= PIECE:
                yield weights, group
                group, total = [], 0
        if total >= INTAKE:
            yield weights, group


def _open_pool(connection: duckdb.DuckDBPyConnection, weights: str) -> int | None:
    """The pool of runs with these weights that is not full; of several the newest."""
    found = connection.execute(
        f"""
        SELECT p.pool FROM pool_run AS p
        JOIN summarised AS s ON s.run = p.run JOIN {WEIGHTS} AS w ON w.run = p.run
        GROUP BY p.pool HAVING any_value(w.weights) = $1 AND sum(s.choices) < $2 ORDER BY p.pool DESC LIMIT 1
        """,
        [weights, LARGEST],
    ).fetchone()
    return None if found is None else int(found[0])


def _change(connection: duckdb.DuckDBPyConnection, pool: int, runs: Sequence[int], *, sign: int) -> None:
    """Add the cells of ``runs``, which are in no pool, to ``pool``, or take them off where ``sign`` is -1.

    The rows of their layers and ids are made anew.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE changed_cells AS SELECT c.layer, c.token, c.expert, $2 * c.choices AS choices, "
        "$2 * c.tops AS tops FROM token_changes($1::BIGINT[]) AS c",
        [list(runs), sign],
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE new_cells AS
        WITH touched AS (SELECT DISTINCT c.layer, c.token FROM changed_cells AS c), old AS (
            SELECT t.layer, t.token, unnest(t.experts) AS expert, unnest(t.choices_of) AS choices, unnest(t.tops_of) AS tops
            FROM token_pool AS t JOIN touched AS u ON u.layer = t.layer AND u.token = t.token
            WHERE t.pool = $1
        )
        SELECT q.layer, q.token, q.expert, sum(q.choices) AS choices, sum(q.tops) AS tops
        FROM (FROM old UNION ALL FROM changed_cells) AS q
        GROUP BY q.layer, q.token, q.expert
        HAVING sum(q.choices) > 0
        """,
        [pool],
    )
    connection.execute(
        "DELETE FROM token_pool AS t USING (SELECT DISTINCT c.layer, c.token FROM changed_cells AS c) AS u "
        "WHERE t.pool = $1 AND t.layer = u.layer AND t.token = u.token",
        [pool],
    )
    connection.execute(
        """
        INSERT INTO token_pool BY NAME
        SELECT $1 AS pool, n.layer, n.token, sum(n.tops) AS tokens, sum(n.choices) AS choices,
               sum(x_ln_x(n.choices)) AS spread, max(best_of(n.tops, n.expert)) AS best,
               list(n.expert) AS experts, list(n.choices) AS choices_of, list(n.tops) AS tops_of
        FROM new_cells AS n
        GROUP BY n.layer, n.token
        """,
        [pool],
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE new_experts AS
        SELECT q.layer, q.expert, sum(q.choices) AS choices, sum(q.tops) AS tops
        FROM (
            SELECT e.layer, e.expert, e.choices, e.tops FROM expert_pool AS e WHERE e.pool = $1
            UNION ALL SELECT c.layer, c.expert, c.choices, c.tops FROM changed_cells AS c
        ) AS q
        GROUP BY q.layer, q.expert
        HAVING sum(q.choices) > 0
        """,
        [pool],
    )
    connection.execute("DELETE FROM expert_pool WHERE pool = $1", [pool])
    connection.execute("INSERT INTO expert_pool BY NAME SELECT $1 AS pool, n.* FROM new_experts AS n", [pool])
    for table in ("changed_cells", "new_cells", "new_experts"):
        connection.execute(f"DROP TABLE {table}")
