"""The wheel alone gives a working installation: what it carries, once each, and what it leaves out."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # processes of their own, and much of what `make test` runs anyway

ROOT = Path(__file__).resolve().parents[1]
SHARED = "routing_workbench-{version}.data/data/share/jupyter/labextensions/workbench-lab/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return zipfile.ZipFile(built)


def shared(wheel: zipfile.ZipFile) -> str:
    return SHARED.format(version=str(wheel.filename).split("routing_workbench-")[1].split("-")[0])


def files(folder: str) -> set[str]:
    """The committed files of a folder."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split("\n")) - {""}


def test_it_carries_both_packages_whole(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    package = {name for name in files("workbench") if not name.startswith("workbench/labextension/")}
    assert package and not package - names
    kernels = {name.removeprefix("kernels/") for name in files("kernels/routing_kernels")}
    assert any(name.endswith(".c") for name in kernels)
    assert not kernels - names


def test_it_carries_the_demo_model(wheel: zipfile.ZipFile) -> None:
    demo = {"workbench/" + name.removeprefix("data/") for name in files("data/demo")}
    assert {"workbench/demo/config.json", "workbench/demo/model.safetensors"} <= demo
    assert not demo - set(wheel.namelist())


def test_it_carries_the_built_front_end_once(wheel: zipfile.ZipFile) -> None:
    names = Counter(Path(name).name for name in wheel.namelist())
    built = {Path(name).name for name in files("workbench/labextension")}
    prefix = shared(wheel)
    inside = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    expected = {name.removeprefix("workbench/labextension/") for name in files("workbench/labextension")}
    assert inside == expected | {"install.json"}
    assert all(names[name] == 1 for name in built if name.startswith("remoteEntry"))
    config = "/etc/jupyter/jupyter_server_config.d/workbench.json"
    assert sum(name.endswith(config) for name in wheel.namelist()) == 1


def test_it_leaves_the_rest_out(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.startswith("routing_workbench-")} == {
        "workbench",
        "routing_kernels",
    }
    assert not [name for name in wheel.namelist() if name.endswith((".ts", ".tsx", "yarn.lock"))]
    assert "routing_kernels/__init__.py" in wheel.namelist() and "kernels/__init__.py" not in wheel.namelist()


def test_its_metadata_says_what_it_needs(wheel: zipfile.ZipFile) -> None:
    (path,) = (name for name in wheel.namelist() if name.endswith("dist-info/METADATA"))
    metadata = wheel.read(path).decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Requires-Dist: duckdb==1.5.*" in metadata
