"""What the kernel answers to a view that asks: about runs, the store, experts, edits and models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from workbench.panel.replies import MapArray, Sentence
from workbench.panel.requests import Message


class RunRow(Message):
    """One run of the store in the list of runs; ``edits`` are the edits of its first plan in words."""

    id: str
    parent: str | None
    started: str
    kind: str
    model: str
    text: str
    tokens: int
    plan: str
    edits: list[Sentence]
    labels: dict[str, str]
    loss: float | None = Field(description="mean negative log-likelihood of its tokens in nats")


class Runs(Message):
    """Runs of the store, newest first; ``more`` if there are older ones that fit."""

    type: Literal["runs"] = "runs"
    text: str
    before: str | None
    rows: list[RunRow]
    more: bool


class Piece(Message):
    """A stretch of text that both runs have, or only the base, or only the run."""

    side: Literal["both", "base", "run"]
    text: str


class FlipRow(Message):
    """One choice that differs; experts are heaviest first."""

    position: int
    base_position: int
    layer: int
    text: str
    base_experts: list[int]
    run_experts: list[int]
    base_margin: float | None
    run_margin: float | None
    cause: Literal["edit", "tie", "upstream"]


class LayerDiff(Message):
    """How one layer differs: flips, and mean attention rank in both runs where it was recorded."""

    layer: int
    flips: int
    base_rank: float | None
    run_rank: float | None


class Comparison(Message):
    """The difference of two recorded runs at aligned tokens."""

    type: Literal["comparison"] = "comparison"
    base: RunRow
    run: RunRow
    aligned: int
    pieces: list[Piece]
    flips: int
    causes: dict[str, int]
    first: FlipRow | None = Field(description="the first flip in the order of execution")
    rows: list[FlipRow] = Field(description="flips from the first on, a limited number")
    layers: list[LayerDiff]
    kl: float | None = Field(
        description="mean KL(base || run) of next tokens, where both runs' logits are at hand"
    )


class Column(Message):
    """One column of a table of the store or of an answer."""

    name: str
    type: str


class Table(Message):
    """The answer of a query: numbers, texts, booleans and nulls; anything else, and large integers, as text."""

    type: Literal["table"] = "table"
    sql: str
    columns: list[Column]
    rows: list[list[str | float | bool | None]]
    more: bool = Field(description="the answer has more rows than these")
    seconds: float


class MacroCard(Message):
    """One macro of the store as its documentation says."""

    name: str
    arguments: str
    subject: str
    answers: str
    formula: str
    source: str


class TableCard(Message):
    """One table or view of the store."""

    name: str
    columns: list[Column]


class Catalogue(Message):
    """What a query can ask."""

    type: Literal["catalogue"] = "catalogue"
    macros: list[MacroCard]
    tables: list[TableCard]


class Chart(Message):
    """A chart as a Vega-Lite specification; ``None`` with a ``note`` where there is nothing to draw.

    Where the specification says something to a person there is ``{"$said": sentence}`` in place of a text."""

    type: Literal["chart"] = "chart"
    chart: str
    run: str
    layer: int
    spec: dict[str, Any] | None
    note: Sentence | None


class File(Message):
    """A file to be saved; its content is the one buffer."""

    type: Literal["file"] = "file"
    name: str
    mime: str


class Form(Message):
    """One kind of edit: its documentation by paragraphs, what its fields mean, and their JSON schema."""

    kind: str
    about: list[Sentence]
    hints: dict[str, Sentence]
    parameters: dict[str, Any]


class Forms(Message):
    """Every kind of edit; ``definitions`` are the parts that the schemas refer to."""

    type: Literal["forms"] = "forms"
    kinds: list[Form]
    definitions: dict[str, Any]


class Previewed(Message):
    """What an edit would do, in words (``None`` if it is no edit); ``refused`` is what is wrong with it and what to do."""

    type: Literal["previewed"] = "previewed"
    seq: int
    text: Sentence | None
    refused: list[Sentence]


class TokenShare(Message):
    """Tokens of one text that an expert got; ``lift`` is how much more often it got them than other tokens."""

    text: str
    count: int
    lift: float


class PeerShare(Message):
    """Another expert of the same layer, and the share of this expert's tokens that chose it as well."""

    expert: int
    share: float


class Profile(Message):
    """What is routed to one expert over the runs of this model in the store."""

    type: Literal["profile"] = "profile"
    layer: int
    expert: int
    runs: int
    count: int
    share: float = Field(description="of the layer's choices")
    weight: float | None = Field(description="mean combine weight")
    tokens: list[TokenShare]
    peers: list[PeerShare]


class Effect(Message):
    """What one edit does: the edited run against the same plan without it."""

    index: int
    kl: float = Field(description="mean KL(plan || plan without the edit) of the next token, nats")
    last: float = Field(description="the same after the last token")
    changed: bool = Field(description="whether the likeliest next token after the last is another one")


class Effects(Message):
    """The effect of every enabled edit of the plan of this version, by leaving it out."""

    type: Literal["effects"] = "effects"
    version: int
    rows: list[Effect]


class Heads(Message):
    """Attention patterns of one layer: one uint8 array [heads, columns, columns], 255 times the square root of the
    attention, over the last ``columns`` tokens from ``first`` on."""

    type: Literal["heads"] = "heads"
    run: str
    layer: int
    first: int
    array: MapArray


class Model(Message):
    """A model on this machine: the name to open it by, and what it is."""

    name: str
    note: Sentence


class Models(Message):
    """The models on this machine."""

    type: Literal["models"] = "models"
    rows: list[Model]


class ExpertEffect(Message):
    """What one chosen expert adds to the logit of the next token, directly."""

    expert: int
    effect: float | None


class Contributions(Message):
    """Direct effects of one cell on the logit of ``target``, the token that follows it (behind the last one the
    likeliest): of each chosen expert, of the attention and of the whole MLP; null where the model does not give them."""

    type: Literal["contributions"] = "contributions"
    run: str
    layer: int
    position: int
    target: str
    experts: list[ExpertEffect]
    attention: float | None
    mlp: float | None


class Calibrated(Message):
    """The answer to ``calibrate`` number ``seq``: the hash by which an edit names as its ``source`` what was measured."""

    type: Literal["calibrated"] = "calibrated"
    seq: int
    source: str
    runs: int
    tokens: int


class PlanProgress(Message):
    """One plan of an experiment: its runs, their mean loss, and the mean change against no plan on the same prompts."""

    plan: str
    control: bool = Field(description="random plans matched to it, taken together")
    runs: int
    loss: float | None
    change: float | None


class Experiment(Message):
    """One experiment: how many of its runs are there, of how many where its configuration says that, and by plan."""

    id: str
    name: str
    created: str
    runs: int
    expected: int | None
    running: bool = Field(description="not finished, and its newest run is of the last half minute")
    config: str
    plans: list[PlanProgress]


class Experiments(Message):
    """Experiments of the store, newest first."""

    type: Literal["experiments"] = "experiments"
    rows: list[Experiment]
