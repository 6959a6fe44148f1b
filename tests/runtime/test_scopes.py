"""Scopes: an edit holds exactly for the tokens, rows, steps and conditions it names, whatever the batch and the cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import workbench as wb
from workbench.errors import AddressError, EditRefused

IDS = [5, 17, 3, 60, 22, 9, 41, 8, 33, 2, 19, 50]
LAYER = 1


class Words:
    """A tokenizer whose words are numbers: even ids are written with a leading space."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, ids: list[int]) -> str:
        return "".join(f" {i}" if i % 2 == 0 else str(i) for i in ids)


@pytest.fixture
def one(bench: Any, tiny: Any) -> Any:
    return bench(tiny("olmoe"), tokenizer=Words())


def edited(bench: Any, run: Any, layer: int = LAYER) -> list[int]:
    """Positions whose choice or weights an edit changed in ``layer``."""
    rows = bench.sql(
        "SELECT position FROM router WHERE run = ? AND layer = ? AND edited", [run.id, layer]
    ).fetchall()
    return sorted(position for (position,) in rows)


def scale(**scope: Any) -> Any:
    """An edit that changes every token it holds for."""
    return wb.reroute.weights(LAYER, scale=1.5, **scope)


def signals(bench: Any, run: Any, layer: int) -> dict[str, list[float]]:
    rows = bench.sql(
        "SELECT margin, entropy, top FROM router JOIN (SELECT position, max(weight) AS top FROM routing WHERE run = $run "
        "AND layer = $layer GROUP BY position) USING (position) WHERE run = $run AND layer = $layer ORDER BY position",
        {"run": run.id, "layer": layer},
    ).fetchall()  # fmt: skip
    return dict(zip(("margin", "entropy", "top_weight"), map(list, zip(*rows, strict=True)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("position >= 3 and position < 5 or token == 50", [3, 4, 11]),
        ("text ~ '^ '", [n for n, i in enumerate(IDS) if i % 2 == 0]),
        ("text == '17'", [1]),
        ("not text ~ '^ ' and position > 4", [n for n, i in enumerate(IDS) if i % 2 and n > 4]),
        ("part == 'prompt'", list(range(12))),
        ("label.language == 'en' and label.level > 2 and position < 2", [0, 1]),
        ("label.language != 'en'", []),
        ("label.language > 3", []),
    ],
)
def test_a_condition_picks_its_tokens(one: Any, where: str, holds: list[int]) -> None:
    run = one.run(IDS, scale(where=where), labels={"language": "en", "level": 3})
    assert edited(one, run) == holds
    if holds:
        same = one.run(IDS, scale(tokens=holds), record=None)
        assert torch.equal(same.logits, run.logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["margin", "entropy", "top_weight"])
@pytest.mark.parametrize("source", [None, 0])
def test_a_condition_on_a_signal_sees_what_the_router_computed(
    one: Any, name: str, source: int | None
) -> None:
    layer = LAYER if source is None else source
    told = signals(one, one.run(IDS), layer)[name]
    border = sorted(told)[5] + 1e-9
    asked = name if source is None else f"{name}.{source}"
    run = one.run(IDS, scale(where=f"{asked} <= {border!r}"))
    assert edited(one, run) == [n for n, value in enumerate(told) if value <= border]
    # Without recording, the router of the source layer is watched all the same.
    assert torch.equal(one.run(IDS, scale(where=f"{asked} <= {border!r}"), record=None).logits, run.logits)


@pytest.mark.slow
def test_a_signal_is_that_of_the_native_choice(one: Any) -> None:
    told = signals(one, one.run(IDS), LAYER)["margin"]
    where = f"margin < {sorted(told)[6]!r}"
    both = wb.Plan([wb.reroute.bias(LAYER, [3.0, *[0.0] * 7]), scale(where=where)])
    alone = edited(one, one.run(IDS, scale(where=where)))
    biased = one.run(IDS, wb.reroute.bias(LAYER, [3.0, *[0.0] * 7]))
    run = one.run(IDS, both)
    total = "SELECT position, sum(weight) FROM routing WHERE run = ? AND layer = 1 GROUP BY position ORDER BY position"
    ratio = [
        after / before
        for (_, after), (_, before) in zip(
            one.sql(total, [run.id]).fetchall(), one.sql(total, [biased.id]).fetchall(), strict=True
        )
    ]
    assert [n for n, value in enumerate(ratio) if value > 1.4] == alone


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "model"])
def test_rows_steps_and_phase_hold_in_batches_and_generations(bench: Any, kernels: str) -> None:
    one = bench("olmoe", kernels=kernels)
    prompts = [IDS, IDS[:7], IDS[3:]]
    plan = wb.Plan([scale(rows=[0, 2], tokens=slice(2, 4))])
    runs = one.run(prompts, plan)
    assert [edited(one, run) for run in runs] == [[2, 3], [], [2, 3]]
    assert runs[1].plan == wb.Plan() and runs[0].plan == wb.Plan([scale(tokens=slice(2, 4))])
    for prompt, run in zip(prompts, runs, strict=True):
        alone = one.run(prompt, run.plan)
        torch.testing.assert_close(alone.logits, run.logits, rtol=1e-4, atol=1e-5)

    shared = scale(tokens=[1])
    both = one.run(prompts, plans=[wb.Plan([shared]), None, wb.Plan([shared, wb.mask.heads(0, 1)])])
    assert [edited(one, run) for run in both] == [[1], [], [1]]

    each = one.run(prompts, plans=[scale(where="position == 1"), None, scale(tokens=[0])])
    assert [edited(one, run) for run in each] == [[1], [], [0]]

    for scope, holds in (
        ({"steps": 2}, [13]),
        ({"steps": slice(1, 3)}, [12, 13]),
        ({"steps": 0}, list(range(12))),
        ({"phase": "decode"}, [12, 13, 14]),
        ({"phase": "prefill", "tokens": slice(10, 20)}, [10, 11]),
        ({"where": "part == 'generated' and position != 13"}, [12, 14]),
    ):
        run = one.generate(IDS, 4, scale(**scope))
        assert edited(one, run) == holds, scope
        torch.testing.assert_close(run.tensor("resid_post", layers=2), whole(one, run), rtol=1e-4, atol=1e-5)


