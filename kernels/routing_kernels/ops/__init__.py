"""The public ops, one module each."""

from routing_kernels.ops.moe import ACTIVATIONS, MoeExperts, moe_experts
from routing_kernels.ops.residual import ResidualStats, residual_stats

__all__ = ["ACTIVATIONS", "MoeExperts", "ResidualStats", "moe_experts", "residual_stats"]
