"""What the command line prints: runs, rows, comparisons and findings, for people and as data.

Tokens and results are untrusted text: they are shown through ``repr`` and never read as markup. Run ids leave as
strings in JSON, because they exceed what a JavaScript number holds.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from workbench.analysis import RunDiff
    from workbench.doctor import Finding
    from workbench.runtime.bench import Bench, Run

MOST_ROWS = 200
EXACT = 2**53  # integers beyond this lose digits where JSON numbers are doubles

ROUTES = """
    SELECT routing.position, routing.layer, list(routing.expert ORDER BY routing.rank) AS experts,
           list(routing.weight ORDER BY routing.rank) AS weights, bool_or(router.native IS NOT NULL) AS edited
    FROM routing LEFT JOIN router USING (run, step, position, layer)
    WHERE routing.run = ? GROUP BY ALL ORDER BY ALL
"""

Rows: TypeAlias = Sequence[Sequence[Any]]


def _console() -> Console:
    # Into a pipe nothing is cut to the width of a screen.
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=10_000)


def _table(columns: Iterable[str], right: Iterable[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    aligned = set(right)
    for column in columns:
        table.add_column(Text(column), justify="right" if column in aligned else "left")
    return table


def _print(table: Table) -> None:
    console = _console()
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def _cell(value: Any) -> str:
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_cell, value)) + "]"
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)[1:-1]
    return str(value)


def fetch(connection: Any, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over a connection or a bench."""
    relation = connection.sql(query)
    return list(relation.columns), relation.fetchall()


def print_rows(columns: Sequence[str], rows: Rows, form: Literal["table", "csv", "json"] = "table") -> None:
    """Rows of a query as a table (the first 200), CSV or JSON (a list of objects)."""
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    elif form == "json":
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        numeric = [name for n, name in enumerate(columns) if rows and isinstance(rows[0][n], int | float)]
        table = _table(columns, numeric)
        for row in rows[:MOST_ROWS]:
            table.add_row(*(Text(_cell(value)) for value in row))
        _print(table)
        if len(rows) > MOST_ROWS:
            print(f"{len(rows) - MOST_ROWS} more rows; --format csv prints all.")


def print_json(data: Any) -> None:
    """Data as JSON that any reader takes: no bare NaN, no integer that would lose digits."""
    print(json.dumps(_plain(data), ensure_ascii=False, indent=2))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _logprobs(bench: Bench, run: Run) -> dict[int, float | None]:
    return dict(bench.sql("SELECT position, logprob FROM token WHERE run = ?", [run.id]).fetchall())


def run_as_data(bench: Bench, run: Run, top: int) -> dict[str, Any]:
    """A run with its routes and next tokens as plain data."""
    logprobs = _logprobs(bench, run)
    ids = run.tokens.tolist()
    return {
        "run": str(run.id),
        "store": str(bench.store.path),
        "model": bench.name,
        "plan": json.loads(run.plan.to_json()),
        "loss": run.loss,
        "tokens": [
            {"position": n, "token": token, "text": text, "logprob": logprobs.get(n)}
            for n, (token, text) in enumerate(zip(ids, run.texts, strict=True))
        ],
        "routing": [
            dict(zip(("position", "layer", "experts", "weights", "edited"), row, strict=True))
            for row in bench.sql(ROUTES, [run.id]).fetchall()
        ],
        "next": run.next_tokens(top),
    }


def print_run(bench: Bench, run: Run, layers: Sequence[int] | None, top: int) -> None:
    """A run as a table of tokens by layers with the chosen experts, then what comes next."""
    choices: dict[int, dict[int, str]] = defaultdict(dict)
    edited = False
    for position, layer, experts, _, changed in bench.sql(ROUTES, [run.id]).fetchall():
        choices[layer][position] = " ".join(map(str, experts)) + ("*" if changed else "")
        edited |= changed
    routed = sorted(choices)
    if layers is not None:
        shown = [layer for layer in routed if layer in layers]
    else:
        shown = _fitting(routed, choices, max(map(len, map(repr, run.texts)), default=0))
    logprobs = _logprobs(bench, run)
    table = _table(["", "token", "log p", *(f"layer {layer}" for layer in shown)], right=["", "log p"])
    for position, text in enumerate(run.texts):
        logprob = logprobs.get(position)
        cells = [str(position), repr(text), "" if logprob is None else f"{logprob:.2f}"]
        cells += [choices[layer].get(position, "") for layer in shown]
        table.add_row(*map(Text, cells))
    _print(table)
    if not routed:
        print("No layer of this run has a router.")
    elif len(shown) < len(routed):
        print(f"{len(shown)} of {len(routed)} routed layers are shown; --layers chooses.")
    if edited:
        print("* differs from the model's own choice")
    print()
    print(
        "next   "
        + "  ".join(f"{found['text']!r} {found['probability']:.4g}" for found in run.next_tokens(top))
    )
    print("loss   " + ("none (one token)" if math.isnan(run.loss) else f"{run.loss:.4f} nats per token"))
    if len(run.plan):
        print("plan   " + run.plan.describe().replace("\n", "; "))
    print(f"run    {run.id}")
    print(f"store  {bench.store.path}")


def _fitting(layers: list[int], choices: dict[int, dict[int, str]], token_width: int) -> list[int]:
    """As many of the layers as fit on the line beside the tokens."""
    room = _console().width - token_width - 16
    shown: list[int] = []
    for layer in layers:
        room -= max(len(f"layer {layer}"), *map(len, choices[layer].values())) + 2
        if room < 0 and shown:
            break
        shown.append(layer)
    return shown


FLIP_COLUMNS = ["layer", "position", "base_experts", "run_experts", "base_margin", "run_margin", "cause"]


def print_diff(diff: RunDiff, most: int = 20) -> None:
    """A comparison in words, then its first flips."""
    print(diff)
    flips = diff.flips
    columns = [name for name in FLIP_COLUMNS if name in flips.columns]
    if len(flips):
        print()
        print_rows(columns, flips[columns].head(most).values.tolist())
    if len(flips) > most:
        print(f"{len(flips) - most} more flips; --json prints all.")


def diff_as_data(base: int, run: int, diff: RunDiff) -> dict[str, Any]:
    """A comparison as plain data."""
    return {
        "base": str(base),
        "run": str(run),
        "first_layer": diff.first_layer,
        "first_expert": diff.first_expert,
        "first_position": diff.first_position,
        "flips": diff.flips.to_dict("records"),
    }


def print_findings(findings: Sequence[Finding]) -> None:
    """What the doctor found, one line each."""
    table = _table(["", "what", "found"])
    for finding in findings:
        table.add_row(*map(Text, (finding.state, finding.topic, finding.detail)))
    _print(table)


def print_model(model: dict[str, Any]) -> None:
    """What a model is made of; equal layers share a line."""
    print()
    print(
        f"{model['name']}: {model['type']}, {model['layers']} layers, width {model['width']}, "
        f"vocabulary {model['vocabulary']}, context {model['context'] or 'not stated'}"
    )
    print(f"kernels: {model['kernels']}")
    print_rows(["part", "layers", "runs on", "why"], [list(path.values()) for path in model["paths"]])
    blocks = model["blocks"]
    print_rows(list(blocks[0]), [list(block.values()) for block in blocks])


def print_conformance(found: dict[str, Any]) -> None:
    """What every kind of edit does on the model, and the sum of it."""
    print()
    print("edits: " + ", ".join(f"{count} {outcome}" for outcome, count in found["counts"].items() if count))
    print_rows(list(found["edits"][0]), [list(row.values()) for row in found["edits"]])
