"""What a forward pass proves, what it must catch, and that it leaves no trace."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from workbench.address import Address
from workbench.anatomy import Anatomy, prove, read, router_logits
from workbench.anatomy.rules import REFUSED
from workbench.anatomy.watch import tensors
from workbench.errors import ContractError, EditRefused

_POST_NORMS = {
    "flex_olmo": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "afmoe": ("post_attention_layernorm", "post_mlp_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "kolibri1": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}
# Residual stream scaled (MiniMax), kept in several lanes (hyper-connections), or fed by a third module (a shared expert
# beside the sparse block, a dense MLP beside the experts): not a sum of what two modules give.
_NOT_ADDITIVE = {
    "minimax", "hy_v4", "granitemoeshared", "granitemoehybrid", "beam", "gemma4_text", "inkling2_text", "qwen4_exp_text",
}  # fmt: skip


@pytest.mark.slow
def test_every_rule_agrees_to_the_bit_in_fp32(sparse: Any) -> None:
    anatomy = read(sparse)
    proof = prove(anatomy)
    assert anatomy.moe_layers
    for layer in anatomy.moe_layers:
        moe = anatomy.layer(layer).moe
        assert moe is not None and moe.proved and moe.observable and moe.reason == ""
        found = proof.layers[layer]
        assert (found.logits, found.ids, found.ties, found.weights) == (0.0, 0, 0, 0.0)


@pytest.mark.slow
def test_every_rule_holds_in_half_precision(sparse: Any, tmp_path: Path) -> None:
    """Over many tokens, since rounding moves only choices that are nearly tied."""
    anatomy = read(_half(sparse, tmp_path))
    proof = prove(anatomy, tokens=128)
    assert all(block.moe.proved for block in anatomy.blocks if block.moe is not None)
    assert all(proof.layers[layer].ids == proof.layers[layer].ties for layer in anatomy.moe_layers)


def _half(model: Any, folder: Path) -> Any:
    """The model in bf16 as loading gives it: what the family keeps in fp32 stays there."""
    if not model._keep_in_fp32_modules_strict:
        return model.to(torch.bfloat16)
    model.save_pretrained(folder)
    half = type(model).from_pretrained(folder, dtype=torch.bfloat16).eval()
    try:
        half(torch.tensor([[3, 4]]))
    except RuntimeError as error:
        pytest.skip(
            f"transformers {transformers.__version__} cannot run {model.config.model_type} in bf16: {error}"
        )
    return half


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_outlets_add_up_to_the_block(decoder: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    decoder = decoder if dtype == torch.float32 else _half(decoder, tmp_path)
    anatomy = read(decoder)
    prove(anatomy)
    kind = anatomy.model_type
    for block in anatomy.blocks:
        if block.attention is None or block.mlp is None or kind in _NOT_ADDITIVE:
            assert not block.additive and block.attn_outlet is None and block.reason
            continue
        assert block.additive, block.reason
        assert block.attn_outlet is not None and block.mlp_outlet is not None
        expected = _POST_NORMS.get(kind, (block.attention.path, block.mlp.path))
        for outlet, name in zip((block.attn_outlet, block.mlp_outlet), expected, strict=True):
            assert outlet.path.split(".")[-1] == name.split(".")[-1]
            assert decoder.get_submodule(outlet.path) is outlet.module
            assert outlet.multiplier == getattr(decoder.config, "residual_multiplier", 1.0)


@pytest.mark.parametrize("family", ["gemma2", "granitemoe", "deepseek_v3"])
def test_additive_is_measured_anew_by_hand(build: Callable[..., Any], family: str) -> None:
    """The sum that ``additive`` claims, from hooks of the test's own, with post-norms, with a factor, and plain."""
    model = build(family)
    anatomy = read(model)
    prove(anatomy)
    seen: dict[tuple[int, str], torch.Tensor] = {}

    def keep(layer: int, what: str) -> Callable[..., None]:
        return lambda _, __, output: seen.update({(layer, what): _first(output).clone()})

    for block in anatomy.blocks:
        assert block.attn_outlet is not None and block.mlp_outlet is not None
        layer = block.layer
        block.module.register_forward_pre_hook(
            lambda _, args, layer=layer: seen.update({(layer, "pre"): args[0].clone()})
        )
        block.module.register_forward_hook(keep(layer, "post"))
        block.attn_outlet.module.register_forward_hook(keep(layer, "attn"))
        block.mlp_outlet.module.register_forward_hook(keep(layer, "mlp"))
    with torch.no_grad():
        model(torch.arange(10).reshape(1, 10) + 3)
    for block in anatomy.blocks:
        pre, attn, mlp, post = (seen[block.layer, what] for what in ("pre", "attn", "mlp", "post"))
        factor = block.attn_outlet.multiplier  # type: ignore[union-attr]
        torch.testing.assert_close(pre + factor * (attn + mlp.reshape(pre.shape)), post, rtol=1e-5, atol=1e-5)
        assert attn.norm() > 1e-3 and mlp.norm() > 1e-3


