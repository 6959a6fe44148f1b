"""Every mixture of experts that transformers ships as a causal language model is proved, or refused with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from workbench.anatomy import read
from workbench.anatomy.rules import FAMILIES, REFUSED, UNREADABLE
from workbench.errors import ModelError

_MODELS = Path(transformers.__file__).parent / "models"
_EXPERTS = re.compile(r"^class \w*(Experts?|Router|TopKGating|CDMoE)\b", re.MULTILINE)


def _text_type(model_type: str) -> str:
    """The type of the text configuration: what :func:`read` looks a family up by."""
    config = transformers.CONFIG_MAPPING[model_type]
    text = getattr(config, "sub_configs", {}).get("text_config")
    return text.model_type if text is not None and hasattr(text, "model_type") else model_type


def _shipped() -> dict[str, str]:
    """Text type of every causal or sequence-to-sequence language model whose source has experts, with its module."""
    found = {}
    names = {**MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, **MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
    for model_type in names:
        # The source is read, not imported: importing every model takes ten seconds.
        folder = _MODELS / model_type_to_module_name(model_type)
        if any(_EXPERTS.search(file.read_text("utf-8")) for file in folder.glob("modeling_*.py")):
            found[_text_type(model_type)] = folder.name
    return found


def test_every_family_with_experts_is_known() -> None:
    known = {*FAMILIES, *REFUSED, *UNREADABLE}
    strange = {name: module for name, module in _shipped().items() if name not in known}
    assert not strange, f"families with experts and no word in workbench/anatomy/rules.py: {strange}"


def test_every_rule_is_proved_on_a_tiny_model(families: dict[str, dict[str, Any]]) -> None:
    """No rule stands in the table on the word of its author: each has a configuration, or is proved inside a model
    that also sees (``test_the_text_stack_of_a_model_that_also_sees``)."""
    assert set(FAMILIES) - set(families) <= {"qwen3_vl_moe_text", "glm4v_moe_text"}
    assert set(REFUSED) <= set(families)
    assert not set(FAMILIES) & set(REFUSED) and not {*FAMILIES, *REFUSED} & set(UNREADABLE)


@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("jetmoe", {"num_local_experts": 4, "kv_channels": 8, "num_key_value_heads": 4, "num_experts_per_tok": 2}),
        ("switch_transformers", {"d_model": 32, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}),
        ("nllb-moe", {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
                      "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_experts": 4}),
    ],
)  # fmt: skip
def test_families_that_are_not_opened_say_why(
    build: Callable[..., Any], model_type: str, sizes: dict[str, Any]
) -> None:
    config = transformers.AutoConfig.for_model(model_type, vocab_size=64, hidden_size=32, **sizes)
    auto = transformers.AutoModelForCausalLM if model_type == "jetmoe" else transformers.AutoModelForSeq2SeqLM
    with pytest.raises(ModelError, match=re.escape(UNREADABLE[model_type])):
        read(auto.from_config(config))
