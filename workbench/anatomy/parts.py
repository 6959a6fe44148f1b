"""What a decoder is made of: plain data about its blocks, and which sites each of them has.

Everything here is filled in by :func:`workbench.anatomy.read` (structure) and :func:`workbench.anatomy.prove`
(``proved``, ``additive`` and their reasons, which only a forward pass can tell).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from workbench.address import SITES, Address
from workbench.anatomy.rules import RoutingRule
from workbench.errors import AddressError, EditRefused

NOT_PROVED = "it has not been proved yet: call workbench.anatomy.prove first"


@dataclass(frozen=True)
class Outlet:
    """Where a sublayer's contribution leaves: ``multiplier`` x output of ``module`` is what the residual stream gains.

    ``module`` is the sublayer itself or a norm behind it. Where it returns several things, its output is the first tensor.
    """

    path: str
    module: nn.Module
    multiplier: float = 1.0


@dataclass(frozen=True)
class Attention:
    """Softmax attention of one block. The input of ``out_proj`` is [B, S, num_heads x head_dim], heads in order."""

    path: str
    module: nn.Module
    out_proj: nn.Module
    out_proj_path: str
    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class Mlp:
    """The MLP of one block, dense or sparse.

    ``down_proj`` is ``None`` where the neurons live in an expert bank; ``act_width`` is the number of neurons (of one
    expert) that enter the down projection, 0 where the bank's parameters do not tell.
    """

    path: str
    module: nn.Module
    down_proj: nn.Module | None
    down_proj_path: str | None
    act_width: int


@dataclass
class Moe:
    """The sparse part of one block. ``path`` is the module that owns both router and expert bank.

    ``observable`` says that the expert bank was seen to be called with ids and weights, ``proved`` that ``rule``
    reproduces them from the router's input; ``reason`` says why not. For a family without a rule, ``rule`` is ``None``,
    ``no_rule`` says why, and ``top_k`` is 0 until it is observed. ``logits_place`` says which of several tensors that the
    router returns in the shape of logits they were proved to be; ``None`` where the shape tells them.
    """

    path: str
    router: nn.Module
    router_path: str
    experts: nn.Module
    experts_path: str
    num_experts: int
    top_k: int
    rule: RoutingRule | None
    no_rule: str = ""
    observable: bool = False
    proved: bool = False
    reason: str = NOT_PROVED
    logits_place: int | None = None

    @property
    def choosable(self) -> int:
        """How many experts one token may choose from: where the family selects groups first, those of its groups."""
        if self.rule is None:
            return self.num_experts
        return self.num_experts * self.rule.topk_group // self.rule.n_group


@dataclass
class Block:
    """One decoder block. ``layer`` is its number in the module path.

    ``additive`` says that resid_post == resid_pre + attn_out + mlp_out was seen to hold, where attn_out and mlp_out are
    what ``attn_outlet`` and ``mlp_outlet`` give; ``reason`` says why not. ``streams`` counts the residual streams that it
    hands on side by side (hyper-connections have several). ``hands_on`` says that the next block works with something else
    that this one computed, beside the residual stream. ``hidden_size`` counts the channels of a residual stream.
    """

    layer: int
    path: str
    module: nn.Module
    attention: Attention | None
    mlp: Mlp | None
    moe: Moe | None
    attn_outlet: Outlet | None = None
    mlp_outlet: Outlet | None = None
    additive: bool = False
    reason: str = NOT_PROVED
    streams: int = 1
    hands_on: bool = False
    hidden_size: int = 0


@dataclass
class Anatomy:
    """A decoder: its blocks in order, and the paths of what stands around them.

    ``no_experts`` says why a family that has experts shows none; empty for every other.
    """

    model: Any
    model_type: str
    blocks: tuple[Block, ...]
    hidden_size: int
    vocab_size: int
    context: int | None
    embed_path: str
    norm_path: str | None
    head_path: str
    no_experts: str = ""

    @property
    def num_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that have a router."""
        return tuple(block.layer for block in self.blocks if block.moe is not None)

    @property
    def uniform(self) -> bool:
        """Whether all layers attend in the same way (one kind of mask and positions), so that they could change places."""
        types = getattr(self.model.config.get_text_config(), "layer_types", None)
        alike = len({block.attention is None for block in self.blocks}) == 1
        return alike and (types is None or len(set(types)) == 1)

    def layer(self, number: int) -> Block:
        """The block of layer ``number``; raises :class:`~workbench.errors.AddressError` where there is none."""
        if not 0 <= number < len(self.blocks):
            raise AddressError(
                f"There is no layer {number}.", f"The layers of this model are {_span(self.blocks)}."
            )
        return self.blocks[number]

    def sites(self) -> list[Address]:
        """Every address that can be read or written in this model, layer by layer in the order of the table."""
        layered = [
            Address(row.name, block.layer) for block in self.blocks for row in SITES.values() if row.per_layer
        ]
        whole = [Address(row.name) for row in SITES.values() if not row.per_layer]
        return [address for address in layered + whole if self._usable(address)]

    def require(self, address: Address, write: bool = False) -> None:
        """Raise unless ``address`` can be read (or, with ``write``, written) in this model.

        Raises :class:`~workbench.errors.AddressError` for a layer or site that is not there, and
        :class:`~workbench.errors.EditRefused` for one that is there but cannot be used, with the reason.
        """
        row = address.site
        if not (row.write if write else row.read):
            verb, other = ("written", "read") if write else ("read", "written")
            raise AddressError(f"Site {row.name!r} cannot be {verb}.", f"It can only be {other}.")
        if address.layer is None:
            return
        block = self.layer(address.layer)
        missing = {
            "nothing": False,
            "attention": block.attention is None,
            "mlp": block.mlp is None,
            "dense": block.mlp is None or block.moe is not None,
            "moe": block.moe is None,
        }[row.needs]
        if missing:
            raise EditRefused(
                f"Layer {block.layer} has no site {row.name!r}: {self._lacks(block, row.needs)}.",
                f"Layers that have it: {self._layers_with(row.needs) or 'none in this model'}.",
            )
        refusal = _refusal(block, row.name, write)
        if refusal is not None:
            raise EditRefused(
                f"{address} cannot be {'written' if write else 'read'} in this model: {refusal}.",
                "Choose a site from anatomy.sites(), or a model of a family that is supported for it.",
            )

    def paths(self, layer: int) -> dict[str, str]:
        """Module paths of ``layer`` under the names that :meth:`workbench.address.Address.nnsight` fills in."""
        block = self.layer(layer)
        paths = {"block": block.path, "embed": self.embed_path, "head": self.head_path}
        if self.norm_path is not None:
            paths["norm"] = self.norm_path
        if block.attention is not None:
            paths |= {"attn": block.attention.path, "o_proj": block.attention.out_proj_path}
        if block.mlp is not None:
            paths["mlp"] = block.mlp.path
            if block.mlp.down_proj_path is not None:
                paths["down_proj"] = block.mlp.down_proj_path
        if block.moe is not None:
            paths |= {"router": block.moe.router_path, "experts": block.moe.experts_path}
        return paths

    def describe(self) -> list[dict[str, Any]]:
        """One row a layer for people to read: what it is, how it routes, and what was proved or refused and why."""
        return [_describe(block) for block in self.blocks]

    def _usable(self, address: Address) -> bool:
        row = address.site
        for write in (False, True):
            if row.write if write else row.read:
                try:
                    self.require(address, write)
                except (AddressError, EditRefused):
                    continue
                return True
        return False

    def _lacks(self, block: Block, needs: str) -> str:
        if needs == "attention":
            return f"{type(block.module).__name__} has no softmax attention here, or several"
        if needs == "moe":
            dense = "its MLP is dense" if block.mlp is not None else "it has no MLP"
            return self.no_experts or dense
        return "it has no MLP" if block.mlp is None else "its MLP is a bank of experts"

    def _layers_with(self, needs: str) -> str:
        having = [
            block.layer
            for block in self.blocks
            if {
                "attention": block.attention is not None,
                "mlp": block.mlp is not None,
                "dense": block.mlp is not None and block.moe is None,
                "moe": block.moe is not None,
            }[needs]
        ]
        return ", ".join(map(str, having))


