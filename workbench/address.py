"""The closed vocabulary of sites: one table from which reading, writing, refusals and translations derive.

A *site* is a named place in a decoder; an :class:`Address` is a site in one layer, written ``router_logits.5``
(or ``logits`` for the one site that has no layer). An unknown coordinate raises
:class:`~workbench.errors.AddressError`, because a dropped selector would return a plausible neighbour.

Shapes use B rows, S positions, T = B x S tokens, H hidden width, E experts, k choices, N heads, D head width, F neurons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, cast

from workbench.errors import AddressError

Needs = Literal["nothing", "attention", "mlp", "dense", "moe"]


@dataclass(frozen=True)
class Site:
    """One row of the table: what a site means, where it exists and what other tools call it.

    ``transformer_lens`` and ``nnsight`` are templates with ``{layer}`` and, for nnsight and Hugging Face, the
    module paths that :mod:`workbench.anatomy` finds (``{block}``, ``{attn}``, ``{mlp}``, ``{router}``, ``{experts}``,
    ``{o_proj}``, ``{down_proj}``, ``{head}``); ``None`` means that the other tool has no place of the same meaning.
    """

    name: str
    meaning: str
    shape: str
    read: bool
    write: bool
    needs: Needs
    per_layer: bool = True
    transformer_lens: str | None = None
    nnsight: str | None = None


_TABLE = (
    Site("resid_pre", "residual stream entering the block", "[B, S, H]", True, True, "nothing",
         transformer_lens="blocks.{layer}.hook_resid_pre", nnsight="{block}.input"),
    Site("attn_mask", "attention mask of the layer, before the softmax", "[B, N, S, S]", False, True, "attention"),
    Site("attn_pattern", "attention probabilities", "[B, N, S, S]", True, False, "attention",
         transformer_lens="blocks.{layer}.attn.hook_pattern"),
    Site("attn_head_out", "output of each head before the output projection", "[B, S, N, D]", True, True, "attention",
         transformer_lens="blocks.{layer}.attn.hook_z", nnsight="{o_proj}.input"),
    Site("attn_out", "what attention adds to the residual stream, after post-norms and multipliers", "[B, S, H]",
         True, True, "attention"),
    Site("resid_mid", "residual stream between attention and MLP: resid_pre + attn_out", "[B, S, H]", True, False,
         "attention", transformer_lens="blocks.{layer}.hook_resid_mid"),
    Site("router_logits", "raw output of the router, before any bias or softmax", "[T, E]", True, True, "moe",
         transformer_lens="blocks.{layer}.mlp.gate.hook_out"),
    Site("expert_scores", "scores that selection ranks by: after the correction bias, before group limits", "[T, E]",
         True, True, "moe"),
    Site("expert_ids", "the chosen experts, in the order in which the model executes them", "[T, k]", True, True, "moe",
         transformer_lens="blocks.{layer}.mlp.gate.hook_expert_indices"),
    Site("expert_weights", "combine weights of the chosen experts", "[T, k]", True, True, "moe"),
    Site("expert_out", "output of each chosen expert before weighting", "[T, k, H]", True, True, "moe"),
    Site("mlp_act", "neuron activations entering the down projection", "[B, S, F] or [T, k, F]", True, True, "mlp",
         nnsight="{down_proj}.input"),
    Site("mlp_out", "what the MLP adds to the residual stream, after post-norms and multipliers", "[B, S, H]",
         True, True, "mlp"),
    Site("resid_post", "residual stream leaving the block", "[B, S, H]", True, True, "nothing",
         transformer_lens="blocks.{layer}.hook_resid_post", nnsight="{block}.output"),
    Site("block", "the whole block, as a unit to skip or repeat", "-", False, True, "nothing"),
    Site("attn", "the attention sublayer, as a unit to skip", "-", False, True, "attention"),
    Site("mlp", "the MLP sublayer, as a unit to skip", "-", False, True, "mlp"),
    Site("logits", "next-token logits", "[B, S, V]", True, False, "nothing", per_layer=False,
         nnsight="{head}.output"),
)  # fmt: skip

SITES: dict[str, Site] = {site.name: site for site in _TABLE}
READ_SITES = tuple(site.name for site in _TABLE if site.read)
WRITE_SITES = tuple(site.name for site in _TABLE if site.write)

_TEXT = re.compile(r"(?P<name>[a-z_]+)(?:\.(?P<layer>\d+))?")


def site(name: str) -> Site:
    """The table's row of ``name``; raises :class:`AddressError` for a name that is not in it."""
    try:
        return SITES[name]
    except KeyError:
        raise AddressError(f"There is no site called {name!r}.", f"Sites are: {', '.join(SITES)}.") from None


