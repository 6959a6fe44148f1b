"""Compiles the C sources into the user's cache, once per source, compiler and machine.

Nothing but a C compiler is needed. Each instruction set is its own object file with its own flags; which one runs is
decided when the library is called, so the result can be used by any processor of the same architecture.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from routing_kernels.errors import BackendError

SOURCES = Path(__file__).parent
FLAGS = (
    "-std=gnu11 -O3 -fopenmp -fPIC -fvisibility=hidden -Wall -Wextra "
    # Not -ffast-math: a NaN must stay visible. These three change neither NaN nor infinity.
    "-fno-math-errno -fno-trapping-math -ffp-contract=fast"
).split()
X86_FLAGS = {
    "avx2": "-mavx2 -mfma -mf16c -mbmi2".split(),
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c".split(),
}
# Compiled once for each instruction set, under one name each (isa.h).
OPS = ("residual.c", "mlp.c", "rows.c", "attention.c", "masked.c", "expert_linear.c", "ranks.c", "logprob.c")
AMX_FLAGS = [*X86_FLAGS["avx512"], "-mamx-tile", "-mamx-bf16"]
EMULATED_FLAGS = ["-O1", "-DRK_TILES_EMULATED"]  # for tests: built in half the time
AMX_PROBE = "#include <immintrin.h>\nvoid probe(void) { _tile_release(); }\n"
X86_MACHINES = ("x86_64", "AMD64")


def cache_folder() -> Path:
    """Where built libraries lie: ``ROUTING_KERNELS_CACHE``, or ``routing_kernels`` in the user's cache folder."""
    named = os.environ.get("ROUTING_KERNELS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "routing_kernels"


def library() -> Path:
    """The compiled library, built now if the cache does not hold it.

    Raises
    ------
    BackendError
        No C compiler is found, it fails on our sources, or the cache folder cannot be written.
    """
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if not compiler or shutil.which(compiler[0]) is None:
        raise BackendError(
            f"No C compiler was found ({' '.join(compiler) or 'CC is empty'}).",
            "Install gcc or clang, or set CC to a compiler.",
        )
    folder = cache_folder()
    built = folder / f"routing_kernels-{_key(compiler)}.so"
    if not built.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _build(compiler, built)
        except OSError as error:
            raise BackendError(
                f"The compiled kernels cannot be kept in {folder} ({error}).",
                "Set ROUTING_KERNELS_CACHE to a folder that you can write.",
            ) from error
    return built


def _on_x86() -> bool:
    return platform.machine() in X86_MACHINES


def _key(compiler: list[str]) -> str:
    digest = hashlib.sha256()
    for file in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h"), Path(__file__)]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    digest.update(" ".join(compiler).encode() + b"\0" + version + b"\0" + platform.machine().encode())
    return digest.hexdigest()[:20]


def _has_amx(compiler: list[str]) -> bool:
    """Whether the compiler and its assembler know tiles (GCC 11 and Clang 12 do)."""
    if not (_on_x86() and platform.system() == "Linux"):
        return False
    command = [*compiler, *AMX_FLAGS, "-x", "c", "-c", "-", "-o", os.devnull]
    return (
        subprocess.run(command, input=AMX_PROBE, capture_output=True, text=True, check=False).returncode == 0
    )


def _units(amx: bool) -> list[tuple[str, list[str]]]:
    """Every source with the flags of its own that it is compiled with."""
    sets = X86_FLAGS if _on_x86() else {}
    define = [*(["-DRK_X86"] if sets else []), *(["-DRK_HAS_AMX"] if amx else [])]
    units = [("moe.c", define), ("moe_portable.c", []), ("moe_amx.c", EMULATED_FLAGS)]
    units += [("moe_amx.c", AMX_FLAGS)] if amx else []
    units += [(f"moe_{isa}.c", flags) for isa, flags in sets.items()]
    for name in OPS:
        units.append((name, []))
        units += [(name, [*flags, f"-DRK_ISA_{isa.upper()}"]) for isa, flags in sets.items()]
    return units


def _build(compiler: list[str], target: Path) -> None:
    """Builds beside ``target`` and renames, so that a half-written library is never seen under its name."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as work:
        running, objects = [], []
        for number, (name, flags) in enumerate(_units(_has_amx(compiler))):
            objects.append(f"{work}/{number}.o")
            command = [*compiler, *FLAGS, *flags, "-c", str(SOURCES / name), "-o", objects[-1]]
            running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        messages = [process.communicate()[1] for process in running]
        for process, message in zip(running, messages, strict=True):
            _require(process.returncode, message, compiler)
        # Linked without naming torch: libgomp is found already loaded, so both use one pool of threads.
        link = [*compiler, "-shared", "-fopenmp", *objects, "-o", f"{work}/library.so", "-lm"]
        done = subprocess.run(link, capture_output=True, text=True, check=False)
        _require(done.returncode, done.stderr, compiler)
        os.replace(f"{work}/library.so", target)


def _require(status: int, message: str, compiler: list[str]) -> None:
    if status:
        lines = [line for line in message.splitlines() if "error" in line.lower()] or message.splitlines()
        raise BackendError(
            f"{' '.join(compiler)} could not compile the kernels: {lines[0] if lines else f'it ended with {status}'}.",
            "Use gcc 9 or clang 12 and later with OpenMP, or set CC to another compiler.",
        )
