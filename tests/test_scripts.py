"""The installing script on a stand-in for Python and pip: what it asks for, when it asks for nothing, how it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = "bash cat cksum cp chmod dirname env find grep mkdir mktemp mv rm sort tail touch"

# Notes every call of pip; makes an environment by copying itself; knows which torch pip put there.
PYTHON = """#!/usr/bin/env bash
here=$(dirname "$0")
case "$*" in
  "-c "*ensurepip*) exit "${NO_VENV:-0}" ;;
  "-c "*) exit 0 ;;
  --version) printf 'Python 3.11.9\\n' ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  *torch_build.py) cat "$here/torch" 2>/dev/null || true ;;
  "-m pip "*)
    printf '%s\\n' "${*:3}" >>"$PIP_LOG"
    if [[ "$*" == *"${PIP_FAILS:-never}"* ]]; then printf 'ERROR: nothing fits\\n' >&2; exit 1; fi
    case "$*" in
      *uninstall*torch*) rm -f "$here/torch" ;;
      *torch==2.13.0+cpu* | *whl/cpu*) printf 'cpu\\n' >"$here/torch" ;;
      *torch==2.13.0*) printf 'cuda\\n' >"$here/torch" ;;
    esac ;;
esac
"""


KEPT = "install --quiet --constraint scripts/constraints.txt"


class Checkout:
    """A copy of the scripts with the files they look at, and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.bin = folder / "bin"
        self.log = folder / "pip.log"
        self.bin.mkdir()
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        for tool in ("cc", "git"):
            self.tool(tool, "#!/usr/bin/env bash\n")
        self.tool("python3", PYTHON)
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for name in (
            "pyproject.toml",
            "extension/install.json",
            "workbench/jupyter_server_config.json",
            "workbench/labextension/package.json",
        ):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("{}")

    def tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def install(self, *arguments: str, **environment: str) -> tuple[int, list[str], list[str]]:
        """Exit status, lines printed, and what pip was asked."""
        self.log.write_text("")
        done = subprocess.run(
            [self.root / "scripts" / "install", *arguments],
            env={
                "PATH": str(self.bin),
                "PIP_LOG": str(self.log),
                "TMPDIR": str(self.root.parent),
                **environment,
            },
            capture_output=True,
            text=True,
        )
        return done.returncode, (done.stdout + done.stderr).splitlines(), self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_first_time_installs_and_the_second_does_nothing(checkout: Checkout) -> None:
    status, said, pip = checkout.install()
    assert status == 0, said
    assert pip == ["install --quiet torch==2.13.0+cpu", f"{KEPT} --editable ."]
    assert said[-1] == "Installed."
    assert checkout.install() == (0, [], [])


def test_what_changes_is_installed_again_and_only_then(checkout: Checkout) -> None:
    checkout.install()
    (checkout.root / "workbench" / "labextension" / "package.json").write_text('{"build": 2}')
    assert checkout.install()[2] == [f"{KEPT} --editable ."]
    (checkout.root / "workbench" / "cli.py").write_text("")
    assert checkout.install()[2] == []


def test_the_test_extras_are_added_once_and_kept(checkout: Checkout) -> None:
    checkout.install()
    assert checkout.install("test")[2] == [f"{KEPT} --editable .[test]"]
    assert checkout.install("test")[2] == []
    assert checkout.install()[2] == []
    (checkout.root / "pyproject.toml").write_text("changed")
    assert checkout.install()[2] == [f"{KEPT} --editable .[test]"]


def test_torch_is_chosen_kept_and_changed(checkout: Checkout) -> None:
    assert checkout.install(TORCH="cuda")[2][0] == f"{KEPT} torch==2.13.0"
    assert checkout.install()[2] == []  # said nothing: what is there stays
    assert checkout.install(TORCH="cuda")[2] == []
    assert checkout.install(TORCH="cpu")[2] == ["install --quiet torch==2.13.0+cpu"]


def test_pytorchs_own_index_is_second(checkout: Checkout) -> None:
    _, _, pip = checkout.install(PIP_FAILS="2.13.0+cpu")
    assert pip[1] == f"{KEPT} --index-url https://download.pytorch.org/whl/cpu torch==2.13.0"


def test_a_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.install()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert len(checkout.install()[2]) == 2


def test_what_failed_is_tried_again(checkout: Checkout) -> None:
    status, said, _ = checkout.install(PIP_FAILS="--editable")
    assert status == 1
    assert said[-2] == "ERROR: nothing fits"
    assert said[-1].startswith("The workbench could not be installed")
    assert checkout.install()[2] == [f"{KEPT} --editable ."]


@pytest.mark.parametrize("tool", ["cc", "git", "python3"])
def test_a_missing_tool_is_one_line_that_says_what_to_install(checkout: Checkout, tool: str) -> None:
    (checkout.bin / tool).unlink()
    status, said, pip = checkout.install()
    assert status == 1 and pip == []
    (line,) = said
    assert "install " in line


def test_a_missing_venv_module_is_one_line(checkout: Checkout) -> None:
    status, said, _ = checkout.install(NO_VENV="1")
    assert status == 1
    assert said == [
        "Python's venv module is missing: install python3-venv (Debian: apt-get install python3-venv)."
    ]
    assert not (checkout.root / ".venv").exists()


def test_an_unknown_torch_is_refused(checkout: Checkout) -> None:
    status, said, pip = checkout.install(TORCH="tpu")
    assert status == 1 and pip == []
    assert said[-1] == "TORCH=tpu is not a choice: say TORCH=cpu or TORCH=cuda."


def test_the_scripts_run_from_anywhere(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(os.sep)
    assert checkout.install()[0] == 0
    assert (checkout.root / ".venv" / "bin" / "python").exists()
