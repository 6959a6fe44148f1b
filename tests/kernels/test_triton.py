"""Triton kernels where there is no GPU: what they mean, by the interpreter, and what they need, from binaries."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import routing_kernels
import torch
from routing_kernels import conformance

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
UNWRITTEN = {"map_ranks", "token_logprob"}  # they have no kernel for GPUs, and say so
TRITON_OPS = set(conformance.OPS) - UNWRITTEN
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "gfx942": 65_536}
REGISTERS = {"sm_80": 255, "sm_90": 255, "gfx942": 512}


def run(*command: str, **environment: str) -> Any:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command], capture_output=True, text=True, check=False,
        env=inherited | {"PYTHONPATH": path} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_without_a_gpu_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backend = routing_kernels.backends()["triton"]
    assert not backend.available
    assert (
        "Triton is not installed" in backend.reason or "needs a GPU, and torch finds none" in backend.reason
    )
    with pytest.raises(routing_kernels.BackendError, match="Triton|triton"):
        routing_kernels.gather_rows(torch.ones(2, 2), torch.tensor([0]), backend="triton")


def test_without_triton_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else find(name, *rest)
    )
    backend = routing_kernels.backends()["triton"]
    assert (
        backend.reason == "Triton is not installed. Install it with pip install 'routing-workbench[triton]'."
    )


@needs_triton
@pytest.mark.slow
def test_kernels_agree_with_the_reference_under_the_interpreter() -> None:
    found = run(str(Path(__file__).with_name("interpreted.py")), TRITON_INTERPRET="1")
    assert found["resolved"] == ["triton", "interpreter"]
    states = {"not applicable" if op in UNWRITTEN else "right" for op in conformance.OPS}
    assert {one[3] for one in found["outcomes"]} == states
    assert not [one for one in found["outcomes"] if (one[3] == "right") == (one[0] in UNWRITTEN)]
    ran = {(op, dtype) for op, _, dtype, *_ in found["outcomes"] if op not in UNWRITTEN}
    assert ran == {(op, dtype) for op in TRITON_OPS for dtype in ("float32", "bfloat16", "float16")}
    # The day the interpreter multiplies bfloat16 rightly, the shim can go.
    assert {one[3] for one in found["without_shim"]} == {"wrong"}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "dtype"),
    [("sm_80", "bfloat16"), ("sm_80", "float32"), ("sm_80", "float16"), ("sm_90", "bfloat16"), ("sm_90", "float32"),
     ("gfx942", "bfloat16"), ("gfx942", "float32")],
)  # fmt: skip
def test_kernels_compile_within_their_budget(target: str, dtype: str) -> None:
    """Nothing spills, shared memory fits, and no kernel has an atomic, with statistics on or off."""
    found = run("-m", "routing_kernels.triton.aot", "--targets", target, "--dtypes", dtype)["built"]
    assert {one["op"] for one in found} == TRITON_OPS
    kernels = {(one["op"], one["stats"]) for one in found}
    assert {("moe_experts", True), ("moe_experts", False), ("block_attention", True)} <= kernels
    for one in found:
        assert one["spilled"] == 0, one
        assert one["shared"] <= SHARED_LIMIT[target], one
        assert one["atomics"] == 0, one
        assert 0 < one["registers"] <= REGISTERS[target], one
