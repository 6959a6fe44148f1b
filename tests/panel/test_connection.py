"""What a view may say, what it is told when that is wrong, and which benches it is shown."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from workbench.errors import ModelError
from workbench.panel import protocol
from workbench.panel.benches import Benches, is_bench
from workbench.panel.connection import UNSEEN_MAPS


def test_a_greeting_tells_the_benches_and_joins_the_newest(make_bench: Any, make_driver: Any) -> None:
    namespace = {"first": make_bench("a"), "_hidden": make_bench("h"), "second": make_bench("b"), "x": 3}
    driver = make_driver(Benches(namespace, lambda _: None)).hello()
    told = driver.view.last("benches")
    assert [(b["name"], b["variables"]) for b in told["benches"]] == [("a", ["first"]), ("b", ["second"])]
    assert told["current"] == told["benches"][1]["key"] and driver.state["bench"]["name"] == "b"
    driver.control("use", key=told["benches"][0]["key"])
    assert driver.state["bench"]["name"] == "a"
    driver.control("use", key="nonsense")
    assert "not in this kernel" in driver.view.last("error")["problem"]


def test_without_a_bench_the_view_is_told_what_to_do(make_driver: Any) -> None:
    driver = make_driver(Benches({}, lambda _: None)).hello()
    assert driver.view.last("benches")["current"] is None
    driver.compute("run", prompt="hello")
    assert driver.view.last("error")["problem"] == "No model is open in this kernel."


def test_a_bench_that_a_cell_has_made_appears_and_a_closed_one_goes(
    make_bench: Any, make_driver: Any
) -> None:
    namespace: dict[str, Any] = {}
    benches = Benches(namespace, lambda _: None)
    driver = make_driver(benches).hello()
    namespace["bench"] = make_bench()
    benches.rescan()
    assert driver.state["bench"]["name"] == "fake/model"
    driver.view.clear()
    benches.rescan()
    assert driver.view.messages == [], "nothing has changed, nothing is said"
    namespace["bench"].close()
    benches.rescan()
    assert driver.view.last("benches") == {**driver.view.last("benches"), "benches": [], "current": None}


def test_the_panel_keeps_no_model_alive(make_driver: Any) -> None:
    import weakref

    from workbench.panel.session import Session

    class Bench:
        name, closed = "mine", False

    bench = Bench()
    session = Session(weakref.ref(bench))
    assert session.bench is bench
    del bench
    gc.collect()
    with pytest.raises(Exception, match="The bench of this panel is closed"):
        _ = session.bench


def test_only_a_class_decides_what_a_bench_is(make_bench: Any) -> None:
    class Trap:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("a user's object was touched")

    assert (
        is_bench(make_bench())
        and not is_bench(Trap())
        and not is_bench(type(make_bench()))
        and not is_bench(None)
    )


def test_opening_a_model_names_it_and_joins_it(make_bench: Any, make_driver: Any) -> None:
    namespace: dict[str, Any] = {}
    asked: list[str | None] = []

    def opener(name: str | None) -> Any:
        asked.append(name)
        if name == "missing":
            raise ModelError("There is no model 'missing'.", "Check the name.")
        return make_bench(name or "demo")

    driver = make_driver(Benches(namespace, opener)).hello()
    seq = driver.compute("open", model=None)
    assert driver.state["bench"]["name"] == "demo" and namespace["bench"].name == "demo"
    assert driver.view.messages[-1] == {"type": "done", "seq": seq}
    driver.compute("open", model="missing")
    assert driver.view.last("error") == {
        "type": "error", "seq": seq + 1, "problem": "There is no model 'missing'.", "remedy": "Check the name."
    }  # fmt: skip
    assert driver.view.last("busy")["what"] is None and driver.state["bench"]["name"] == "demo"
    driver.compute("open", model="other")
    assert driver.state["bench"]["name"] == "other" and namespace["bench"].name == "demo"
    assert asked == [None, "missing", "other"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lane", "message"),
    [
        ("control", {"type": "wish"}),
        ("control", {"type": "run", "prompt": "wrong lane"}),
        ("compute", {"type": "undo"}),
        ("control", {"type": "select", "layer": "one", "position": 0}),
        ("control", {"type": "select", "layer": 1, "position": 0, "extra": 1}),
        ("control", {}),
    ],
)
def test_what_is_not_understood_is_said(driver: Any, lane: Any, message: dict[str, Any]) -> None:
    driver.connection.receive(lane, {"seq": 77, **message})
    error = driver.view.last("error")
    assert error["seq"] == 77 and "does not understand" in error["problem"] and "Reload" in error["remedy"]


@pytest.mark.slow
@pytest.mark.parametrize("message", [None, "text", [1], {"seq": "x", "type": "undo"}])
def test_no_message_breaks_the_connection(driver: Any, message: Any) -> None:
    driver.connection.receive("control", message)
    assert driver.view.last("error")["seq"] is None
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [5]})
    assert len(driver.state["plan"]["edits"]) == 1


def test_an_unforeseen_failure_and_an_interrupt_reach_the_screen(
    driver: Any, fake_bench: Any, caplog: Any
) -> None:
    def boom(*_: Any, **__: Any) -> Any:
        raise error

    fake_bench.run = boom
    error: BaseException = ZeroDivisionError("by zero")
    driver.compute("run", prompt="hello")
    assert (
        "ZeroDivisionError: by zero" in driver.view.last("error")["problem"]
        and "panel request failed" in caplog.text
    )
    error = KeyboardInterrupt()
    seq = driver.compute("run", prompt="hello")
    assert "interrupted" in driver.view.last("error")["problem"]
    assert driver.view.last("busy")["what"] is None and driver.view.messages[-1] == {
        "type": "done",
        "seq": seq,
    }


def test_another_protocol_is_refused_with_what_to_upgrade(driver: Any) -> None:
    for number, place in ((protocol.PROTOCOL + 1, "kernel"), (protocol.PROTOCOL - 1, "JupyterLab")):
        driver.control("hello", protocol=number, version="9.9.9")
        error = driver.view.last("error")
        assert "9.9.9" in error["problem"] and f"environment of the {place}" in error["remedy"]


def test_a_hidden_view_is_sent_nothing_and_catches_up(driver: Any) -> None:
    driver.compute("run", prompt="one two three")
    driver.control("watch", visible=False)
    driver.view.clear()
    driver.compute("run", prompt="one two three four")
    assert set(driver.view.kinds()) == {"done"}, "nothing but the answer to its own request"
    driver.control("watch", visible=True)
    assert (
        driver.state["prompt"] == "one two three four" and len(driver.view.last("map")["tile"]["texts"]) == 4
    )


def test_a_view_that_acknowledges_no_map_gets_no_more(driver: Any) -> None:
    for _ in range(UNSEEN_MAPS + 3):
        driver.compute("run", prompt="one two three")
    assert driver.view.kinds().count("map") == UNSEEN_MAPS
    driver.control("seen")
    assert driver.view.kinds().count("map") == UNSEEN_MAPS + 1, (
        "one that speaks again is shown what it missed"
    )


def test_markup_from_a_model_travels_as_text(driver: Any) -> None:
    driver.compute("run", prompt="<img/src=x> <script>alert(1)</script>")
    assert driver.view.last("map")["tile"]["texts"] == ["<img/src=x>", "<script>alert(1)</script>"]
    assert driver.view.last("next")["rows"][0]["text"].startswith("<b>")


def test_opening_a_model_tells_how_far_it_is(make_driver: Any, make_bench: Any) -> None:
    from transformers.utils import logging

    from workbench.panel.progress import loading

    def opener(_model: str | None) -> Any:
        assert list(logging.tqdm(range(4), desc="Loading weights")) == [0, 1, 2, 3]
        assert list(logging.tqdm(n for n in range(2))) == [0, 1], "a bar without an end is left alone"
        return make_bench()

    driver = make_driver(Benches({}, opener, loading)).hello()
    driver.compute("open", model="some/model")
    shares = [message["share"] for message in driver.view.messages if message["type"] == "busy"]
    assert shares[0] is None and 1.0 in shares and driver.state["bench"]["name"] == "fake/model"
    assert logging.set_tqdm_hook(None) is None, "the hook is taken back"


def test_downloads_are_counted_whether_their_bars_are_drawn_or_not() -> None:
    from huggingface_hub.utils import tqdm

    from workbench.panel.progress import loading

    told: list[tuple[tuple[float, float] | None, float]] = []
    before = tqdm.update
    with loading(lambda size, share: told.append((size, share))):
        for disabled in (True, False):
            bar = tqdm(total=4_000_000, unit="B", desc="model.safetensors", disable=disabled, leave=False)
            bar.update(1_000_000)
            bar.update(3_000_000)
            bar.close()
        tqdm(total=3, unit="files", disable=True).update(1)
    assert told[0] == ((1.0, 4.0), 0.25)
    assert told[-1] == ((8.0, 8.0), 1.0), "of all files so far"
    assert tqdm.update is before, "the bars are as they were"


def test_a_hidden_view_hears_nothing_of_another_ones_work(driver: Any, make_driver: Any) -> None:
    driver.compute("run", prompt="one two three")
    other = make_driver(driver.benches).hello()
    other.control("watch", visible=False)
    other.view.clear()
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [5]})
    driver.compute("recompute")
    driver.control("select", layer=2, position=1)
    assert other.view.kinds() == []
    other.control("watch", visible=True)
    assert {"state", "map", "cell", "next"} <= set(other.view.kinds()) and other.state == driver.state


def test_what_a_click_changes_is_one_post_and_nothing_old_comes_after_it(driver: Any) -> None:
    driver.compute("run", prompt="one two three")
    posts = driver.view.posts
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [5]})
    assert driver.view.kinds()[-3:] == ["cell", "state", "done"] and driver.view.posts == posts + 1
    posts = driver.view.posts
    driver.control("undo")
    assert driver.view.kinds()[-5:] == ["cell", "state", "map", "next", "done"]
    assert driver.view.posts == posts + 2, "plan and cell do not wait for the map"

    screen = driver.connection._session.screen
    old = screen._now()
    driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [6]})
    shown = driver.state
    screen._state(driver.connection, old)
    assert driver.state == shown, "a thread that tells late of what it saw early is not heard"


def test_the_plan_tells_what_undo_and_redo_would_give(driver: Any) -> None:
    for expert in (5, 6):
        driver.control("add", edit={"kind": "reroute.ban", "layers": [1], "experts": [expert]})

    def experts(name: str) -> list[int] | None:
        edits = driver.state["plan"][name]
        return None if edits is None else [edit["experts"][0] for edit in edits]

    assert (experts("earlier"), experts("edits"), experts("later")) == ([5], [5, 6], None)
    driver.control("undo")
    assert (experts("earlier"), experts("edits"), experts("later")) == ([], [5], [5, 6])
    driver.control("undo")
    assert (experts("earlier"), experts("edits"), experts("later")) == (None, [], [5])
