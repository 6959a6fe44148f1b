"""The messages between a view and the kernel, as data: the one description that both sides are built from.

A view sends on two lanes. ``control`` messages change state and are answered while a cell runs; ``compute`` messages
run the model and wait for their turn. The kernel sends on ``stream`` alone. Run ids are text, because a 63-bit integer
does not fit a JavaScript number. ``extension/src/view/protocol.ts`` is generated from this module.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from workbench.interventions import Plan

PROTOCOL = 2
"""Raised by one whenever a message changes in a way that the other side cannot read."""

Lane: TypeAlias = Literal["control", "compute"]


class Message(BaseModel):
    """Base of every message and of every part of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Request(Message):
    """Base of what a view sends; ``seq`` numbers its requests, and an error names the one it answers."""

    seq: int = Field(ge=0)


class Hello(Request):
    """The first message of a view: which protocol and package version it was built from."""

    type: Literal["hello"]
    protocol: int
    version: str


class Watch(Request):
    """Whether anybody can see the view; nothing is sent to one that is hidden."""

    type: Literal["watch"]
    visible: bool


class Seen(Request):
    """A map has arrived; a view that never says so is taken for gone, as a closed page sends no farewell."""

    type: Literal["seen"]


class UseBench(Request):
    """Show another bench of this kernel."""

    type: Literal["use"]
    key: str


class AddEdit(Request):
    """Append an edit (in the plan's JSON form) to the plan."""

    type: Literal["add"]
    edit: dict[str, Any]


class ReplaceEdit(Request):
    """Put another edit in the place of one; ``version`` is the plan's as the view knows it."""

    type: Literal["replace"]
    version: int
    index: int
    edit: dict[str, Any]


class RemoveEdit(Request):
    """Take one edit out of the plan."""

    type: Literal["remove"]
    version: int
    index: int


class EnableEdit(Request):
    """Switch one edit on or off without losing it."""

    type: Literal["enable"]
    version: int
    index: int
    enabled: bool


class Undo(Request):
    """Go back to the plan before the last change."""

    type: Literal["undo"]


class Redo(Request):
    """Go forward to the plan that was undone."""

    type: Literal["redo"]


class Clear(Request):
    """Remove every edit, as one change."""

    type: Literal["clear"]


class MoveEdit(Request):
    """Put an edit at another place in the plan."""

    type: Literal["move"]
    version: int
    index: int
    to: int


class LoadPlan(Request):
    """Take up a plan from a file (JSON text), as one change."""

    type: Literal["load"]
    plan: str


class Exchange(Request):
    """Exchange one chosen expert of a cell for another one, as one change of the plan."""

    type: Literal["exchange"]
    layer: int
    position: int
    removed: int
    expert: int


class Side(Request):
    """Show the map of the base run, or of the edited one again."""

    type: Literal["side"]
    base: bool


class Select(Request):
    """Inspect one cell of the routing map."""

    type: Literal["select"]
    layer: int
    position: int


class Next(Request):
    """Show the next-token table after ``position``; ``None`` is the last token."""

    type: Literal["next"]
    position: int | None


class Open(Request):
    """Load a model (``None``: the demo model) and, where given, take up a prompt and a plan (JSON text) again."""

    type: Literal["open"]
    model: str | None
    prompt: str = ""
    plan: str | None = None


class Run(Request):
    """Run a prompt without and with the plan."""

    type: Literal["run"]
    prompt: str


class Recompute(Request):
    """Run the edited side again if the plan has changed since."""

    type: Literal["recompute"]


class Step(Request):
    """Generate one token; the first step starts a generation from the prompt in view."""

    type: Literal["step"]


class Rewind(Request):
    """Take back generated tokens, so that the one at ``position`` is the last."""

    type: Literal["rewind"]
    position: int


class Branch(Request):
    """Keep the generation as it is and go on in a copy of it."""

    type: Literal["branch"]


