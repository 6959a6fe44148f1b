"""Sparse kernels for routed networks, as PyTorch ops that also report what they did. Needs PyTorch and nothing else.

``moe_experts`` runs the chosen experts of a mixture-of-experts layer; ``backends`` and ``resolve`` say what it runs on.
"""

from routing_kernels.dispatch import Backend, backends, refresh, resolve
from routing_kernels.errors import ArgumentError, BackendError, KernelError
from routing_kernels.ops import ACTIVATIONS, MoeExperts, moe_experts

__all__ = [
    "ACTIVATIONS",
    "ArgumentError",
    "Backend",
    "BackendError",
    "KernelError",
    "MoeExperts",
    "backends",
    "moe_experts",
    "refresh",
    "resolve",
]
