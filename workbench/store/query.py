"""One query: that it only reads, which is known before any of it runs, and what is said of one that fails."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb
import numpy as np
from duckdb import StatementType

from workbench.errors import SqlError

# Without comments: one that we end elsewhere than DuckDB would let another statement stand behind the one that is read here.
_EXPLAIN = re.compile(
    r"\s*EXPLAIN\b\s*(?:ANALYZE\b|\(\s*(?:ANALYZE|FORMAT)\b[\w\s,]*\))?(?P<query>.*)",
    re.IGNORECASE | re.DOTALL,
)
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_NAMES = re.compile(r'^(?:Did you mean|Candidate bindings:)[\s:]*(".*)$', re.MULTILINE)
_CALLS = re.compile(r"^\s*Candidate (?:macros|functions):\n(?P<calls>(?:\t.*\n?)+)", re.MULTILINE)
_MOST_CALLS = 4


def check_reads(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse what is not one SELECT, or an EXPLAIN of one.

    Raises
    ------
    SqlError
        It is something else, or no SQL.
    """
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise failed(error) from error
    # A PIVOT that looks for its values makes a type first: a statement that nobody wrote.
    written = [one for one in statements if one.query or one.type != StatementType.CREATE]
    if len(written) != 1:
        raise SqlError(f"There are {len(written)} statements instead of one.", "Send one SELECT at a time.")
    kind = written[0].type
    if kind == StatementType.EXPLAIN:
        explained = _EXPLAIN.fullmatch(written[0].query)
        if explained is not None:
            check_reads(connection, explained["query"])
            return
    if kind != StatementType.SELECT:
        raise SqlError(
            f"A statement of type {kind.name} is no query: nothing was run.",
            "Send a SELECT, or run other statements on store.cursor() where you record.",
        )


def plain(params: Any) -> Any:
    """Values of placeholders by place or by name, with the numbers of numpy as those of Python, which alone DuckDB takes."""
    if isinstance(params, Mapping):
        return {name: _plain(value) for name, value in params.items()}
    return params if params is None else [_plain(value) for value in params]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


class Complaint(NamedTuple):
    """What DuckDB has against a query: a sentence without its final stop, and what it proposes: ``names``, each in quotes,
    and ``calls``, the first ways that a macro or function can be called."""

    sentence: str
    names: tuple[str, ...]
    calls: tuple[str, ...]


def complaint(error: BaseException) -> Complaint:
    """What a message of DuckDB says, and which names or calls it proposes instead."""
    text = str(error).strip() or type(error).__name__
    # Whatever another process finds wrong with a query comes as an invalid input.
    sentence = text.splitlines()[0].rstrip(".!").removeprefix("Invalid Input Error: ")
    line = _LINE.search(text)
    if line is not None and line[1] != "1":
        sentence += f", in line {line[1]}"
    names = _NAMES.search(text)
    calls = _CALLS.search(text)
    return Complaint(
        sentence,
        () if names is None else tuple(re.findall(r'"[^"]+"', names[1])),
        () if calls is None else tuple(map(str.strip, calls["calls"].splitlines()[:_MOST_CALLS])),
    )


def failed(error: BaseException) -> SqlError:
    """The error for a query that ended in ``error``."""
    found = complaint(error)
    remedy = "Mend the query and send it again."
    if found.names:
        remedy = f"Did you mean {' or '.join(found.names)}?"
    elif found.calls:
        remedy = f"Call it as {' or '.join(found.calls)}."
    return SqlError(f"The query failed: {found.sentence}.", remedy)
