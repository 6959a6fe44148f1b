"""The base of every edit: where it holds (its scope), which site it writes, and what makes it refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypedDict, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.address import Address, integers
from workbench.errors import AddressError, EditRefused, PlanError
from workbench.interventions.blob import Blob
from workbench.interventions.condition import MAX_LENGTH, SIGNALS, Condition, comparisons, parse
from workbench.said import Said, listed, numbers, said

if TYPE_CHECKING:
    from torch import Tensor

Layers: TypeAlias = Literal["all"] | tuple[int, ...]
Phase: TypeAlias = Literal["all", "prefill", "decode"]
NamedTokens: TypeAlias = Literal["all", "prompt", "generated", "prompt_last", "each_step"]


class Rule(Protocol):
    """What an edit needs of a family's routing rule; :class:`workbench.anatomy.RoutingRule` has it. T tokens, E experts."""

    @property
    def ranks_logits(self) -> bool: ...
    def scores(self, logits: Tensor) -> Tensor: ...
    def selection(self, scores: Tensor) -> Tensor: ...
    def choose(self, selection: Tensor, k: int | None = None) -> Tensor: ...
    def usable(self, selection: Tensor) -> Tensor: ...
    def weigh(self, scores: Tensor, ids: Tensor) -> Tensor: ...


class MoeFacts(Protocol):
    """What an edit needs to know of one sparse MLP."""

    @property
    def num_experts(self) -> int: ...
    @property
    def choosable(self) -> int: ...
    @property
    def top_k(self) -> int: ...
    @property
    def proved(self) -> bool: ...
    @property
    def reason(self) -> str: ...


class AttentionFacts(Protocol):
    """What an edit needs to know of one attention sublayer."""

    @property
    def num_heads(self) -> int: ...


class MlpFacts(Protocol):
    """What an edit needs to know of one MLP, dense or sparse."""

    @property
    def act_width(self) -> int: ...


