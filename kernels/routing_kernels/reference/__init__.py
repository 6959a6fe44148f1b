"""The ops in plain torch: slow, in float64 where the input is; the oracle for every other backend."""

from routing_kernels.reference.attention import block_attention, block_attention_backward
from routing_kernels.reference.expert_linear import expert_linear, expert_linear_backward
from routing_kernels.reference.logprob import token_logprob, token_logprob_backward
from routing_kernels.reference.masked import masked_matmul
from routing_kernels.reference.mlp import sparse_mlp, sparse_mlp_backward
from routing_kernels.reference.moe import ACTIVATIONS, moe_experts, moe_experts_backward
from routing_kernels.reference.ranks import map_ranks
from routing_kernels.reference.residual import residual_stats
from routing_kernels.reference.rows import gather_rows, scatter_add_rows

__all__ = [
    "ACTIVATIONS",
    "block_attention",
    "block_attention_backward",
    "expert_linear",
    "expert_linear_backward",
    "gather_rows",
    "map_ranks",
    "masked_matmul",
    "moe_experts",
    "moe_experts_backward",
    "residual_stats",
    "scatter_add_rows",
    "sparse_mlp",
    "sparse_mlp_backward",
    "token_logprob",
    "token_logprob_backward",
]
