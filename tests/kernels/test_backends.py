"""Building, loading and choosing the backend: the cache, the environment, the reasons given, and threads."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import routing_kernels
import torch
from routing_kernels import dispatch
from routing_kernels.cpu import build, loader
from routing_kernels.errors import BackendError

pytestmark = pytest.mark.slow  # processes of their own, and much of what `make test` runs anyway

KERNELS = Path(routing_kernels.__file__).parents[1]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(KERNELS), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


LAYER = """
import warnings, torch
warnings.simplefilter("always")
import routing_kernels
torch.manual_seed(0)
case = (torch.randn(3, 8), torch.tensor([[0, 1]] * 3), torch.rand(3, 2), torch.randn(2, 12, 8), torch.randn(2, 8, 6))
"""


def compiler(folder: Path, body: str) -> Path:
    """A stand-in for cc: it logs each call but --version, then does what ``body`` says; $out is the wanted output."""
    script = folder / "cc"
    script.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo stand-in 1.0; exit; fi\n'
        f'echo call >> "{folder}/log"\n'
        'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then out=$2; fi; shift; done\n' + body
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_the_c_backend_is_built_here():
    """Every machine that runs these tests has a C compiler: without it the rest would prove nothing."""
    found = routing_kernels.backends()
    assert found["cpu"].available, found["cpu"].reason
    assert found["cpu"].isa == loader.load().isas[0] == routing_kernels.resolve("auto")[1]
    assert found["reference"] == routing_kernels.Backend(True, "", "torch")
    assert loader.load().isas[-1] == "portable"
    assert (
        found["cpu"].isa == "amx"
        or "no amx; amx was written and tested through emulated tiles" in found["cpu"].reason
    )


def test_one_openmp_runtime_serves_torch_and_the_kernels():
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list a process's libraries")
    # In a process of its own: other packages may bring a runtime of theirs into this one.
    code = """
