"""What the benchmarks of the workbench stand on. Import it before torch: one thread that waits passively, nothing fetched,
the packages of this checkout; the widths that several of them share, and the form in which they print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from figures import figure, publish

__all__ = ["DENSE", "OLMOE", "figure", "filled", "publish"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
# transformers imports a published package named kernels: from this folder it would find a script of that name.
sys.path[:] = [
    str(HERE.parent),
    str(HERE.parent / "kernels"),
    *(p for p in sys.path if Path(p or ".").resolve() != HERE),
]

OLMOE: dict[str, Any] = {
    "vocab_size": 8192, "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 1,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
}  # fmt: skip
"""One block at OLMoE-1B-7B width."""

DENSE: dict[str, Any] = {
    "vocab_size": 8192, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 4,
    "num_attention_heads": 16, "num_key_value_heads": 8,
}  # fmt: skip
"""A dense model of about 1 B in width, at four layers."""


def filled(model: Any) -> Any:
    """A model made on the meta device, on the CPU with random weights: what initialises each module takes longer than all
    the passes that are measured."""
    import torch

    model = model.to_empty(device="cpu")
    for name, module in list(model.named_modules()):
        if hasattr(module, "original_inv_freq"):  # what a checkpoint does not hold is computed anew
            model.set_submodule(name, type(module)(module.config))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.ones_(parameter)
        else:
            torch.nn.init.uniform_(parameter, -0.035, 0.035, generator=generator)
    return model.eval()
