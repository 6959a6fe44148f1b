"""How rows are printed."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime

import duckdb
import pytest

from workbench import console

ROWS = [
    (2**60 + 1, 'a, "b"', 0.123456789, None, [1, 2]),
    (2, "[red]x[/red]\n\x1b[31m", float("nan"), True, []),
]
COLUMNS = ["run", "text", "value", "flag", "list"]


def test_csv_is_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rows(COLUMNS, ROWS, "csv")
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == COLUMNS
    assert [row[:3] for row in rows] == [[str(row[0]), row[1], str(row[2])] for row in ROWS]


def test_json_keeps_every_digit_and_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rows(COLUMNS, ROWS, "json")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    first, second = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert first["run"] == str(2**60 + 1)
    assert second == {"run": 2, "text": ROWS[1][1], "value": None, "flag": True, "list": []}


def test_dates_bytes_and_nested_values_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json(
        {"at": datetime(2026, 1, 2, 3, 4, 5), "blob": b"\x01\xff", "in": {"ids": (2**53, 2**53 + 1)}}
    )
    assert json.loads(capsys.readouterr().out) == {
        "at": "2026-01-02 03:04:05",
        "blob": "01ff",
        "in": {"ids": [2**53, str(2**53 + 1)]},
    }


def test_a_table_shows_untrusted_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rows(COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "[red]x[/red]\\n\\x1b[31m" in out  # neither markup nor an escape sequence
    assert "\x1b" not in out
    assert "0.123457" in out
    assert str(2**60 + 1) in out
    assert len(out.splitlines()) == 4


def test_a_long_table_says_what_it_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_rows(["n"], [(n,) for n in range(console.MOST_ROWS + 7)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("7 more rows")
    assert len(lines) == 2 + console.MOST_ROWS + 1


def test_fetch_names_the_columns() -> None:
    with duckdb.connect() as connection:
        assert console.fetch(connection, "SELECT 1 AS one, 'x' AS two") == (["one", "two"], [(1, "x")])
