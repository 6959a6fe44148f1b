"""What the panel shows, against the rows and logits it is made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from workbench.interventions import Plan, Span, mask, reroute, skip
from workbench.panel import replies, views

PROMPT = "alpha beta gamma delta"


def test_the_map_holds_the_rows_of_the_store(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    arrays = driver.arrays()
    run = int(driver.state["base"]["id"])
    rows = fake_bench.sql(
        "SELECT position, layer, expert, weight FROM routing WHERE run = ? AND rank = 0", [run]
    ).fetchall()
    weights = fake_bench.sql(
        "SELECT position, layer, max(weight) FROM routing WHERE run = ? GROUP BY ALL", [run]
    ).fetchall()
    assert arrays["experts"].shape == arrays["weights"].shape == (2, 4, 4) and len(rows) == 12
    for position, layer, weight in weights:
        assert arrays["weights"][0, layer, position] == np.float32(weight)
    for layer in (1, 2, 3):
        for position in range(4):
            chosen = {e for (e,) in fake_bench.sql(
                "SELECT expert FROM routing WHERE run = ? AND layer = ? AND position = ?", [run, layer, position]
            ).fetchall()}  # fmt: skip
            assert set(arrays["experts"][:, layer, position].tolist()) == chosen
    assert (arrays["experts"][:, 0] == -1).all() and np.isnan(arrays["margin"][0]).all(), (
        "layer 0 has no router"
    )
    influence = fake_bench.sql(
        "SELECT position, layer, influence FROM contribution WHERE run = ?", [run]
    ).fetchall()
    for position, layer, value in influence:
        assert arrays["influence"][layer, position] == np.float32(value)


def test_a_skipped_block_is_marked_and_counts_as_no_flip(driver: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("add", edit={"kind": "skip.block", "layers": [2]})
    driver.compute("recompute")
    arrays = driver.arrays()
    assert arrays["skipped"][2].all() and arrays["skipped"].sum() == 4
    assert not arrays["flip"].any() and np.isnan(arrays["influence"][2]).all()
    driver.control("select", layer=2, position=0)
    cell = driver.view.last("cell")
    assert cell["skipped"] is True and cell["margin"] is None


def test_the_inspector_lists_every_expert_of_the_cell(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("select", layer=1, position=2)
    cell = driver.view.last("cell")
    (scores,) = fake_bench.sql(
        "SELECT scores FROM router_scores WHERE run = ? AND layer = 1 AND position = 2", [int(cell["run"])]
    ).fetchone()
    assert [row["score"] for row in cell["experts"]] == scores and cell["text"] == "gamma"
    best = sorted(range(8), key=lambda expert: -scores[expert])[:2]
    assert [row["expert"] for row in cell["experts"] if row["state"] == "chosen"] == sorted(best)
    assert all((row["weight"] is not None) == row["chosen"] for row in cell["experts"])
    driver.control("select", layer=0, position=2)
    assert driver.view.last("cell")["experts"] == [] and driver.view.last("cell")["facts"]["mlp_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell", [{"layer": 9, "position": 0}, {"layer": 1, "position": 4}, {"layer": -1, "position": 0}]
)
def test_a_cell_outside_the_map_is_an_error(driver: Any, cell: dict[str, int]) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("select", **cell)
    error = driver.view.last("error")
    assert "There is no" in error["problem"] and "0 to 3" in error["remedy"]


@pytest.mark.parametrize(
    ("edits", "state"),
    [
        ([reroute.ban(1, 5)], "banned"),
        ([reroute.force(1, 5)], "forced"),
        ([reroute.ban(1, 5), reroute.force(1, 5)], "forced"),
        ([reroute.force(1, 5), reroute.ban(1, 5)], "banned"),
        ([reroute.ban("all", 5)], "banned"),
        ([reroute.ban(2, 5)], None),
        ([reroute.ban(1, 5, tokens=[2])], "banned"),
        ([reroute.ban(1, 5, tokens=[1])], None),
        ([reroute.ban(1, 5, tokens=Span(start=2))], "banned"),
        ([reroute.ban(1, 5, tokens=Span(start=0, stop=2))], None),
        ([reroute.ban(1, 5, tokens="prompt_last")], None),
        ([reroute.ban(1, 5, tokens="generated")], None),
        ([reroute.ban(1, 5, phase="decode")], None),
        ([reroute.ban(1, 5).model_copy(update={"enabled": False})], None),
        ([mask.heads(1, 0), skip.block(2)], None),
    ],
)
def test_what_the_plan_says_of_an_expert_in_a_cell(edits: list[Any], state: str | None) -> None:
    assert views._verdicts(Plan(edits), layer=1, position=2, prompt_tokens=4).get(5) == state


def ran(number: int, logits: np.ndarray, plan: Plan) -> Any:
    """A run of a prompt that the panel keeps, with nothing in the store."""
    from workbench.panel.ran import Ran
    from workbench.panel.tiles import Shape

    size = len(logits)
    texts = [str(n) for n in range(size)]
    return Ran(number, list(range(size)), size, logits, texts, plan, Shape(1, size, 4, 2), "made")


def test_next_token_probabilities_against_torch() -> None:
    rng = np.random.default_rng(3)
    base, edited = (rng.normal(size=(3, 40)).astype(np.float32) * 4 for _ in range(2))
    runs = [ran(1, base, Plan()), ran(2, edited, Plan([reroute.ban(1, 1)]))]

    class Names:
        def token_text(self, token: int) -> str:
            return str(token)

    found = views.next_tokens(Names(), runs[0], runs[1], 1)
    p, q = (torch.tensor(x[1]).double().softmax(-1) for x in (base, edited))
    tops = {*p.topk(views.NEXT_ROWS).indices.tolist(), *q.topk(views.NEXT_ROWS).indices.tolist()}
    assert {row.token for row in found.rows} == tops
    for row in found.rows:
        assert row.base == pytest.approx(float(p[row.token]), rel=1e-12)
        assert row.edited == pytest.approx(float(q[row.token]), rel=1e-12)
    divergence = torch.nn.functional.kl_div(q.log(), p, reduction="sum")
    assert found.divergence == pytest.approx(float(divergence), rel=1e-12) and not found.last
    shown = [max(row.base, row.edited or 0.0) for row in found.rows]
    assert shown == sorted(shown, reverse=True)
    alone = views.next_tokens(Names(), runs[0], None, None)
    assert (
        alone.last and alone.position == 2 and alone.divergence is None and len(alone.rows) == views.NEXT_ROWS
    )


def test_a_tiny_vocabulary_is_shown_whole() -> None:
    class Names:
        def token_text(self, token: int) -> str:
            return str(token)

    found = views.next_tokens(Names(), ran(1, np.zeros((1, 3), np.float32), Plan()), None, None)
    assert [row.base for row in found.rows] == pytest.approx([1 / 3] * 3)


def test_messages_are_json_without_nan(driver: Any) -> None:
    import json

    driver.compute("run", prompt=PROMPT)
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [5]})
    driver.compute("recompute")
    for message in driver.view.messages:
        assert json.loads(json.dumps(message, allow_nan=False)) == message


@pytest.mark.slow
def test_the_real_bench_is_shown_as_it_ran(bench: Any, make_driver: Any) -> None:
    """The same path on a tiny OLMoE: what the panel says is what the store and the run say."""
    import workbench as wb
    from workbench.panel.benches import Benches

    one = bench("olmoe")
    one.tokenizer = _Letters()
    driver = make_driver(Benches({"bench": one}, lambda _model: one)).hello()
    driver.compute("run", prompt="abcdefgh")
    expert = int(driver.arrays()["experts"][0, 1, 7])
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [expert]})
    driver.compute("recompute")
    run = one.run("abcdefgh", plan=wb.Plan([wb.reroute.ban(1, expert)]))
    p = run.logits[-1].double().softmax(-1)
    for row in driver.view.last("next")["rows"]:
        assert row["edited"] == pytest.approx(float(p[row["token"]]), rel=1e-6)
    assert expert not in driver.arrays()["experts"][:, 1]
    driver.control("select", layer=1, position=7)
    states = {row["expert"]: row["state"] for row in driver.view.last("cell")["experts"]}
    chosen = one.sql(
        "SELECT expert FROM routing WHERE run = ? AND layer = 1 AND position = 7", [run.id]
    ).fetchall()
    assert states[expert] == "banned" and {e for e, s in states.items() if s == "chosen"} == {
        e for (e,) in chosen
    }
    assert driver.state["bench"]["experts"] == 8 and replies.State.model_validate(driver.view.raw("state"))


class _Letters:
    """A tokenizer of letters."""

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) - 90 for letter in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(token + 90) for token in ids)
