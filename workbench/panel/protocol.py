"""The messages between a view and the kernel, as data: the one description that both sides are built from.

A view sends on two lanes. ``control`` messages change state or read the store and are answered while a cell runs;
``compute`` messages run the model and wait for their turn. The kernel sends on ``stream`` alone.
``extension/src/view/protocol.ts`` is generated from this module.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, TypeAdapter

from workbench.interventions import Plan
from workbench.panel import answers, replies, requests

PROTOCOL = 6
"""Raised by one whenever a message changes in a way that the other side cannot read."""

Lane: TypeAlias = Literal["control", "compute"]

Reads: TypeAlias = (
    requests.TileOf
    | requests.LoadOf
    | requests.RunsOf
    | requests.Compare
    | requests.Query
    | requests.CatalogueOf
    | requests.Draw
    | requests.Plot
    | requests.Export
    | requests.FormsOf
    | requests.Preview
    | requests.ProfileOf
    | requests.ModelsOf
    | requests.ExperimentsOf
)
"""Control requests that only read: they are answered by threads of their own, so that no click waits for them."""

READS: tuple[type[requests.Request], ...] = get_args(Reads)
"""The members of :data:`Reads`."""

Control: TypeAlias = Annotated[
    requests.Hello
    | requests.Watch
    | requests.Seen
    | requests.UseBench
    | requests.AddEdit
    | requests.ReplaceEdit
    | requests.RemoveEdit
    | requests.EnableEdit
    | requests.Undo
    | requests.Redo
    | requests.Clear
    | requests.MoveEdit
    | requests.LoadPlan
    | requests.Exchange
    | requests.Side
    | requests.Select
    | requests.Next
    | requests.Show
    | requests.Cancel
    | requests.KeepPlan
    | requests.RecallPlan
    | requests.ForgetPlan
    | requests.Imitate
    | Reads,
    Field(discriminator="type"),
]
Compute: TypeAlias = Annotated[
    requests.Open
    | requests.Run
    | requests.Recompute
    | requests.Step
    | requests.Rewind
    | requests.Branch
    | requests.Timeline
    | requests.Try
    | requests.EffectsOf
    | requests.HeadsOf
    | requests.ContributionsOf
    | requests.Calibrate,
    Field(discriminator="type"),
]
REQUESTS: dict[Lane, TypeAdapter[Any]] = {"control": TypeAdapter(Control), "compute": TypeAdapter(Compute)}

Reply: TypeAlias = (
    replies.Benches
    | replies.State
    | replies.RoutingMap
    | replies.TileMessage
    | replies.Load
    | replies.Inspection
    | replies.NextTokens
    | replies.Trials
    | answers.Runs
    | answers.Comparison
    | answers.Table
    | answers.Catalogue
    | answers.Chart
    | answers.File
    | answers.Forms
    | answers.Previewed
    | answers.Profile
    | answers.Effects
    | answers.Heads
    | answers.Models
    | answers.Contributions
    | answers.Calibrated
    | answers.Experiments
    | replies.Busy
    | replies.Done
    | replies.Failure
)


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


_CLICKS = {
    "Ban": "reroute.ban",
    "Force": "reroute.force",
    "Bias": "reroute.bias",
    "Weights": "reroute.weights",
    "Replay": "reroute.replay",
    "Block": "skip.block",
    "Attention": "skip.attention",
    "Mlp": "skip.mlp",
    "Heads": "mask.heads",
    "Neurons": "mask.neurons",
}
"""The kinds of edits that a click makes, by the names that the view gives their types."""


def edit_schema() -> dict[str, Any]:
    """The JSON schema of the edits that a click makes, out of the plan's; without prose, so that only a change of
    their data makes the view's types stale."""
    definitions = Plan.json_schema()["$defs"]
    by_kind = {
        body["properties"]["kind"]["const"]: body
        for body in definitions.values()
        if "kind" in body["properties"]
    }
    used = {name: _without_prose(by_kind[kind]) for name, kind in _CLICKS.items()}
    missing = list(used)
    while missing:
        text = json.dumps(used[missing.pop()])
        for other in definitions:
            if other not in used and f'"#/$defs/{other}"' in text:
                used[other] = _without_prose(definitions[other])
                missing.append(other)
    return {"$defs": used, "anyOf": [{"$ref": f"#/$defs/{name}"} for name in _CLICKS]}


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
