"""Room for copies: what was copied stays as it was, and a buffer is used again when nobody reads it any more."""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.runtime import arena
from workbench.runtime.arena import Arena, array

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
    room, kept = Arena(), []
    for n, (dtype, rows, columns, turned, forgotten) in enumerate(made):
        tensor = values((rows, columns), dtype, seed + n)
        tensor = tensor.T if turned else tensor
        expected = (
            tensor.to(torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype).numpy().copy()
        )
        held = room.hold(tensor)
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
    held = [room.hold(quarter * n) for n in range(20)]  # eight fill a buffer
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
    held += [room.hold(quarter) for _ in range(8)]
    same = ctypes.addressof(ctypes.c_char.from_buffer(spare))
    assert not room._spare and 0 <= array(held[-1]).ctypes.data - same < arena.BUFFER, "used again"
    assert [float(array(one)[0]) for one in held[:12]] == list(range(8, 20))
    del held, spare
    assert len(room._spare) == 2, "all but the one that is being filled"


def test_large_tensors_get_a_copy_of_their_own_and_gradients_are_left_behind() -> None:
    room = Arena()
    large = torch.ones(arena.LARGE // 4 + 1, requires_grad=True)
    held = room.hold(large)
    assert isinstance(held, torch.Tensor) and not held.requires_grad
    assert held.data_ptr() != large.data_ptr() and array(held).sum() == large.numel()
    small = torch.ones(3, requires_grad=True)
    assert array(room.hold(small)).tolist() == [1.0, 1.0, 1.0]
