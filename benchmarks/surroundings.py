"""What the benchmarks of the workbench stand on. Import it before torch: one thread that waits passively, nothing fetched,
the packages of this checkout; the widths that several of them share, and the form in which they print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from figures import figure, publish

__all__ = ["DENSE", "OLMOE", "figure", "publish"]

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
