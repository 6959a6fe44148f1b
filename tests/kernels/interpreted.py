"""Runs the Triton kernels under Triton's interpreter and prints what became of them as JSON; started by test_triton.py in a
process of its own, because triton decides when it is imported whether it interprets or compiles.

The interpreter multiplies bfloat16 tiles as if their bits were integers. The shim below, for tests alone, makes them float32
first; ``without_shim`` shows that it is still needed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import routing_kernels
import torch
from routing_kernels import conformance
from triton.runtime import interpreter

FEW = ("ragged sizes", "random blocks", "extra columns", "wide blocks", "neurons given, one token without any",
       "zeros alone", "some rows", "some rows, weighted", "half, 6 tokens", "vectors",
       "with biases, transposed")  # fmt: skip


def as_floats(handle: Any) -> Any:
    if handle.data.dtype != np.uint16:
        return handle
    wide = (handle.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(wide, interpreter.tl.float32)


def with_shim() -> None:
    own = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return own(self, as_floats(a), as_floats(b), d, *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot


def said(outcomes: list[conformance.Outcome]) -> list[list[str]]:
    return [[o.op, o.case, o.dtype, o.state, o.detail] for o in outcomes]


def few(case: conformance.Case) -> bool:
    return case.name in FEW


def one_dot(case: conformance.Case) -> bool:
    return case.name == "ragged sizes"


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"resolved": routing_kernels.resolve("triton", "cpu")}
    found["without_shim"] = said(conformance.check("triton", dtypes=(torch.bfloat16,), chosen=one_dot))
    with_shim()
    half = (torch.bfloat16, torch.float16)
    found["outcomes"] = said(conformance.check("triton", dtypes=(torch.float32,)))
    found["outcomes"] += said(conformance.check("triton", dtypes=half, chosen=few))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