def _first(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def _fault(model: Any, change: Callable[[tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]) -> Anatomy:
    """An anatomy of ``model`` whose second router returns something else from now on."""
    anatomy = read(model)
    moe = anatomy.layer(1).moe
    assert moe is not None
    native = moe.router.forward
    moe.router.forward = lambda *args, **kwargs: change(native(*args, **kwargs))
    return anatomy


def _caught(anatomy: Anatomy, tensor: str) -> None:
    with pytest.raises(ContractError, match=f"Layer 1: .*{tensor}") as caught:
        prove(anatomy)
    faulty, before, after = (anatomy.layer(number).moe for number in (1, 0, 2))
    assert faulty is not None and not faulty.proved
    assert f"Layer 1: {faulty.reason}." == caught.value.problem
    if before is not None:
        assert before.proved
    finite = all(parameter.isfinite().all() for parameter in anatomy.model.parameters())
    assert after is not None and (after.proved or "stopped before" in after.reason or not finite)


@pytest.mark.parametrize("order", [p for p in itertools.permutations(range(3)) if p != (0, 1, 2)])
def test_a_permuted_tuple_is_caught(build: Callable[..., Any], order: tuple[int, ...]) -> None:
    _caught(_fault(build("olmoe"), lambda out: tuple(out[i] for i in order)), "expert_(ids|weights)")


@pytest.mark.parametrize("family", ["olmoe", "mixtral", "gpt_oss", "deepseek_v3"])
def test_probabilities_in_place_of_logits_are_caught(build: Callable[..., Any], family: str) -> None:
    _caught(_fault(build(family), lambda out: (out[0].softmax(-1), *out[1:])), "router_logits differ")


_ALL_CHOSEN = {  # by family: what makes every token choose every expert
    "olmoe": {"num_experts_per_tok": 4, "num_experts": 4},
    "mixtral": {"num_experts_per_tok": 4, "num_local_experts": 4},
}


@pytest.mark.parametrize("family", _ALL_CHOSEN)
def test_logits_are_told_from_weights_of_their_shape_by_their_values(
    build: Callable[..., Any], family: str
) -> None:
    """Where every expert is chosen, both are [T, E]."""
    anatomy = read(build(family, **_ALL_CHOSEN[family]))
    proof = prove(anatomy)
    for layer in anatomy.moe_layers:
        moe = anatomy.layer(layer).moe
        assert moe is not None and moe.proved and moe.top_k == moe.num_experts == 4
        assert (proof.layers[layer].logits, proof.layers[layer].weights) == (0.0, 0.0)
        given = torch.randn(5, anatomy.hidden_size)
        output = moe.router(given)
        assert sum(t.is_floating_point() and t.shape == (5, 4) for t in output) == 2
        expected = torch.nn.functional.linear(given, moe.router.weight)
        assert torch.equal(router_logits(output, 4, moe.logits_place), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda out: (out[0].softmax(-1), *out[1:]),  # probabilities where the logits stood
        lambda out: (out[0] * 1.01, *out[1:]),
        lambda out: ((out[0], out[0].clone()), *out[1:]),  # twice the same: which of them counts is not known
    ],
)
def test_logits_that_values_do_not_tell_either_are_caught(
    build: Callable[..., Any], change: Callable[..., Any]
) -> None:
    _caught(_fault(build("olmoe", **_ALL_CHOSEN["olmoe"]), change), "router_logits cannot be told")


@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "deepseek_v2", "granitemoe"])
def test_changed_weights_are_caught(build: Callable[..., Any], family: str) -> None:
    _caught(
        _fault(build(family), lambda out: (out[0], out[1] * 1.01, out[2])),
        r"expert_weights differ.* by up to \d",
    )


