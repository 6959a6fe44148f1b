"""A bench without a model: seeded numbers in a real store, so that the panel's own work is tested alone and fast."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workbench.errors import AddressError, EditRefused, PromptError
from workbench.interventions import Plan, reroute, skip
from workbench.panel.benches import Benches
from workbench.panel.connection import Connection
from workbench.panel.protocol import PROTOCOL
from workbench.store import Store, new_run_id

LAYERS, EXPERTS, TOP_K, VOCABULARY = 4, 8, 2, 50


@dataclass(frozen=True)
class FakeRun:
    id: int
    logits: np.ndarray
    texts: tuple[str, ...]
    tokens: tuple[int, ...]


class FakeAnatomy:
    """Layer 0 is dense, the others route; layer 3 is read-only."""

    model_type = "fake"
    num_layers = LAYERS
    moe_layers = (1, 2, 3)

    def layer(self, number: int) -> Any:
        if not 0 <= number < LAYERS:
            raise AddressError(f"There is no layer {number}.", "Name another.")
        moe = SimpleNamespace(
            num_experts=EXPERTS, top_k=TOP_K, proved=number != 3, reason="its rule is not known"
        )
        return SimpleNamespace(
            moe=None if number == 0 else moe,
            attention=SimpleNamespace(num_heads=2),
            hands_on=False,
            streams=1,
        )

    def require(self, address: Any, write: bool = False) -> None:
        if self.layer(address.layer).moe is None and address.name.startswith("expert"):
            raise EditRefused(f"{address} does not exist.", "Layer 0 is dense.")


class FakeBench:
    """Routes by seeded scores, honours bans, forces and skips, and writes the rows that the panel reads."""

    def __init__(self, name: str = "fake/model") -> None:
        self.name = name
        self.kernels, self.isa = "cpu", "portable"
        self.anatomy = FakeAnatomy()
        self.store = Store.open(":memory:")
        self.closed = False
        self.plans: list[Plan | None] = []
        self.forbidden: set[int] = set()
        self.checkpoint = "abc"

    def token_text(self, token: int) -> str:
        return f"<b>{token}</b>"

    def sql(self, query: str, params: Any = None) -> Any:
        return self.store.sql(query, params)

    def close(self) -> None:
        self.closed = True
        self.store.close()

    def generate(self) -> None: ...
    def diff(self) -> None: ...
    def panel(self) -> None: ...

    def run(self, prompt: str, plan: Plan | None = None, record: Any = None) -> FakeRun:
        assert record.scores
        words = tuple(prompt.split())
        if len(words) > 64:
            raise PromptError("The prompt is too long.", "Shorten it.")
        plan = plan or Plan()
        if any(set(edit.experts) & self.forbidden for edit in plan.active if isinstance(edit, reroute.Ban)):
            raise EditRefused("That expert cannot be banned.", "Ban another.")
        self.plans.append(plan if plan.active else None)
        number, size = new_run_id(), len(words)
        rng = np.random.default_rng(len(prompt))
        scores = rng.random((LAYERS, size, EXPERTS)).astype(np.float32)
        logits = rng.normal(size=(size, VOCABULARY)).astype(np.float32)
        for layer in range(LAYERS):
            skipped = any(
                isinstance(e, skip.Block) and layer in e.layers_in(self.anatomy) for e in plan.active
            )
            if skipped:
                self.store.write("depth", {
                    "run": number, "step": 0, "position": np.arange(size), "layer": layer, "unit": "block",
                    "event": "skip", "kv": "absent",
                })  # fmt: skip
                logits += 0.1
                continue
            self.store.write("contribution", {
                "run": number, "step": 0, "position": np.arange(size), "layer": layer, "attn_norm": 0.1, "attn_cos": 0.2,
                "mlp_norm": 0.3, "mlp_cos": 0.4, "block_norm": 0.5, "influence": scores[layer, :, 0],
            })  # fmt: skip
            if layer > 0:
                logits += self._route(number, layer, scores[layer], plan)
        self.store.write("token", {
            "run": number, "step": 0, "position": np.arange(size), "token": np.arange(size), "text": list(words),
            "part": "prompt", "logprob": [None, *[-2.0] * (size - 1)],
        })  # fmt: skip
        self.store.write("run", {
            "run": number, "kind": "forward", "model": self.name, "checkpoint": self.checkpoint, "num_layers": LAYERS,
            "num_experts": EXPERTS, "top_k": TOP_K, "prompt": prompt, "text": prompt, "prompt_tokens": size,
            "tokens": size, "labels": '{"language": "en"}',
        })  # fmt: skip
        if plan.edits:
            self.store.write("plan", {"plan": plan.hash, "json": plan.to_json()})
            self.store.write("run_plan", {"run": number, "step": 0, "plan": plan.hash})
        self.store.flush()
        return FakeRun(number, logits, words, tuple(range(size)))

    def _route(self, run: int, layer: int, scores: np.ndarray, plan: Plan) -> np.ndarray:
        size = len(scores)
        ranked, edited = scores.copy(), np.zeros(size, bool)
        for edit in plan.active:
            if isinstance(edit, reroute.Ban | reroute.Force) and layer in edit.layers_in(self.anatomy):
                at = np.arange(size) if edit.tokens == "all" else np.array(edit.tokens)
                ranked[np.ix_(at, edit.experts)] = -np.inf if isinstance(edit, reroute.Ban) else np.inf
                edited[at] = True
        ids = np.argsort(-ranked, axis=-1, kind="stable")[:, :TOP_K]
        weights = np.take_along_axis(scores, ids, -1)
        order = np.sort(ranked, axis=-1)[:, ::-1]
        with np.errstate(invalid="ignore"):
            margin = order[:, TOP_K - 1] - order[:, TOP_K]
        self.store.write("routing", {
            "run": run, "step": 0, "position": np.repeat(np.arange(size), TOP_K), "layer": layer,
            "slot": np.tile(np.arange(TOP_K), size), "expert": ids.reshape(-1), "weight": weights.reshape(-1),
            "rank": np.tile(np.arange(TOP_K), size), "norm": 1.0,
        })  # fmt: skip
        self.store.write("router", {
            "run": run, "step": 0, "position": np.arange(size), "layer": layer, "margin": margin, "entropy": 1.5,
            "tie": False, "dropped": 0, "edited": edited, "native": None, "native_weights": None,
        })  # fmt: skip
        self.store.write("router_scores", {
            "run": run, "step": 0, "position": np.arange(size), "layer": layer, "scores": list(ranked),
            "logits": list(scores),
        })  # fmt: skip
        effect = np.zeros((size, VOCABULARY), np.float32)
        np.add.at(effect, (np.arange(size)[:, None], ids), weights)
        return effect


def english(value: Any) -> Any:
    """A part of a message with the kernel's sentences put together as a view does that has no catalogue."""
    if isinstance(value, list):
        return [english(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$said"}:
        return english(value["$said"])
    if value.keys() != {"text", "values"}:
        return {name: english(item) for name, item in value.items()}
    if value["values"] is None:
        return value["text"]
    values = english(value["values"])
    return re.sub(r"%(\d)", lambda place: str(values[int(place[1]) - 1]), value["text"])


class FakeView:
    """A connection's other end: keeps what it was sent, sentences in English and the texts of a generation joined."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self.texts: dict[str, list[str]] = {"edited": [], "base": []}
        self.buffers: list[list[bytes]] = []
        self.posts = 0
        self.posted: list[list[str]] = []

    def send(self, data: dict[str, Any], buffers: Any) -> None:
        rest = iter(buffers)
        self.posted.append([message["type"] for message in data["messages"]])
        for message, count in zip(data["messages"], data["buffers"], strict=True):
            self.sent.append(message)
            self.messages.append(english(message))
            if message["type"] == "state":
                self.messages[-1]["live"] = self._join(message["live"])
            self.buffers.append([bytes(next(rest)) for _ in range(count)])
        assert next(rest, None) is None
        self.posts += 1

    def _join(self, live: dict[str, Any] | None) -> dict[str, Any] | None:
        for side in self.texts:
            told = None if live is None else live[side]
            if told is None:
                self.texts[side] = []
            else:
                assert told["keep"] <= len(self.texts[side])
                self.texts[side] = self.texts[side][: told["keep"]] + told["tokens"]
        if live is None:
            return None
        return live | {side: self.texts[side] if live[side] is not None else None for side in self.texts}

    def last(self, kind: str) -> dict[str, Any]:
        return next(message for message in reversed(self.messages) if message["type"] == kind)

    def raw(self, kind: str) -> dict[str, Any]:
        """The last message of a kind as it was sent, before its sentences were put together."""
        return next(message for message in reversed(self.sent) if message["type"] == kind)

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages]

    def clear(self) -> None:
        self.messages.clear()
        self.buffers.clear()


class Driver:
    """A view and its connection, driven by messages as the page sends them."""

    def __init__(self, benches: Benches) -> None:
        self.view = FakeView()
        self.benches = benches
        self.connection = Connection(benches, self.view.send)
        self.seq = 0

    def hello(self) -> Driver:
        self.control("hello", protocol=PROTOCOL, version="0.1.0")
        return self

    def control(self, kind: str, **data: Any) -> int:
        return self._send("control", kind, data)

    def compute(self, kind: str, **data: Any) -> int:
        return self._send("compute", kind, data)

    def _send(self, lane: Any, kind: str, data: dict[str, Any]) -> int:
        self.seq += 1
        self.connection.receive(lane, {"type": kind, "seq": self.seq, **data})
        self.connection.settle()
        return self.seq

    @property
    def state(self) -> dict[str, Any]:
        return self.view.last("state")

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the last map, read as the page reads them."""
        n = max(n for n, message in enumerate(self.view.messages) if message["type"] in ("map", "tile"))
        described = self.view.messages[n]["tile"]["arrays"]
        return {
            array["name"]: np.frombuffer(buffer, array["dtype"]).reshape(array["shape"])
            for array, buffer in zip(described, self.view.buffers[n], strict=True)
        }


@pytest.fixture
def fake_bench() -> Iterator[FakeBench]:
    bench = FakeBench()
    yield bench
    if not bench.closed:
        bench.close()


@pytest.fixture
def make_bench() -> Iterator[Any]:
    """Makes fake benches by name, and closes them after the test."""
    made: list[FakeBench] = []

    def make(name: str = "fake/model") -> FakeBench:
        made.append(FakeBench(name))
        return made[-1]

    yield make
    for bench in made:
        if not bench.closed:
            bench.close()


@pytest.fixture
def driver(fake_bench: FakeBench) -> Driver:
    """A greeted view on one fake bench that a notebook calls ``bench``."""
    return Driver(Benches({"bench": fake_bench}, lambda _model: fake_bench)).hello()


@pytest.fixture
def make_driver() -> type[Driver]:
    """For tests with benches of their own."""
    return Driver
