"""A TransformerLens bridge opens like any model, with the real package: same numbers, their hooks see our edits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import build_tiny

import workbench as wb
from workbench.address import SITES, Address
from workbench.errors import AddressError
from workbench.runtime.loading import demo_path

IDS = [5, 17, 3, 60, 22, 9, 41, 8]
FAMILIES = ("olmoe", pytest.param("mixtral", marks=pytest.mark.slow), "qwen3_moe", "llama")


@pytest.fixture
def bridge() -> Callable[[str], Any]:
    """Boots a bridge around a tiny model; the tokenizer is the demo model's, because a bridge demands one."""
    lens = pytest.importorskip("transformer_lens.model_bridge")
    from transformers import AutoTokenizer

    def boot(family: str) -> Any:
        model = build_tiny(family)
        model.config.architectures = [type(model).__name__]
        tokenizer = AutoTokenizer.from_pretrained(demo_path())
        return lens.TransformerBridge.boot_transformers(
            "local", hf_model=model, tokenizer=tokenizer, device="cpu"
        )

    return boot


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_that_both_have_is_equal(bridge: Callable[[str], Any], bench: Any, family: str) -> None:
    lens = bridge(family)
    one = bench(lens, kernels="model")
    run = one.run(IDS)
    logits, cache = lens.run_with_cache(torch.tensor([IDS]))
    assert torch.equal(run.logits, logits[0].detach())
    compared = set()
    for address in one.anatomy.sites():
        if address.site.transformer_lens is None:
            continue
        theirs = cache[address.transformer_lens()].detach()
        ours = run.tensor(address.name, layers=address.layer, tokens="all")
        assert torch.equal(ours.reshape(theirs.shape), theirs), address
        assert Address.from_transformer_lens(address.transformer_lens()) == address
        compared.add(address.name)
    expected = {"resid_pre", "resid_mid", "resid_post", "attn_pattern", "attn_head_out"}
    assert compared == (expected if family == "llama" else expected | {"router_logits", "expert_ids"})


@pytest.mark.slow
def test_their_hooks_see_the_edited_run_and_theirs_reach_ours(
    bridge: Callable[[str], Any], bench: Any
) -> None:
    lens = bridge("olmoe")
    before = lens(torch.tensor([IDS])).detach()
    one = bench(lens)
    plan = wb.Plan([wb.reroute.ban(layers=1, experts=[0, 1, 2]), wb.mask.heads(layers=2, heads=[0])])
    seen: list[torch.Tensor] = []

    def keep(value: torch.Tensor, hook: Any) -> None:
        seen.append(value.clone())

    with lens.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", keep)]):
        run = one.run(IDS, plan)
    assert torch.equal(seen[0][0], run.tensor("resid_pre", layers=2, tokens="all"))
    base = one.run(IDS)
    assert not torch.equal(run.logits, base.logits)
    banned = one.sql(
        "SELECT count(*) FROM routing WHERE run = ? AND layer = 1 AND expert < 3", [run.id]
    ).fetchone()
    assert banned == (0,)

    def silence(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.zeros_like(value)

    with lens.hooks(fwd_hooks=[("blocks.1.hook_attn_out", silence)]):
        assert not torch.equal(one.run(IDS).logits, base.logits)
    one.close()
    assert torch.equal(lens(torch.tensor([IDS])).detach(), before)


@pytest.mark.slow
def test_generation_and_skips_work_on_a_bridge(bridge: Callable[[str], Any], bench: Any) -> None:
    one = bench(bridge("olmoe"), kernels="model")
    plain = bench(build_tiny("olmoe"), kernels="model")
    for plan in (None, wb.skip.block(layers=1), wb.reroute.top_k(layers="all", k=3)):
        theirs, ours = one.generate(IDS, 4, plan), plain.generate(IDS, 4, plan)
        assert theirs.tokens.tolist() == ours.tokens.tolist()
        torch.testing.assert_close(theirs.logits, ours.logits, rtol=1e-4, atol=1e-4)


def test_addresses_translate_back() -> None:
    for row in SITES.values():
        if row.transformer_lens is not None:
            address = Address(row.name, 7 if row.per_layer else None)
            assert Address.from_transformer_lens(address.transformer_lens()) == address
    assert Address.from_transformer_lens("blocks.3.mlp.router.hook_out") == Address("router_logits", 3)
    for stranger in ("blocks.3.mlp.hook_post", "hook_embed", "blocks.x.hook_resid_pre", ""):
        with pytest.raises(AddressError, match="No site has the meaning"):
            Address.from_transformer_lens(stranger)
