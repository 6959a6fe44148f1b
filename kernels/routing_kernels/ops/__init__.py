"""The public ops, one module each."""

from routing_kernels.ops.mlp import SparseMlp, sparse_mlp
from routing_kernels.ops.moe import ACTIVATIONS, MoeExperts, moe_experts
from routing_kernels.ops.residual import ResidualStats, residual_stats

__all__ = [
    "ACTIVATIONS",
    "MoeExperts",
    "ResidualStats",
    "SparseMlp",
    "moe_experts",
    "residual_stats",
    "sparse_mlp",
]
