"""Sites, refusals, paths and the table for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workbench.address import SITES, Address
from workbench.anatomy import prove, read
from workbench.anatomy.rules import FAMILIES
from workbench.errors import AddressError, EditRefused


def _proved(model: Any) -> Any:
    anatomy = read(model)
    prove(anatomy)
    return anatomy


def test_a_proved_sparse_model_has_every_site_but_none_of_a_dense_layer(build: Callable[..., Any]) -> None:
    anatomy = _proved(build("olmoe"))
    assert set(anatomy.sites()) == {
        Address(name, layer) for name, site in SITES.items() for layer in range(3) if site.per_layer
    } | {Address("logits")}


def test_a_dense_model_refuses_routing_sites_with_the_reason(build: Callable[..., Any]) -> None:
    anatomy = _proved(build("llama"))
    names = {address.name for address in anatomy.sites()}
    assert names == {name for name, site in SITES.items() if site.needs != "moe"}
    with pytest.raises(EditRefused, match="Layer 1 has no site 'expert_ids': its MLP is dense") as refused:
        anatomy.require(Address("expert_ids", 1))
    assert "none in this model" in refused.value.remedy


def test_a_mixed_stack_names_the_layers_that_route(build: Callable[..., Any]) -> None:
    anatomy = _proved(build("deepseek_v3"))
    anatomy.require(Address("expert_ids", 1), write=True)
    with pytest.raises(EditRefused, match="its MLP is dense") as refused:
        anatomy.require(Address("expert_ids", 0), write=True)
    assert "1, 2" in refused.value.remedy


def test_a_layer_without_attention_says_so(build: Callable[..., Any]) -> None:
    anatomy = _proved(build("qwen3_next"))
    anatomy.require(Address("attn_pattern", 2))
    with pytest.raises(EditRefused, match="no softmax attention"):
        anatomy.require(Address("attn_head_out", 0))


def test_before_proof_nothing_that_needs_it_is_open(build: Callable[..., Any]) -> None:
    anatomy = read(build("olmoe"))
    for name, write in (
        ("expert_ids", True),
        ("expert_scores", False),
        ("expert_weights", False),
        ("attn_out", False),
    ):
        with pytest.raises(EditRefused, match="has not been proved yet"):
            anatomy.require(Address(name, 0), write)
    anatomy.require(Address("resid_pre", 0))


def test_an_unknown_family_may_be_read_but_not_re_routed(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAMILIES, "phimoe")
    anatomy = _proved(build("phimoe"))
    for name in ("expert_ids", "expert_weights"):
        anatomy.require(Address(name, 1))
    for name in ("router_logits", "expert_ids", "expert_weights"):
        with pytest.raises(EditRefused, match="no routing rule is known for PhimoeTopKRouter"):
            anatomy.require(Address(name, 1), write=True)
    for name in ("router_logits", "expert_scores"):
        with pytest.raises(EditRefused, match="no routing rule"):
            anatomy.require(Address(name, 1))


def test_a_stream_that_is_no_sum_refuses_its_parts(build: Callable[..., Any]) -> None:
    anatomy = _proved(build("minimax"))
    with pytest.raises(EditRefused, match="resid_post differs"):
        anatomy.require(Address("mlp_out", 2))
    anatomy.require(Address("resid_post", 2), write=True)


def test_wrong_directions_and_layers_are_address_errors(build: Callable[..., Any]) -> None:
    anatomy = _proved(build("olmoe"))
    with pytest.raises(AddressError, match="cannot be written"):
        anatomy.require(Address("attn_pattern", 0), write=True)
    with pytest.raises(AddressError, match="cannot be read"):
        anatomy.require(Address("attn_mask", 0))
    for number in (3, -1):
        with pytest.raises(AddressError, match=f"There is no layer {number}"):
            anatomy.layer(number)
    with pytest.raises(AddressError, match="There is no layer 7"):
        anatomy.require(Address("resid_pre", 7))


def test_paths_fill_every_nnsight_template(build: Callable[..., Any]) -> None:
    for family in ("olmoe", "llama", "gpt2"):
        model = build(family)
        anatomy = _proved(model)
        for address in anatomy.sites():
            paths = anatomy.paths(address.layer or 0)
            assert all(model.get_submodule(path) is not None for path in paths.values())
            if address.site.nnsight is not None and not (address.name == "mlp_act" and family == "olmoe"):
                assert "{" not in address.nnsight(paths)


def test_describe_tells_what_was_proved_and_what_was_not(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _proved(build("deepseek_v3")).describe()
    assert [row["kind"] for row in rows] == ["dense", "moe", "moe"]
    assert rows[1] | {"width": 0} == {
        "layer": 1, "kind": "moe", "heads": 4, "kv_heads": 4, "width": 0, "experts": 8, "k": 2, "rule": "deepseek_v3",
        "proved": True, "additive": True, "reason": "",
    }  # fmt: skip
    assert rows[0]["experts"] is None and rows[0]["proved"] is None
    monkeypatch.delitem(FAMILIES, "phimoe")
    opaque = _proved(build("phimoe")).describe()
    assert opaque[0]["proved"] is False and "PhimoeTopKRouter" in opaque[0]["reason"]
