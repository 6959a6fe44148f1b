"""What this machine and installation offer the workbench, and why a faster way is not in use."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import StoreError

if TYPE_CHECKING:
    from workbench.runtime.bench import Bench

PACKAGES = (
    "routing-workbench",
    "torch",
    "transformers",
    "duckdb",
    "jupyterlab",
    "ipykernel",
    "anywidget",
    "altair",
)
EXTENSION = "workbench-lab"


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at: ``ok``, ``note`` (works, but know this) or ``missing``."""

    state: Literal["ok", "note", "missing"]
    topic: str
    detail: str


def examine(store: str) -> list[Finding]:
    """Look at versions, devices, kernels, the store file named ``store`` and the JupyterLab extension."""
    return [*_versions(), *_devices(), *_kernels(), *_store(store), *_front_end()]


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        try:
            yield Finding("ok", name, version(name))
        except PackageNotFoundError:
            # A checkout on PYTHONPATH has no metadata of its own and works all the same.
            own = name == "routing-workbench"
            yield Finding(
                "note" if own else "missing", name, "not installed" + (", used from a folder" if own else "")
            )


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding(
        "ok",
        "cpu",
        f"{torch.get_num_threads()} threads, torch uses {torch.backends.cpu.get_cpu_capability()}",
    )
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            yield Finding(
                "ok", f"cuda:{number}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
            )
    elif torch.version.cuda is None and torch.version.hip is None:
        yield Finding(
            "note", "gpu", "this torch is built for the CPU; make lab TORCH=cuda installs the other build"
        )
    else:
        yield Finding("note", "gpu", "torch could use one but finds none")


def _kernels() -> Iterator[Finding]:
    import routing_kernels

    chosen, isa = routing_kernels.resolve("auto", "cpu")
    for name, backend in routing_kernels.backends().items():
        if name == chosen:
            about = f" ({backend.reason})" if backend.reason else ""
            yield Finding("ok", f"kernel {name}", f"in use on the CPU, instruction set {isa}{about}")
        elif backend.available:
            yield Finding(
                "ok", f"kernel {name}", f"available {f'({backend.isa})' if backend.isa else ''}".rstrip()
            )
        else:
            yield Finding("note", f"kernel {name}", f"not in use: {backend.reason}")
    yield _conformance(chosen, isa)
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        yield Finding("missing", "c compiler", "the C kernels need one: install gcc")
    else:
        yield Finding("ok", "c compiler", compiler)


def _conformance(backend: str, isa: str) -> Finding:
    """Whether the kernels in use compute what the reference computes, on small cases that have caught mistakes."""
    import torch
    from routing_kernels import conformance

    # Tiles compute in bfloat16 alone; elsewhere the dtypes share their sources.
    dtypes = (torch.float32, torch.bfloat16) if isa == "amx" else (torch.float32,)
    outcomes = conformance.check(backend, dtypes=dtypes)
    failed = [one for one in outcomes if one.state != "right"]
    if not failed:
        return Finding(
            "ok", "kernel conformance", f"{backend}: {len(outcomes)} of {len(outcomes)} cases right"
        )
    first = failed[0]
    return Finding(
        "missing",
        "kernel conformance",
        f"{backend}: {len(failed)} of {len(outcomes)} cases fail, first {first.op} with {first.case}: {first.state}, "
        f'{first.detail}; open models with kernels="model"',
    )


def _store(store: str) -> Iterator[Finding]:
    missing = [
        name for name in ("quack", "httpfs") if importlib.util.find_spec(f"duckdb_extension_{name}") is None
    ]
    if missing:
        names = " and ".join(f"duckdb-extension-{name}" for name in missing)
        yield Finding("missing", "store sharing", f"needs {names}")
    else:
        yield Finding(
            "ok", "store sharing", "other processes can read a store while a kernel records into it"
        )
    if not Path(store).exists():
        yield Finding("note", "store", f"{store} does not exist yet")
        return
    from workbench.store import connect

    try:
        with connect(store) as connection:
            runs = connection.sql("SELECT count(*) FROM run").fetchall()[0][0]
    except StoreError as error:
        yield Finding("missing", "store", str(error))
    else:
        yield Finding("ok", "store", f"{store}: {runs} runs, {Path(store).stat().st_size / 2**20:.1f} MiB")


def _front_end() -> Iterator[Finding]:
    from jupyter_core.paths import jupyter_config_path, jupyter_path

    installed = [Path(folder) / EXTENSION / "package.json" for folder in jupyter_path("labextensions")]
    found = next((path for path in installed if path.is_file()), None)
    built = Path(__file__).parent / "labextension" / "package.json"
    if found is None:
        yield Finding("missing", "panel", "JupyterLab does not find the extension: run pip install again")
    elif built.is_file() and built.read_bytes() != found.read_bytes():
        yield Finding(
            "note",
            "panel",
            "the checkout has a newer build than JupyterLab: run make lab or pip install again",
        )
    else:
        yield Finding(
            "ok", "panel", f"{EXTENSION} {json.loads(found.read_text(encoding='utf-8'))['version']}"
        )
    folders = [
        Path(folder) / "jupyter_server_config.d" / "workbench.json" for folder in jupyter_config_path()
    ]
    if any(path.is_file() for path in folders):
        yield Finding("ok", "server extension", "enabled")
    else:
        yield Finding("missing", "server extension", "not enabled: run pip install again")


def describe_model(bench: Bench) -> dict[str, Any]:
    """What the model of ``bench`` is made of and runs on; consecutive layers that are equal share one entry."""
    from workbench.runtime.attach.paths import summary

    anatomy = bench.anatomy
    blocks: list[dict[str, Any]] = []
    for row in anatomy.describe():
        layer = row.pop("layer")
        if blocks and {**row, "layers": None} == {**blocks[-1], "layers": None}:
            blocks[-1]["layers"] = f"{str(blocks[-1]['layers']).split('-')[0]}-{layer}"
        else:
            blocks.append({"layers": str(layer), **row})
    kernels = f"{bench.kernels} {bench.isa}".rstrip()
    return {
        "name": bench.name,
        "type": anatomy.model_type,
        "layers": anatomy.num_layers,
        "width": anatomy.hidden_size,
        "vocabulary": anatomy.vocab_size,
        "context": anatomy.context,
        "kernels": f"{kernels} ({bench.kernels_reason})" if bench.kernels_reason else kernels,
        "paths": [
            {"part": part, "layers": layers, "path": path, "reason": reason}
            for part, layers, path, reason in summary(bench.kernel_paths)
        ],
        "blocks": blocks,
    }


def conformance(bench: Bench) -> dict[str, Any]:
    """What the conformance kit finds on the model of ``bench``: its counts by state, and one row a kind of edit."""
    from workbench.conformance import CHECKS, examine

    report = examine(bench)
    kinds = list(dict.fromkeys(verdict.kind for verdict in report.verdicts))
    rows = []
    for kind in kinds:
        verdicts = report.of(kind)
        why = next((v.detail for v in verdicts.values() if v.outcome not in ("right", "not applicable")), "")
        rows.append({"kind": kind, **{str(check): verdicts[check].outcome for check in CHECKS}, "why": why})
    return {"counts": report.counts(), "edits": rows}
