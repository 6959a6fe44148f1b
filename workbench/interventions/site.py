"""The base of the edits that write a tensor of the model at a named site."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from workbench.interventions.edit import Edit, Facts, scopes_disjoint

StreamSite: TypeAlias = Literal[
    "resid_pre", "attn_head_out", "attn_out", "mlp_act", "expert_out", "mlp_out", "resid_post"
]
RouterSite: TypeAlias = Literal["router_logits", "expert_scores"]

_ATTENTION = ("attn_head_out", "attn_out")
_ROUTER = ("router_logits", "expert_scores")
_ROUTING = (*_ROUTER, "expert_ids", "expert_weights")
_AFTER_ROUTER = ("mlp_act", "expert_out", "mlp_out", "resid_post")


class SiteEdit(Edit):
    """Base of the edits whose site is a choice of theirs; its value is [B, S, ...] with the site's own shape behind."""

    site: StreamSite | RouterSite = Field(title="Site", description="what is written")  # type: ignore[misc]

    def acts_after_router(self) -> bool:
        return self.site in _AFTER_ROUTER

    def _all_layers(self, facts: Facts) -> tuple[int, ...]:
        blocks = [facts.layer(n) for n in range(facts.num_layers)]
        if self.site in _ATTENTION:
            return tuple(n for n, block in enumerate(blocks) if block.attention is not None)
        if self.site in ("expert_out", "router_logits", "expert_scores"):
            return facts.moe_layers
        if self.site == "mlp_act":
            return tuple(n for n, block in enumerate(blocks) if block.mlp is not None)
        return super()._all_layers(facts)

    def commutes(self, other: Edit) -> bool:
        # A function of logits or scores stands among the re-routes, whose stages it may belong to.
        if self.site in _ROUTER and other.site in _ROUTING:
            return scopes_disjoint(self, other)
        return super().commutes(other)