import torch
from pathlib import Path
from routing_kernels.cpu import loader
loader.load()
lines = Path("/proc/self/maps").read_text().splitlines()
runtimes = {line.split()[-1] for line in lines if "libgomp" in line or "libomp" in line}
assert len(runtimes) == 1, runtimes
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_a_compiler_one_warning_names_the_reason(tmp_path):
    code = (
        LAYER
        + """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    outs = [routing_kernels.moe_experts(*case).y for _ in range(3)]
    outs.append(routing_kernels.moe_experts(*case, stats=True).y)
mine = [w for w in caught if "routing_kernels" in str(w.message)]
assert len(mine) == 1 and mine[0].category is RuntimeWarning, mine
exact = routing_kernels.moe_experts(*case, backend="reference").y
assert all(torch.equal(out, exact) for out in outs)
assert routing_kernels.resolve("auto", "cpu") == ("reference", "torch")
state = routing_kernels.backends()["cpu"]
assert not state.available and "no-such-cc" in state.reason, state
try:
    routing_kernels.moe_experts(*case, backend="cpu")
except routing_kernels.BackendError as error:
    assert error.remedy == "Install gcc or clang, or set CC to a compiler.", error
else:
    raise SystemExit("a backend asked for by name must not be replaced")
print(mine[0].message)
"""
    )
    done = python(code, CC="no-such-cc", ROUTING_KERNELS_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "No C compiler was found (no-such-cc)." in done.stdout


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_environment_chooses_the_backend(monkeypatch, backend):
    monkeypatch.setenv("ROUTING_KERNELS_BACKEND", backend)
    dispatch.refresh()
    assert routing_kernels.resolve("auto")[0] == backend
    assert routing_kernels.resolve("reference") == ("reference", "torch")  # a name in the call comes first


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(BackendError, match="no kernel backend 'cuda'. Choose auto or one of reference, cpu"):
        routing_kernels.resolve("cuda")
    with pytest.raises(BackendError, match="cannot run on cuda"):
        routing_kernels.resolve("cpu", "cuda")
    with pytest.raises(BackendError, match="no torch.float64"):
        routing_kernels.resolve("cpu", "cpu", torch.float64)
    monkeypatch.setenv("ROUTING_KERNELS_ISA", "altivec")
    dispatch.refresh()
    with pytest.raises(BackendError, match="ROUTING_KERNELS_ISA asks for 'altivec'"):
        routing_kernels.resolve("auto")
    assert "altivec" in routing_kernels.backends()["cpu"].reason
    monkeypatch.setenv("ROUTING_KERNELS_BACKEND", "fast")
    dispatch.refresh()
    with pytest.raises(BackendError, match="no kernel backend 'fast'"):
        routing_kernels.resolve("auto")


def test_float64_goes_to_the_reference_without_a_warning(recwarn):
    assert routing_kernels.resolve("auto", "cpu", torch.float64) == ("reference", "torch")
    assert not recwarn.list


def test_a_device_without_a_kernel_falls_back_and_says_so(monkeypatch):
    monkeypatch.setattr(dispatch, "_warned", set())
    with pytest.warns(RuntimeWarning, match="triton kernels have never run on a GPU"):
        assert routing_kernels.resolve("auto", "cuda") == ("reference", "torch")


def test_the_library_is_built_once_and_two_builders_do_not_disturb_each_other(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("CC", str(compiler(tmp_path, 'sleep 0.2; echo built > "$out"\n')))
    monkeypatch.setenv("ROUTING_KERNELS_CACHE", str(cache))
    found: list[Path] = []
    builders = [threading.Thread(target=lambda: found.append(build.library())) for _ in range(2)]
    for thread in builders:
        thread.start()
    for thread in builders:
        thread.join()
    assert len(set(found)) == 1 and found[0].read_text() == "built\n"
    assert list(cache.iterdir()) == [found[0]]  # no half-built file, no working folder
    calls = (tmp_path / "log").read_text()
    assert build.library() == found[0]
    assert (tmp_path / "log").read_text() == calls


def test_another_compiler_has_another_library(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTING_KERNELS_CACHE", str(tmp_path / "cache"))
    script = compiler(tmp_path, 'echo built > "$out"\n')
    monkeypatch.setenv("CC", str(script))
    first = build.library()
    script.write_text(script.read_text().replace("stand-in 1.0", "stand-in 2.0"))
    assert build.library() != first


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUTING_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", str(compiler(tmp_path, "echo 'moe.c:1: error: no OpenMP here' >&2; exit 1\n")))
    with pytest.raises(BackendError, match="could not compile the kernels: moe.c:1: error: no OpenMP here"):
        build.library()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ROUTING_KERNELS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BackendError, match="Set ROUTING_KERNELS_CACHE to a folder that you can write"):
        build.library()


@pytest.mark.slow
def test_two_openmp_threads_and_two_callers_give_the_bits_of_one():
    """A race would show as a differing bit: two Python threads, each with a team of two, against one thread alone."""
    code = """
import threading, torch, routing_kernels
torch.manual_seed(0)
cases = []
for tokens in (64, 65, 200):
    ids = torch.randint(-1, 9, (tokens, 3))
    cases.append((torch.randn(tokens, 130), ids, torch.rand(tokens, 3), torch.randn(8, 140, 130), torch.randn(8, 130, 70)))
def layer(case):
    return routing_kernels.moe_experts(*case, stats=True, backend="cpu")
torch.set_num_threads(1)
alone = [layer(case) for case in cases]
torch.set_num_threads(2)
wrong = []
def caller():
    torch.set_num_threads(2)
    for _ in range(15):
        for case, expected in zip(cases, alone):
            wrong.extend(1 for ours, theirs in zip(layer(case), expected) if not torch.equal(ours, theirs))
callers = [threading.Thread(target=caller) for _ in range(2)]
[thread.start() for thread in callers]
[thread.join() for thread in callers]
print("differences", len(wrong), "threads", torch.get_num_threads())
"""
    done = python(code, OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "differences 0 threads 2"
