"""What a view asks of the kernel.

``control`` requests change state or read the store and are answered while a cell runs; ``compute`` requests run the model
and wait for their turn (:mod:`workbench.panel.protocol` says which is which).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Mark: TypeAlias = Literal["bar", "line", "point", "grid"]


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
    ahead: bool = Field(
        default=False,
        description="asked for before the last one was seen: where the text has ended it is dropped",
    )


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


class TileOf(Request):
    """Send a piece of a large map; see :class:`workbench.panel.replies.Tile`. ``bucket`` is a power of two."""

    type: Literal["tile"]
    run: str
    base: str
    edited: bool
    colour: str
    first: int = Field(ge=0)
    bucket: int = Field(ge=1)
    layer: int | None = Field(description="for the lanes of one layer")


class LoadOf(Request):
    """Send the load of every expert of a run."""

    type: Literal["load_of"]
    run: str


class RunsOf(Request):
    """List the runs of the store, newest first, whose prompt, model or labels hold ``text``."""

    type: Literal["runs_of"]
    text: str
    before: str | None = Field(description="only runs older than this one")


class Show(Request):
    """Put a recorded run into view, beside another one as its base where ``base`` is given."""

    type: Literal["show"]
    run: str
    base: str | None
    plan: bool = Field(description="also take up the plan that the run began with")


class Compare(Request):
    """Compare two recorded runs."""

    type: Literal["compare"]
    base: str
    run: str


class Query(Request):
    """Run one SELECT over the store."""

    type: Literal["query"]
    sql: str


class Cancel(Request):
    """Stop the reading request with this ``seq``, or call off a step that has not begun."""

    type: Literal["cancel"]
    request: int


class CatalogueOf(Request):
    """List the macros and tables of the store."""

    type: Literal["catalogue_of"]


class Draw(Request):
    """Draw one of the panel's charts of a run."""

    type: Literal["draw"]
    chart: str
    run: str
    layer: int


class Plot(Request):
    """Draw the answer of a query."""

    type: Literal["plot"]
    sql: str
    mark: Mark
    x: str
    y: str
    colour: str | None


class Export(Request):
    """Send a file: the answer of a query, or the runs in view as one page that opens without a kernel."""

    type: Literal["export"]
    format: Literal["csv", "parquet", "html"]
    sql: str


class FormsOf(Request):
    """Send what every kind of edit takes."""

    type: Literal["forms_of"]


class Preview(Request):
    """Say in words what an edit would do, or why it cannot."""

    type: Literal["preview"]
    edit: dict[str, Any]


class ProfileOf(Request):
    """Tell what else is routed to an expert, over the runs of this model in the store."""

    type: Literal["profile_of"]
    layer: int
    expert: int


class KeepPlan(Request):
    """Keep the plan under a name, beside the one that goes on being edited."""

    type: Literal["keep"]
    name: str


class RecallPlan(Request):
    """Take up a kept plan, as one change."""

    type: Literal["recall"]
    name: str


class ForgetPlan(Request):
    """Drop a kept plan."""

    type: Literal["forget"]
    name: str


class Imitate(Request):
    """Give a cell the experts and weights of another token of the run in view, in the same layer."""

    type: Literal["imitate"]
    layer: int
    position: int
    source: int


class EffectsOf(Request):
    """Measure what every enabled edit does to the prompt by leaving it out."""

    type: Literal["effects_of"]


class HeadsOf(Request):
    """Send the attention patterns of one layer of the run in view."""

    type: Literal["heads_of"]
    layer: int


class ModelsOf(Request):
    """List the models that are on this machine."""

    type: Literal["models_of"]


class ContributionsOf(Request):
    """Measure what the experts, the attention and the MLP of a cell add to the logit of the token that follows."""

    type: Literal["contributions_of"]
    layer: int
    position: int


class Calibrate(Request):
    """Measure how active every unit is, for masks by activation: on the prompt in view, or on runs of the store."""

    type: Literal["calibrate"]
    texts: Literal["prompt", "runs"]


class ExperimentsOf(Request):
    """List the experiments of the store with what has been run of them, newest first."""

    type: Literal["experiments_of"]
