"""The layer inside transformers' own model: the same logits, tokens and gradients as its eager experts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import routing_kernels
import torch
from torch import Tensor
from transformers import OlmoeConfig, OlmoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "routing_kernels_under_test"


@pytest.fixture
def model() -> Iterator[OlmoeForCausalLM]:
    calls = []

    def experts(bank: torch.nn.Module, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        calls.append(ids)
        return routing_kernels.moe_experts(
            x, ids, weights, bank.gate_up_proj, bank.down_proj, bank.config.hidden_act, backend="cpu"
        ).y

    ALL_EXPERTS_FUNCTIONS[NAME] = experts
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=97,
        hidden_size=40,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=8,
        num_experts_per_tok=3,
        initializer_range=0.2,
        eos_token_id=None,
        pad_token_id=0,
    )
    made = OlmoeForCausalLM(config).eval()
    yield made
    assert calls, "the model never came to the kernels"
    del ALL_EXPERTS_FUNCTIONS[NAME]


def test_logits_and_tokens_are_those_of_eager(model):
    prompt = torch.randint(0, 97, (2, 19))
    greedy = {"max_new_tokens": 12, "do_sample": False}
    found = {}
    for implementation in ("eager", NAME):
        model.set_experts_implementation(implementation)
        with torch.no_grad():
            found[implementation] = model(prompt).logits, model.generate(prompt, **greedy)
    (native, said), (ours, ours_said) = found["eager"], found[NAME]
    assert (ours - native).norm() <= 1e-5 * native.norm()
    assert torch.equal(ours_said, said) and said.shape == (2, 31)


def test_training_follows_eager(model):
    prompt = torch.randint(0, 97, (2, 19))
    model.train()
    gradients, losses = {}, {}
    for implementation in ("eager", NAME):
        model.set_experts_implementation(implementation)
        model.zero_grad()
        loss = model(prompt, labels=prompt).loss
        loss.backward()
        losses[implementation] = loss.item()
        gradients[implementation] = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert losses[NAME] == pytest.approx(losses["eager"], rel=1e-6)
    for name, native in gradients["eager"].items():
        assert (gradients[NAME][name] - native).norm() <= 1e-4 * native.norm(), name

    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        loss = model(prompt, labels=prompt).loss
        loss.backward()
        optimiser.step()
    assert loss.item() < losses[NAME]
