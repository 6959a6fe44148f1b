"""Pieces side by side are what numpy makes of them, whatever their sizes, dtypes and tokens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.runtime import arena
from workbench.runtime.arena import Arena
from workbench.runtime.held import end_to_end
from workbench.runtime.kept import Kept
from workbench.runtime.pieces import Piece, Pieces
from workbench.runtime.recorder import Tokens

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=8)


def made(sizes: list[int], dtypes: list[torch.dtype], thinned: bool, seed: int) -> tuple[Pieces, list[Any]]:
    """Pieces that kept ``one`` [T, 3] and ``many`` [4, T, 2], and those as arrays with the places of their tokens."""
    random, room, found, expected = torch.Generator().manual_seed(seed), Arena(), [], []
    for n, size in enumerate(sizes):
        dtype = dtypes[n % len(dtypes)]
        one, many = (
            torch.randint(100, shape, generator=random).to(dtype) for shape in ((size, 3), (4, size, 2))
        )
        at = np.arange(size)[:: 2 if thinned else 1]
        run = np.full(at.size, n, dtype=np.int64)
        tokens = Tokens(at, run * 0, run, at.astype(np.int32), not thinned)
        kept = Kept({"one": room.hold(one, "one"), "many": room.hold(many, "many")}, 0.0, 0)
        found.append(Piece(SimpleNamespace(step=n), n, kept, tokens))  # type: ignore[arg-type]
        plain = [part.float() if dtype == torch.bfloat16 else part for part in (one, many)]
        expected.append((plain[0].numpy()[at], plain[1].numpy()[:, at]))
    return Pieces(found), expected


@settings(max_examples=80, deadline=None)
@given(
    SIZES, st.lists(st.sampled_from([torch.float32, torch.int64, torch.bfloat16]), min_size=1, max_size=2),
    st.booleans(), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_side_by_side(
    sizes: list[int], dtypes: list[torch.dtype], thinned: bool, equal: bool, seed: int
) -> None:
    sizes = [sizes[0]] * len(sizes) if equal else sizes
    group, expected = made(sizes, dtypes, thinned, seed)
    ones, manys = ([part[n] for part in expected] for n in range(2))
    for found, right in (
        (group.gather("one"), np.concatenate(ones)),
        (group.fields("many"), np.concatenate(manys, axis=1)),
        (group.fields("many", slice(1, 3)), np.concatenate(manys, axis=1)[1:3]),
    ):
        assert found.dtype == right.dtype
        np.testing.assert_array_equal(found, right)
    assert group.gather("one") is group.gather("one"), "made once"
    assert group.cells["run"].tolist() == [n for n, part in enumerate(ones) for _ in part]
    assert group.cells["step"].tolist() == group.cells["layer"].tolist() == group.cells["run"].tolist()


def test_what_fills_several_buffers_and_what_is_too_large_for_one(monkeypatch: Any) -> None:
    monkeypatch.setattr(arena, "BUFFER", 200)
    monkeypatch.setattr(arena, "LARGE", 150)
    sizes = [
        5,
        5,
        5,
        1,
        5,
        0,
        12,
        5,
    ]  # [T, 3] fp32: 60 bytes, three of them in a buffer; 12 tokens are too many for one
    group, expected = made(sizes, [torch.float32], False, 1)
    assert len(end_to_end(p.kept.values["one"] for p in group)) > 2
    np.testing.assert_array_equal(group.gather("one"), np.concatenate([one for one, _ in expected]))
    np.testing.assert_array_equal(
        group.fields("many"), np.concatenate([many for _, many in expected], axis=1)
    )


def test_what_lies_end_to_end_is_not_copied() -> None:
    group, _ = made([4, 0, 7, 1], [torch.float32], False, 3)
    found = group.gather("one")
    assert np.shares_memory(found, group[2].kept["one"]) and found.base is not None


def test_fields_from_the_end_of_kept_tensors_that_have_more_and_fewer() -> None:
    group, expected = made([5, 5], [torch.float32], False, 2)
    more = torch.arange(35.0).reshape(7, 5, 1).expand(7, 5, 2).contiguous()
    group = Pieces([*group, group[0]._replace(kept=Kept({"many": Arena().hold(more, "many")}, 0.0, 0))])
    right = np.concatenate([expected[0][1][-2:], expected[1][1][-2:], more[-2:].numpy()], axis=1)
    np.testing.assert_array_equal(group.fields("many", slice(-2, None)), right)
