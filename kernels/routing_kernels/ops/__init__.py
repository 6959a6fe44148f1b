"""The public ops, one module each."""

from routing_kernels.ops.attention import BLOCKS, BlockAttention, block_attention, block_rows
from routing_kernels.ops.composed import ExpertLinear, MaskedExpertLinear, composed_experts
from routing_kernels.ops.expert_linear import expert_linear
from routing_kernels.ops.logprob import token_logprob
from routing_kernels.ops.masked import MaskedWeight, masked_matmul, n_of_m, pack_masked
from routing_kernels.ops.mlp import SparseMlp, sparse_mlp
from routing_kernels.ops.moe import ACTIVATIONS, ExpertRows, MoeExperts, expert_rows, moe_experts
from routing_kernels.ops.ranks import MapRanks, map_ranks
from routing_kernels.ops.residual import ResidualStats, residual_rows, residual_stats
from routing_kernels.ops.rows import Rows, gather_rows, scatter_add_rows

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "BlockAttention",
    "ExpertLinear",
    "ExpertRows",
    "MapRanks",
    "MaskedExpertLinear",
    "MaskedWeight",
    "MoeExperts",
    "ResidualStats",
    "Rows",
    "SparseMlp",
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
    "residual_rows",
    "residual_stats",
    "scatter_add_rows",
    "sparse_mlp",
    "token_logprob",
]
