"""The base of every edit: where it holds (its scope), which site it writes, and what makes it refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.address import Address
from workbench.errors import EditRefused, PlanError

if TYPE_CHECKING:
    from torch import Tensor

Layers: TypeAlias = Literal["all"] | tuple[int, ...]
Phase: TypeAlias = Literal["all", "prefill", "decode"]
NamedTokens: TypeAlias = Literal["all", "prompt", "generated", "prompt_last", "each_step"]


class Rule(Protocol):
    """What an edit needs of a family's routing rule; :class:`workbench.anatomy.RoutingRule` has it. T tokens, E experts."""

    @property
    def score(self) -> str: ...
    def scores(self, logits: Tensor) -> Tensor: ...
    def selection(self, scores: Tensor) -> Tensor: ...
    def choose(self, selection: Tensor, k: int | None = None) -> Tensor: ...
    def weigh(self, scores: Tensor, ids: Tensor) -> Tensor: ...


class MoeFacts(Protocol):
    """What an edit needs to know of one sparse MLP."""

    @property
    def num_experts(self) -> int: ...
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


class BlockFacts(Protocol):
    """What an edit needs to know of one block."""

    @property
    def moe(self) -> MoeFacts | None: ...
    @property
    def attention(self) -> AttentionFacts | None: ...


class Facts(Protocol):
    """What an edit needs to know of a model to be checked against it; :class:`workbench.anatomy.Anatomy` has it."""

    @property
    def num_layers(self) -> int: ...
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


class Edit(BaseModel):
    """One re-route, skip or mask: frozen data with a scope.

    Attributes
    ----------
    layers
        Layer numbers as in the module path, or ``"all"`` layers that have the site.
    tokens
        Absolute positions (a tuple or a :class:`Span`), or a name: ``all``; ``prompt`` and ``generated`` tokens;
        ``prompt_last``, the last token of the prompt; ``each_step``, the token from which each step's next token is
        predicted (the last of the prompt and every generated one).
    phase
        ``prefill`` (the pass that reads the prompt), ``decode`` (the passes that follow), or ``all``.
    enabled
        A disabled edit stays in the plan and does nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: ClassVar[str]
    kind: str
    layers: Layers = "all"
    tokens: Tokens = "all"
    phase: Phase = "all"
    enabled: bool = True

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        return value if value == "all" else sorted_units(value, "layer")

    @field_validator("tokens", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        if isinstance(value, slice):
            if value.step not in (None, 1):
                raise ValueError("a slice of tokens cannot have a step")
            return Span(start=value.start or 0, stop=value.stop)
        if isinstance(value, str | Span | dict):
            return value
        return sorted_units(value, "token")

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
            self._check_block(layer, block)

    def _check_block(self, layer: int, block: BlockFacts) -> None:
        """Hook for a kind's own ranges (experts, heads)."""

    def commutes(self, other: Edit) -> bool:
        """Whether the order of the two edits cannot matter: different sites or disjoint scopes."""
        return self.site != other.site or scopes_disjoint(self, other)

    def describe(self) -> str:
        """One line for people: what is done, where."""
        where = "all layers" if self.layers == "all" else "layer " + ", ".join(map(str, self.layers))
        if self.tokens == "all":
            tokens = "all tokens"
        elif isinstance(self.tokens, Span):
            tokens = f"tokens {self.tokens.start} to {'the end' if self.tokens.stop is None else self.tokens.stop - 1}"
        elif isinstance(self.tokens, tuple):
            tokens = "token " + ", ".join(map(str, self.tokens))
        else:
            tokens = {
                "prompt": "prompt tokens",
                "generated": "generated tokens",
                "prompt_last": "the last prompt token",
                "each_step": "the token each step predicts from",
            }[self.tokens]
        phase = "" if self.phase == "all" else f", {self.phase} only"
        return f"{self._what()} in {where}, {tokens}{phase}"

    def _what(self) -> str:
        return self.kind


def sorted_units(value: int | Iterable[int], name: str) -> tuple[int, ...]:
    """``value`` as a sorted tuple of distinct non-negative numbers; raises ValueError for anything else."""
    if isinstance(value, bool | str):
        raise ValueError(f"{value!r} is not a {name} number")
    items = (value,) if isinstance(value, int) else tuple(value)
    if not items:
        raise ValueError(f"name at least one {name}")
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int):
            raise ValueError(f"{item!r} is not a {name} number")
        if item < 0:
            raise ValueError(f"{name} {item} is negative; {name}s count from 0")
    return tuple(sorted(set(items)))


def scopes_disjoint(one: Edit, other: Edit) -> bool:
    """Whether no token of any layer can be in both scopes, decided from the data alone (``False`` when unsure)."""
    if one.layers != "all" and other.layers != "all" and not set(one.layers) & set(other.layers):
        return True
    if {one.phase, other.phase} == {"prefill", "decode"}:
        return True
    if {one.tokens, other.tokens} in ({"prompt", "generated"}, {"prompt_last", "generated"}):
        return True
    return _positions_disjoint(one.tokens, other.tokens)


def _positions_disjoint(one: Tokens, other: Tokens) -> bool:
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
    """The first finding of ``error`` as a :class:`PlanError` that names the field."""
    finding = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in finding["loc"])
    message = finding["msg"].removeprefix("Value error, ")
    return PlanError(f"{what}: {where + ': ' if where else ''}{message}.", remedy)