class Timeline(Request):
    """Go on in another branch of the generation."""

    type: Literal["timeline"]
    index: int


class Try(Request):
    """Ask what every exchange of a chosen expert of this cell would have changed."""

    type: Literal["try"]
    layer: int
    position: int


Control: TypeAlias = Annotated[
    Hello
    | Watch
    | Seen
    | UseBench
    | AddEdit
    | ReplaceEdit
    | RemoveEdit
    | EnableEdit
    | Undo
    | Redo
    | Clear
    | MoveEdit
    | LoadPlan
    | Exchange
    | Side
    | Select
    | Next,
    Field(discriminator="type"),
]
Compute: TypeAlias = Annotated[
    Open | Run | Recompute | Step | Rewind | Branch | Timeline | Try, Field(discriminator="type")
]
REQUESTS: dict[Lane, TypeAdapter[Any]] = {"control": TypeAdapter(Control), "compute": TypeAdapter(Compute)}


class BenchCard(Message):
    """One bench of the kernel: ``key`` names it in messages, ``variables`` are the names the notebook gives it."""

    key: str
    name: str
    variables: list[str]


class Benches(Message):
    """The answer to ``hello``, and again whenever benches come or go."""

    type: Literal["benches"] = "benches"
    protocol: int
    version: str
    benches: list[BenchCard]
    current: str | None


class BenchFacts(Message):
    """What the view says about the model: counts, kernels, and per layer whether it can be re-routed."""

    key: str
    name: str
    model_type: str
    layers: int
    moe_layers: list[int]
    experts: int
    top_k: int
    kernels: str
    isa: str
    refused: dict[int, str] = Field(
        description="layers whose routing can be read but not changed, with the reason"
    )


class EditCard(Message):
    """One edit of the plan, as far as a view needs it to draw and to toggle it."""

    kind: str
    text: str
    enabled: bool
    layers: list[int] | None = Field(description="null: every layer that has the site")
    experts: list[int]
    delta: float | None = Field(description="what a bias of one expert adds to its logit")
    tokens: Any
    phase: str


class PlanCard(Message):
    """The plan and its place in the history; ``text`` is the whole plan as JSON, to be kept and given back unread."""

    version: int
    hash: str
    edits: list[EditCard]
    text: str
    python: str = Field(description="the plan as a Python expression")
    warnings: list[str]
    undo: bool
    redo: bool


class RunCard(Message):
    """One recorded run."""

    id: str
    plan: str
    tokens: int


class Cell(Message):
    """A place on the map: absolute token position and layer number."""

    layer: int
    position: int


class LiveCard(Message):
    """A generation under way: the generated tokens of the text under the plan and, once a plan has acted, of the text
    without it."""

    prompt_tokens: int
    edited: list[str]
    base: list[str] | None
    diverged: int | None = Field(description="absolute position of the first token that differs")
    ended: bool
    pending: bool = Field(description="the plan has changed and acts at the next token")
    timelines: list[int] = Field(description="generated tokens of every open branch")
    current: int


class State(Message):
    """Everything small; sent after every change. ``stale``: the edited run does not belong to the plan any more."""

    type: Literal["state"] = "state"
    bench: BenchFacts
    prompt: str
    plan: PlanCard
    base: RunCard | None
    edited: RunCard | None
    stale: bool
    selected: Cell | None
    live: LiveCard | None


class MapArray(Message):
    """One array of a map: its buffer holds ``shape`` elements of ``dtype`` in row-major order."""

    name: str
    dtype: Literal["uint8", "int16", "float32"]
    shape: list[int]


class RoutingMap(Message):
    """The routing map of the run in view; the arrays follow as buffers, in the order of ``arrays``.

    Arrays are [layers, tokens], and [choices, layers, tokens] for ``experts`` and ``weights`` (heaviest first).
    Missing values are -1 and NaN.
    """

    type: Literal["map"] = "map"
    run: str
    base: str
    edited: bool
    texts: list[str]
    layers: list[int]
    experts: int
    arrays: list[MapArray]


