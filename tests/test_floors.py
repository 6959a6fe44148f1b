"""The floors of the house: an import only ever goes down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Room -> rooms of the workbench it may import. `kernels` stands for the package routing_kernels.
GROUND = {"errors", "said", "address", "store", "kernels"}
FIRST = GROUND | {"anatomy", "interventions", "signals", "analysis"}
SECOND = FIRST | {"runtime"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "said": set(),
    "address": {"errors"},
    "store": {"errors", "address"},
    "kernels": set(),
    "anatomy": GROUND,
    "interventions": GROUND,
    "signals": GROUND,
    "analysis": GROUND,
    "runtime": FIRST,
    "experiments": SECOND,
    "conformance": SECOND,
    "tasks": SECOND,
    "panel": SECOND,
    "server": set(),
    "cli": SECOND | {"experiments", "tasks", "panel", "conformance", "__init__", "console", "doctor", "tour"},
    "console": SECOND | {"doctor", "conformance"},
    "doctor": SECOND | {"conformance"},
    "tour": SECOND | {"console"},
    "__init__": SECOND | {"experiments", "tasks", "panel"},
}
NO_TORCH = {"errors", "said", "address", "store", "analysis", "server"}
TORCH_ONLY_IN_FUNCTIONS = {"interventions", "cli", "console", "doctor", "tour", "__init__"}
MAY_KNOW_JUPYTER = {"panel", "server", "cli", "doctor", "__init__"}
JUPYTER = {
    "jupyter",
    "jupyterlab",
    "ipykernel",
    "ipywidgets",
    "anywidget",
    "comm",
    "notebook",
    "IPython",
    "tornado",
}


def rooms() -> Iterator[tuple[str, Path]]:
    """Every module of the two packages with the room it belongs to."""
    for path in sorted((ROOT / "workbench").rglob("*.py")):
        yield path.relative_to(ROOT / "workbench").with_suffix("").parts[0], path
    for path in sorted((ROOT / "kernels" / "routing_kernels").rglob("*.py")):
        yield "kernels", path


def package_of(path: Path) -> list[str]:
    """Dotted package that a relative import in this file starts from."""
    base = ROOT / "kernels" if (ROOT / "kernels") in path.parents else ROOT
    return list(path.parent.relative_to(base).parts)


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, dotted name, whether it runs when the module is imported) of every import, wherever it stands.

    Imports under ``if TYPE_CHECKING:`` count for the floors but never run.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    lazy: set[int] = set()
    for node in ast.walk(tree):
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            deferred = True
        if deferred:
            lazy |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            prefix = node.module.split(".") if node.module else []
            if node.level:
                package = package_of(path)
                prefix = package[: len(package) - node.level + 1] + prefix
            for alias in node.names:
                yield node.lineno, ".".join([*prefix, alias.name]), id(node) not in lazy


def room_of(name: str) -> str | None:
    """The room a dotted name lies in, or None outside the house."""
    parts = name.split(".")
    if parts[0] == "routing_kernels":
        return "kernels"
    if parts[0] != "workbench" or name == "workbench.__version__":  # the version is a fact, not a floor
        return None
    below = ROOT / "workbench" / parts[1] if len(parts) > 1 else None
    is_module = below is not None and (below.is_dir() or below.with_suffix(".py").is_file())
    return parts[1] if is_module else "__init__"


CASES = [pytest.param(room, path, id=str(path.relative_to(ROOT))) for room, path in rooms()]


@pytest.mark.slow
@pytest.mark.parametrize(("room", "path"), CASES)
def test_an_import_only_goes_down(room: str, path: Path) -> None:
    assert room in MAY_IMPORT, f"{room} has no floor yet: give it one in this file and in CONTRIBUTING.md"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name, _ in imports(path)
        if (target := room_of(name)) not in (None, room) and target not in MAY_IMPORT[room]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "path"), CASES)
def test_heavy_and_foreign_imports_stay_in_their_rooms(room: str, path: Path) -> None:
    wrong = []
    for line, name, at_import in imports(path):
        root = name.split(".")[0]
        torch_is_wrong = room in NO_TORCH or (at_import and room in TORCH_ONLY_IN_FUNCTIONS)
        jupyter = root in JUPYTER or root.startswith("jupyter_")
        if (root in {"torch", "transformers"} and torch_is_wrong) or (
            jupyter and room not in MAY_KNOW_JUPYTER
        ):
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_parser_sees_what_it_must(tmp_path: Path) -> None:
    source = tmp_path / "example.py"
    source.write_text(
        "import torch\nfrom workbench import store, Plan\n"
        "def later():\n    import numpy\n"
        "if TYPE_CHECKING:\n    from pandas import DataFrame\n"
    )
    assert list(imports(source)) == [
        (1, "torch", True),
        (2, "workbench.store", True),
        (2, "workbench.Plan", True),
        (4, "numpy", False),
        (6, "pandas.DataFrame", False),
    ]
    assert room_of("workbench.address") == "address"
    assert room_of("workbench.Plan") == "__init__"
    assert room_of("routing_kernels.cpu") == "kernels"
    assert room_of("workbench_of_another") is None


def test_kernels_is_never_a_package() -> None:
    """transformers imports a published package of that name; a file here would shadow it."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_a_bench_gets_its_panel_from_above() -> None:
    import workbench as wb

    assert callable(wb.Bench.panel)
