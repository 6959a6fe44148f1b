"""Sharing an open store: the owner serves it over Quack, DuckDB's own protocol, on loopback with a token.

A DuckDB file that is open for writing can be read by no other process. So the process that records writes a small file
beside the database, ``<path>.owner``, readable by its user alone, which says where it listens and with which token;
:func:`workbench.store.connect` looks there first. Others may only ask: the server refuses everything but SELECT.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb

from workbench.errors import SetupError, SqlError, StoreError
from workbench.store.query import check_reads, failed

_EXTENSIONS = ("httpfs", "quack")  # Quack serves and asks over the HTTP of httpfs
_PORT_ATTEMPTS = 20
_log = logging.getLogger(__name__)

# Runs on the server before each statement of a client: what was written before is committed first, so that it is seen.
# json_serialize_sql parses the statement and fails on all but SELECT.
# ATTACH, with which other DuckDB clients connect, opens and ends transactions around its own queries.
_MAY = """
CREATE OR REPLACE MACRO store_may(session, query) AS
    store_settle(session::VARCHAR) AND (json_extract_string(json_serialize_sql(CAST(query AS VARCHAR)), '$.error') = 'false'
    OR regexp_full_match(CAST(query AS VARCHAR), '(?i)\\s*(BEGIN( TRANSACTION)?|COMMIT|ROLLBACK)\\s*;?\\s*'))
"""


@dataclass(frozen=True)
class Owner:
    """Who records into a store file, and where it answers."""

    pid: int
    port: int
    token: str

    @property
    def uri(self) -> str:
        """Address for DuckDB's ``ATTACH`` and ``quack_query``."""
        return f"quack:localhost:{self.port}"


def load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Load Quack into ``connection`` from the installed packages; no network is touched.

    Raises
    ------
    SetupError
        The package of an extension is not installed, or has no binary for this DuckDB.
    """
    for name in _EXTENSIONS:
        spec = find_spec(f"duckdb_extension_{name}")
        if spec is None or spec.origin is None:
            raise SetupError(
                f"The package duckdb-extension-{name} is not installed.",
                f"pip install duckdb-extension-{name}.",
            )
        folder = Path(spec.origin).parent / "extensions"
        binary = folder / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if not binary.is_file():
            built_for = " or ".join(sorted(path.name.removeprefix("v") for path in folder.glob("v*")))
            raise SetupError(
                f"The package duckdb-extension-{name} is built for DuckDB {built_for}, not {duckdb.__version__}.",
                f"pip install duckdb=={built_for.split()[-1]}, or a build of the package for this DuckDB.",
            )
        try:
            connection.execute(f"LOAD {quote(str(binary))}")
        except duckdb.Error as error:
            raise SetupError(
                f"The extension {name} cannot be loaded into DuckDB {duckdb.__version__}: {first_line(error)}.",
                f"Install duckdb-extension-{name}=={duckdb.__version__}.",
            ) from error


def owner_file(path: Path) -> Path:
    """The file beside the database that names its owner."""
    return path.with_name(path.name + ".owner")


def find_owner(path: Path) -> Owner | None:
    """The living process that says it records into ``path``; ``None`` when there is none or its file is stale."""
    try:
        fields = json.loads(owner_file(path).read_text(encoding="utf-8"))
        owner = Owner(pid=int(fields["pid"]), port=int(fields["port"]), token=str(fields["token"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        return None  # not written by a whole owner: nobody can be asked
    except OSError as error:
        raise StoreError(
            f"The owner file {owner_file(path)} cannot be read: {error.strerror}.",
            "Ask as the user who is recording, or wait until the recording has ended.",
        ) from error
    return owner if _alive(owner.pid) else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Server:
    """Serves an open store until :meth:`stop`; writes and removes the owner file."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, path: Path, settle: Callable[[], Exception | None]
    ) -> None:
        load_extensions(connection)
        self._connection = connection.cursor()
        self._file = owner_file(path)
        self._connection.create_function(
            "store_settle", _settling(settle), ["VARCHAR"], "BOOLEAN", side_effects=True
        )
        self._connection.execute(_MAY)
        self._connection.execute("SET GLOBAL quack_authorization_function = 'store_may'")
        self.owner = self._listen(secrets.token_urlsafe(32))
        self._announce()

    def _listen(self, token: str) -> Owner:
        for attempt in range(_PORT_ATTEMPTS):
            with socket.socket() as probe:  # Quack takes no port 0
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            owner = Owner(pid=os.getpid(), port=port, token=token)
            try:
                self._connection.execute(
                    f"CALL quack_serve({quote(owner.uri)}, token = {quote(token)})"
                ).fetchall()
                return owner
            except duckdb.Error:
                if attempt == _PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _announce(self) -> None:
        temporary = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(asdict(self.owner), out)
        os.replace(temporary, self._file)

    def stop(self) -> None:
        """Stop answering and remove the owner file."""
        with contextlib.suppress(FileNotFoundError):
            self._file.unlink()
        self._connection.execute(f"CALL quack_stop({quote(self.owner.uri)})").fetchall()
        self._connection.close()


