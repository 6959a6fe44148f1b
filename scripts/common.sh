# Sourced by the scripts beside it: where things are, and how to speak.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
cd "$ROOT"

say() { printf '%s\n' "$*"; }

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# The interpreter to build an environment from: $PYTHON, or the first of the usual names that is new enough.
find_python() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  die "Python 3.11 to 3.14 was not found: install python3 (Debian: apt-get install python3 python3-venv), or say make PYTHON=/path/to/python3."
}

# make_venv FOLDER: a fresh environment; nothing is left behind where the machine lacks what it takes.
make_venv() {
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "Python's venv module is missing: install python3-venv (Debian: apt-get install python3-venv)."
  say "Making $1 with $("$python" --version) ..."
  rm -rf "$1"
  "$python" -m venv "$1" || die "The environment $1 could not be made: install python3-venv (Debian: apt-get install python3-venv)."
}

# pip_install VENV WHAT ARGUMENTS...: quiet where it works; where it does not, pip's own last words and one line.
pip_install() {
  local venv=$1 what=$2 log status=0
  shift 2
  log=$(mktemp)
  "$venv/bin/python" -m pip install --quiet --constraint scripts/constraints.txt "$@" >"$log" 2>&1 || status=$?
  if ((status)); then
    grep -v '^WARNING' "$log" | tail -n 5 >&2 || true
  fi
  rm -f "$log"
  ((status == 0)) || die "$what could not be installed: check the network and pip's index settings, then run the same command again."
}

# install_torch VENV: TORCH=cpu or TORCH=cuda; unset keeps a torch that is there and else takes the CPU build.
install_torch() {
  local venv=$1 choice=${TORCH:-} have
  case $choice in '' | cpu | cuda) ;; *) die "TORCH=$choice is not a choice: say TORCH=cpu or TORCH=cuda." ;; esac
  have=$("$venv/bin/python" "$ROOT/scripts/torch_build.py")
  if [[ -n $have && (-z $choice || $have == any || $have == "$choice") ]]; then
    return
  fi
  if [[ $choice == cuda ]]; then
    say "Installing torch 2.13.0 with CUDA (several GB, some minutes) ..."
    [[ -z $have ]] || "$venv/bin/python" -m pip uninstall --quiet --yes torch
    pip_install "$venv" "torch with CUDA" torch==2.13.0
    return
  fi
  say "Installing torch 2.13.0 for the CPU (about 200 MB) ..."
  # The indexes the user configured come first; where they lack the CPU build, PyTorch's own index has it.
  "$venv/bin/python" -m pip install --quiet torch==2.13.0+cpu >/dev/null 2>&1 ||
    pip_install "$venv" "torch for the CPU" --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
}
