"""Find the parts of a decoder by their structure: shapes and neighbourhood, not class names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from workbench.anatomy.parts import Anatomy, Attention, Block, Mlp, Moe
from workbench.anatomy.rules import REFUSED, UNREADABLE, rule_for
from workbench.errors import ModelError

_QUERY = re.compile(r"(q|q_a|q_b|qkv)_proj|q|qkv|query|query_key_value|wq|wqkv|c_attn", re.IGNORECASE)
_OUT = ("o_proj", "out_proj", "dense", "c_proj", "wo", "out_lin", "attn_out")
_ROUTER_CLASS = re.compile(r"Router|Gat(e|ing)$")
# Layer types of a configuration whose projections look like attention but which have no softmax map.
_NO_SOFTMAX = {"linear_attention", "conv", "moe"}
_WRAPPED = "_original_component"
_DOWN = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "w2", "fc_out", "output_linear", "linear_out", "wo")


def read(model: nn.Module) -> Anatomy:
    """The anatomy of ``model``, a Hugging Face decoder with a language-model head, without running it.

    Raises :class:`~workbench.errors.ModelError` where the model is not a decoder or its blocks cannot be made out.
    """
    config = _text_config(model)
    embed, head = _ends(model)
    modules = dict(model.named_modules())
    embed_path = _path_of(modules, embed)
    hidden, vocab = config.hidden_size, embed.weight.shape[0]
    list_path, stack = _stack(modules, embed_path, hidden)
    blocks = tuple(
        _block(module, number, f"{list_path}.{number}", config, hidden) for number, module in enumerate(stack)
    )
    return Anatomy(
        model=model,
        model_type=config.model_type,
        blocks=blocks,
        hidden_size=hidden,
        vocab_size=vocab,
        context=getattr(config, "max_position_embeddings", None),
        embed_path=embed_path,
        norm_path=_norm_path(modules, list_path, hidden),
        head_path=_path_of(modules, head),
        no_experts=REFUSED.get(config.model_type, ""),
    )


def router_weight(router: nn.Module, num_experts: int, hidden: int) -> tuple[Tensor, Tensor | None] | None:
    """The weight [E, H] of ``router``, its own or that of a linear child, and the bias [E] beside it if there is one."""
    for module in router.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.shape == (num_experts, hidden):
            bias = getattr(module, "bias", None)
            return weight, bias if isinstance(bias, Tensor) and bias.shape == (num_experts,) else None
    return None


def _text_config(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(
            f"{type(model).__name__} is not a Hugging Face model: it has no configuration.",
            "Open a PreTrainedModel, for example one of AutoModelForCausalLM.",
        )
    if config.model_type in UNREADABLE:
        raise ModelError(
            f"{type(model).__name__} cannot be opened: {UNREADABLE[config.model_type]}.",
            "Open a decoder of another family.",
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder-decoder, not a decoder.",
            "Open a decoder-only model.",
        )
    text = config.get_text_config(decoder=True)
    if not hasattr(text, "hidden_size"):
        raise ModelError(
            f"The configuration of {type(model).__name__} gives no hidden_size.",
            "Open a transformer decoder.",
        )
    return text


def _ends(model: Any) -> tuple[Any, nn.Module]:
    """Input embedding and language-model head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None or not (hasattr(model, "can_generate") and model.can_generate()):
        raise ModelError(
            f"{type(model).__name__} is not a decoder with a language-model head that can generate.",
            "Load it with AutoModelForCausalLM, or choose a decoder.",
        )
    return model.get_input_embeddings(), head


def _path_of(modules: dict[str, nn.Module], wanted: nn.Module) -> str:
    return next(path for path, module in modules.items() if module is wanted)


def _stack(modules: dict[str, nn.Module], embed_path: str, hidden: int) -> tuple[str, nn.ModuleList]:
    """The list of decoder blocks: a list of modules with mixer and MLP, beside the embedding if several qualify."""
    lists = [
        (path, module)
        for path, module in modules.items()
        if isinstance(module, nn.ModuleList) and any(_is_block(child) for child in module)
    ]
    if not lists:
        raise ModelError(
            "No list of blocks with attention or experts was found in this model.",
            "Open a transformer decoder from transformers.",
        )
    parent = embed_path.rpartition(".")[0]
    beside = [pair for pair in lists if pair[0].rpartition(".")[0] == parent]
    return max(beside or lists, key=lambda pair: len(pair[1]))


def _is_block(module: nn.Module) -> bool:
    return _find_attention(module) is not None or _bank(module, "") is not None