class ExpertRow(Message):
    """One expert in the inspected cell.

    ``score`` is what selection ranked by, null where a ban removed it; ``base`` is the same in the base run.
    """

    expert: int
    score: float | None
    base: float | None
    logit: float | None
    weight: float | None = Field(description="combine weight, null if not chosen")
    base_weight: float | None
    state: Literal["", "chosen", "native", "banned", "forced"]
    chosen: bool
    native: bool


class Inspection(Message):
    """All there is to know about one cell."""

    type: Literal["cell"] = "cell"
    run: str
    layer: int
    position: int
    text: str
    choices: int
    skipped: bool
    margin: float | None
    entropy: float | None
    tie: bool
    edited: bool
    experts: list[ExpertRow]
    facts: dict[str, float | None] = Field(
        description="contribution and sparsity of the cell by their column names"
    )


class NextRow(Message):
    """One candidate for the next token with its probability in both runs."""

    token: int
    text: str
    base: float
    edited: float | None


class NextTokens(Message):
    """The next-token distribution after ``position``; ``divergence`` is KL(base || edited) in nats."""

    type: Literal["next"] = "next"
    position: int
    last: bool
    rows: list[NextRow]
    divergence: float | None


class Trial(Message):
    """One exchange in a cell: ``removed`` out, ``expert`` in; changes of log-probability in nats, null if undefined."""

    removed: int
    expert: int
    change: float | None = Field(description="of all tokens that followed, summed")
    next_change: float | None = Field(description="of the token that followed")


class Trials(Message):
    """Every exchange of one cell of one run, best first; ``target`` is the token after it, which is measured."""

    type: Literal["trials"] = "trials"
    run: str
    layer: int
    position: int
    target: str
    followed: int = Field(description="tokens that ``change`` sums over; 0: the likeliest next token instead")
    rows: list[Trial]


class Busy(Message):
    """What the kernel is computing for the panel; ``None`` when done."""

    type: Literal["busy"] = "busy"
    what: str | None


class Done(Message):
    """A request has been carried out, or has failed; everything it caused was sent before."""

    type: Literal["done"] = "done"
    seq: int


class Failure(Message):
    """One sentence on what is wrong and one on what to do; ``seq`` is the request that failed."""

    type: Literal["error"] = "error"
    seq: int | None
    problem: str
    remedy: str


Reply: TypeAlias = Benches | State | RoutingMap | Inspection | NextTokens | Trials | Busy | Done | Failure


def schema() -> dict[str, Any]:
    """The JSON schema of every message, for the types of the view."""
    models: list[Any] = [Control, Compute, Reply]
    definitions: dict[str, Any] = {}
    roots = {}
    for name, model in zip(("Control", "Compute", "Reply"), models, strict=True):
        mode: Literal["validation", "serialization"] = "serialization" if name == "Reply" else "validation"
        part = TypeAdapter(model).json_schema(mode=mode, ref_template="#/$defs/{model}")
        definitions.update(part.pop("$defs"))
        roots[name] = part
    return {"$defs": definitions | roots, "anyOf": [{"$ref": f"#/$defs/{name}"} for name in roots]}


def edit_schema() -> dict[str, Any]:
    """The JSON schema of the edits that a click makes, out of the plan's; without prose, so that only a change of
    their data makes the view's types stale."""
    definitions = Plan.json_schema()["$defs"]
    used: dict[str, Any] = {}
    missing = ["Ban", "Force", "Bias", "Block"]
    while missing:
        name = missing.pop()
        used[name] = _without_prose(definitions[name])
        text = json.dumps(used[name])
        missing += [other for other in definitions if other not in used and f'"#/$defs/{other}"' in text]
    return {
        "$defs": used,
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("Ban", "Force", "Bias", "Block")],
    }


def _without_prose(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_prose(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _without_prose(item)
            for key, item in value.items()
            if key != "description" or not isinstance(item, str)
        }
    return value
