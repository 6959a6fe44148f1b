"""The panel's state for one bench: plan, history, base run and edited run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workbench.interventions import Plan

PROMPT = "one two three four five"
BAN = {"kind": "reroute.ban", "layers": [1], "experts": [5]}


def ban(expert: int, layer: int = 1, **more: Any) -> dict[str, Any]:
    return {"kind": "reroute.ban", "layers": [layer], "experts": [expert], **more}


def test_a_prompt_gives_state_map_cell_and_next_tokens(driver: Any, fake_bench: Any) -> None:
    seq = driver.compute("run", prompt=PROMPT)
    state = driver.state
    assert state["prompt"] == PROMPT and state["edited"] is None and state["stale"] is False
    assert isinstance(state["base"]["id"], str) and state["base"]["tokens"] == 5
    assert int(state["base"]["id"]) > 2**53, "ids do not fit a JavaScript number, hence text"
    assert driver.view.last("map")["run"] == driver.view.last("cell")["run"] == state["base"]["id"]
    assert driver.view.last("next")["rows"] and driver.view.messages[-1] == {"type": "done", "seq": seq}
    assert [m["what"] for m in driver.view.messages if m["type"] == "busy"][-2:] == [
        "running the prompt",
        None,
    ]
    assert fake_bench.plans == [None]


def test_a_ban_is_recomputed_and_shown_beside_the_base_run(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    base = driver.state["base"]["id"]
    before = driver.arrays()["experts"]
    chosen = int(before[0, 1, -1])
    driver.control("add", edit=ban(chosen))
    assert driver.state["stale"] is True and driver.state["plan"]["undo"] is True
    driver.compute("recompute")
    state = driver.state
    assert state["stale"] is False and state["base"]["id"] == base and state["edited"]["id"] != base
    assert state["edited"]["plan"] == state["plan"]["hash"] == Plan.from_json(state["plan"]["text"]).hash
    after = driver.arrays()
    assert chosen not in after["experts"][:, 1], "a banned expert is never chosen"
    assert after["edited"][1].all() and not after["edited"][2].any()
    flipped = np.any(np.sort(before, axis=0) != np.sort(after["experts"], axis=0), axis=0)
    assert (after["flip"] == flipped).all() and flipped[1, -1]
    driver.control("select", layer=1, position=4)
    row = driver.view.last("cell")["experts"][chosen]
    assert row["state"] == "banned" and row["native"] and not row["chosen"] and row["score"] is None
    assert all(r["edited"] is not None for r in driver.view.last("next")["rows"])


def test_undo_and_redo_walk_through_the_plans(driver: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    hashes = [driver.state["plan"]["hash"]]
    for expert in (1, 2, 3):
        driver.control("add", edit=ban(expert))
        hashes.append(driver.state["plan"]["hash"])
    assert len(set(hashes)) == 4
    for expected in reversed(hashes[:-1]):
        driver.control("undo")
        assert driver.state["plan"]["hash"] == expected
    assert driver.state["plan"]["undo"] is False and driver.state["stale"] is False
    driver.control("undo")
    assert driver.view.last("error")["problem"] == "There is nothing to undo."
    for expected in hashes[1:]:
        driver.control("redo")
        assert driver.state["plan"]["hash"] == expected
    driver.control("undo")
    driver.control("add", edit=ban(7))
    assert driver.state["plan"]["redo"] is False, "a new change forgets what was undone"


def test_an_undone_plan_shows_the_base_run_without_another_pass(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("add", edit=BAN)
    driver.compute("recompute")
    passes = len(fake_bench.plans)
    driver.control("undo")
    assert driver.state["edited"] is None and driver.view.last("map")["edited"] is False
    assert all(row["edited"] is None for row in driver.view.last("next")["rows"])
    driver.compute("recompute")
    assert len(fake_bench.plans) == passes


def test_edits_are_disabled_replaced_and_removed(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("add", edit=BAN)
    driver.control("enable", version=driver.state["plan"]["version"], index=0, enabled=False)
    assert driver.state["plan"]["edits"][0]["enabled"] is False and driver.state["stale"] is False
    driver.control(
        "replace", version=driver.state["plan"]["version"], index=0, edit={**BAN, "kind": "reroute.force"}
    )
    assert driver.state["plan"]["edits"][0]["kind"] == "reroute.force" and driver.state["stale"] is True
    driver.control("remove", version=driver.state["plan"]["version"], index=0)
    assert driver.state["plan"]["edits"] == []
    driver.control("add", edit=BAN)
    driver.control("clear")
    assert driver.state["plan"]["edits"] == [] and driver.state["plan"]["undo"] is True


def test_a_click_on_a_plan_that_has_changed_is_not_guessed_at(driver: Any) -> None:
    driver.control("add", edit=ban(1))
    old = driver.state["plan"]["version"]
    driver.control("add", edit=ban(2))
    for kind, data in (("remove", {}), ("enable", {"enabled": False}), ("replace", {"edit": BAN})):
        seq = driver.control(kind, version=old, index=0, **data)
        assert driver.view.last("error")["seq"] == seq
    assert [e["experts"] for e in driver.state["plan"]["edits"]] == [[1], [2]]
    driver.control("remove", version=driver.state["plan"]["version"], index=9)
    assert "no edit number 9" in driver.view.last("error")["problem"]


def test_an_edit_that_cannot_act_never_enters_the_plan(driver: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    for edit, words in (
        (ban(99), "experts 0 to 7"),
        (ban(1, layer=3), "its rule is not known"),
        (ban(1, layer=77), "There is no layer 77"),
        ({"kind": "reroute.wish", "layers": [1]}, "unknown kind"),
        (ban(-1), "expert"),
    ):
        driver.control("add", edit=edit)
        error = driver.view.last("error")
        assert words in error["problem"] and error["remedy"], error
    assert driver.state["plan"]["edits"] == [] and driver.state["plan"]["undo"] is False


def test_a_plan_that_fails_when_run_is_taken_back(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("add", edit=ban(1))
    driver.compute("recompute")
    good = driver.state["plan"]["hash"]
    fake_bench.forbidden.add(6)
    driver.control("add", edit=ban(6))
    driver.control("add", edit=ban(7))
    driver.compute("recompute")
    assert driver.view.last("error")["problem"] == "That expert cannot be banned."
    assert driver.state["plan"]["hash"] == good and driver.state["stale"] is False
    assert driver.state["edited"] is not None and driver.state["plan"]["redo"] is False


def test_a_proved_plan_that_fails_on_another_prompt_is_kept(driver: Any, fake_bench: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.control("add", edit=ban(6))
    driver.compute("recompute")
    fake_bench.forbidden.add(6)
    driver.compute("run", prompt="another prompt")
    assert driver.view.last("error")["problem"] == "That expert cannot be banned."
    state = driver.state
    assert (
        len(state["plan"]["edits"]) == 1 and state["edited"] is None and state["prompt"] == "another prompt"
    )
    assert state["stale"] is False, "or the page would ask for the same failure for ever"


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "words"), [("", "empty"), ("  \n", "empty"), ("word " * 80, "too long")])
def test_a_bad_prompt_leaves_everything_as_it_was(driver: Any, prompt: str, words: str) -> None:
    driver.compute("run", prompt=PROMPT)
    driver.view.clear()
    driver.compute("run", prompt=prompt)
    assert words in driver.view.last("error")["problem"]
    assert "map" not in driver.view.kinds()
    driver.control("add", edit=BAN)
    assert driver.state["prompt"] == PROMPT


def test_two_views_of_one_bench_agree(driver: Any, make_driver: Any) -> None:
    other = make_driver(driver.benches).hello()
    driver.compute("run", prompt=PROMPT)
    other.control("add", edit=BAN)
    other.control("select", layer=2, position=1)
    assert driver.state == other.state and driver.state["plan"]["edits"]
    assert driver.view.last("cell") == other.view.last("cell")
    other.connection.close()
    seen = len(other.view.messages)
    driver.control("undo")
    assert len(other.view.messages) == seen


def test_the_next_token_table_follows_a_position(driver: Any) -> None:
    driver.compute("run", prompt=PROMPT)
    assert driver.view.last("next")["last"] is True and driver.view.last("next")["position"] == 4
    driver.control("next", position=1)
    assert driver.view.last("next")["position"] == 1 and driver.view.last("next")["last"] is False
    driver.control("next", position=50)
    assert driver.view.last("error")["problem"] == "There is no token 50 in this run."


def test_a_plan_that_a_page_had_kept_is_taken_up_with_its_prompt(driver: Any, fake_bench: Any) -> None:
    kept = Plan.from_json('{"version": 1, "edits": [{"kind": "reroute.ban", "layers": [1], "experts": [5]}]}')
    driver.compute("open", model=None, prompt=PROMPT, plan=kept.to_json())
    state = driver.state
    assert (
        state["plan"]["hash"] == kept.hash
        and state["prompt"] == PROMPT
        and state["edited"]["plan"] == kept.hash
    )
