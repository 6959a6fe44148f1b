"""Tiny random models of several families, shared by every room's tests; nothing here is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Timings on shared machines say nothing about correctness; fewer examples than the default keep the suite short.
settings.register_profile("workbench", deadline=None, max_examples=40)
settings.load_profile("workbench")

_COMMON: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip
_MOE = {"num_experts": 8, "num_experts_per_tok": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "olmoe": _COMMON | _MOE | {"num_key_value_heads": 4},
    "olmoe-norm": _COMMON | _MOE | {"norm_topk_prob": True},
    "mixtral": _COMMON | {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": _COMMON | _MOE | {"moe_intermediate_size": 24, "head_dim": 8, "norm_topk_prob": True},
    "llama": _COMMON,
}
MOE_FAMILIES = ("olmoe", "olmoe-norm", "mixtral", "qwen3_moe")
FAMILIES = (*MOE_FAMILIES, "llama")


def build_tiny(family: str, seed: int = 0) -> Any:
    """A random three-layer model of ``family`` in fp32, with routers far enough from ties to have real choices."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family.split("-")[0], **CONFIGS[family])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(
                    parameter, std=0.5 if ("gate.weight" in name or "router" in name) else 0.15
                )
    return model.eval()


@pytest.fixture
def tiny() -> Callable[..., Any]:
    """Builds a tiny model of a family: ``tiny("mixtral")``."""
    return build_tiny


@pytest.fixture(params=FAMILIES)
def any_model(request: pytest.FixtureRequest) -> Any:
    """A tiny model of every family the spine is held to."""
    return build_tiny(request.param)


@pytest.fixture(params=MOE_FAMILIES)
def moe_model(request: pytest.FixtureRequest) -> Any:
    """A tiny model of every mixture-of-experts family the spine is held to."""
    return build_tiny(request.param)


@pytest.fixture
def bench(tmp_path: Any) -> Any:
    """Opens tiny models on stores of their own and closes them after the test: ``bench("olmoe", kernels="model")``."""
    import workbench as wb

    opened: list[Any] = []

    def make(model: Any, **options: Any) -> Any:
        model = build_tiny(model) if isinstance(model, str) else model
        options = {"store": tmp_path / f"runs{len(opened)}.duckdb"} | options
        opened.append(wb.open(model, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