def _span(blocks: tuple[Block, ...]) -> str:
    return f"0 to {len(blocks) - 1}"


def _refusal(block: Block, name: str, write: bool) -> str | None:
    """Why a site that the block has in structure cannot be used all the same, or ``None`` where it can."""
    moe = block.moe
    if name in ("attn_out", "resid_mid", "mlp_out", "attn", "mlp") and not block.additive:
        return block.reason
    if name == "mlp" and block.mlp is not None and block.mlp.module is block.mlp.down_proj:
        return (
            "its MLP is no module of its own that could be left out, but two layers among others in the block"
        )
    if name == "mlp_act" and moe is None and block.mlp is not None and block.mlp.down_proj is None:
        return "no down projection was found in its MLP"
    if moe is None:
        return None
    # Without a proof nobody knows that what a router returns first are logits: some return probabilities.
    if name in ("router_logits", "expert_scores") or (write and name in ("expert_ids", "expert_weights")):
        return None if moe.proved else moe.reason
    if name in ("expert_ids", "expert_weights", "expert_out"):
        return None if moe.observable else moe.reason
    return None


def _describe(block: Block) -> dict[str, Any]:
    moe, attention = block.moe, block.attention
    kind = "moe" if moe is not None else "dense" if block.mlp is not None else "no MLP"
    return {
        "layer": block.layer,
        "kind": kind,
        "heads": None if attention is None else attention.num_heads,
        "kv_heads": None if attention is None else attention.num_kv_heads,
        "width": None if block.mlp is None else block.mlp.act_width,
        "experts": None if moe is None else moe.num_experts,
        "k": None if moe is None else moe.top_k,
        "rule": None if moe is None or moe.rule is None else moe.rule.family,
        "proved": None if moe is None else moe.proved,
        "additive": block.additive,
        "reason": "; ".join(
            part
            for part in (
                "" if moe is None or moe.proved else moe.reason,
                "" if block.additive else block.reason,
            )
            if part
        ),
    }
