"""The ops in plain torch: slow, in float64 where the input is; the oracle for every other backend."""

from routing_kernels.reference.mlp import sparse_mlp, sparse_mlp_backward
from routing_kernels.reference.moe import ACTIVATIONS, moe_experts, moe_experts_backward
from routing_kernels.reference.residual import residual_stats

__all__ = [
    "ACTIVATIONS",
    "moe_experts",
    "moe_experts_backward",
    "residual_stats",
    "sparse_mlp",
    "sparse_mlp_backward",
]