def whole(bench: Any, run: Any) -> torch.Tensor:
    """The last residual stream of a generation as its own passes left it, from an edit by position."""
    positions = edited(bench, run)
    again = bench.run(run.tokens[:-1].tolist(), scale(tokens=positions))
    torch.testing.assert_close(again.logits, run.logits, rtol=1e-4, atol=1e-5)
    return again.tensor("resid_post", layers=2)


def test_a_condition_holds_in_a_live_generation_too(one: Any) -> None:
    told = signals(one, one.run(IDS), LAYER)["margin"]
    edit = scale(where=f"margin < {sorted(told)[6]!r}")
    run = one.generate(IDS, 4, edit)
    live = one.live(IDS, edit)
    for _ in range(4):
        live.step()
    assert edited(one, live.finish()) == edited(one, run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (wb.mask.heads(1, 0, where="margin < 1"), "comes later"),
        (scale(where="margin.2 < 1"), "comes later"),
        (scale(where="label.topic == 'x'"), "does not have"),
        (scale(rows=[1]), "names row 1, but there are 1 prompts"),
        (scale(steps=3), "names step 3"),
        (scale(phase="decode"), "only reads its prompt"),
        (wb.Plan([wb.skip.block(0), scale(where="margin.0 < 1")]), "did not run"),
        (wb.skip.alias(1, 0, where="position > 3"), "all tokens of a run"),
    ],
)
def test_scopes_that_cannot_hold_are_refused(one: Any, edit: Any, says: str) -> None:
    with pytest.raises(EditRefused, match=says):
        one.run(IDS, edit)


@pytest.mark.slow
def test_a_signal_of_a_layer_that_is_not_there_and_texts_without_a_tokenizer_are_refused(
    one: Any, bench: Any
) -> None:
    with pytest.raises(AddressError, match="no layer 9"):
        one.run(IDS, scale(where="margin.9 < 1"))
    with pytest.raises(EditRefused, match="no tokenizer"):
        bench("olmoe").run(IDS, scale(where="text == 'a'"))
    with pytest.raises(EditRefused, match="another plan"):
        one.run([IDS, IDS], plans=[scale(rows=[1]), None])
    with pytest.raises(EditRefused, match="has no site"):
        bench("llama").run(IDS, wb.mask.heads(1, 0, where="margin.0 < 1"))


def test_heads_may_ask_an_earlier_router(one: Any) -> None:
    told = signals(one, one.run(IDS), 0)["margin"]
    border = sorted(told)[6]
    masked = one.run(IDS, wb.mask.heads(1, [0, 1], where=f"margin.0 < {border!r}"), record=None)
    tokens = [n for n, value in enumerate(told) if value < border]
    assert torch.equal(
        masked.logits, one.run(IDS, wb.mask.heads(1, [0, 1], tokens=tokens), record=None).logits
    )