@dataclass(frozen=True, order=True)
class Address:
    """A site in one layer. ``layer`` is the number in the module path, or ``None`` for a site without layers."""

    name: str
    layer: int | None = None

    def __post_init__(self) -> None:
        row = site(self.name)
        if row.per_layer and self.layer is None:
            raise AddressError(
                f"Site {self.name!r} needs a layer.", f"Write it as {self.name}.0, for example."
            )
        if not row.per_layer and self.layer is not None:
            raise AddressError(f"Site {self.name!r} has no layers.", f"Write it as {self.name}.")
        if self.layer is not None and self.layer < 0:
            raise AddressError(
                f"Layer {self.layer} of site {self.name!r} is negative.", "Layers count from 0."
            )

    @property
    def site(self) -> Site:
        """The table's row of this address."""
        return SITES[self.name]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``name.layer``, for example ``router_logits.5``; the inverse of ``str(address)``."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise AddressError(
                f"{text!r} is not an address.", "Write a site and a layer, as in router_logits.5."
            )
        layer = match["layer"]
        return cls(match["name"], None if layer is None else int(layer))

    def __str__(self) -> str:
        return self.name if self.layer is None else f"{self.name}.{self.layer}"

    def transformer_lens(self) -> str:
        """The hook name of the same meaning in a TransformerLens bridge; refused where meanings differ."""
        return self._translate("TransformerLens", self.site.transformer_lens, {})

    def nnsight(self, paths: dict[str, str]) -> str:
        """The nnsight expression of the same meaning, given the module ``paths`` of the layer; refused where none is."""
        return self._translate("nnsight", self.site.nnsight, paths)

    @classmethod
    def from_transformer_lens(cls, hook: str) -> Address:
        """The address of a hook name such as ``blocks.5.hook_resid_pre``; refused where no site has its meaning.

        The MLP's router may be called ``gate`` or ``router`` there.
        """
        name = hook.replace(".mlp.router.", ".mlp.gate.")
        for row in _TABLE:
            pattern = re.escape(row.transformer_lens or "").replace(r"\{layer\}", r"(\d+)")
            match = re.fullmatch(pattern, name) if pattern else None
            if match is not None:
                return cls(row.name, int(match[1]) if row.per_layer else None)
        raise AddressError(
            f"No site has the meaning of TransformerLens' {hook!r}.",
            "Sites with a hook of the same meaning: "
            + ", ".join(row.name for row in _TABLE if row.transformer_lens)
            + ".",
        )

    @classmethod
    def from_nnsight(cls, text: str, paths: Mapping[int, Mapping[str, str]]) -> Address:
        """The address of an nnsight expression such as ``model.layers.5.mlp.down_proj.input``, given the module paths
        of every layer (:meth:`workbench.anatomy.Anatomy.paths`); refused where no site has its meaning."""
        for row in _TABLE:
            for layer in paths if row.nnsight is not None else ():
                address = cls(row.name, layer if row.per_layer else None)
                try:
                    found = address.nnsight(dict(paths[layer])) == text
                except KeyError:  # a part that this layer does not have
                    continue
                if found:
                    return address
        raise AddressError(
            f"No site has the meaning of nnsight's {text!r}.",
            "Sites with a place of the same meaning: "
            + ", ".join(row.name for row in _TABLE if row.nnsight)
            + ".",
        )

    def _translate(self, tool: str, template: str | None, paths: dict[str, str]) -> str:
        if template is None:
            raise AddressError(
                f"{tool} has no place of the same meaning as {self}.",
                f"Read or write {self} through the workbench.",
            )
        return template.format(layer=self.layer, **paths)


def integers(value: int | Iterable[int], name: str) -> tuple[int, ...]:
    """One number or several, of Python or of numpy as a frame gives them, as integers of Python in the order given.

    Raises
    ------
    AddressError
        Something else is among them; ``name`` says what they count.
    """
    alone = isinstance(value, Integral | str | bytes) or not isinstance(value, Iterable)
    items: tuple[Any, ...] = (value,) if alone else tuple(cast("Iterable[int]", value))
    for item in items:
        if isinstance(item, bool) or not isinstance(item, Integral):
            raise AddressError(f"{item!r} is not a {name} number.", f"Give one {name} number, or several.")
    return tuple(map(int, items))
