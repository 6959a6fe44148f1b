"""How each family turns router logits into a choice and its weights: one small rule per family.

A rule is data plus four pure functions, in the order in which a router applies them::

    logits [T, E] -> scores [T, E] -> selection [T, E] -> ids [T, k] -> weights [T, k]

Everything is computed in fp32 (but see ``native``) with the very operations that the family's own router calls, so that
the results are the router's own bits; :func:`workbench.anatomy.prove` holds every rule to that at load. Shapes use
T tokens, E experts, k choices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from workbench.errors import ContractError

Score = Literal["softmax", "sigmoid", "sqrtsoftplus", "topk_softmax", "topk_sigmoid", "sparsemixer"]
Group = Literal["top2sum", "max"]


def _no_bias() -> Tensor | None:
    return None


@dataclass(frozen=True)
class RoutingRule:
    """The routing rule of one sparse layer.

    Parameters
    ----------
    family
        The ``model_type`` whose router the rule restates.
    score
        What selection ranks by: ``softmax``, ``sigmoid`` or ``sqrtsoftplus`` (square root of softplus) over all E logits;
        or the raw logits, from which the k chosen ones get their weight by a softmax over them (``topk_softmax``), by
        their sigmoids (``topk_sigmoid``), or one after the other by a softmax over the rivals within a relative distance
        of 2 x ``jitter`` (``sparsemixer``; Liu et al. 2023, "Sparse Backpropagation for MoE Training").
    top_k
        Choices per token.
    normalise, eps, norm_min
        Divide the gathered weights by their sum, to which ``eps`` is added, or which is at least ``norm_min``.
    scale
        Constant factor of the weights, applied last.
    n_group, topk_group, group
        Experts stand in ``n_group`` equal groups; only the best ``topk_group`` groups may be chosen from. A group is
        worth the sum of its two best selection scores (``top2sum``) or its best (``max``).
    fill
        Selection score of the experts of the groups left out.
    sorted
        Whether the family asks top-k for sorted results; where it does not, slot 0 need not be the best expert.
    bias
        Gives the correction bias [E] that is added to scores for selection only, or ``None``; called anew each time
        because it is state of the model that may move between devices or be trained.
    upcast
        Whether the router multiplies in fp32 whatever the dtype of the model.
    native
        Whether the family computes all of this in the dtype of the logits instead of fp32, so that in half precision
        scores are rounded before selection; the tensors below then have that dtype.
    softcap
        Where positive, the logits are c tanh(x / c) of the product of input and router weight.
    norm_p
        Divide the gathered weights by their p-norm instead of their sum.
    jitter
        The distance of ``sparsemixer``.
    expert_scale
        Gives a constant factor per expert [E], applied to the normalised weights, or ``None``.
    logits_at
        The submodule of the router whose output the logits are, where the router itself does not return them.
    """

    family: str
    score: Score
    top_k: int
    normalise: bool = False
    eps: float = 0.0
    norm_min: float = 0.0
    scale: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    group: Group = "top2sum"
    fill: float = float("-inf")
    sorted: bool = True
    bias: Callable[[], Tensor | None] = _no_bias
    upcast: bool = False
    native: bool = False
    softcap: float = 0.0
    norm_p: float | None = None
    jitter: float = 0.0
    expert_scale: Callable[[], Tensor | None] = _no_bias
    logits_at: str = ""

    @property
    def ranks_logits(self) -> bool:
        """Whether the scores are the raw logits, so that an absent expert has minus infinity and not 0."""
        return self.score in ("topk_softmax", "topk_sigmoid", "sparsemixer")

    def scores(self, logits: Tensor) -> Tensor:
        """Uncorrected scores [T, E] in fp32 of ``logits`` [T, E]; the logits themselves where selection ranks by them."""
        logits = logits if self.native else logits.float()
        if self.score == "softmax":
            return logits.softmax(-1)
        if self.score == "sigmoid":
            return logits.sigmoid()
        if self.score == "sqrtsoftplus":
            return torch.nn.functional.softplus(logits).sqrt()
        return logits

    def selection(self, scores: Tensor) -> Tensor:
        """What selection ranks by [T, E]: ``scores`` plus the correction bias, before group limits."""
        bias = self.bias()
        return scores if bias is None else scores + bias.reshape(-1).to(scores.device)

    def choose(self, selection: Tensor, k: int | None = None) -> Tensor:
        """Ids [T, k] int64 of the chosen experts, by the family's own group limits and its own top-k call.

        ``k`` replaces the family's number of choices. Ties fall as ``torch.topk`` lets them fall on the device.
        """
        if self.n_group > 1:
            limited = selection.masked_fill(~self._in_groups(selection), self.fill)
            # Where the fill is finite an expert that an edit has removed could come back through it.
            selection = limited.masked_fill(selection.isneginf(), float("-inf"))
        return selection.topk(self.top_k if k is None else k, dim=-1, sorted=self.sorted).indices

    def usable(self, selection: Tensor) -> Tensor:
        """Mask [T, E] of the experts that may be chosen: not minus infinity, and within the family's group limits."""
        usable = ~selection.isneginf()
        return usable & self._in_groups(selection) if self.n_group > 1 else usable

    def weigh(self, scores: Tensor, ids: Tensor) -> Tensor:
        """Combine weights [T, k] in fp32 of ``ids`` [T, k], from the uncorrected ``scores`` [T, E].

        The caller casts them to the dtype in which the model's experts expect them.
        """
        weights = self._mixed(scores, ids) if self.score == "sparsemixer" else scores.gather(-1, ids)
        if self.score == "topk_softmax":
            weights = weights.softmax(-1)
        elif self.score == "topk_sigmoid":
            weights = weights.sigmoid()
        if self.norm_p is not None:
            weights = weights / torch.norm(weights, p=self.norm_p, dim=-1, keepdim=True)
        elif self.normalise:
            weights = weights / (weights.sum(-1, keepdim=True) + self.eps).clamp(min=self.norm_min)
        factor = self.expert_scale()
        if factor is not None:
            weights = weights * factor.to(ids.device)[ids.clamp(max=factor.shape[0] - 1)]
        return weights * self.scale

    def _mixed(self, scores: Tensor, ids: Tensor) -> Tensor:
        """SparseMixer's weights [T, k]: each choice in turn, against the near rivals that are left."""
        left, weights = scores, []
        for chosen in ids.split(1, dim=-1):
            best = left.gather(-1, chosen)
            far = (best - scores) / scores.abs().clamp(min=best) > 2 * self.jitter
            # An expert that an edit passed over takes no part, as though its logit were minus infinity.
            rivals = left.masked_fill(far | (left > best), float("-inf"))
            weight = rivals.softmax(-1).gather(-1, chosen)
            weights.append(weight.masked_fill(best == float("-inf"), 0.0))
            left = left.scatter(-1, chosen, float("-inf"))
        return torch.cat(weights, dim=-1)

    def _in_groups(self, selection: Tensor) -> Tensor:
        """Mask [T, E] of the experts in the ``topk_group`` best groups."""
        grouped = selection.unflatten(-1, (self.n_group, -1))
        worth = grouped.topk(2, dim=-1).values.sum(-1) if self.group == "top2sum" else grouped.amax(-1)
        best = worth.topk(self.topk_group, dim=-1, sorted=False).indices
        keep = torch.zeros_like(worth, dtype=torch.bool).scatter_(-1, best, True)
        return keep.unsqueeze(-1).expand_as(grouped).flatten(-2)


