"""Tiny random models of several families for the tests; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import pytest

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
_FAST = ("olmoe", "llama")


def each(families: tuple[str, ...]) -> list[Any]:
    """The families as test parameters: one sparse and one dense in every run, the others in the whole suite."""
    return [f if f in _FAST else pytest.param(f, marks=pytest.mark.slow) for f in families]


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
