"""What a pass leaves on a device comes to the host by one copy: the same values, read once it has arrived, in rooms that are
used again when nobody reads them."""

from __future__ import annotations

import gc
import weakref
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import workbench as wb
from workbench.conformance.families import build
from workbench.runtime import staging
from workbench.runtime.arena import Arena
from workbench.runtime.held import Held, array
from workbench.runtime.staging import Staging

DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.bfloat16, torch.float16]


class Late:
    """A copy as a stream of a device makes it: of what the buffer holds when its turn comes, there once somebody waits for
    it or for a later one."""

    made = 0
    pending: ClassVar[list[Late]] = []

    def __init__(self, host: Tensor, device: Tensor) -> None:
        host.fill_(0xAB)
        self._host, self._values = host, device.clone()
        Late.made += 1
        Late.pending.append(self)

    def synchronize(self) -> None:
        while self in Late.pending:
            first = Late.pending.pop(0)
            first._host.copy_(first._values)


@pytest.fixture(autouse=True)
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands for a device whose copies are late."""
    monkeypatch.setattr(Staging, "_copy", lambda _, host, device: Late(host, device))
    monkeypatch.setattr(Late, "made", 0)
    monkeypatch.setattr(Late, "pending", [])


TENSORS = st.tuples(st.sampled_from(DTYPES), st.integers(0, 4), st.integers(0, 60), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(TENSORS, max_size=12), st.booleans()), max_size=12),
    st.sampled_from([4096, 2**25]),
)
def test_values_arrive_whatever_is_put_next(passes: list[Any], most: int) -> None:
    room, kept = Staging(torch.device("cpu")), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "MOST", most)
        for n, (tensors, forgotten) in enumerate(passes):
            held = []
            for dtype, rows, columns, turned in tensors:
                value = torch.randint(-3, 4, (rows, columns), generator=torch.Generator().manual_seed(n)).to(
                    dtype
                )
                value = value.T if turned else value
                plain = value.float() if dtype in (torch.bfloat16, torch.float16) else value
                held.append((room.put(value), plain.numpy().copy()))
                value.zero_()
            arrival = room.send()
            if not forgotten:
                kept.append((arrival, held))
            del held
    for arrival, held in kept:
        if arrival is not None:
            arrival.synchronize()
        for found, expected in held:
            assert array(found).dtype == expected.dtype and found.nbytes == expected.nbytes
            np.testing.assert_array_equal(array(found), expected)


def test_a_pass_is_one_copy_once_its_size_is_known() -> None:
    room = Staging(torch.device("cpu"))
    for _ in range(5):
        for n in range(20):
            room.put(torch.full((100,), float(n)))
        before, arrival = Late.made, room.send()
        assert arrival is not None
    assert Late.made - before == 1
    made = Late.made
    assert room.send() is arrival and Late.made == made, "nothing new: what came last is what to wait for"


def test_rooms_of_the_host_are_used_again_when_nobody_reads_them() -> None:
    room = Staging(torch.device("cpu"))
    first = room.put(torch.ones(1000))
    room.send()
    second = room.put(torch.ones(1000))
    room.send()
    assert not room._spare and array(first).ctypes.data != array(second).ctypes.data
    place = array(first).ctypes.data
    view = array(first)[:3]
    del first
    assert not room._spare, "a view of it is read"
    del view
    assert len(room._spare) == 1
    third = room.put(torch.ones(1000))
    assert array(third).ctypes.data == place and not room._spare


def test_a_pass_that_was_given_up_keeps_nothing() -> None:
    room = Staging(torch.device("cpu"))
    room.put(torch.ones(1000))  # and never sent
    gone = weakref.ref(room)
    del room
    gc.collect()
    assert gone() is None


def test_more_than_the_largest_room_goes_in_several_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "MOST", 1024)
    arena, room = Arena(), Staging(torch.device("cpu"))
    held = [room.put(torch.full((100,), float(n))) for n in range(9)]
    assert Late.made == 4 and room._buffer.numel() == 1024
    room.send()
    assert Late.made == 5 and len({id(one.memory) for one in held}) == 5
    monkeypatch.setattr("workbench.runtime.arena.MOST", 1024)
    assert isinstance(arena._from_device(torch.ones(600, dtype=torch.bfloat16)), Tensor), (
        "too large for a room"
    )
    assert isinstance(arena._from_device(torch.ones(3, dtype=torch.int8)), Tensor), "no dtype of a copy"


TABLES = (
    "routing", "router", "router_scores", "contribution", "sparsity", "expert_stat", "attention_rank", "attention_map",
    "token", "logit_effect", "neuron_rate", "neuron_chunk",
)  # fmt: skip
EVERYTHING = wb.Record(
    scores=True, attention_map=True, logit_lens=True, logit_effect=True, census=True, rank_tokens=5
)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is recorded is on a device."""

    def from_device(arena: Arena, tensor: Tensor, _: str) -> Held:
        return arena._from_device(tensor)

    monkeypatch.setattr(Arena, "hold", from_device)


def recorded(bench: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of forward passes, two of them of padded prompts, and of a generation, by table; without ids."""
    runs = [
        bench.run(list(range(3, 12)), record=EVERYTHING),
        *bench.run([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14]], record=EVERYTHING),
        bench.generate([4, 5, 6], max_new_tokens=3, record=EVERYTHING),
    ]
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in TABLES:
        found[table] = []
        for n, run in enumerate(runs):
            rows = bench.sql(f"SELECT * EXCLUDE (run) FROM {table} WHERE run = ? ORDER BY ALL", [run.id])
            found[table] += [(n, *row) for row in rows.fetchall()]
    return found


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "llama"])
def test_a_recording_on_a_device_is_the_same(family: str, bench: Any, request: pytest.FixtureRequest) -> None:
    opened = bench(build(family) if family == "gpt_oss" else family)  # sinks, and masks of windows
    here = recorded(opened)
    assert all(
        here[table] for table in ("contribution", "sparsity", "attention_rank", "attention_map", "token")
    )
    assert here["neuron_chunk" if family == "llama" else "router_scores"]
    request.getfixturevalue("elsewhere")
    there = recorded(opened)
    assert Late.made > 4 and not Late.pending
    assert repr(there) == repr(here)  # NaN is NaN


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("family", ["olmoe", "llama"])
def test_everything_of_a_pass_is_one_copy(family: str, bench: Any) -> None:
    opened, prompt = bench(family), list(range(3, 27))
    opened.run(prompt, record=EVERYTHING)  # how large a pass is, is known from here on
    for _ in range(2):
        before, run = Late.made, opened.run(prompt, record=EVERYTHING)
        assert Late.made - before == 1
        tables = ("logit_effect", "neuron_rate", *(["neuron_chunk"] if family == "llama" else []))
        for table in tables:
            assert opened.sql(f"SELECT count(*) FROM {table} WHERE run = ?", [run.id]).fetchone() > (0,)
