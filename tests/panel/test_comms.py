"""The three comms of a panel: one direction each, joined by the panel's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workbench.errors import SetupError
from workbench.panel import serve
from workbench.panel.benches import Benches
from workbench.panel.comms import Comms
from workbench.panel.protocol import PROTOCOL


class FakeComm:
    def __init__(self, target_name: str) -> None:
        self.target_name = target_name
        self.sent: list[dict[str, Any]] = []
        self.receive: Callable[[Any], None] = lambda _: None
        self.end: Callable[[Any], None] = lambda _: None

    def on_msg(self, callback: Callable[[Any], None]) -> None:
        self.receive = callback

    def on_close(self, callback: Callable[[Any], None]) -> None:
        self.end = callback

    def send(self, data: Any, buffers: Any) -> None:
        assert self.target_name == "workbench.stream", "the kernel speaks on the stream alone"
        self.sent += data["messages"]


class Kernel:
    """Opens comms as a front end does."""

    def __init__(self, benches: Benches) -> None:
        self.targets: dict[str, Callable[[Any, Any], None]] = {}
        Comms(benches, self.targets.__setitem__)

    def open(self, target: str, panel: str) -> FakeComm:
        comm = FakeComm(target)
        self.targets[target](comm, {"content": {"data": {"panel": panel}}})
        return comm


def say(comm: FakeComm, **data: Any) -> None:
    comm.receive({"content": {"data": data}})


HELLO = {"type": "hello", "protocol": PROTOCOL, "version": "0.1.0", "seq": 1}


def test_control_and_compute_are_heard_and_the_stream_answers(make_bench: Any) -> None:
    kernel = Kernel(Benches({"bench": make_bench()}, lambda _: None))
    assert set(kernel.targets) == {"workbench.control", "workbench.compute", "workbench.stream"}
    stream, compute, control = (
        kernel.open(f"workbench.{name}", "p") for name in ("stream", "compute", "control")
    )
    say(control, **HELLO)
    assert stream.sent[0]["type"] == "benches"
    say(compute, type="run", prompt="one two", seq=2)
    assert [m["type"] for m in stream.sent].count("map") == 1 and stream.sent[-1] == {
        "type": "done",
        "seq": 2,
    }
    say(compute, type="undo", seq=3)
    assert stream.sent[-2]["type"] == "error", "a change of the plan does not belong on compute"


def test_a_greeting_before_the_stream_is_answered_when_it_opens(make_bench: Any) -> None:
    kernel = Kernel(Benches({"bench": make_bench()}, lambda _: None))
    control = kernel.open("workbench.control", "p")
    say(control, **HELLO)
    stream = kernel.open("workbench.stream", "p")
    assert [m["type"] for m in stream.sent][:2] == ["benches", "busy"] and stream.sent[-1] == {
        "type": "done",
        "seq": 1,
    }


def test_two_panels_do_not_hear_each_other_but_share_the_bench(make_bench: Any) -> None:
    kernel = Kernel(Benches({"bench": make_bench()}, lambda _: None))
    streams = {}
    controls = {}
    for name in "ab":
        streams[name], controls[name] = (
            kernel.open("workbench.stream", name),
            kernel.open("workbench.control", name),
        )
        say(controls[name], **HELLO)
    say(controls["a"], type="undo", seq=9)
    assert streams["a"].sent[-2]["type"] == "error" and all(m["type"] != "error" for m in streams["b"].sent)
    say(controls["a"], type="add", edit={"kind": "skip.block", "layers": [1]}, seq=10)
    assert streams["b"].sent[-1]["plan"]["edits"][0]["kind"] == "skip.block"
    streams["b"].end({})
    count = len(streams["b"].sent)
    say(controls["a"], type="undo", seq=11)
    assert len(streams["b"].sent) == count, "a closed panel is forgotten"


def test_serving_outside_a_kernel_says_so() -> None:
    with pytest.raises(SetupError, match="no Jupyter kernel"):
        serve()
