"""Generation, trials and the plan's tools on the demo model, against the runtime itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.panel import calibration
from workbench.panel.benches import Benches

PROMPT = "The capital of France is Paris, and the capital of Germany is"


@pytest.fixture(scope="module")
def demo() -> Iterator[Any]:
    """The demo model on a store in memory."""
    bench = wb.open(store=":memory:")
    yield bench
    bench.close()


@pytest.fixture
def live(demo: Any, make_driver: Any) -> Any:
    """A view on the demo model that has run the prompt."""
    driver = make_driver(Benches({"bench": demo}, lambda _model: demo)).hello()
    driver.compute("run", prompt=PROMPT)
    assert "error" not in driver.view.kinds()
    return driver


def steps(driver: Any, count: int) -> None:
    for _ in range(count):
        driver.compute("step")
        driver.control("seen")
    assert "error" not in driver.view.kinds(), driver.view.last("error")


def ban_the_favourite(driver: Any, layer: int) -> int:
    """Ban the expert that the last token weighs most in ``layer``."""
    expert = int(driver.arrays()["experts"][0, layer, -2])
    driver.control("add", edit={"kind": "reroute.ban", "layers": [layer], "experts": [expert]})
    return expert


@pytest.mark.slow
def test_steps_continue_the_prompt_as_generate_does(live: Any, demo: Any) -> None:
    steps(live, 6)
    reference = demo.generate(PROMPT, max_new_tokens=6)
    card = live.state["live"]
    assert card["edited"] == list(reference.texts[card["prompt_tokens"] :]) and card["base"] is None
    assert live.view.last("map")["tile"]["texts"] == list(reference.texts)
    run = int(live.state["base"]["id"])
    rows = "SELECT position, layer, slot, expert FROM routing WHERE run = ? ORDER BY ALL"
    assert demo.sql(rows, [run]).fetchall() == demo.sql(rows, [reference.id]).fetchall()
    experts = live.arrays()["experts"]
    routed = demo.anatomy.moe_layers[0]
    assert (experts[:, routed, :-1] >= 0).all() and (experts[:, routed, -1] == -1).all(), (
        "the newest token is chosen but not computed"
    )
    assert live.state["edited"] is None and card["pending"] is False and card["diverged"] is None


@pytest.mark.slow
def test_an_edit_acts_at_the_next_token_and_the_base_text_goes_on(live: Any, demo: Any) -> None:
    steps(live, 2)
    layer = demo.anatomy.moe_layers[-1]
    expert = ban_the_favourite(live, layer)
    assert live.state["live"]["pending"] is True and live.state["stale"] is False
    computed = len(live.view.last("map")["tile"]["texts"]) - 1
    steps(live, 5)
    card = live.state["live"]
    reference = demo.generate(PROMPT, max_new_tokens=7)
    assert card["base"] == list(reference.texts[card["prompt_tokens"] :]), "the text without the plan"
    assert card["pending"] is False and len(card["edited"]) == len(card["base"]) == 7
    wanted = next(
        (n for n, pair in enumerate(zip(card["edited"], card["base"], strict=True)) if len(set(pair)) > 1),
        None,
    )
    assert card["diverged"] == (None if wanted is None else card["prompt_tokens"] + wanted)
    arrays = live.arrays()
    assert expert not in arrays["experts"][:, layer, computed:]
    assert not arrays["edited"][layer, :computed].any() and arrays["edited"][layer, computed:].any()
    live.control("select", layer=layer, position=computed - 1)
    assert live.view.last("cell")["experts"][expert]["state"] == "chosen", (
        "what ran before the edit is not rewritten"
    )
    live.control("select", layer=layer, position=computed)
    assert live.view.last("cell")["experts"][expert]["state"] == "banned"


def test_rewind_takes_back_and_repeats_the_same_text(live: Any) -> None:
    steps(live, 5)
    before, run = live.state["live"], live.state["base"]["id"]
    live.compute("rewind", position=before["prompt_tokens"] + 1)
    card = live.state["live"]
    assert card["edited"] == before["edited"][:2] and live.state["base"]["id"] != run
    steps(live, 3)
    assert live.state["live"]["edited"] == before["edited"]
    live.compute("rewind", position=0)
    assert "cannot be rewound to token 0" in live.view.last("error")["problem"]
    assert live.state["live"]["edited"] == before["edited"]


def test_branches_go_their_own_way(live: Any, demo: Any) -> None:
    steps(live, 2)
    shared = live.state["live"]["edited"]
    live.compute("branch")
    assert live.state["live"]["timelines"] == [2, 2] and live.state["live"]["current"] == 1
    ban_the_favourite(live, demo.anatomy.moe_layers[0])
    steps(live, 3)
    assert live.state["live"]["timelines"] == [2, 5] and live.state["live"]["edited"][:2] == shared
    live.compute("timeline", index=0)
    assert live.state["live"]["edited"] == shared and live.state["live"]["base"] is None
    live.compute("timeline", index=9)
    assert live.view.last("error")["problem"] == "There is no branch 9."
    runs = {run for (run,) in demo.sql("SELECT run FROM run").fetchall()}
    first = int(live.state["base"]["id"])
    assert first not in runs
    live.compute("run", prompt=PROMPT)
    assert live.state["live"] is None and live.state["edited"] is not None
    assert first in {run for (run,) in demo.sql("SELECT run FROM run").fetchall()}, "leaving writes the runs"


@pytest.mark.slow
def test_a_plan_of_all_verbs_acts_at_the_next_token_and_replays_from_the_page(live: Any, demo: Any) -> None:
    steps(live, 2)
    for edit in (
        {"kind": "reroute.ban", "layers": [3], "experts": [1]},
        {"kind": "skip.tokens", "layers": [1, 2], "capacity": 0.5, "score": "random", "kv": "compute"},
        {"kind": "mask.heads", "layers": [2], "heads": [0]},
        {"kind": "mask.attention", "layers": [2], "pattern": "window", "window": 8, "block": 16, "sinks": 0},
    ):  # fmt: skip
        live.control("add", edit=edit)
        assert "error" not in live.view.kinds(), live.view.last("error")
    steps(live, 3)
    plan = wb.Plan.from_json(live.state["plan"]["text"])
    assert [edit.kind for edit in plan] == ["reroute.ban", "skip.tokens", "mask.heads", "mask.attention"]
    hand = demo.live(PROMPT)
    hand.step()
    hand.step()
    hand.edit(plan)
    for _ in range(3):
        hand.step()
    assert live.state["live"]["edited"] == [
        demo.token_text(token) for token in hand.tokens[hand.prompt_tokens :]
    ]
    mine, shown = hand.run, int(live.state["edited"]["id"])
    demo.store.flush()
    for table in ("routing", "depth", "attention_mask"):
        asked = f"SELECT * EXCLUDE (run) FROM {table} WHERE run = ? ORDER BY ALL"
        found = demo.sql(asked, [mine]).fetchall()
        assert found and demo.sql(asked, [shown]).fetchall() == found, table
    live.compute("run", prompt=PROMPT)
    live.control("clear")
    live.control("load", plan=plan.to_json())
    live.compute("recompute")
    run = demo.run(PROMPT, plan=plan)
    asked = "SELECT position, layer, slot, expert, weight FROM routing WHERE run = ? ORDER BY ALL"
    again = int(live.state["edited"]["id"])
    assert demo.sql(asked, [again]).fetchall() == demo.sql(asked, [run.id]).fetchall(), (
        "read anew, to the bit"
    )


def test_an_edit_that_cannot_act_midway_is_taken_back(live: Any, demo: Any) -> None:
    steps(live, 2)
    live.control("add", edit={"kind": "reroute.balanced", "layers": [demo.anatomy.num_layers - 1]})
    live.compute("step")
    assert "looks at later tokens" in live.view.last("error")["problem"]
    assert live.state["plan"]["edits"] == [] and len(live.state["live"]["edited"]) == 2


def test_a_step_asked_ahead_is_dropped_where_the_first_fails_or_it_is_called_off(
    live: Any, demo: Any
) -> None:
    steps(live, 1)
    live.control("add", edit={"kind": "reroute.balanced", "layers": [demo.anatomy.num_layers - 1]})
    live.compute("step")
    assert "looks at later tokens" in live.view.last("error")["problem"]
    live.view.clear()
    live.compute("step", ahead=True)
    assert "error" not in live.view.kinds() and live.view.kinds().count("done") == 1
    live.compute("step")
    assert len(live.state["live"]["edited"]) == 2, "one that is asked for by itself is made"
    live.control("cancel", request=live.seq + 2)
    live.compute("step", ahead=True)
    assert live.view.messages[-1]["type"] == "done" and len(live.state["live"]["edited"]) == 2
    live.compute("step", ahead=True)
    assert len(live.state["live"]["edited"]) == 3


def test_a_text_grows_at_once_and_is_busy_until_its_map_has_come(live: Any) -> None:
    """The text does not wait for the store; what is read from it comes with the last picture, and then nothing is busy."""
    live.view.clear()
    for _ in range(4):
        live.seq += 1
        live.connection.receive("compute", {"type": "step", "seq": live.seq})
        live.connection.receive("control", {"type": "seen", "seq": 0})
    live.connection.settle()
    kinds = live.view.kinds()
    tokens = [len(m["live"]["edited"]) for m in live.view.messages if m["type"] == "state"]
    assert tokens == sorted(tokens) and tokens[-1] == 4 and {1, 2, 3, 4} <= set(tokens)
    assert 1 <= kinds.count("map") <= 4 and "error" not in kinds
    last = live.view.last("map")
    assert last["tokens"] == live.state["live"]["prompt_tokens"] + 4 == len(last["tile"]["texts"])
    assert (live.arrays()["experts"][0, -1, :-1] >= 0).all(), "every token that has been read has its row"
    whats = [(n, m["what"]) for n, m in enumerate(live.view.messages) if m["type"] == "busy"]
    assert whats[-1][1] is None and whats[-1][0] > max(n for n, kind in enumerate(kinds) if kind == "map")


def test_steering_before_anything_is_generated_says_what_to_do(live: Any) -> None:
    for kind, data in (("rewind", {"position": 3}), ("branch", {}), ("timeline", {"index": 0})):
        live.compute(kind, **data)
        assert live.view.last("error")["problem"] == "Nothing is being generated.", kind
        assert live.view.last("busy")["what"] is None


def test_trials_are_what_running_the_exchange_gives(live: Any, demo: Any) -> None:
    layer, position = demo.anatomy.moe_layers[1], len(live.view.last("map")["tile"]["texts"]) - 3
    live.compute("try", layer=layer, position=position)
    found = live.view.last("trials")
    moe = demo.anatomy.layer(layer).moe
    assert len(found["rows"]) == moe.top_k * (moe.num_experts - moe.top_k) and found["followed"] == 2
    changes = [row["change"] for row in found["rows"]]
    assert changes == sorted(changes, reverse=True)
    best = found["rows"][0]
    exchange = {"layer": layer, "position": position, "removed": best["removed"], "expert": best["expert"]}
    live.control("exchange", **exchange)
    assert [e["kind"] for e in live.state["plan"]["edits"]] == ["reroute.ban", "reroute.force"]
    live.compute("recompute")
    tokens = demo.run(PROMPT).tokens
    base, edited = (
        demo.run(PROMPT, plan=plan) for plan in (None, wb.Plan.from_json(live.state["plan"]["text"]))
    )

    def worth(run: Any) -> float:
        logp = run.logits.double().log_softmax(-1)
        return float(sum(logp[p, tokens[p + 1]] for p in (position, position + 1)))

    np.testing.assert_allclose(best["change"], worth(edited) - worth(base), atol=1e-4)
    experts = set(live.arrays()["experts"][:, layer, position].tolist())
    assert best["expert"] in experts and best["removed"] not in experts
    live.control("undo")
    assert live.state["plan"]["edits"] == [], "an exchange is one change"


def test_trials_of_a_text_of_several_plans_are_refused(live: Any, demo: Any) -> None:
    steps(live, 1)
    ban_the_favourite(live, demo.anatomy.moe_layers[0])
    steps(live, 1)
    live.compute("try", layer=demo.anatomy.moe_layers[1], position=2)
    assert "more than one plan" in live.view.last("error")["problem"]


def test_the_map_flips_between_base_and_edited(live: Any, demo: Any) -> None:
    base = live.arrays()["experts"]
    ban_the_favourite(live, demo.anatomy.moe_layers[0])
    live.compute("recompute")
    edited = live.arrays()["experts"]
    live.control("side", base=True)
    assert live.view.last("map")["edited"] is False and (live.arrays()["experts"] == base).all()
    live.control("side", base=False)
    assert live.view.last("map")["edited"] is True and (live.arrays()["experts"] == edited).all()


def test_edits_move_and_plans_are_loaded_as_checked_data(driver: Any) -> None:
    edits = [{"kind": "reroute.ban", "layers": [1], "experts": [n]} for n in range(3)]
    for edit in edits:
        driver.control("add", edit=edit)
    driver.control("move", version=driver.state["plan"]["version"], index=0, to=2)
    assert [e["experts"] for e in driver.state["plan"]["edits"]] == [[1], [2], [0]]
    driver.control("move", version=driver.state["plan"]["version"], index=0, to=3)
    assert "no edit number 3" in driver.view.last("error")["problem"]
    kept = driver.state["plan"]
    assert eval(kept["python"], {"wb": wb}).hash == kept["hash"]
    driver.control("clear")
    driver.control("load", plan=kept["text"])
    assert driver.state["plan"]["hash"] == kept["hash"]
    for text, words in (
        ("nonsense", "not JSON"),
        ('{"version": 1, "edits": [{"kind": "reroute.wish"}]}', "unknown kind"),
        (json.dumps({"version": 1, "edits": [{**edits[0], "experts": [99]}]}), "experts 0 to 7"),
    ):
        driver.control("load", plan=text)
        assert words in driver.view.last("error")["problem"]
        assert driver.state["plan"]["hash"] == kept["hash"]


def test_a_bias_says_how_much(driver: Any) -> None:
    driver.control("add", edit={"kind": "reroute.bias", "layers": [1], "delta": {"5": 2.0}})
    card = driver.state["plan"]["edits"][0]
    assert card["experts"] == [5] and card["delta"] == 2.0


def test_heads_and_effects_are_those_of_the_run(live: Any, demo: Any) -> None:
    layer = demo.anatomy.moe_layers[1]
    live.control("add", edit={"kind": "mask.heads", "layers": [layer], "heads": [0]})
    live.control("add", edit={"kind": "reroute.ban", "layers": [layer], "experts": [3]})
    live.compute("recompute")
    live.compute("heads_of", layer=layer)
    told = live.view.last("heads")
    values = np.frombuffer(live.view.buffers[live.view.kinds().index("heads")][0], np.uint8)
    shown = (values.reshape(told["array"]["shape"]) / 255.0) ** 2
    plan = wb.Plan.from_json(live.state["plan"]["text"])
    run = demo.run(PROMPT, plan=plan)
    np.testing.assert_allclose(shown, run.tensor("attn_pattern", layers=layer).cpu(), atol=0.005)
    live.compute("effects_of")
    rows = live.view.last("effects")["rows"]
    assert [row["index"] for row in rows] == [0, 1]
    for row in rows:
        rest = demo.run(PROMPT, plan=plan.without(row["index"]), record=None)
        p, q = (one.logits.double().log_softmax(-1) for one in (run, rest))
        each = (p.exp() * (p - q)).sum(-1)
        assert row["kl"] == pytest.approx(float(each.mean()), rel=1e-4, abs=1e-9)
        assert row["last"] == pytest.approx(float(each[-1]), rel=1e-4, abs=1e-9)


def test_what_is_kept_of_a_map_is_what_the_store_says(live: Any, demo: Any) -> None:
    """Step by step only new tokens are read; in the end nothing differs from reading all of it, also after a rewind."""
    from workbench.panel import grids

    steps(live, 2)
    ban_the_favourite(live, demo.anatomy.moe_layers[0])
    steps(live, 3)
    live.control("add", edit={"kind": "skip.mlp", "layers": [1]})
    steps(live, 2)
    live.compute("rewind", position=live.state["live"]["prompt_tokens"] + 2)
    steps(live, 2)
    told = live.view.last("map")
    base, run = int(told["base"]), int(told["run"])
    shape = grids.Shape(len(told["layers"]), told["tokens"], told["experts"], told["choices"])
    fresh = grids.fine(demo.store.cursor(), shape, run, base, told["edited"], 0, shape.tokens)
    shown = live.arrays()
    assert told["edited"] and shown.keys() == fresh.keys()
    for name, array in fresh.items():
        np.testing.assert_array_equal(shown[name], array, err_msg=name)
    assert (shown["depth"] == 2).any() and not shown["skipped"].any() and "depth" in told["colours"]


def test_contributions_are_parts_of_the_logit(live: Any, demo: Any) -> None:
    """Against the formula itself: weight x output . (unembedding x gain / rms), all from what the run gives as tensors."""
    layer, position = demo.anatomy.moe_layers[1], 6
    live.control("add", edit={"kind": "reroute.ban", "layers": [layer], "experts": [3]})
    live.compute("recompute")
    live.compute("contributions_of", layer=layer, position=position)
    told = live.view.last("contributions")
    run = demo.run(PROMPT, plan=wb.Plan.from_json(live.state["plan"]["text"]))
    model = demo.model
    final = run.tensor("resid_post", layers=demo.anatomy.num_layers - 1, tokens=[position])[0].double()
    row = model.lm_head.weight[run.tokens[position + 1]].detach().double()
    norm = model.model.norm
    seen = row * norm.weight.detach().double() / (final.square().mean() + norm.variance_epsilon).sqrt()
    assert told["target"] == demo.token_text(int(run.tokens[position + 1]))
    for unit, site in (("attention", "attn_out"), ("mlp", "mlp_out")):
        part = run.tensor(site, layers=layer, tokens=[position])[0].double()
        assert told[unit] == pytest.approx(float(part @ seen), rel=1e-3, abs=1e-4)
    assert sum(one["effect"] for one in told["experts"]) == pytest.approx(told["mlp"], rel=1e-3, abs=1e-4)
    chosen = demo.sql(
        "SELECT expert, weight * norm FROM routing WHERE run = ? AND layer = ? AND position = ?",
        [run.id, layer, position],
    ).fetchall()
    assert {one["expert"] for one in told["experts"]} == {expert for expert, _ in chosen}
    live.control("select", layer=layer, position=position)
    outputs = {row["expert"]: row["output"] for row in live.view.last("cell")["experts"] if row["chosen"]}
    assert outputs == pytest.approx(dict(chosen), rel=1e-6)
    live.compute("contributions_of", layer=layer, position=999)
    assert "Token 999 has not been read" in live.view.last("error")["problem"]


def test_depth_events_of_every_kind_are_told(live: Any, demo: Any) -> None:
    edits = (
        ({"kind": "skip.block", "layers": [1], "tokens": [4]}, 5, ["block skip"]),
        ({"kind": "skip.attention", "layers": [2]}, 3, ["attn skip"]),
        ({"kind": "skip.repeat", "layers": [3], "unit": "mlp"}, 4, ["attn skip", "block repeat"]),
        ({"kind": "skip.alias", "layers": [4], "source": 2, "unit": "mlp"}, 1, ["mlp reuse"]),
    )
    for edit, _, _ in edits:
        live.control("add", edit=edit)
    live.compute("recompute")
    assert "error" not in live.view.kinds(), live.view.last("error")
    depth = live.arrays()["depth"]
    for edit, number, words in edits:
        (layer,) = edit["layers"]
        assert depth[layer, 4] == number, (edit, depth[layer])
        live.control("select", layer=layer, position=4)
        assert live.view.last("cell")["events"] == words
    assert depth[1, 3] == 0 and not depth[[0, 5]].any()
    live.control("select", layer=1, position=4)
    assert live.view.last("cell")["skipped"] is True
    live.control("select", layer=1, position=3)
    assert live.view.last("cell")["skipped"] is False, "only that token left the block out"


def test_a_growing_text_is_told_by_its_new_tokens(live: Any) -> None:
    steps(live, 3)
    sent = [
        message["live"]["edited"]
        for message in live.view.sent
        if message["type"] == "state" and message["live"]
    ]
    assert (
        sent
        and all(len(text["tokens"]) <= 1 for text in sent)
        and sent[-1]["keep"] + len(sent[-1]["tokens"]) == 3
    )
    start = live.state["live"]["prompt_tokens"]
    live.compute("rewind", position=start)
    assert len(live.state["live"]["edited"]) == 1
    told = next(message for message in reversed(live.view.sent) if message["type"] == "state")["live"][
        "edited"
    ]
    assert told == {"keep": 1, "tokens": []}, "what is taken back is not told again"
    live.view.texts = {"edited": [], "base": []}  # another view of the same widget: it has been told nothing
    live.hello()
    assert len(live.state["live"]["edited"]) == 1


def test_a_step_is_one_post_beside_its_picture(live: Any) -> None:
    steps(live, 1)
    for _ in range(3):
        live.view.posted.clear()
        live.compute("step")
        live.control("seen")
        (post,) = [post for post in live.view.posted if "state" in post]
        assert post[-3:] == ["state", "next", "done"], "a token arrives with all that is known of it"


def test_masks_by_activation_are_chosen_on_the_prompt_or_on_runs(live: Any, demo: Any) -> None:
    layer = demo.anatomy.moe_layers[2]
    prompt = [int(token) for token in demo.token_ids(PROMPT)]
    live.compute("calibrate", texts="prompt")
    told = live.view.last("calibrated")
    assert told["seq"] == live.seq and (told["runs"], told["tokens"]) == (1, len(prompt))
    assert told["source"] == demo.calibrate([prompt])
    edit = {
        "kind": "mask.neurons", "layers": [layer], "ratio": 0.9, "criterion": "activation", "source": told["source"],
    }  # fmt: skip
    live.control("add", edit=edit)
    live.compute("recompute")
    run = demo.run(PROMPT, plan=wb.Plan.from_json(live.state["plan"]["text"]), record=None)
    shown = live.view.last("next")["rows"]
    probability = run.logits[-1].double().softmax(-1)
    assert {row["token"]: row["edited"] for row in shown} == pytest.approx(
        {row["token"]: float(probability[row["token"]]) for row in shown}, abs=1e-6
    )
    assert any(abs(row["edited"] - row["base"]) > 1e-4 for row in shown), "it acts"

    # Runs of one text count once, and no more tokens are read than are kept in memory.
    texts = [prompt, [5, 6, 7, 8], list(range(10, 10 + calibration.MOST_TOKENS - 8))]
    for text in (texts[2], texts[1], texts[1], texts[0]):
        demo.run(text)
    live.compute("calibrate", texts="runs")
    told = live.view.last("calibrated")
    assert told["tokens"] == calibration.MOST_TOKENS
    recorded = calibration._recorded(demo)
    assert recorded[:2] == texts[:2] and sum(map(len, recorded)) == calibration.MOST_TOKENS
    assert told["source"] == demo.calibrate(recorded) and told["runs"] == len(recorded)


def test_activation_has_nothing_to_go_by_in_an_empty_store(make_driver: Any) -> None:
    with wb.open(store=":memory:") as bench:
        driver = make_driver(Benches({"bench": bench}, lambda _model: bench)).hello()
        driver.compute("calibrate", texts="runs")
        assert "no run of this model" in driver.view.last("error")["problem"]
        driver.compute("calibrate", texts="prompt")
        assert "No prompt has been run" in driver.view.last("error")["problem"]


def test_a_generation_is_saved_as_a_page_once_it_has_ended(live: Any) -> None:
    steps(live, 2)
    run = live.state["base"]["id"]
    live.control("export", sql="", format="html")
    assert "still being generated" in live.view.last("error")["problem"] and "file" not in live.view.kinds()
    live.compute("run", prompt=PROMPT)  # what the message says to do
    live.control("show", run=run, base=None, plan=False)
    live.control("export", sql="", format="html")
    assert live.view.last("file")["name"] == f"routing-{run}.html"
