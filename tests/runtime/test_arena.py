"""Room for copies: what was copied stays as it was, and a buffer is used again when nobody reads it any more."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.runtime import arena
from workbench.runtime.arena import Arena
from workbench.runtime.held import array, end_to_end, stacked

DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32, torch.bool, torch.bfloat16, torch.float16]


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(DTYPES), st.integers(0, 3), st.integers(0, 400), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 2**31),
)
def test_copies_stay_as_they_were(made: list[tuple[torch.dtype, int, int, bool, bool]], seed: int) -> None:
    """Whatever is written to the tensors afterwards, whatever is copied next, and whoever lets go of his copy before."""
    room, kept, names = Arena(), [], ["ids", "weights", "norms"]
    for n, (dtype, rows, columns, turned, forgotten) in enumerate(made):
        tensor = values((rows, columns), dtype, seed + n)
        tensor = tensor.T if turned else tensor
        expected = (
            tensor.to(torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype).numpy().copy()
        )
        held = room.hold(tensor, names[n % len(names)])
        assert held.nbytes == expected.nbytes
        tensor.zero_()
        if not forgotten:
            kept.append((array(held), expected))
    for found, expected in kept:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_a_buffer_is_used_again_when_the_last_reader_is_gone() -> None:
    room = Arena()
    quarter = torch.ones(arena.LARGE // 4)
    held = [room.hold(quarter * n, "x") for n in range(20)]  # eight fill a buffer
    view = array(held[0])[5:7]
    first = held[0].memory  # type: ignore[union-attr]
    places = {id(one.memory) for one in held}  # type: ignore[union-attr]
    assert len(places) == 3 and not room._spare
    held = held[8:]
    assert not room._spare, "somebody reads it: the lease here, and the view of an array"
    del first
    assert not room._spare and view.tolist() == [0.0, 0.0]
    del view
    assert len(room._spare) == 1
    spare = room._spare[0]
    held += [room.hold(quarter, "x") for _ in range(8)]
    same = ctypes.addressof(ctypes.c_char.from_buffer(spare))
    assert not room._spare and 0 <= array(held[-1]).ctypes.data - same < arena.BUFFER, "used again"
    assert [float(array(one)[0]) for one in held[:12]] == list(range(8, 20))
    del held, spare
    assert len(room._spare) == 2, "all but the one that is being filled"


def test_large_tensors_get_a_copy_of_their_own_and_gradients_are_left_behind() -> None:
    room = Arena()
    large = torch.ones(arena.LARGE // 4 + 1, requires_grad=True)
    held = room.hold(large, "x")
    assert isinstance(held, torch.Tensor) and not held.requires_grad
    assert held.data_ptr() != large.data_ptr() and array(held).sum() == large.numel()
    small = torch.ones(3, requires_grad=True)
    assert array(room.hold(small, "x")).tolist() == [1.0, 1.0, 1.0]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.booleans(), st.booleans()), max_size=40),
    st.sampled_from(DTYPES[:5]),
    st.integers(1, 3),
)
def test_copies_side_by_side(made: list[tuple[int, int, bool, bool]], dtype: torch.dtype, every: int) -> None:
    """End to end and in stacks, whatever lies between them, whatever is too large for a buffer, and where one is full."""
    room, held, expected = Arena(), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "BUFFER", 1024)
        patch.setattr(arena, "LARGE", 400)
        for n, (rows, columns, large, other) in enumerate(made):
            tensor = values((60 if large else rows, columns), dtype, n)
            held.append(room.hold(tensor, "x"))
            expected.append(tensor.numpy())
            if other:
                room.hold(tensor, "y")
    flat = end_to_end(held)
    assert np.concatenate([np.zeros(0), *flat]).tolist() == [v for one in expected for v in one.reshape(-1)]
    for shape in {one.shape for one in expected}:
        alike = [n for n, one in enumerate(expected) if one.shape == shape][::every]
        found = stacked([held[n] for n in alike])
        np.testing.assert_array_equal(np.concatenate(found), np.stack([expected[n] for n in alike]))


def test_what_lies_evenly_is_one_stack() -> None:
    """Samples of one layer lie between those of the others, a pass apart."""
    room = Arena()
    held = [room.hold(torch.full((3, 2), float(n)), "key") for n in range(12)]
    (found,) = stacked(held[1::3])
    assert found.shape == (4, 3, 2) and found[:, 0, 0].tolist() == [1.0, 4.0, 7.0, 10.0]
    assert np.shares_memory(found, array(held[4]))
    assert [len(part) for part in stacked([held[0], held[1], held[3], held[5], held[4]])] == [2, 2, 1]
