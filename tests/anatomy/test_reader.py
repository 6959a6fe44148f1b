"""What is found in each family without running it, held to what a forward pass shows; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from workbench.anatomy import prove, read
from workbench.errors import ContractError, ModelError, WorkbenchError

# Layers that have a router, where not all three do.
_SPARSE_LAYERS = {
    "deepseek_v2": (1, 2), "deepseek_v3": (1, 2), "deepseek_v32": (1, 2), "glm4_moe": (1, 2), "glm4_moe_lite": (1, 2),
    "glm_moe_dsa": (1, 2), "dots1": (1, 2), "exaone_moe": (1, 2), "axk1": (1, 2), "axk2": (1, 2), "hy_v4": (1, 2),
    "ernie4_5_moe": (1, 2), "afmoe": (1, 2), "lfm2_moe": (1, 2), "jamba": (1,), "nemotron_h": (1,),
    "hy_v3": (1, 2), "flint": (2,), "mimo_v2_flash": (1, 2), "laguna": (1, 2), "mistral4": (1, 2),
    "kimi_linear": (1, 2), "bailing_hybrid": (1, 2), "beam": (1, 2), "dots3_note_text": (1, 2),
    "minimax_m3_vl_text": (1, 2),
}  # fmt: skip


@pytest.mark.slow
def test_paths_and_modules_agree(decoder: Any) -> None:
    anatomy = read(decoder)
    # LongCat-Flash counts its attentions, of which a layer has two.
    assert anatomy.num_layers == decoder.config.num_hidden_layers // (
        2 if anatomy.model_type == "longcat_flash" else 1
    )
    for number, block in enumerate(anatomy.blocks):
        assert block.layer == number and block.path.endswith(f".{number}")
        assert decoder.get_submodule(block.path) is block.module
        pairs: list[tuple[str, nn.Module]] = []
        if block.attention is not None:
            pairs += [(block.attention.path, block.attention.module)]
            pairs += [(block.attention.out_proj_path, block.attention.out_proj)]
        if block.mlp is not None:
            pairs += [(block.mlp.path, block.mlp.module)]
            if block.mlp.down_proj is not None and block.mlp.down_proj_path is not None:
                pairs += [(block.mlp.down_proj_path, block.mlp.down_proj)]
        if block.moe is not None:
            pairs += [(block.moe.router_path, block.moe.router), (block.moe.experts_path, block.moe.experts)]
        for path, module in pairs:
            assert decoder.get_submodule(path) is module
    assert decoder.get_submodule(anatomy.embed_path) is decoder.get_input_embeddings()
    assert decoder.get_submodule(anatomy.head_path) is decoder.get_output_embeddings()
    assert anatomy.vocab_size == 64 and anatomy.hidden_size == 32


@pytest.mark.slow
def test_the_final_norm_feeds_the_head(decoder: Any) -> None:
    anatomy = read(decoder)
    if (
        anatomy.model_type == "qwen4_exp_text"
    ):  # folds its lanes and norms them in one module without a plain weight
        assert anatomy.norm_path is None
        return
    assert anatomy.norm_path is not None
    seen: dict[str, torch.Tensor] = {}
    norm, head = decoder.get_submodule(anatomy.norm_path), decoder.get_output_embeddings()
    norm.register_forward_hook(lambda _, __, out: seen.update(norm=out))
    head.register_forward_pre_hook(lambda _, args: seen.update(head=args[0]))
    with torch.no_grad():
        decoder(torch.tensor([[3, 4, 5]]))
    assert torch.equal(seen["norm"], seen["head"])


@pytest.mark.slow
def test_heads_and_widths_are_those_that_flow(decoder: Any) -> None:
    """The widths that the anatomy names are those of the tensors that really enter the projections."""
    anatomy = read(decoder)
    seen: dict[tuple[int, str], tuple[int, ...]] = {}

    def watch(module: nn.Module, layer: int, what: str) -> None:
        module.register_forward_pre_hook(lambda _, args: seen.update({(layer, what): tuple(args[0].shape)}))

    for block in anatomy.blocks:
        if block.attention is not None:
            watch(block.attention.out_proj, block.layer, "heads")
        if block.mlp is not None and block.mlp.down_proj is not None:
            watch(block.mlp.down_proj, block.layer, "neurons")
    with torch.no_grad():
        decoder(torch.tensor([[3, 4, 5]]))
    for block in anatomy.blocks:
        attention = block.attention
        if attention is not None:
            assert seen[block.layer, "heads"][-1] == attention.num_heads * attention.head_dim
            assert attention.num_heads % attention.num_kv_heads == 0
            assert attention.num_heads == 4
        if block.mlp is not None and block.mlp.down_proj is not None:
            assert seen[block.layer, "neurons"][-1] == block.mlp.act_width
    assert seen or not any(b.attention or (b.mlp and b.mlp.down_proj) for b in anatomy.blocks)


@pytest.mark.slow
def test_sparse_layers_experts_and_choices(sparse: Any) -> None:
    anatomy = read(sparse)
    expected = _SPARSE_LAYERS.get(anatomy.model_type, (0, 1, 2))
    assert anatomy.moe_layers == expected
    for block in anatomy.blocks:
        if block.moe is None:
            assert block.mlp is None or block.mlp.down_proj is not None
            continue
        moe = block.moe
        assert (moe.num_experts, moe.top_k) == (8, 2)
        assert moe.rule is not None and moe.rule.family == anatomy.model_type
        assert not moe.proved and "not been proved" in moe.reason
        assert block.mlp is not None and block.mlp.down_proj is None
        width = sparse.config.get_text_config(decoder=True)
        assert block.mlp.act_width in (16, 48, getattr(width, "moe_intermediate_size", None))
        assert block.mlp.path == moe.path


def test_dense_families_have_no_experts(dense: Any) -> None:
    anatomy = read(dense)
    assert anatomy.moe_layers == ()
    assert all(block.mlp is not None and block.attention is not None for block in anatomy.blocks)


def test_grouped_heads_are_counted(build: Callable[..., Any]) -> None:
    for family, kv in (
        ("llama", 2),
        ("olmoe", 2),
        ("gpt2", 4),
        ("gpt_neox", 4),
        ("deepseek_v3", 4),
        ("gpt_oss", 2),
    ):
        attention = read(build(family)).layer(1).attention
        assert attention is not None and attention.num_kv_heads == kv
    latent = read(build("deepseek_v3")).layer(1).attention
    assert latent is not None and latent.head_dim == 12  # of the values, which is what leaves a head


def test_layers_without_softmax_attention_have_none(build: Callable[..., Any]) -> None:
    for family, with_attention in (
        ("qwen3_next", [2]),
        ("minimax", [2]),
        ("lfm2_moe", [1, 2]),
        ("jamba", [1]),
    ):
        anatomy = read(build(family))
        assert [block.layer for block in anatomy.blocks if block.attention is not None] == with_attention


_SIGHT: dict[str, dict[str, Any]] = {
    "llava": {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14},
    "qwen3_vl_moe": {"depth": 5, "num_heads": 2, "deepstack_visual_indexes": [1]},
    "glm4v_moe": {"depth": 5, "num_heads": 2},
}


@pytest.mark.parametrize(
    ("whole", "text"),
    [("llava", "llama"), ("qwen3_vl_moe", "qwen3_vl_moe_text"), ("glm4v_moe", "glm4v_moe_text")],
)
def test_the_text_stack_of_a_model_that_also_sees(build: Callable[..., Any], whole: str, text: str) -> None:
    words: dict[str, Any] = {
        "model_type": text, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "num_experts": 8,
        "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    if text == "glm4v_moe_text":
        words["head_dim"] = 16  # of which it rotates half
    if text == "llama":
        words = {"model_type": text, **build("llama").config.to_diff_dict()}
    sight = {
        "hidden_size": 24,
        "intermediate_size": 16,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
    } | _SIGHT[whole]
    tokens = {"image_token_index": 63} if whole == "llava" else {"image_token_id": 63}
    config = transformers.AutoConfig.for_model(whole, vision_config=sight, text_config=words, **tokens)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    anatomy = read(model)
    assert anatomy.num_layers == 3 and anatomy.model_type == text
    assert "language_model" in anatomy.blocks[0].path
    prove(anatomy)
    assert all(block.additive for block in anatomy.blocks)
    assert all(block.moe.proved for block in anatomy.blocks if block.moe is not None)
    assert (anatomy.moe_layers == ()) == (text == "llama")


def test_a_module_of_the_routers_shape_is_not_taken_for_it(build: Callable[..., Any]) -> None:
    """As many shared neurons as experts, and a gate for inputs of each layer as wide as there are experts."""
    shared = read(build("qwen2_moe", shared_expert_intermediate_size=8)).layer(1).moe
    assert shared is not None and shared.router_path.endswith("mlp.gate")
    beside = read(
        build(
            "gemma4_text", head_dim=8, global_head_dim=8, enable_moe_block=True, num_experts=8, top_k_experts=2,
            moe_intermediate_size=16, hidden_size_per_layer_input=8, vocab_size_per_layer_input=64,
        )
    ).layer(1).moe  # fmt: skip
    assert beside is not None and beside.router_path.endswith("layers.1.router.proj")


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("BertForMaskedLM", "BertConfig", "not a decoder with a language-model head"),
        ("OlmoeModel", "OlmoeConfig", "not a decoder with a language-model head"),
        ("T5ForConditionalGeneration", "T5Config", "encoder-decoder"),
        ("MambaForCausalLM", "MambaConfig", "No list of blocks"),
    ],
)
def test_other_models_are_refused(name: str, config: str, reason: str) -> None:
    small = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "d_model": 32,
             "num_layers": 1, "d_kv": 8, "d_ff": 16, "intermediate_size": 32, "num_experts": 4}  # fmt: skip
    model = getattr(transformers, name)(getattr(transformers, config)(**small))
    with pytest.raises(ModelError, match=reason) as refused:
        read(model)
    assert refused.value.remedy


def test_something_that_is_no_transformers_model_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear is not a Hugging Face model"):
        read(nn.Linear(2, 2))


def test_a_router_that_lacks_what_its_rule_reads_is_an_error_with_a_remedy(build: Callable[..., Any]) -> None:
    model = build("olmoe")
    del model.model.layers[1].mlp.gate.norm_topk_prob
    with pytest.raises(ContractError, match="norm_topk_prob") as refused:
        read(model)
    assert isinstance(refused.value, WorkbenchError) and refused.value.remedy
