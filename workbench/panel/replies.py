"""What the kernel tells a view. Run ids are text, because a 63-bit integer does not fit a JavaScript number."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from workbench.panel.requests import Message
from workbench.said import Said


class Sentence(Message):
    """Something said to a person. With ``values`` it is our own: English, an id in a catalogue, with ``%1``, ``%2``, ...
    where they stand; one of them may be a sentence itself. ``None``: words of the model, the store or a library, which
    are shown as they are."""

    text: str
    values: list[str | int | float | Sentence] | None


def sentence(text: str) -> Sentence:
    """``text`` as a message carries it; what is not of our own making is data, and stays as it is."""
    if isinstance(text, Said):
        values = [sentence(value) if isinstance(value, Said) else value for value in text.values]
        return Sentence(text=text.template, values=values)
    return Sentence(text=text, values=None)


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
    text: Sentence
    enabled: bool
    layers: list[int] | None = Field(description="null: every layer that has the site")
    experts: list[int]
    delta: float | None = Field(description="what a bias of one expert adds to its logit")
    tokens: Any
    phase: str
    data: dict[str, Any] = Field(description="the edit in its JSON form")


class PlanCard(Message):
    """The plan and its place in the history; ``text`` is the whole plan as JSON, to be kept and given back unread."""

    version: int
    hash: str
    edits: list[EditCard]
    text: str
    python: str = Field(description="the plan as a Python expression")
    warnings: list[Sentence]
    kept: list[str] = Field(description="names of the plans that are kept beside this one")
    undo: bool
    redo: bool
    earlier: list[EditCard] | None = Field(description="what undoing gives back")
    later: list[EditCard] | None = Field(description="what redoing gives back")


class RunCard(Message):
    """One recorded run; ``past``: taken from the store, where logits are not kept."""

    id: str
    plan: str
    tokens: int
    past: bool
    model: str


class Cell(Message):
    """A place on the map: absolute token position and layer number."""

    layer: int
    position: int


class LiveText(Message):
    """The generated tokens of a text: the first ``keep`` that the view was told last, and ``tokens`` behind them."""

    keep: int
    tokens: list[str]


class LiveCard(Message):
    """A generation under way: the generated tokens of the text under the plan and, once a plan has acted, of the text
    without it."""

    prompt_tokens: int
    edited: LiveText
    base: LiveText | None
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


class Tile(Message):
    """A piece of a map, ``columns`` wide; column ``c`` holds the ``bucket`` tokens from ``first + c * bucket`` on.

    With a bucket of 1 it holds everything: arrays are [layers, columns], and [choices, layers, columns] for ``experts`` and
    ``weights`` (heaviest first); ``texts`` has the tokens. With more it holds what ``colour`` needs, aggregated:
    ``experts`` [1, layers, columns] is the most frequent one and ``share`` its share, quantities are means, ``flip``,
    ``edited`` and ``skipped`` shares. The colour ``lanes`` is [experts, columns], shares of tokens that chose an expert of
    ``layer``. Missing values are -1 and NaN.
    """

    first: int
    bucket: int
    columns: int
    colour: str
    layer: int | None
    texts: list[str]
    arrays: list[MapArray]
    range: list[float] | None = Field(
        description="1st and 99th percentile of the colour over the run; null: whatever the tile holds"
    )


class RoutingMap(Message):
    """The routing map of the run in view; ``tile`` is the whole of it where that is small, else the view asks for tiles.

    The tile's arrays follow as buffers, in their order.
    """

    type: Literal["map"] = "map"
    run: str
    base: str
    edited: bool
    tokens: int
    layers: list[int]
    experts: int
    choices: int
    colours: list[str] = Field(description="what there are values for")
    tile: Tile | None


class TileMessage(Message):
    """A piece of a large map that the view has asked for."""

    type: Literal["tile"] = "tile"
    run: str
    base: str
    edited: bool
    tile: Tile


class Load(Message):
    """The load of every expert of a run: one float32 array [layers, experts], shares of the layer's choices."""

    type: Literal["load"] = "load"
    run: str
    array: MapArray


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
    output: float | None = Field(description="norm of what it adds to the stream, where the kernels gave it")
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
    events: list[str] = Field(
        description="what became of the block and its parts, as 'block skip' or 'mlp repeat'"
    )
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
    """What the kernel is computing for the panel, ``None`` when done; ``share`` of it is done, where that is known."""

    type: Literal["busy"] = "busy"
    what: Sentence | None
    share: float | None = None


class Done(Message):
    """A request has been carried out, or has failed; everything it caused was sent before."""

    type: Literal["done"] = "done"
    seq: int


class Failure(Message):
    """One sentence on what is wrong and one on what to do; ``seq`` is the request that failed."""

    type: Literal["error"] = "error"
    seq: int | None
    problem: Sentence
    remedy: Sentence
