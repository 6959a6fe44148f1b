"""Tiny random models of every family that the workbench covers, made from transformers' own configurations.

Three layers, eight experts, two choices a token where the family leaves the choice: small enough to run every edit on.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.errors import ModelError

_BASE: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False,
}  # fmt: skip
_TOKENS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings")
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL = {"num_local_experts": 8, "num_experts_per_tok": 2}
_GROUPS = {
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 4, "topk_group": 2,
    "n_shared_experts": 1, "routed_scaling_factor": 1.7, "norm_topk_prob": True,
}  # fmt: skip
_LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 12, "first_k_dense_replace": 1,
}  # fmt: skip
_INDEX = _LATENT | {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 16}
_MIXED = {"mlp_layer_types": ["dense", "sparse", "sparse"]}
_LAST_IS_ATTENTION = {"layer_types": ["linear_attention", "linear_attention", "full_attention"]}
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip

_SINKS = {
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8, "d_rel": 4,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "rel_extent": 16,
    "sliding_window_size": 16,
}  # fmt: skip
_LINEAR_HEADS = {"linear_head_dim": 8, "linear_num_heads": 2, "num_experts": 8}

# Families whose routing rule must be proved, with what tells their configuration from the others'.
SPARSE: dict[str, dict[str, Any]] = {
    "olmoe": _EXPERTS,
    "flex_olmo": _EXPERTS,
    "mixtral": _LOCAL,
    "minimax": _LOCAL | _LAST_IS_ATTENTION | {"head_dim": 8},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 8},
    "qwen3_moe": _EXPERTS | {"head_dim": 8, "norm_topk_prob": True},
    "qwen3_next": _EXPERTS | _LAST_IS_ATTENTION | _LINEAR | {"head_dim": 8, "shared_expert_intermediate_size": 8},
    "qwen3_5_moe_text": _EXPERTS | _LAST_IS_ATTENTION | _LINEAR | {"head_dim": 8, "shared_expert_intermediate_size": 8},
    "mellum": _EXPERTS | {"head_dim": 8},
    "jamba": {
        "num_experts": 8, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4,
        "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 4, "use_mamba_kernels": False,
    },
    "gpt_oss": _LOCAL | {"head_dim": 8},
    "aria_text": {"moe_num_experts": 8, "moe_topk": 2, "moe_num_shared_experts": 1},
    "granitemoe": _LOCAL | {"residual_multiplier": 0.22, "attention_multiplier": 0.4},
    "granitemoeshared": _LOCAL | {"residual_multiplier": 0.22, "shared_intermediate_size": 16},
    "granitemoehybrid": _LOCAL | {
        "layer_types": ["attention", "mamba", "attention"], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2,
        "mamba_n_groups": 1, "mamba_d_state": 8, "residual_multiplier": 0.22, "shared_intermediate_size": 16,
    },
    "granitemoe_swa": _LOCAL | {"residual_multiplier": 0.22},
    "cohere2_moe": _EXPERTS | {"head_dim": 8},
    "deepseek_v2": _GROUPS | _LATENT | {"topk_method": "group_limited_greedy"},
    "deepseek_v3": _GROUPS | _LATENT,
    "deepseek_v32": _GROUPS | _INDEX | _MIXED,
    "glm4_moe": _GROUPS | {"first_k_dense_replace": 1, "head_dim": 8},
    "glm4_moe_lite": _GROUPS | _LATENT | _MIXED,
    "glm_moe_dsa": _GROUPS | _INDEX | _MIXED,
    "dots1": _GROUPS | {"first_k_dense_replace": 1, "head_dim": 8},
    "exaone_moe": _GROUPS | _MIXED | {"num_experts": 8, "head_dim": 8},
    "solar_open": _GROUPS | {"head_dim": 8},
    "mimo_v2_flash": _GROUPS | {"head_dim": 8},
    "nemotron_h": _GROUPS | {
        "layers_block_type": ["attention", "moe", "attention"], "head_dim": 8, "moe_latent_size": None,
        "moe_shared_expert_intermediate_size": 16,
    },
    "mistral4": _GROUPS | _LATENT | {"head_dim": 16},
    "axk1": _GROUPS | _LATENT,
    "axk2": _GROUPS | _LATENT,
    "hy_v4": _GROUPS | _LATENT,
    "kimi_linear": _GROUPS | _LATENT | _MIXED | _LAST_IS_ATTENTION | _LINEAR_HEADS,
    "bailing_hybrid": _GROUPS | _LATENT | _LAST_IS_ATTENTION | _LINEAR_HEADS,
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2, "head_dim": 8},
    "ernie4_5_moe": _MIXED | {
        "moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 16, "moe_num_shared_experts": 1,
    },
    "minimax_m2": _LOCAL | {"head_dim": 8},
    "hy_v3": _EXPERTS | {"num_local_experts": 8, "head_dim": 8},
    "afmoe": _EXPERTS | {"head_dim": 8, "num_dense_layers": 1},
    "lfm2_moe": _EXPERTS | {
        "layer_types": ["conv", "full_attention", "full_attention"], "num_dense_layers": 1, "norm_topk_prob": True,
    },
    "flint": _EXPERTS,
    "laguna": _EXPERTS | {"head_dim": 8, "shared_expert_intermediate_size": 8, "moe_router_logit_softcapping": 2.0},
    "beam": _EXPERTS | _MIXED | {"head_dim": 8, "n_group": 4, "topk_group": 2},
    "dots3_note_text": _GROUPS | _INDEX | _MIXED | {
        "head_dim": 8, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16, "swa_qk_rope_head_dim": 8, "swa_qk_nope_head_dim": 8, "swa_head_dim": 16,
        "swa_v_head_dim": 12,
    },
    "gemma4_text": {
        "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 16, "enable_moe_block": True, "head_dim": 8,
        "global_head_dim": 8, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64,
    },
    "inkling2_text": _SINKS | {"unpadded_vocab_size": 64, "n_layers_per_attn_res_block": 1},
    "kolibri1": _EXPERTS | {"head_dim": 8, "shared_expert_intermediate_size": 8, "norm_topk_prob": True},
    "qwen4_exp_text": _EXPERTS | _LINEAR | {
        "layer_types": ["linear_attention", "linear_attention", "full_attention"], "head_dim": 8,
        "shared_expert_intermediate_size": 8, "hc_count": 2, "hc_lowrank": 4, "ple_layer_ids": [], "ple_embed_dim": 8,
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    "minimax_m3_vl_text": _LOCAL | _MIXED | {
        "head_dim": 8, "dense_intermediate_size": 32, "shared_intermediate_size": 16, "rotary_dim": 4,
        "index_n_heads": 2, "index_head_dim": 8,
    },
    "deepseek_v4": _GROUPS | {
        "num_key_value_heads": 1, "head_dim": 16, "q_lora_rank": 16, "o_groups": 2, "o_lora_rank": 8, "hc_mult": 2,
        "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4, "sliding_window": 16,
        "mlp_layer_types": ["moe", "moe", "moe"],
    },
    "longcat_flash": _LATENT | {
        "num_hidden_layers": 6, "num_layers": 3, "expert_ffn_hidden_size": 16, "moe_topk": 2, "n_routed_experts": 6,
        "zero_expert_num": 2, "ffn_hidden_size": 32, "head_dim": 8,
    },
    "phimoe": _LOCAL,
    "dbrx": {
        "d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 8, "moe_top_k": 2, "hidden_size": 32},
    },
}  # fmt: skip

# Families that have experts and no rule: they open for reading, and a re-route is refused with the reason of the table.
OPAQUE: dict[str, dict[str, Any]] = {
    "doge": {"is_moe": True, "num_experts": 16, "num_experts_per_tok": 4},
    "inkling_text": _SINKS | _MIXED | {"unpadded_vocab_size": 64, "n_shared_experts": 1},
    "llama4_text": _LOCAL | {"head_dim": 8},
    "zaya": {
        "num_experts": 8, "moe_intermediate_size": 16, "head_dim": 8, "router_hidden_size": 16, "num_experts_per_tok": 1,
    },
}  # fmt: skip

# Dense families, among them post-norms, multipliers, parallel blocks, other names and transposed weights.
DENSE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "attn_logit_softcapping": 5.0},
    "gemma3_text": {"head_dim": 8},
    "olmo2": {},
    "glm4": {"head_dim": 8},
    "granite": {"residual_multiplier": 0.22},
    "cohere2": {},
    "phi": {},
    "phi3": {},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}


def build(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """A tiny random model of ``model_type`` in fp32 and evaluation mode; ``changes`` go into its configuration.

    Raises :class:`~workbench.errors.ModelError` where the installed transformers has no such family.
    """
    if model_type not in transformers.CONFIG_MAPPING:
        raise ModelError(
            f"transformers {transformers.__version__} has no {model_type}.",
            "Install a newer release, or leave it out.",
        )
    family = (SPARSE | OPAQUE | DENSE).get(model_type, {})
    base = {name: _BASE[name] for name in _TOKENS} if model_type == "dbrx" else _BASE
    config = AutoConfig.for_model(model_type, **(base | family | changes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Mistral 4 is registered for images and text only, but has a text model of its own.
        own = getattr(transformers, "Mistral4ForCausalLM", None) if model_type == "mistral4" else None
        model: Any = AutoModelForCausalLM.from_config(config) if own is None else own(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
        # Correction biases start at zero in every family, where a rule that forgets them would pass.
        for name, buffer in model.named_buffers():
            if "bias" in name:
                torch.nn.init.normal_(buffer, std=0.1)
    return model.eval()