@pytest.mark.parametrize("family", ["olmoe", "qwen3_moe"])
def test_a_changed_renormalisation_is_caught(build: Callable[..., Any], family: str) -> None:
    model = build(family)
    anatomy = read(model)
    router: Any = anatomy.layer(1).moe.router  # type: ignore[union-attr]
    router.norm_topk_prob = not router.norm_topk_prob
    _caught(anatomy, "expert_weights differ")


def test_a_changed_number_of_choices_is_caught(build: Callable[..., Any]) -> None:
    anatomy = read(build("mixtral"))
    router: Any = anatomy.layer(1).moe.router  # type: ignore[union-attr]
    router.top_k = 3
    _caught(anatomy, r"expert_ids are \(8, 3\)")


@pytest.mark.parametrize("change", ["second best", "reversed", "one token"])
def test_other_choices_are_caught(build: Callable[..., Any], change: str) -> None:
    def choose(out: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, weights, ids = out
        if change == "second best":
            ids = logits.topk(3, -1).indices[:, 1:]
        elif change == "reversed":
            ids = ids.flip(-1)
        else:
            ids = ids.clone()
            ids[5, 1] = (ids[5].max() + 1) % 8
        return logits, weights, ids

    _caught(_fault(build("olmoe"), choose), "expert_ids differ")


@pytest.mark.parametrize(("family", "groups"), [("deepseek_v2", 1), ("deepseek_v3", 1), ("deepseek_v3", 4)])
def test_other_group_limits_are_caught(build: Callable[..., Any], family: str, groups: int) -> None:
    """A router that keeps fewer groups than the rule, or all of them."""
    anatomy = read(build(family, topk_group=groups))
    moe = anatomy.layer(1).moe
    assert moe is not None and moe.rule is not None
    if family == "deepseek_v3":
        moe.router.e_score_correction_bias.zero_()  # type: ignore[operator]  # or the same groups win for every token
    object.__setattr__(moe.rule, "topk_group", 2)
    with pytest.raises(ContractError, match="Layer 1: expert_ids differ"):
        prove(anatomy, tokens=64)


def test_groups_ranked_without_the_correction_bias_are_caught(build: Callable[..., Any]) -> None:
    """The fault of several serving engines: the bias ranks experts, but groups are ranked without it."""
    model = build("deepseek_v3")
    anatomy = read(model)
    router: Any = anatomy.layer(1).moe.router  # type: ignore[union-attr]

    def forward(hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = hidden.reshape(-1, 32).float() @ router.weight.float().T
        scores = logits.sigmoid()
        worth = scores.unflatten(-1, (4, 2)).sum(-1).topk(2, -1).indices
        keep = (
            torch.zeros(len(scores), 4, dtype=torch.bool).scatter_(-1, worth, True).repeat_interleave(2, -1)
        )
        choice = (scores + router.e_score_correction_bias).masked_fill(~keep, -torch.inf)
        ids = choice.topk(2, -1, sorted=False).indices
        weights = scores.gather(-1, ids)
        return logits, weights / (weights.sum(-1, keepdim=True) + 1e-20) * 1.7, ids

    router.forward = forward
    router.e_score_correction_bias.mul_(8)
    with pytest.raises(ContractError, match="Layer 1: expert_ids differ"):
        prove(anatomy, tokens=64)


def test_a_forgotten_correction_bias_is_caught(build: Callable[..., Any]) -> None:
    model = build("deepseek_v3")
    anatomy = read(model)
    moe = anatomy.layer(1).moe
    assert moe is not None and moe.rule is not None
    object.__setattr__(moe.rule, "bias", lambda: None)
    _caught(anatomy, "expert_ids differ")


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("falcon", "changes mlp_out in place"),  # adds attention to the very tensor that its MLP gave
        (
            "bloom",
            "resid_post differs",
        ),  # its sublayers are handed the residual stream and give it back changed
    ],
)
def test_contributions_that_cannot_be_read_are_refused(
    build: Callable[..., Any], family: str, reason: str
) -> None:
    anatomy = read(build(family, num_key_value_heads=None, n_layer=3, n_head=4))
    prove(anatomy)
    assert all(not block.additive and reason in block.reason for block in anatomy.blocks)


def test_numbers_that_are_not_finite_prove_nothing(build: Callable[..., Any]) -> None:
    model = build("olmoe")
    model.model.layers[1].mlp.gate.weight.data[0, 0] = torch.nan
    _caught(read(model), "router_logits differ")


