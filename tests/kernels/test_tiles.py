"""AMX where there is none: emulated tiles against the documented arithmetic, their faults, and the real ones' instructions.

What runs through the emulated tiles is the expert layer itself: ``test_moe_experts.py``, ``test_conformance.py`` and
``test_cost.py`` have ``amx-emulated`` among their instruction sets.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import routing_kernels
import torch
from kernel_isas import using
from routing_kernels import dispatch
from routing_kernels.cpu import build, loader

pytestmark = pytest.mark.slow  # a compiler's time

COMPILER = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
DOT = """
#include "tiles.h"
/* sum [m, n] += left [m, 2 k] times right [k, 2 n], by tiles of just that size. */
void dot(float *sum, const uint16_t *left, const uint16_t *right, int m, int k, int n) {
    rk_tile_config config = {.palette = 1, .bytes = {4 * n, 4 * k, 4 * n}, .rows = {m, m, k}};
    rk_tile_configure(&config);
    rk_tile_load(0, sum, 4 * n);
    rk_tile_load(1, left, 4 * k);
    rk_tile_load(2, right, 4 * n);
    rk_tile_dot(0, 1, 2);
    rk_tile_store(0, sum, 4 * n);
    rk_tile_release();
}
"""
READY = "rk_tile_config config = {.palette = 1, .bytes = {64, 64, 64}, .rows = {16, 16, 16}};"
FAULTS = {
    "the tiles are not configured": "rk_tile_zero(0);",
    "the palette is not 1": "config.palette = 0; rk_tile_configure(&config);",
    "a reserved byte is set": "config.reserved[3] = 1; rk_tile_configure(&config);",
    "the palette has eight tiles": "config.rows[8] = 1; config.bytes[8] = 4; rk_tile_configure(&config);",
    "a tile has more than 16 rows": "config.rows[1] = 17; rk_tile_configure(&config);",
    "row has more than 64 bytes": "config.bytes[1] = 68; rk_tile_configure(&config);",
    "a tile has rows without bytes": "config.bytes[1] = 0; rk_tile_configure(&config);",
    "the tile is not configured": "rk_tile_configure(&config); rk_tile_zero(5);",
    "there is no such tile": "rk_tile_configure(&config); rk_tile_zero(8);",
    "the three tiles are not three": "rk_tile_configure(&config); rk_tile_dot(0, 1, 1);",
    "a row is no whole number of pairs": "config.bytes[1] = 62; rk_tile_configure(&config); rk_tile_dot(0, 1, 2);",
    "other rows than the left side": "config.rows[1] = 8; rk_tile_configure(&config); rk_tile_dot(0, 1, 2);",
    "other columns than the right side": "config.bytes[2] = 32; rk_tile_configure(&config); rk_tile_dot(0, 1, 2);",
    "pairs are not the right side's rows": "config.bytes[1] = 32; rk_tile_configure(&config); rk_tile_dot(0, 1, 2);",
    "not configured": "rk_tile_configure(&config); rk_tile_release(); rk_tile_zero(0);",
}


def bits(values: np.ndarray) -> np.ndarray:
    """The upper halves of floats: bfloat16 without rounding."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def floats(halves: np.ndarray) -> np.ndarray:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def flushed(value: np.ndarray) -> np.ndarray:
    return np.where(np.abs(value) < np.finfo(np.float32).tiny, np.copysign(0, value), value).astype(
        np.float32
    )