def _norm_path(modules: dict[str, nn.Module], list_path: str, hidden: int) -> str | None:
    """The final norm: the last sibling of the block list with one vector weight of the hidden width."""
    parent = list_path.rpartition(".")[0]
    found = None
    for name, child in modules[parent].named_children():
        weight = getattr(child, "weight", None)
        if isinstance(weight, Tensor) and weight.shape == (hidden,):
            found = f"{parent}.{name}" if parent else name
    return found


def _block(module: nn.Module, number: int, path: str, config: Any, hidden: int) -> Block:
    module, path = unwrapped(module, path)
    attention = _attention(module, number, path, config)
    bank = _bank(module, path)
    moe = None if bank is None else _moe(module, path, bank, config, hidden)
    mlp = _mlp(module, path, attention, moe, hidden)
    return Block(number, path, module, attention, mlp, moe, hidden_size=hidden)


def unwrapped(module: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module inside the wrapper that a TransformerLens bridge puts around it, and its path; itself elsewhere."""
    while isinstance(inner := module._modules.get(_WRAPPED), nn.Module):
        module, path = inner, f"{path}.{_WRAPPED}"
    return module, path


def _find_attention(block: nn.Module) -> tuple[str, nn.Module] | None:
    """The module in ``block`` that both projects to queries and has an output projection."""
    return next(_attentions(block), None)


def _attentions(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in _inside(block):
        names = [inner for inner, _ in child.named_children()]
        if any(_QUERY.fullmatch(inner) for inner in names) and any(inner in _OUT for inner in names):
            # A bridge may compute the attention in its wrapper and never call what it wraps.
            outer = name.removesuffix(f".{_WRAPPED}")
            yield outer, block.get_submodule(outer)


def _inside(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in block.named_modules() if name)


def _attention(block: nn.Module, number: int, path: str, config: Any) -> Attention | None:
    found = list(_attentions(block))
    kinds = getattr(config, "layer_types", None)
    # Of several attentions in a row (LongCat-Flash has two) none is *the* attention of the block.
    if (
        not found
        or _in_a_list(block, found)
        or (kinds and number < len(kinds) and kinds[number] in _NO_SOFTMAX)
    ):
        return None
    name, module = found[0]
    inner, inner_path = unwrapped(module, f"{path}.{name}")
    out_name = next(one for one in _OUT if isinstance(getattr(inner, one, None), nn.Module))
    out_proj = getattr(inner, out_name)
    width, _ = _features(out_proj)
    heads = _heads(module, config, width)
    return Attention(
        path=f"{path}.{name}",
        module=module,
        out_proj=out_proj,
        out_proj_path=f"{inner_path}.{out_name}",
        num_heads=heads,
        num_kv_heads=_kv_heads(module, heads),
        head_dim=width // heads,
    )


def _in_a_list(block: nn.Module, attentions: list[tuple[str, nn.Module]]) -> bool:
    owner = attentions[0][0].rpartition(".")[0]
    return len(attentions) > 1 and isinstance(block.get_submodule(owner), nn.ModuleList)


def _heads(module: nn.Module, config: Any, width: int) -> int:
    for name in ("num_heads", "num_attention_heads", "n_heads", "n_head"):
        value = getattr(module, name, None)
        if isinstance(value, int) and value > 0 and width % value == 0:
            return value
    # Values may be wider or narrower than queries and keys; what enters the output projection is values.
    for name in ("v_head_dim", "head_dim"):
        value = getattr(module, name, None)
        if isinstance(value, int) and value > 0 and width % value == 0:
            return width // value
    return int(config.num_attention_heads)


def _kv_heads(module: nn.Module, heads: int) -> int:
    for name in ("num_key_value_heads", "num_kv_heads", "kv_heads"):
        value = getattr(module, name, None)
        if isinstance(value, int) and value > 0:
            return value
    groups = getattr(module, "num_key_value_groups", None)
    if isinstance(groups, int) and groups > 0 and heads % groups == 0:
        return heads // groups
    return heads


def _bank(block: nn.Module, path: str) -> tuple[str, nn.Module] | None:
    """Path and module of the expert bank: its own parameters are stacked over experts, or its class says what it is."""
    for name, module in _inside(block):
        stacked = [p for p in module.parameters(recurse=False) if p.dim() == 3]
        if len(stacked) >= 2 and len({p.shape[0] for p in stacked}) == 1:
            return f"{path}.{name}", module
    for name, module in _inside(block):
        if type(module).__name__.endswith("Experts") and _num_experts(module) > 0:
            return f"{path}.{name}", module
    return None


def _num_experts(experts: nn.Module) -> int:
    stacked = [p.shape[0] for p in experts.parameters() if p.dim() == 3]
    if stacked:
        return stacked[0]
    counts = (getattr(experts, name, 0) for name in ("num_experts", "moe_num_experts"))
    return next((count for count in counts if isinstance(count, int) and count > 0), 0)


def _moe(block: nn.Module, path: str, bank: tuple[str, nn.Module], config: Any, hidden: int) -> Moe | None:
    experts_path, experts = bank
    num_experts = _num_experts(experts)
    owner_path = experts_path.rpartition(".")[0]
    owner = block if owner_path == path else block.get_submodule(owner_path[len(path) + 1 :])
    found = _router(owner, experts, num_experts, hidden)
    if found is None:
        return None
    name, router = found
    found_rule = rule_for(config.model_type, router, owner, config)
    rule, no_rule = (None, found_rule) if isinstance(found_rule, str) else (found_rule, "")
    if rule is not None and rule.logits_at:
        name, router = f"{name}.{rule.logits_at}", router.get_submodule(rule.logits_at)
    return Moe(
        path=owner_path,
        router=router,
        router_path=f"{owner_path}.{name}",
        experts=experts,
        experts_path=experts_path,
        num_experts=num_experts,
        top_k=0 if rule is None else rule.top_k,
        rule=rule,
        no_rule=no_rule,
    )


def _router(
    owner: nn.Module, experts: nn.Module, num_experts: int, hidden: int
) -> tuple[str, nn.Module] | None:
    """The child of the sparse block, beside the bank, that owns a weight [E, H]; shared experts have other shapes."""
    beside = [(name, child) for name, child in owner.named_children() if child is not experts]
    fitting = [pair for pair in beside if router_weight(pair[1], num_experts, hidden) is not None]
    # Other modules can have the shape by chance (a shared expert with as many neurons as there are experts, say); and a
    # router with classes beside its experts has another shape.
    named = [
        (name, child)
        for name, child in fitting or beside
        if _ROUTER_CLASS.search(type(child).__name__) or name in ("router", "gate")
    ]
    return min(named or fitting, key=lambda pair: sum(1 for _ in pair[1].parameters()), default=None)


def _mlp(
    block: nn.Module, path: str, attention: Attention | None, moe: Moe | None, hidden: int
) -> Mlp | None:
    if moe is not None:
        return _sparse_mlp(block, path, moe, hidden)
    for name, child in block.named_children():
        whole, whole_path = unwrapped(child, f"{path}.{name}")
        down = None if attention is not None and child is attention.module else _down(whole, hidden)
        if down is not None:
            inner, module = down
            return Mlp(f"{path}.{name}", child, module, f"{whole_path}.{inner}", _features(module)[0])
    # Some families (OPT) keep both layers of the MLP directly in the block: the second one is the whole way out.
    down = _down(block, hidden)
    if down is not None:
        name, module = down
        return Mlp(f"{path}.{name}", module, module, f"{path}.{name}", _features(module)[0])
    return None


def _sparse_mlp(block: nn.Module, path: str, moe: Moe, hidden: int) -> Mlp:
    top = moe.path[len(path) + 1 :].partition(".")[0]
    module = getattr(block, top) if top else block
    return Mlp(f"{path}.{top}" if top else path, module, None, None, _bank_width(moe, hidden))


def _bank_width(moe: Moe, hidden: int) -> int:
    """Neurons of one expert: the side of its down projection that is not the hidden width."""
    own = dict(moe.experts.named_parameters(recurse=False))
    down = own.get("down_proj")
    if down is not None and down.dim() == 3:
        return int(down.shape[1] if down.shape[2] == hidden else down.shape[2])
    # DBRX stacks its experts along the rows of plain matrices.
    rows = [p.shape[0] for p in moe.experts.parameters() if p.dim() == 2 and p.shape[1] == hidden]
    return rows[0] // moe.num_experts if rows else 0


def _down(mlp: nn.Module, hidden: int) -> tuple[str, nn.Module] | None:
    """The direct child that projects neurons to the hidden width, beside one that reads the hidden width.

    Known by its name as well as by its shape: the mixers of state-space layers have the shapes of an MLP.
    """
    linear = [(name, child) for name, child in mlp.named_children() if _features(child) != (0, 0)]
    ways_out = [(name, child) for name, child in linear if name in _DOWN and _features(child)[1] == hidden]
    ways_in = [child for _, child in linear if _features(child)[0] == hidden]
    return ways_out[-1] if ways_out and len(linear) > 1 and ways_in else None


def _features(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear layer, or (0, 0) for any other module. GPT-2's Conv1D stores the transpose."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or isinstance(module, nn.Embedding):
        return 0, 0
    if type(module).__name__ == "Conv1D":
        return weight.shape[0], weight.shape[1]
    inputs, outputs = (
        getattr(module, "in_features", weight.shape[1]),
        getattr(module, "out_features", weight.shape[0]),
    )
    return int(inputs), int(outputs)