def test_a_model_that_cannot_run_says_so(build: Callable[..., Any]) -> None:
    model = build("olmoe")

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such tensor")

    model.model.layers[1].mlp.forward = fail
    with pytest.raises(ContractError, match="cannot run 8 tokens: no such tensor"):
        prove(anatomy := read(model))
    assert _hooks(model) == 0
    reached, missed = anatomy.layer(0).moe, anatomy.layer(2).moe
    assert reached is not None and reached.proved
    assert missed is not None and not missed.proved and "stopped before" in missed.reason


def test_families_without_a_rule_open_for_reading(opaque: Any) -> None:
    """Each with the reason of the table, and none of them with a re-route."""
    anatomy = read(opaque)
    prove(anatomy)
    reason = REFUSED[anatomy.model_type]
    for layer in anatomy.moe_layers:
        moe = anatomy.layer(layer).moe
        assert moe is not None and not moe.proved and moe.rule is None and moe.reason == reason
    with pytest.raises(EditRefused, match=re.escape(reason)):
        anatomy.require(Address("expert_scores", anatomy.num_layers - 1), write=True)


def test_a_layer_that_looks_its_experts_up_is_refused_alone(build: Callable[..., Any]) -> None:
    model = build("deepseek_v4", mlp_layer_types=["hash_moe", "moe", "moe"])
    anatomy = read(model)
    prove(anatomy)
    first, second = anatomy.layer(0).moe, anatomy.layer(1).moe
    assert first is not None and not first.proved and first.observable and "by token id" in first.reason
    assert second is not None and second.proved


def test_scores_that_the_configuration_names(build: Callable[..., Any]) -> None:
    anatomy = read(build("deepseek_v4", scoring_func="sigmoid"))
    prove(anatomy)
    moe = anatomy.layer(1).moe
    assert moe is not None and moe.rule is not None and moe.proved and moe.rule.score == "sigmoid"
    odd = read(build("deepseek_v4", scoring_func="tanh")).layer(1).moe
    assert odd is not None and odd.rule is None and odd.no_rule == "no rule is known for scores by tanh"


def test_the_sigmoid_variant_of_cohere(build: Callable[..., Any]) -> None:
    anatomy = read(build("cohere2_moe", expert_selection_fn="sigmoid"))
    prove(anatomy)
    moe = anatomy.layer(anatomy.moe_layers[0]).moe
    assert moe is not None and moe.rule is not None and moe.proved and moe.rule.score == "topk_sigmoid"