class BlockFacts(Protocol):
    """What an edit needs to know of one block."""

    @property
    def mlp(self) -> MlpFacts | None: ...
    @property
    def moe(self) -> MoeFacts | None: ...
    @property
    def attention(self) -> AttentionFacts | None: ...
    @property
    def streams(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def hands_on(self) -> bool: ...


class Facts(Protocol):
    """What an edit needs to know of a model to be checked against it; :class:`workbench.anatomy.Anatomy` has it."""

    @property
    def num_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def moe_layers(self) -> tuple[int, ...]: ...
    @property
    def uniform(self) -> bool: ...
    def layer(self, number: int, /) -> Any: ...
    def require(self, address: Address, write: bool = False) -> None: ...


class Span(BaseModel):
    """Absolute token positions from ``start`` up to, not including, ``stop`` (``None``: to the end of the run)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(0, ge=0)
    stop: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _not_empty(self) -> Span:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"a span from {self.start} to {self.stop} holds no token")
        return self


Tokens: TypeAlias = NamedTokens | Span | tuple[int, ...]
Rows: TypeAlias = Literal["all"] | tuple[int, ...]
Steps: TypeAlias = Literal["all"] | Span | tuple[int, ...]


class Scope(TypedDict, total=False):
    """The scope that every function making an edit takes by keyword; see :class:`Edit`."""

    tokens: Tokens | slice | int | Iterable[int] | str
    where: str | None
    phase: Phase
    rows: int | Iterable[int] | Literal["all"]
    steps: Steps | slice | int | Iterable[int]
    enabled: bool


class Edit(BaseModel):
    """One re-route, skip or mask: frozen data with a scope. All parts of the scope must hold together.

    Attributes
    ----------
    layers
        Layer numbers as in the module path, or ``"all"`` layers that have the site.
    tokens
        Absolute positions (a tuple or a :class:`Span`), or a name: ``all``; ``prompt`` and ``generated`` tokens;
        ``prompt_last``, the last token of the prompt; ``each_step``, the token from which each step's next token is
        predicted (the last of the prompt and every generated one). A condition may stand here too: it becomes ``where``.
    where
        A condition on each token, as in ``margin < 0.05``: see :mod:`workbench.interventions.condition`.
    phase
        ``prefill`` (the tokens of the prompt), ``decode`` (those generated after it), or ``all``.
    rows
        Numbers of the prompts of a batch, in the order in which they were given, or ``"all"``. A run keeps the part of
        the plan that holds for it.
    steps
        Step numbers: 0 reads the prompt, step n reads the n-th generated token, whether or not a cache is used.
    enabled
        A disabled edit stays in the plan and does nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: ClassVar[str]
    derived: ClassVar[frozenset[str]] = frozenset()
    """Fields that the function which makes the edit fills in by itself."""
    files: ClassVar[tuple[str, ...]] = ()
    """Fields that name a file of tensors (a calibration, a router, masks) by its content."""

    kind: str
    layers: Layers = Field("all", title="Layers", description="layer numbers, or all that have the site")
    tokens: Tokens = Field(
        "all", title="Tokens", description="absolute positions, or a named part of the text"
    )
    where: str | None = Field(
        None,
        title="Where",
        max_length=MAX_LENGTH,
        description="a condition on each token, as in: margin < 0.05",
    )
    phase: Phase = Field(
        "all", title="Phase", description="prompt tokens (prefill), generated ones (decode), or all"
    )
    rows: Rows = Field("all", title="Rows", description="numbers of the prompts of a batch, or all")
    steps: Steps = Field("all", title="Steps", description="0 reads the prompt, n the n-th generated token")
    enabled: bool = Field(
        True, title="Enabled", description="a disabled edit stays in the plan and does nothing"
    )

    @model_validator(mode="before")
    @classmethod
    def _condition_among_tokens(cls, data: Any) -> Any:
        if isinstance(data, dict):
            tokens = data.get("tokens")
            if isinstance(tokens, str) and tokens not in get_args(NamedTokens):
                if data.get("where") is not None:
                    raise ValueError("tokens and where both hold a condition")
                return {**data, "tokens": "all", "where": tokens}
        return data

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        return value if isinstance(value, str) and value == "all" else sorted_units(value, "layer")

    @field_validator("rows", mode="before")
    @classmethod
    def _rows(cls, value: Any) -> Any:
        return value if isinstance(value, str) and value == "all" else sorted_units(value, "row")

    @field_validator("tokens", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        return _positions(value, "token")

    @field_validator("steps", mode="before")
    @classmethod
    def _steps(cls, value: Any) -> Any:
        return _positions(value, "step")

    @field_validator("where")
    @classmethod
    def _where(cls, value: str | None) -> str | None:
        return None if value is None else str(parse(value))

    @property
    def condition(self) -> Condition | None:
        """What ``where`` says, read."""
        return None if self.where is None else parse(self.where)

    @property
    def everywhere(self) -> bool:
        """Whether the scope holds every token of every run, in the edit's layers."""
        return self.where is None and self.tokens == self.phase == self.rows == self.steps == "all"

    def acts_after_router(self) -> bool:
        """Whether the edit acts after the router of its layer, so that ``where`` may ask what that router computed."""
        return False

    def looks_ahead(self) -> bool:
        """Whether later tokens of a sequence may change what the edit does to earlier ones."""
        return not getattr(self, "causal", True)

    def by_step(self) -> bool:
        """Whether it looks no further than the tokens of one step, so that it means something in a generation."""
        return False

    def couples(self) -> bool:
        """Whether the sequences of a batch may change what the edit does to each other."""
        return False

    def needs_text(self) -> bool:
        """Whether it asks for the text of tokens."""
        return self.condition is not None and any(one.name == "text" for one in comparisons(self.condition))

    def blobs(self) -> tuple[str, ...]:
        """The names of the arrays and files of tensors that the edit names by their content."""
        arrays = tuple(value.blob for _, value in self if isinstance(value, Blob) and not value.live)
        files = (getattr(self, name) for name in self.files)
        return arrays + tuple(name for name in files if name is not None)

    def trained(self) -> bool:
        """Whether the edit holds a tensor in training."""
        return any(isinstance(value, Blob) and value.live for _, value in self)

    def asked_layers(self, layer: int) -> tuple[int, ...]:
        """The layers whose routing must be watched for the edit's action in ``layer``."""
        return self.signal_layers(layer)

    def signal_layers(self, layer: int) -> tuple[int, ...]:
        """The layers whose router ``where`` asks, for the edit's action in ``layer``."""
        if self.condition is None:
            return ()
        asked = {
            layer if one.layer is None else one.layer
            for one in comparisons(self.condition)
            if one.name in SIGNALS
        }
        return tuple(sorted(asked))

    def layers_in(self, facts: Facts) -> tuple[int, ...]:
        """The layers of ``facts`` this edit acts on."""
        return self._all_layers(facts) if self.layers == "all" else self.layers

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        return tuple(range(facts.num_layers))

    def check(self, facts: Facts) -> None:
        """Raise :class:`EditRefused` with the reason if this edit cannot act on the model."""
        layers = self.layers_in(facts)
        if not layers:
            raise EditRefused(
                f"{self.kind} has no layer to act on: this model has no {self.site!r} site.",
                "Open a model that has it, or remove the edit.",
            )
        for layer in layers:
            block = facts.layer(layer)
            facts.require(Address(self.site, layer), write=True)
            for source in self.signal_layers(layer):
                self._check_signal(layer, source, facts)
            self._check_block(layer, block)

    def _check_signal(self, layer: int, source: int, facts: Facts) -> None:
        """Refuse a condition that asks for what no router has computed yet when this edit acts in ``layer``."""
        facts.require(Address("expert_scores", source))
        if source > layer or (source == layer and not self.acts_after_router()):
            raise EditRefused(
                f"{self.kind} in layer {layer} asks what the router of layer {source} computes, which comes later.",
                "Name an earlier layer in the condition, as in margin.0 < 0.05.",
            )

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        """Hook for a kind's own ranges (experts, heads)."""

    def commutes(self, other: Edit) -> bool:
        """Whether the order of the two edits cannot matter: different sites or disjoint scopes."""
        return self.site != other.site or scopes_disjoint(self, other)

    def describe(self) -> Said:
        """One line for people: what is done, where."""
        what = self._what()
        if self.layers == "all":
            parts = [said("%1 in all layers", what)]
        elif len(self.layers) == 1:
            parts = [said("%1 in layer %2", what, self.layers[0])]
        else:
            parts = [said("%1 in layers %2", what, numbers(self.layers))]
        parts.append(_NAMED[self.tokens] if isinstance(self.tokens, str) else _some_tokens(self.tokens))
        if self.where is not None:
            parts.append(said("where %1", self.where))
        if self.phase != "all":
            parts.append(said("prefill only") if self.phase == "prefill" else said("decode only"))
        if self.rows != "all":
            parts.append(said("row %1", numbers(self.rows)))
        if not isinstance(self.steps, str):
            parts.append(_some_steps(self.steps))
        return listed(parts)

    def _what(self) -> Said:
        return said("%1", self.kind)


_NAMED = {
    "all": said("all tokens"),
    "prompt": said("prompt tokens"),
    "generated": said("generated tokens"),
    "prompt_last": said("the last prompt token"),
    "each_step": said("the token each step predicts from"),
}


def _some_tokens(value: Span | tuple[int, ...]) -> Said:
    if isinstance(value, tuple):
        return said("token %1", value[0]) if len(value) == 1 else said("tokens %1", numbers(value))
    if value.stop is None:
        return said("tokens %1 to the end", value.start)
    if value.stop == value.start + 1:
        return said("token %1", value.start)
    return said("tokens %1 to %2", value.start, value.stop - 1)


def _some_steps(value: Span | tuple[int, ...]) -> Said:
    if isinstance(value, tuple):
        return said("step %1", value[0]) if len(value) == 1 else said("steps %1", numbers(value))
    if value.stop is None:
        return said("steps %1 to the end", value.start)
    if value.stop == value.start + 1:
        return said("step %1", value.start)
    return said("steps %1 to %2", value.start, value.stop - 1)


def _positions(value: Any, unit: str) -> Any:
    """A slice as a :class:`Span`, numbers as a sorted tuple; names and data as they are."""
    if isinstance(value, slice):
        if value.step not in (None, 1):
            raise ValueError(f"a slice of {unit}s cannot have a step")
        return Span(start=value.start or 0, stop=value.stop)
    return value if isinstance(value, str | Span | dict) else sorted_units(value, unit)


def sorted_units(value: int | Iterable[int], name: str) -> tuple[int, ...]:
    """``value`` as a sorted tuple of distinct non-negative numbers; raises ValueError for anything else."""
    return tuple(sorted(set(in_order(value, name))))


def in_order(value: int | Iterable[int], name: str) -> tuple[int, ...]:
    """``value`` as a tuple of non-negative numbers in the order given, repetitions kept; raises ValueError for anything
    else."""
    try:
        items = integers(value, name)
    except AddressError as error:
        raise ValueError(error.problem.rstrip(".")) from None
    if not items:
        raise ValueError(f"name at least one {name}")
    if min(items) < 0:
        raise ValueError(f"{name} {min(items)} is negative; {name}s count from 0")
    return items


def scopes_disjoint(one: Edit, other: Edit) -> bool:
    """Whether no token of any layer can be in both scopes, decided from the data alone (``False`` when unsure)."""
    if one.layers != "all" and other.layers != "all" and not set(one.layers) & set(other.layers):
        return True
    if one.rows != "all" and other.rows != "all" and not set(one.rows) & set(other.rows):
        return True
    if {one.phase, other.phase} == {"prefill", "decode"} or _positions_disjoint(one.steps, other.steps):
        return True
    if {one.tokens, other.tokens} in ({"prompt", "generated"}, {"prompt_last", "generated"}):
        return True
    return _positions_disjoint(one.tokens, other.tokens)


def _positions_disjoint(one: Tokens | Steps, other: Tokens | Steps) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return not set(one) & set(other)
    if isinstance(one, Span) and isinstance(other, Span):
        first, second = sorted((one, other), key=lambda span: span.start)
        return first.stop is not None and first.stop <= second.start
    if isinstance(one, Span) and isinstance(other, tuple):
        return not any(one.start <= p and (one.stop is None or p < one.stop) for p in other)
    if isinstance(one, tuple) and isinstance(other, Span):
        return _positions_disjoint(other, one)
    return False


E = TypeVar("E", bound="Edit")


def build(kind: type[E], **data: Any) -> E:
    """Make an edit, turning pydantic's report into one :class:`PlanError`."""
    try:
        return kind(**data)
    except ValidationError as error:
        raise plan_error(error, f"{kind.model_fields['kind'].default} is not valid") from None


def plan_error(
    error: ValidationError, what: str, remedy: str = "Correct that field of the edit."
) -> PlanError:
    """The first finding of ``error`` as a :class:`PlanError` that names the field; ours come before those of pydantic, which
    has one for each type that a field may have."""
    findings = error.errors(include_url=False)
    finding = next((each for each in findings if each["type"] == "value_error"), findings[0])
    where = ".".join(str(part) for part in finding["loc"] if "[" not in str(part))
    message = finding["msg"].removeprefix("Value error, ")
    return PlanError(f"{what}: {where + ': ' if where else ''}{message}.", remedy)
