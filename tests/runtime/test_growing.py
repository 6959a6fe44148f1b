"""Rows that grow at the end: what was given out stays, branches go apart, and a row is moved only now and then."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.runtime.growing import Growing, empty


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=20), st.integers(0, 2**31)
)
def test_it_is_what_concatenation_gives_and_views_never_change(
    parts: list[tuple[int, float]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    growing, whole = empty(3), torch.empty(0, 3)
    given_out: list[tuple[torch.Tensor, torch.Tensor]] = []
    for size, keep in parts:
        rows = torch.randn(size, 3, generator=generator)
        growing.append(rows)
        whole = torch.cat([whole, rows])
        assert len(growing) == len(whole) and torch.equal(growing.rows, whole)
        given_out.append((growing.rows, whole.clone()))
        if keep < 0.3:  # rewound: another one goes on from an earlier row
            count = int(keep * len(whole))
            growing, whole = growing.head(count), whole[:count]
    assert all(torch.equal(view, then) for view, then in given_out)


def test_two_that_go_on_from_one_do_not_meet() -> None:
    one = empty(2)
    one.append(torch.zeros(3, 2))
    other = one.head(3)
    one.append(torch.ones(1, 2))
    other.append(torch.full((1, 2), 2.0))
    assert one.rows[-1].tolist() == [1.0, 1.0] and other.rows[-1].tolist() == [2.0, 2.0]


def test_a_row_is_moved_a_few_times_however_many_follow() -> None:
    growing, places = empty(4), set()
    for _ in range(1000):
        growing.append(torch.zeros(1, 4))
        places.add(growing.rows.data_ptr())
    assert len(places) <= 11
    kept = growing.compact()
    assert kept.untyped_storage().nbytes() == 1000 * 4 * 4 and torch.equal(kept, growing.rows)
    assert Growing(kept).compact().data_ptr() == kept.data_ptr(), "nothing to leave out"