def documented(sum_: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """TDPBF16PS by its description in Intel's manual. A product of two bfloat16 has sixteen bits and an addend 24: where
    their exponents are near, float64 holds the sum exactly, and rounding it once is the fused operation."""
    a, b = flushed(floats(left)).astype(np.float64), flushed(floats(right)).astype(np.float64)
    part = np.zeros((2, *sum_.shape), np.float32)
    for k in range(b.shape[0]):
        for side in (0, 1):
            product = np.outer(a[:, 2 * k + side], b[k, side::2])
            part[side] = flushed((product + part[side]).astype(np.float32))
    return flushed(flushed(sum_) + flushed(part[0] + part[1]))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "dot.c").write_text(DOT)
    command = [
        *COMPILER,
        "-DRK_TILES_EMULATED",
        f"-I{build.SOURCES}",
        "-shared",
        "-fPIC",
        "dot.c",
        "-o",
        "dot.so",
        "-lm",
    ]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(folder / "dot.so")).dot

    def dot(sum_: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        out = np.ascontiguousarray(sum_, np.float32).copy()
        arrays = (out, np.ascontiguousarray(left), np.ascontiguousarray(right))
        function(
            *(a.ctypes.data_as(ctypes.c_void_p) for a in arrays), *sum_.shape[:1], len(right), sum_.shape[1]
        )
        return out

    return dot


@pytest.mark.parametrize("size", [(16, 16, 16), (16, 16, 1), (1, 1, 1), (5, 3, 7)])
def test_emulated_tiles_are_the_documented_ones(
    emulated: Callable[..., np.ndarray], size: tuple[int, int, int]
) -> None:
    m, k, n = size
    random = np.random.default_rng(0)
    for scale in (1.0, 1e-19, 1e-38):  # at the last, products and sums fall below the normal numbers
        left, right = bits(random.normal(size=(m, 2 * k)) * scale), bits(random.normal(size=(k, 2 * n)))
        before = (random.normal(size=(m, n)) * scale).astype(np.float32)
        found = emulated(before, left, right)
        assert np.array_equal(found.view(np.uint32), documented(before, left, right).view(np.uint32))
        exact = floats(left).reshape(m, k, 2).astype(float), floats(right).reshape(k, n, 2).astype(float)
        near = before + np.einsum("mkp,knp->mn", *exact)
        assert np.abs(found - near).max() <= 1e-5 * scale * k + 2 * k * np.finfo(np.float32).tiny


def test_what_is_not_finite_goes_through(emulated: Callable[..., np.ndarray]) -> None:
    left, right = bits(np.ones((2, 2))), bits(np.ones((1, 6)))
    left[1, 0] = bits(np.array(np.nan))
    right[0, 2] = bits(np.array(np.inf))
    found = emulated(np.zeros((2, 3), np.float32), left, right)
    assert np.isnan(found[1]).all() and found[0].tolist() == [2.0, np.inf, 2.0]


@pytest.mark.parametrize(("message", "body"), FAULTS.items(), ids=list(FAULTS))
def test_what_a_processor_would_fault_on_ends_the_program(tmp_path: Path, message: str, body: str) -> None:
    (tmp_path / "fault.c").write_text(
        f'#include "tiles.h"\nint main(void) {{ {READY} {body} return config.palette; }}\n'
    )
    command = [
        *COMPILER,
        "-Wno-unused-function",
        "-DRK_TILES_EMULATED",
        f"-I{build.SOURCES}",
        "fault.c",
        "-o",
        "fault",
        "-lm",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["./fault"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode < 0 and message in done.stderr


def test_emulated_tiles_run_only_where_they_are_named() -> None:
    library = loader.load()
    assert "amx-emulated" in library.named and "amx-emulated" not in library.isas
    assert routing_kernels.resolve("auto", "cpu", torch.bfloat16)[1] in library.isas
    with using("amx-emulated"):
        assert routing_kernels.resolve("auto", "cpu", torch.bfloat16) == ("cpu", "amx-emulated")
        assert routing_kernels.gather_rows(torch.ones(2, 2), torch.tensor([1])).y.tolist() == [[1.0, 1.0]]
    dispatch.refresh()


def test_neurons_keep_their_float32_value_in_the_second_product() -> None:
    """In one part, bfloat16 would lose h = 1 + 2^-12; in two it comes through to the last bit of the float32 output norm."""
    x = torch.tensor([[1.0, 1.0]], dtype=torch.bfloat16)
    gate_up = torch.tensor([[[1.0, 2.0**-12], [1.0, 0.0]]], dtype=torch.bfloat16)
    down = torch.tensor([[[1.0], [0.0]]], dtype=torch.bfloat16)
    with using("amx-emulated"):
        out = routing_kernels.moe_experts(
            x,
            torch.zeros(1, 1, dtype=torch.int64),
            torch.ones(1, 1),
            gate_up,
            down,
            "relu",
            stats=True,
            backend="cpu",
        )
    assert out.hidden_l1.item() == out.slot_norm.item() == 1 + 2.0**-12


def test_two_threads_give_the_bits_of_one() -> None:
    random = torch.Generator().manual_seed(0)
    x, ids = torch.randn(65, 96, generator=random).bfloat16(), torch.randint(-1, 5, (65, 3), generator=random)
    gate_up, down = (torch.randn(shape, generator=random).bfloat16() for shape in ((4, 140, 96), (4, 96, 70)))
    weights, before = torch.rand(65, 3, generator=random), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with using("amx-emulated"):
                found.append(
                    routing_kernels.moe_experts(x, ids, weights, gate_up, down, stats=True, backend="cpu")
                )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
def test_the_library_multiplies_by_tiles_where_it_has_them(tmp_path: Path) -> None:
    compiler = shlex.split("cc")
    if not build._has_amx(compiler):
        pytest.skip("this compiler or machine has no AMX")
    target = tmp_path / "amx.o"
    command = [
        *compiler,
        *build.FLAGS,
        *build.AMX_FLAGS,
        "-c",
        str(build.SOURCES / "moe_amx.c"),
        "-o",
        str(target),
    ]
    subprocess.run(command, check=True)
    listed = subprocess.run(["objdump", "-d", str(target)], capture_output=True, text=True, check=True).stdout
    found = {name: len(re.findall(rf"\t{name}\b", listed)) for name in
             ("ldtilecfg", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease")}  # fmt: skip
    # Gate and up by two groups of slots, down by two parts of two groups of rows, and the first look at the tiles.
    assert found["tdpbf16ps"] >= 10 and all(found.values()), found