def _settling(settle: Callable[[], Exception | None]) -> Callable[[str], bool]:
    def store_settle(_: str) -> bool:
        failure = settle()
        if failure is not None:
            _log.warning("A reader misses rows that could not be written: %s", failure)
        return True

    return store_settle


class Client:
    """Asks an owner; each query is one round trip on a fresh session."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._connection = duckdb.connect(config={"python_enable_replacements": False})
        load_extensions(self._connection)

    def fetch(self, query: str, params: Any = None) -> Any:
        """Run ``query`` on the owner; the whole result as an Arrow table.

        Raises
        ------
        SqlError
            The owner refused the query or could not run it.
        StoreError
            The owner does not answer.
        """
        text = bind(query, params)
        cursor = self._connection.cursor()
        check_reads(cursor, text)
        try:
            return cursor.execute(
                "FROM quack_query(?, ?, token := ?)", [self.owner.uri, text, self.owner.token]
            ).to_arrow_table()
        except duckdb.Error as error:
            if isinstance(error, duckdb.IOException) or "Authentication failed" in str(error):
                raise StoreError(
                    f"Process {self.owner.pid}, which records into the store, does not answer.",
                    "Try again, or end that process and open the file itself.",
                ) from error
            if "Authorization failed" in str(error):
                raise SqlError(
                    "While a process records into the store, it answers plain SELECTs alone.",
                    "Give a PIVOT its values with IN, leave out EXPLAIN, or ask when that process has ended.",
                ) from error
            raise failed(error) from error

    def close(self) -> None:
        """Close the client's side."""
        self._connection.close()


# What a placeholder can hide in: strings, quoted names, comments and dollar quotes are passed over whole.
_LEXEMES = re.compile(
    r"""(?P<skip>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$)"""
    r"""|\?(?P<mark>\d*)|\$(?P<name>\w+)""",
    re.DOTALL,
)


def bind(query: str, params: Any) -> str:
    """``query`` with its placeholders (``?``, ``$1``, ``$name``) replaced by literals, since Quack carries text alone.

    Raises
    ------
    SqlError
        Placeholders and values do not correspond, or a value has no literal.
    """
    given: dict[str, Any]
    if params is None:
        given = {}
    elif isinstance(params, dict):
        given = {str(key): value for key, value in params.items()}
    else:
        given = {str(number): value for number, value in enumerate(params, 1)}
    used: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        if match["skip"] is not None:
            return match[0]
        key = match["name"] or match["mark"] or str(len(used) + 1)
        if key not in given:
            raise SqlError(
                f"The query asks for parameter {key}, which is not given.", "Give one value a placeholder."
            )
        used.add(key)
        return literal(given[key])

    text = _LEXEMES.sub(replace, query)
    if len(used) != len(given):
        raise SqlError(
            f"{len(given)} parameters are given, the query uses {len(used)}.", "Give one value a placeholder."
        )
    return text


def literal(value: Any) -> str:
    """``value`` as a SQL literal: None, bool, int, float, str, bytes, date or time, or a list of these."""
    if value is None:
        return "NULL"
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE)"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, (bytes, bytearray)):
        return "'" + "".join(f"\\x{byte:02X}" for byte in value) + "'::BLOB"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(one) for one in value)}]"
    if hasattr(value, "isoformat"):
        kind = "TIMESTAMP" if hasattr(value, "hour") and hasattr(value, "year") else "DATE"
        return f"CAST({quote(value.isoformat())} AS {kind})"
    raise SqlError(
        f"A parameter of type {type(value).__name__} cannot be sent to another process.",
        "Send numbers, text, bytes, dates or lists of these.",
    )


def quote(text: str) -> str:
    """``text`` as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def first_line(error: BaseException) -> str:
    """The first line of a DuckDB message, without its final stop."""
    return str(error).strip().splitlines()[0].rstrip(".!")
