"""Compiles every kernel for GPUs that are not here, and reads from the binaries what they need.

    python -m routing_kernels.triton.aot [--targets sm_80 sm_90 gfx942]        # JSON

Neither a GPU nor a driver is needed: triton brings its assemblers along. Under ``TRITON_INTERPRET=1`` nothing compiles.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from routing_kernels.triton import attention, expert_linear, masked, mlp, moe, residual, rows

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "gfx942": 65_536}
"""Bytes of shared memory that one block may have."""
REGISTERS = {"sm_80": 255, "sm_90": 255, "gfx942": 512}
"""Registers that one thread may have."""
TYPES = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}


@dataclass(frozen=True)
class Specimen:
    """One kernel with the types and constants it is launched with. Integers beside ``loose`` are multiples of 16."""

    op: str
    kernel: Any
    dtype: str
    stats: bool
    types: dict[str, str]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3
    loose: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """What one build needs: registers a thread, bytes of stack (what does not fit the registers), bytes of shared memory a
    block, atomic operations in the code."""

    op: str
    kernel: str
    dtype: str
    stats: bool
    target: str
    registers: int
    spilled: int
    shared: int
    atomics: int


def specimens() -> Iterator[Specimen]:
    """Every kernel in every dtype, with statistics on and off where it has any, at the tiles it is launched with."""
    for dtype, value in TYPES.items():
        for stats in (False, True):
            yield from _experts(dtype, value, stats)
            yield _attention(dtype, value, stats, 128)
            yield from _rows(dtype, value, stats)
        yield from _linear(dtype, value)
        yield from _mlp(dtype, value)
        yield Specimen(
            "masked_matmul", masked.multiply, dtype, False,
            {"x": value, "values": value, "bits": "*u8", "start": "*i64", "y": value}
            | dict.fromkeys(("tokens", "rows", "columns", "bits_row"), "i32"),
            {"BT": 1, "BK": masked.COLUMNS}, warps=2, loose=("tokens",),
        )  # fmt: skip
        yield Specimen(
            "residual_stats", residual.measure, dtype, False,
            {"pre": value, "attn": value, "mlp": value, "out": "*fp32", "tokens": "i32", "columns": "i32"},
            {"BN": residual.COLUMNS}, loose=("tokens",),
        )  # fmt: skip


def _experts(dtype: str, value: str, stats: bool) -> Iterator[Specimen]:
    depth, warps = moe.depth_and_warps(getattr(torch, dtype))
    sizes = {"BM": moe.ROWS, "BN": moe.COLUMNS, "BK": depth, "PRECISION": ""}
    tiles = dict.fromkeys(("order", "tile_expert", "tile_first", "tile_end"), "*i32")
    yield Specimen(
        "moe_experts", moe.neurons, dtype, stats,
        {"x": value, "gate_up": value, "hidden": value, "l1": "*fp32", "l2": "*fp32", "zero": "*i32", "below": "*i32"}
        | tiles | dict.fromkeys(("x_row", "bank", "bank_row", "experts", "hidden_size", "width", "column_tiles"), "i32")
        | {"threshold": "fp32"},
        {"TOP_K": 8, "ACT": "silu", "STATS": stats} | sizes, warps,
        loose=("column_tiles",),
    )  # fmt: skip
    yield Specimen(
        "moe_experts", moe.outputs, dtype, stats,
        {"hidden": value, "down": value, "rows": "*fp32", "squares": "*fp32"} | tiles
        | dict.fromkeys(("bank", "bank_row", "experts", "hidden_size", "width", "column_tiles"), "i32"),
        {"STATS": stats} | sizes, warps,
        loose=("column_tiles",),
    )  # fmt: skip
    if not stats:
        yield Specimen(
            "moe_experts", moe.combine, dtype, stats,
            {"rows": "*fp32", "ids": "*i64", "weights": value, "y": value, "weights_row": "i32", "experts": "i32",
             "hidden_size": "i32"},
            {"TOP_K": 8, "BN": moe.SUM_COLUMNS}, loose=("weights_row",),
        )  # fmt: skip


def _linear(dtype: str, value: str) -> Iterator[Specimen]:
    depth, warps = moe.depth_and_warps(getattr(torch, dtype))
    types = {"x": value, "weight": value, "bias": value, "y": value}
    types |= dict.fromkeys(("order", "tile_expert", "tile_first", "tile_end"), "*i32")
    numbers = ("x_row", "bank", "by_output", "by_depth", "bias_row", "experts", "depth_size", "outputs")
    constants = {
        "SHARING": 8,
        "BIASED": True,
        "BM": moe.ROWS,
        "BN": moe.COLUMNS,
        "BK": depth,
        "PRECISION": "",
    }
    for transposed in (False, True):  # the stride of 1 is a constant of the code
        one = "by_output" if transposed else "by_depth"
        yield Specimen(
            "expert_linear", expert_linear.linear, dtype, False,
            types | {name: "i32" for name in numbers if name != one}, constants | {one: 1}, warps,
        )  # fmt: skip


def _attention(dtype: str, value: str, stats: bool, size: int) -> Specimen:
    pointers = {
        "q": value,
        "k": value,
        "v": value,
        "ptr": "*i64",
        "col": "*i64",
        "lengths": "*i64",
        "starts": "*i64",
    }
    pointers |= dict.fromkeys(("sinks", "extra"), "*fp32") | {"o": value}
    pointers |= {"sketch": "*fp32", "lse": "*fp32", "mass": "*fp32", "executed": "*i32"}
    strides = [f"{part}_{axis}" for part, last in (("q", "query"), ("k", "key"), ("v", "key"))
               for axis in ("batch", "head", last)]  # fmt: skip
    counts = ("heads", "group", "queries", "keys", "depth", "values", "extras", "rows", "kept", "window")
    value_type = getattr(torch, dtype)
    tile = attention.tile_of(64, size, value_type)
    flags = dict.fromkeys(("LENGTHS", "STARTS", "SINKS", "WINDOW", "SOFTCAP"), False)
    return Specimen(
        "block_attention", attention.attend, dtype, stats,
        pointers | dict.fromkeys((*strides, *counts), "i32") | {"scale": "fp32", "softcap": "fp32"},
        {"CAUSAL": True, **flags, "EXTRA": stats and attention.fused(value_type), "STATS": stats, "BLOCK": 64,
         "BM": tile["BM"], "BN": tile["BN"], "BE": size, "BD": size, "BR": 16, "PRECISION": ""},
        tile["num_warps"], tile["num_stages"],
        loose=("heads", "group", "queries", "keys", "extras", "rows", "kept", "window"),
    )  # fmt: skip


def _rows(dtype: str, value: str, stats: bool) -> Iterator[Specimen]:
    yield Specimen(
        "gather_rows", rows.take, dtype, stats,
        {"x": value, "ids": "*i64", "y": value, "squares": "*fp32"}
        | dict.fromkeys(("x_row", "height", "columns", "parts"), "i32"),
        {"STATS": stats, "BN": rows.COLUMNS}, loose=("height", "parts"),
    )  # fmt: skip
    yield Specimen(
        "scatter_add_rows", rows.add, dtype, stats,
        {"base": value, "rows": value, "weights": "*fp32", "order": "*i64", "edges": "*i64", "y": value,
         "squares": "*fp32"} | dict.fromkeys(("base_row", "rows_row", "columns", "parts"), "i32"),
        {"WEIGHTED": True, "STATS": stats, "BN": rows.COLUMNS}, loose=("parts",),
    )  # fmt: skip


def _mlp(dtype: str, value: str) -> Iterator[Specimen]:
    lists = {"listed": "*i32", "counts": "*i32", "first_weight": value, "second_weight": value}
    for both in (False, True):
        yield Specimen(
            "sparse_mlp", mlp.rows_sum, dtype, False,
            {"coefficients": value if both else "*fp32"} | lists
            | {"first": "*fp32" if both else value, "second": "*fp32" if both else value}
            | dict.fromkeys(("weight_row", "length", "columns"), "i32"),
            {"BOTH": both, "BI": mlp.LISTED, "BN": mlp.COLUMNS},
        )  # fmt: skip
        yield Specimen(
            "sparse_mlp", mlp.rows_dot, dtype, False,
            {"x": value} | lists | {"first": "*fp32", "second": "*fp32"}
            | dict.fromkeys(("weight_row", "length", "depth"), "i32"),
            {"BOTH": both, "BI": mlp.LISTED, "BK": mlp.COLUMNS},
        )  # fmt: skip


def build(specimen: Specimen, target: str) -> Built:
    """Compiles one kernel for ``target`` (a name of TARGETS) and reads what its binary says of itself."""
    names = list(specimen.kernel.arg_names)
    constants = dict(specimen.constants)
    if "PRECISION" in constants:
        constants["PRECISION"] = "ieee" if target.startswith("gfx") else "tf32x3"
    types = specimen.types | dict.fromkeys(constants, "constexpr")
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if types[name].startswith("*") or types[name].startswith("i") and name not in specimen.loose
    }
    source = ASTSource(
        fn=specimen.kernel, signature={name: types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()}, attrs=aligned,
    )  # fmt: skip
    options = {"num_warps": specimen.warps, "num_stages": specimen.stages}
    made = triton.compile(source, target=TARGETS[target], options=options)
    read = _of_amd if target.startswith("gfx") else _of_nvidia
    return Built(
        specimen.op,
        specimen.kernel.__name__,
        specimen.dtype,
        specimen.stats,
        target,
        *read(made, made.metadata.shared),
    )


def _of_nvidia(made: Any, shared: int) -> tuple[int, int, int, int]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))  # type: ignore[index]
    return registers, stack, shared, len(re.findall(r"\b(?:ATOM|ATOMG|ATOMS|RED)\b", code))


def _of_amd(made: Any, shared: int) -> tuple[int, int, int, int]:
    text = made.asm["amdgcn"]

    def said(name: str) -> int:
        found = re.search(rf"\.{name}:\s*(\d+)", text)
        if found is None:
            raise ValueError(f"the assembly of this triton does not say its {name}")
        return int(found[1])

    atomics = len(re.findall(r"\b(?:global|flat|buffer|ds)_(?:atomic|add|cmpst)\w*", text))
    return said("vgpr_count"), said("vgpr_spill_count") + said("sgpr_spill_count"), shared, atomics


def main() -> None:
    """Builds everything for the targets named on the command line and prints it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--dtypes", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--ops", nargs="+", help="these alone")
    asked = parser.parse_args()
    built = [
        asdict(build(one, target))
        for target in asked.targets
        for one in specimens()
        if one.dtype in asked.dtypes and (not asked.ops or one.op in asked.ops)
    ]
    json.dump({"triton": triton.__version__, "built": built}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
