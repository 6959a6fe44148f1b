"""Where things are in a model: found by structure, proved by contract.

:func:`read` finds blocks, attention, MLPs, routers and expert banks; :func:`prove` runs one tiny forward pass and holds
what was found to the model's own numbers.
"""

from workbench.anatomy.parts import Anatomy, Attention, Block, Mlp, Moe, Outlet
from workbench.anatomy.proof import LayerProof, Proof, expert_inputs, prove, router_logits
from workbench.anatomy.reader import read
from workbench.anatomy.rules import RoutingRule

__all__ = [
    "Anatomy",
    "Attention",
    "Block",
    "LayerProof",
    "Mlp",
    "Moe",
    "Outlet",
    "Proof",
    "RoutingRule",
    "expert_inputs",
    "prove",
    "read",
    "router_logits",
]