def test_a_bank_that_chooses_inside_is_refused_by_name(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aria as transformers 5.16 lays it out; a newer one is given the method that tells."""
    model = build("aria_text")
    bank = type(model.model.layers[0].mlp.experts)
    monkeypatch.setattr(
        bank, "route_tokens_to_experts", getattr(bank, "route_tokens_to_experts", print), raising=False
    )
    anatomy = read(model)
    prove(anatomy)
    moe = anatomy.layer(1).moe
    assert moe is not None and moe.rule is None and not moe.proved and "chooses inside" in moe.reason


def test_a_router_that_returns_no_logits_is_refused(build: Callable[..., Any]) -> None:
    """LongCat-Flash as transformers 5.16 has it: weights and ids alone."""
    model = build("longcat_flash")
    for block in model.model.layers:
        native = block.mlp.router.forward
        block.mlp.router.forward = lambda hidden, native=native: native(hidden)[-2:]
        block.mlp.forward = _without_logits(block.mlp)
    anatomy = read(model)
    prove(anatomy)
    moe = anatomy.layer(1).moe
    assert moe is not None and moe.observable and not moe.proved and "returns no logits" in moe.reason


def _without_logits(moe: Any) -> Callable[..., torch.Tensor]:
    def forward(hidden: torch.Tensor) -> torch.Tensor:
        weights, ids = moe.router(hidden)
        return moe.experts(hidden.reshape(-1, hidden.shape[-1]), ids, weights).reshape(hidden.shape)

    return forward


def test_a_bare_linear_router_takes_its_top_k_from_the_block(build: Callable[..., Any]) -> None:
    """Jamba as transformers 5.16 lays it out: the router returns logits alone, the block chooses."""
    model = build("jamba")
    block = model.model.layers[1].feed_forward
    if not isinstance(block.router, nn.Linear):
        linear = nn.Linear(32, 8, bias=False)
        linear.weight = block.router.weight
        block.router, block.top_k = linear, 2

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            flat = hidden.reshape(-1, hidden.shape[-1])
            weights, ids = block.router(flat).float().softmax(-1).topk(2, -1)
            return block.experts(flat, ids, weights.to(hidden.dtype)).reshape(hidden.shape)

        block.forward = forward
    anatomy = read(model)
    prove(anatomy)
    moe = anatomy.layer(1).moe
    assert moe is not None and moe.proved and moe.top_k == 2


def _hooks(model: nn.Module) -> int:
    names = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
             "_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks")  # fmt: skip
    return sum(len(getattr(module, name)) for module in model.modules() for name in names)


@pytest.mark.slow
def test_proving_computes_one_bank_of_a_class_and_follows_what_the_others_pass_on(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("olmoe", num_hidden_layers=3)
    banks = [layer.mlp.experts for layer in model.model.layers]
    computed: list[nn.Module] = []
    own = type(banks[0]).forward
    monkeypatch.setattr(
        type(banks[0]), "forward", lambda bank, *a, **k: computed.append(bank) or own(bank, *a, **k)
    )
    assert len(prove(read(model)).layers) == 3
    assert computed == banks[:1]
    assert not any("forward" in vars(bank) for bank in banks)

    moved: list[nn.Module] = []  # as a library does that brings weights in before a call
    banks[2].forward = lambda *a, **k: moved.append(banks[2]) or own(banks[2], *a, **k)
    anatomy = read(model)
    prove(anatomy)
    assert moved == [banks[2]] and "forward" in vars(banks[2])
    assert all(anatomy.layer(layer).moe.proved for layer in range(3))


def test_proving_leaves_no_trace(decoder: Any) -> None:
    ids = torch.arange(12).reshape(2, 6) + 3
    decoder.train()
    for module in list(decoder.modules())[::3]:
        module.training = False
    anatomy = read(decoder)
    flags = [module.training for module in decoder.modules()]
    attributes = [sorted(module.__dict__) for module in decoder.modules()]
    state = {name: tensor.clone() for name, tensor in [*decoder.named_parameters(), *decoder.named_buffers()]}
    random, hooks = torch.get_rng_state(), _hooks(decoder)
    with torch.enable_grad():
        prove(anatomy)
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random)
    assert _hooks(decoder) == hooks
    assert [module.training for module in decoder.modules()] == flags
    assert [sorted(module.__dict__) for module in decoder.modules()] == attributes
    assert all(parameter.grad is None for parameter in decoder.parameters())
    after = dict([*decoder.named_parameters(), *decoder.named_buffers()])
    assert (
        all(torch.equal(after[name], tensor) for name, tensor in state.items())
        and after.keys() == state.keys()
    )
    decoder.eval()
    with torch.no_grad():
        assert decoder(ids).logits.isfinite().all()


def test_a_configuration_that_asks_for_outputs_gets_no_hooks_from_proving(build: Callable[..., Any]) -> None:
    model = build("olmoe")
    model.config.output_router_logits = model.config.output_hidden_states = True
    prove(read(model))
    assert _hooks(model) == 0
    assert model.config.output_router_logits and model.config.output_hidden_states


def test_a_second_proof_forgets_the_first(build: Callable[..., Any]) -> None:
    model = build("mixtral")
    anatomy = read(model)
    prove(anatomy)
    native = model.model.layers[1].mlp.gate.forward
    model.model.layers[1].mlp.gate.forward = lambda x: (lambda out: (out[0], out[1] * 2, out[2]))(native(x))
    _caught(anatomy, "expert_weights differ")


def test_hooks_of_others_stay(build: Callable[..., Any]) -> None:
    model = build("mixtral")
    calls: list[int] = []
    model.model.layers[0].mlp.gate.register_forward_hook(lambda *_: calls.append(1))
    before = _hooks(model)
    prove(read(model))
    assert _hooks(model) == before and len(calls) == 1


def test_tensors_are_found_in_any_nest_in_order():
    a, b, c, d = (torch.full((1,), float(n)) for n in range(4))
    nest = (a, [None, {"x": b, "y": ("text", [c])}], 3, {"z": d})
    assert [int(t) for t in tensors(nest)] == [0, 1, 2, 3]
    assert [int(t) for t in tensors(d)] == [3]
    assert list(tensors(None)) == list(tensors(())) == []