Maker = Callable[[str, nn.Module, nn.Module, Any], RoutingRule | str]


def rule_for(family: str, router: nn.Module, block: nn.Module, config: Any) -> RoutingRule | str:
    """The rule of ``family`` with the numbers of this ``router``, or the reason why no rule states what it does.

    ``block`` is the sparse block that owns the router: some families keep the correction bias there.
    """
    maker = FAMILIES.get(family)
    if maker is None:
        return REFUSED.get(family, f"no routing rule is known for {type(router).__name__}")
    try:
        return maker(family, router, block, config)
    except AttributeError as error:
        raise ContractError(
            f"The router {type(router).__name__} lacks what the routing rule of {family!r} reads: {error}.",
            "Install a transformers release that this workbench supports, or report the model.",
        ) from None


def _softmax(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(family, "softmax", router.top_k, normalise=bool(router.norm_topk_prob))


def _softmax_normalised(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(family, "softmax", router.top_k, normalise=True)


def _jamba(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    # In transformers 5.16 the router is a bare linear layer and the block takes the top k.
    owner = block if isinstance(router, nn.Linear) else router
    return RoutingRule(family, "softmax", owner.top_k)


def _topk_softmax(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(family, "topk_softmax", router.top_k)


def _aria(family: str, router: Any, block: Any, config: Any) -> RoutingRule | str:
    # In transformers 5.16 the bank is handed logits and chooses inside, where no hook can write.
    if hasattr(block.experts, "route_tokens_to_experts"):
        return "its expert bank takes router logits and chooses inside, in this release of transformers"
    return _topk_softmax(family, router, block, config)


def _hunyuan(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family, "softmax", router.top_k, normalise=True, upcast=router.wg.weight.dtype == torch.float32
    )


def _ernie(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "softmax",
        router.top_k,
        normalise=True,
        norm_min=router.norm_min,
        bias=lambda: router.moe_statics.e_score_correction_bias,
        upcast=True,
    )


def _deepseek_v2(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    grouped = router.topk_method == "group_limited_greedy"
    return RoutingRule(
        family,
        "softmax",
        router.top_k,
        scale=router.routed_scaling_factor,
        n_group=router.num_group if grouped else 1,
        topk_group=router.topk_group if grouped else 1,
        group="max",
        fill=0.0,
        sorted=False,
        upcast=True,
    )


def _deepseek_v3(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=bool(router.norm_topk_prob),
        eps=1e-20,
        scale=router.routed_scaling_factor,
        n_group=router.num_group or 1,
        topk_group=router.topk_group or 1,
        sorted=False,
        bias=lambda: router.e_score_correction_bias,
        upcast=True,
    )


def _axk2(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return replace(_deepseek_v3(family, router, block, config), fill=0.0)


def _cohere2(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    rule = _topk_softmax(family, router, block, config)
    if router.expert_selection_fn == "softmax":
        return rule
    return replace(rule, score="topk_sigmoid", normalise=bool(router.norm_topk_prob), native=True)


def _flint(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(family, "sigmoid", router.top_k, normalise=bool(router.norm_topk_prob), upcast=True)


def _laguna(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=True,
        bias=lambda: router.e_score_correction_bias,
        softcap=router.router_logit_softcapping,
    )


def _mistral4(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "softmax",
        router.top_k,
        normalise=bool(router.norm_topk_prob),
        eps=1e-20,
        scale=router.routed_scaling_factor,
        n_group=router.num_group,
        topk_group=router.topk_group,
        fill=0.0,
        sorted=False,
        native=True,
    )


def _minimax_m2(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=True,
        sorted=False,
        bias=lambda: block.e_score_correction_bias,
    )


def _hy_v3(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=True,
        eps=1e-20,
        scale=router.router_scaling_factor,
        sorted=False,
        bias=lambda: block.e_score_correction_bias,
        upcast=True,
    )


def _afmoe(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=True,
        eps=1e-20,
        scale=router.route_scale,
        bias=lambda: block.expert_bias,
    )


def _lfm2(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=bool(router.norm_topk_prob),
        eps=1e-6,
        scale=router.routed_scaling_factor,
        native=True,
        bias=(lambda: block.expert_bias) if router.use_expert_bias else _no_bias,
    )


def _beam(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    # The block scales what its experts give, so the weights are not scaled.
    return RoutingRule(
        family,
        "sigmoid",
        router.top_k,
        normalise=bool(router.norm_topk_prob),
        eps=1e-20,
        n_group=router.num_group,
        topk_group=router.topk_group,
        bias=lambda: router.e_score_correction_bias,
        upcast=True,
    )


def _gemma4(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    # The router returns probabilities where others return logits; its projection gives the logits.
    return RoutingRule(
        family,
        "softmax",
        config.top_k_experts,
        normalise=True,
        expert_scale=lambda: router.per_expert_scale,
        logits_at="proj",
    )


def _scored(family: str, router: Any, block: Any, config: Any) -> RoutingRule | str:
    """DeepSeek V4 and Inkling 2: the score function is a matter of configuration."""
    if hasattr(router, "tid2eid"):
        return "this layer looks its experts up by token id: there is no score to rank by"
    if config.scoring_func not in ("softmax", "sigmoid", "sqrtsoftplus"):
        return f"no rule is known for scores by {config.scoring_func}"
    return RoutingRule(
        family,
        config.scoring_func,
        router.top_k,
        normalise=True,
        eps=1e-20,
        scale=router.routed_scaling_factor,
        sorted=False,
        bias=lambda: router.e_score_correction_bias,
        native=family == "deepseek_v4",
        upcast=family == "inkling2_text",
    )


def _kolibri(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "topk_sigmoid",
        router.top_k,
        normalise=bool(router.norm_topk_prob),
        bias=lambda: router.e_score_correction_bias,
        upcast=True,
    )


def _minimax_m3(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return _minimax_m2(family, router, router, config)  # the bias has moved from the block to the router


def _longcat(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(
        family,
        "softmax",
        router.top_k,
        scale=router.routed_scaling_factor,
        sorted=False,
        bias=lambda: router.e_score_correction_bias,
        upcast=True,
    )


def _phimoe(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    # SparseMixer takes two experts, whatever the configuration asks for.
    return RoutingRule(family, "sparsemixer", 2, jitter=router.router_jitter_noise, native=True)


def _dbrx(family: str, router: Any, block: Any, config: Any) -> RoutingRule:
    return RoutingRule(family, "softmax", block.top_k, norm_p=block.moe_normalize_expert_weights, native=True)


# Keyed by the ``model_type`` of the (text) configuration. A family stands here only if its router was seen to agree
# with the rule to the bit in fp32; any other opens for reading with re-routing refused.
FAMILIES: dict[str, Maker] = {
    **dict.fromkeys(
        ["olmoe", "flex_olmo", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen4_exp_text", "mellum"], _softmax
    ),
    **dict.fromkeys(["mixtral", "minimax", "qwen3_5_moe_text", "qwen3_vl_moe_text"], _softmax_normalised),
    "jamba": _jamba,
    "gpt_oss": _topk_softmax,
    "aria_text": _aria,
    **dict.fromkeys(["granitemoe", "granitemoeshared", "granitemoehybrid", "granitemoe_swa"], _topk_softmax),
    "cohere2_moe": _cohere2,
    "deepseek_v2": _deepseek_v2,
    **dict.fromkeys(
        ["deepseek_v3", "deepseek_v32", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa"], _deepseek_v3
    ),
    **dict.fromkeys(["dots1", "exaone_moe", "solar_open", "mimo_v2_flash", "nemotron_h"], _deepseek_v3),
    **dict.fromkeys(["axk1", "hy_v4", "glm4v_moe_text", "kimi_linear", "bailing_hybrid"], _deepseek_v3),
    "axk2": _axk2,
    "mistral4": _mistral4,
    "hunyuan_v1_moe": _hunyuan,
    "ernie4_5_moe": _ernie,
    "minimax_m2": _minimax_m2,
    "hy_v3": _hy_v3,
    "afmoe": _afmoe,
    "lfm2_moe": _lfm2,
    "flint": _flint,
    "laguna": _laguna,
    "beam": _beam,
    "dots3_note_text": _deepseek_v3,
    "gemma4_text": _gemma4,
    **dict.fromkeys(["deepseek_v4", "inkling2_text"], _scored),
    "kolibri1": _kolibri,
    "minimax_m3_vl_text": _minimax_m3,
    "longcat_flash": _longcat,
    "phimoe": _phimoe,
    "dbrx": _dbrx,
}

# Families that are known and have no rule, with the reason that a refused re-route gives.
REFUSED: dict[str, str] = {
    "doge": "its experts are rows of two embeddings found by product keys, of which nothing reaches a bank of experts",
    "inkling_text": "routed and shared experts share one normalisation, so a choice changes what the shared ones weigh",
    "llama4_text": "every expert runs on a scaled copy of all tokens: no choice reaches the bank that could be changed",
    "zaya": "its router hands a state from layer to layer and has a class that stands for no expert at all",
}

# Families that are not even opened: what the workbench would say about their blocks would be wrong.
UNREADABLE: dict[str, str] = {
    "jetmoe": "it routes its attention as well, and sorts tokens by expert inside the router, so that no choice reaches a "
    "bank of experts",
    "nllb-moe": "its router one-hot encodes a mask twice, so that only experts 0 and 1 ever run (in transformers 5.16 "
    "to 5.23)",
    "switch_transformers": "it is an encoder-decoder, whose tokens compete for the capacity of an expert",
}
