"""Custom edits: a function of the researcher's own, registered by name and known by its source."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, Unpack

from pydantic import Field, model_validator

from workbench.errors import EditRefused, PlanError
from workbench.interventions.edit import Edit, Layers, Scope, build
from workbench.interventions.site import RouterSite, SiteEdit, StreamSite
from workbench.said import Said, said

if TYPE_CHECKING:
    from torch import Tensor

Parameter: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class Place:
    """Where a custom edit acts: its site and layer, and absolute positions and token ids [B, S] of the pass."""

    site: str
    layer: int
    positions: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class _Registered:
    function: Callable[..., Any]
    site: str
    causal: bool
    source: str


_REGISTERED: dict[str, _Registered] = {}


class Custom(SiteEdit):
    """Apply a registered function to the values of a site; made by :func:`edit`.

    The plan holds the function's name and the hash of its source, never the function: a plan that names a function which is
    not registered in this process, or whose source is another, is not loaded.
    """

    kind: Literal["custom"] = "custom"
    derived: ClassVar[frozenset[str]] = frozenset({"site", "source", "causal"})
    site: StreamSite | RouterSite = Field(title="Site", description="what is written")  # type: ignore[misc]
    name: str = Field(min_length=1, max_length=200, title="Name", description="of the registered function")
    source: str = Field(
        pattern=r"^[0-9a-f]{16}$", title="Source", description="hash of the function's source"
    )
    causal: bool = Field(True, title="Causal", description="whether it looks at no later token")
    params: dict[str, Parameter] = Field({}, title="Parameters", description="given to the function by name")

    @model_validator(mode="after")
    def _registered(self) -> Custom:
        known = _REGISTERED.get(self.name)
        if known is None:
            raise ValueError(f"no function called {self.name!r} is registered; define it with @wb.edit first")
        if (known.source, known.site, known.causal) != (self.source, self.site, self.causal):
            raise ValueError(
                f"the function {self.name!r} that is registered is not the one the plan was made with"
            )
        return self

    def apply(self, value: Tensor, place: Place) -> Tensor:
        """What the function makes of ``value`` [B, S, ...]; refused if it is not of the same shape."""
        new = _REGISTERED[self.name].function(value, place, **self.params)
        if getattr(new, "shape", None) != value.shape:
            raise EditRefused(
                f"The custom edit {self.name!r} gave {getattr(new, 'shape', type(new).__name__)} for a value of shape "
                f"{tuple(value.shape)}.",
                "Return a tensor of the shape that was given.",
            )
        edited: Tensor = new.to(value.dtype)
        return edited

    def _what(self) -> Said:
        given = ", ".join(f"{name}={value!r}" for name, value in self.params.items())
        return said("custom %1 at %2", f"{self.name}({given})", self.site)


KINDS: tuple[type[Edit], ...] = (Custom,)


def edit(
    site: StreamSite | RouterSite, causal: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Custom]]:
    """Register a function as an edit of ``site``; the decorated name then makes edits.

    The function gets the values [B, S, ...] of a pass (never in place: return new ones), a :class:`Place`, and its own
    keyword parameters. Only the tokens in the edit's scope are replaced. ``causal=False`` says that it looks at later
    tokens.

        @wb.edit("mlp_out")
        def louder(value, place, by=2.0):
            return value * by

        plan = wb.Plan([louder(layers=3, by=1.5, tokens="prompt_last")])

    Raises :class:`PlanError` for a function without source text, or one that does not take a value and a place.
    """
    if callable(site):
        raise PlanError("@wb.edit stands without its site.", 'Write @wb.edit("mlp_out"), or another site.')

    def register(function: Callable[..., Any]) -> Callable[..., Custom]:
        name = f"{function.__module__}.{function.__qualname__}"
        try:
            text = textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError):
            raise PlanError(
                f"The source of {name} cannot be read, so a plan could not tell it from another.",
                "Define the function in a file or a notebook cell.",
            ) from None
        try:
            inspect.signature(function).bind_partial(None, None)
        except TypeError:
            raise PlanError(
                f"{name} does not take the values of a site and a place.",
                f"Write def {function.__name__}(value, place, ...).",
            ) from None
        source = hashlib.sha256(text.encode()).hexdigest()[:16]
        _REGISTERED[name] = _Registered(function, site, causal, source)

        @functools.wraps(function)
        def make(layers: int | Iterable[int] | Layers = "all", **options: Any) -> Custom:
            scope = {key: options.pop(key) for key in list(options) if key in Scope.__annotations__}
            return build(
                Custom,
                site=site,
                layers=layers,
                name=name,
                source=source,
                causal=causal,
                params=options,
                **scope,
            )

        return make

    return register


def custom(name: str, layers: int | Iterable[int] | Layers = "all", *, params: dict[str, Parameter] | None = None,
           **options: Unpack[Scope]) -> Custom:  # fmt: skip
    """An edit by the registered function called ``name`` (module and qualified name); see :func:`edit`."""
    known = _REGISTERED.get(name)
    if known is None:
        raise PlanError(
            f"No function called {name!r} is registered.", "Define it with @wb.edit before the plan is made."
        )
    return build(
        Custom, site=known.site, layers=layers, name=name, source=known.source, causal=known.causal, params=params or {},
        **options,
    )  # fmt: skip
