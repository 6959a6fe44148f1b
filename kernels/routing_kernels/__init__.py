"""Sparse kernels for routed networks, as PyTorch ops that also report what they did. Needs PyTorch and nothing else.

``moe_experts`` runs the chosen experts of a mixture-of-experts layer, ``composed_experts`` those of any make by way of
``expert_linear``, ``sparse_mlp`` the active part of a gated MLP,
``block_attention`` the kept blocks of an attention map, ``masked_matmul`` the kept entries of a weight matrix;
``gather_rows`` and ``scatter_add_rows`` take tokens around a
block and back; ``residual_stats`` measures what a block does to the residual stream, ``map_ranks`` how much of its freedom
an attention map uses, ``token_logprob`` how likely the model found each token. ``backends`` and ``resolve`` say what they
run on.
"""

from routing_kernels.dispatch import Backend, backends, refresh, resolve
from routing_kernels.errors import ArgumentError, BackendError, KernelError
from routing_kernels.ops import (
    ACTIVATIONS,
    BLOCKS,
    BlockAttention,
    ExpertLinear,
    ExpertRows,
    MapRanks,
    MaskedExpertLinear,
    MaskedWeight,
    MoeExperts,
    ResidualStats,
    Rows,
    SparseMlp,
    block_attention,
    block_rows,
    composed_experts,
    expert_linear,
    expert_rows,
    gather_rows,
    map_ranks,
    masked_matmul,
    moe_experts,
    n_of_m,
    pack_masked,
    residual_rows,
    residual_stats,
    scatter_add_rows,
    sparse_mlp,
    token_logprob,
)

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "ArgumentError",
    "Backend",
    "BackendError",
    "BlockAttention",
    "ExpertLinear",
    "ExpertRows",
    "KernelError",
    "MapRanks",
    "MaskedExpertLinear",
    "MaskedWeight",
    "MoeExperts",
    "ResidualStats",
    "Rows",
    "SparseMlp",
    "backends",
    "block_attention",
    "block_rows",
    "composed_experts",
    "expert_linear",
    "expert_rows",
    "gather_rows",
    "map_ranks",
    "masked_matmul",
    "moe_experts",
    "n_of_m",
    "pack_masked",
    "refresh",
    "residual_rows",
    "residual_stats",
    "resolve",
    "scatter_add_rows",
    "sparse_mlp",
    "token_logprob",
]
