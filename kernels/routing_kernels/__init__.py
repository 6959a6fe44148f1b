"""Sparse kernels for routed networks, as PyTorch ops that also report what they did. Needs PyTorch and nothing else.

``moe_experts`` runs the chosen experts of a mixture-of-experts layer; ``sparse_mlp`` the active part of a gated MLP;
``residual_stats`` measures what a block does to
the residual stream; ``backends`` and ``resolve`` say what they run on.
"""

from routing_kernels.dispatch import Backend, backends, refresh, resolve
from routing_kernels.errors import ArgumentError, BackendError, KernelError
from routing_kernels.ops import (
    ACTIVATIONS,
    MoeExperts,
    ResidualStats,
    SparseMlp,
    moe_experts,
    residual_stats,
    sparse_mlp,
)

__all__ = [
    "ACTIVATIONS",
    "ArgumentError",
    "Backend",
    "BackendError",
    "KernelError",
    "MoeExperts",
    "ResidualStats",
    "SparseMlp",
    "backends",
    "moe_experts",
    "refresh",
    "residual_stats",
    "resolve",
    "sparse_mlp",
]
