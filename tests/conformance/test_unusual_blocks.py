"""Blocks that are not one stream in, one stream out: several streams, indices that layers share, caches of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from workbench.anatomy import prove, read
from workbench.conformance.families import build
from workbench.errors import EditRefused, ModelError, SetupError

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 19]
OTHER = IDS[::-1]


@wb.edit("resid_post")
def first_stream_doubled(value: Any, place: Any) -> Any:
    assert value.shape[:2] == place.positions.shape and value.ndim == 4
    return torch.cat([value[:, :, :1] * 2, value[:, :, 1:]], dim=2)


def built(family: str) -> Any:
    try:
        return build(family)
    except ModelError as error:
        pytest.skip(error.problem)


@pytest.mark.parametrize("family", ["olmoe", "deepseek_v4", "hy_v4"])
def test_streams_and_shared_indices_are_found(family: str) -> None:
    anatomy = read(built(family))
    prove(anatomy)
    assert [(block.streams, block.hands_on) for block in anatomy.blocks] == {
        "olmoe": [(1, False)] * 3,
        "deepseek_v4": [(2, False)] * 3,
        "hy_v4": [(4, False), (4, True), (4, False)],
    }[family]


def test_several_streams_are_measured_patched_and_written(bench: Any) -> None:
    one = bench(build("deepseek_v4"))
    base, other = one.run(IDS), one.run(OTHER)
    rows = one.sql("SELECT count(*) FROM contribution WHERE run = ? AND block_norm > 0", [base.id]).fetchone()
    assert rows == (3 * len(IDS),)
    stream = other.tensor("resid_post", layers=1)
    assert stream.shape == (len(IDS), 2, one.anatomy.hidden_size)
    patched = one.run(IDS, wb.patch("resid_post", other, 1, tokens=[2, 5]))
    assert torch.equal(patched.tensor("resid_post", layers=1)[[2, 5]], stream[[2, 5]])
    assert not torch.equal(patched.logits, base.logits)
    assert torch.equal(one.run(IDS, wb.patch("resid_post", base, 1)).logits, base.logits)
    doubled = one.run(IDS, first_stream_doubled(1)).tensor("resid_post", layers=1)
    own = base.tensor("resid_post", layers=1)
    assert torch.equal(doubled[:, 0], 2 * own[:, 0]) and torch.equal(doubled[:, 1], own[:, 1])
    for edit in (
        wb.mask.direction(1, [1.0, 2.0] * 16),
        wb.skip.tokens(1, capacity=0.5),
        wb.skip.block(1, tokens=[3]),
    ):
        with pytest.raises(EditRefused, match="residual streams side by side|no softmax attention"):
            one.run(IDS, edit)
    with pytest.raises(SetupError, match="2 residual streams side by side"):
        one.run(IDS, record=wb.Record(logit_lens=True))


def test_a_layer_whose_indices_the_next_one_uses_stays(bench: Any) -> None:
    one = bench(built("hy_v4"))
    base = one.run(IDS)
    for edit in (
        wb.skip.block(1),
        wb.skip.policy("middle", radius=1),
        wb.skip.policy("middle", radius=1, kv="absent"),
    ):
        with pytest.raises(EditRefused, match="attends to the positions that layer 1 chose"):
            one.run(IDS, edit)
    for layer in (0, 2):
        assert not torch.equal(one.run(IDS, wb.skip.block(layer)).logits, base.logits)


def test_tokens_are_not_taken_out_of_a_cache_with_an_indexer(bench: Any) -> None:
    one = bench(build("deepseek_v32"))
    base = one.run(IDS)
    for edit in (
        wb.skip.tokens(1, capacity=0.5),
        wb.skip.repeat(1),
        wb.skip.alias(1, 2),
        wb.skip.path([0, 2, 1]),
    ):
        with pytest.raises(EditRefused, match="keeps more than keys and values in its cache"):
            one.run(IDS, edit)
    for edit in (wb.skip.block(1), wb.skip.attention(1), wb.skip.mlp(2)):
        assert not torch.equal(one.run(IDS, edit).logits, base.logits)


@pytest.mark.slow
def test_a_cache_class_of_a_familys_own_is_used(bench: Any) -> None:
    one = bench(build("minimax"))
    native = one.model.generate(torch.tensor([IDS]), max_new_tokens=3, do_sample=False, pad_token_id=0)[0]
    assert one.generate(IDS, 3).tokens.tolist() == native.tolist()
    base = one.run(IDS)
    assert not torch.equal(one.run(IDS, wb.skip.policy("middle", radius=1)).logits, base.logits)
    table = one.counterfactual(base, token=4, layers=2)
    redone = one.run(IDS, table.iloc[0]["plan"], record=None).logits.log_softmax(-1)[4, IDS[5]]
    own = base.logits.log_softmax(-1)[4, IDS[5]]
    assert table.iloc[0]["next_change"] == pytest.approx(float(redone - own), abs=1e-3)
    live = one.live(IDS)
    live.step()
    live.step()
    live.rewind(1)
    assert live.step().token == native[len(IDS) + 1]
