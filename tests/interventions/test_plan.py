"""Plans are data: they round-trip, their hash names what they do, and bad data gets one clear error."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import AddressError, EditRefused, PlanError
from workbench.interventions.plan import kinds

layers = st.one_of(st.just("all"), st.integers(0, 5), st.lists(st.integers(0, 5), min_size=1, max_size=3))
spans = st.builds(lambda a, n: slice(a, a + n), st.integers(0, 5), st.integers(1, 5))
tokens = st.one_of(
    st.sampled_from(["all", "prompt", "generated", "prompt_last", "each_step"]),
    st.integers(0, 9), st.lists(st.integers(0, 9), min_size=1, max_size=3), spans,
)  # fmt: skip
phases = st.sampled_from(["all", "prefill", "decode"])
wheres = st.none() | st.sampled_from(["margin < 0.05", "text ~ '^ ' and not part == 'prompt'"])
rows = st.just("all") | st.lists(st.integers(0, 3), min_size=1, max_size=2)
steps = st.just("all") | st.integers(0, 3) | spans
units = st.lists(st.integers(0, 7), min_size=1, max_size=3)
numbers = st.floats(-5, 5, allow_nan=False, width=32)
edits = st.one_of(
    st.builds(
        wb.reroute.ban, layers, units, at=st.sampled_from(["scores", "logits"]), tokens=tokens, phase=phases
    ),
    st.builds(
        wb.reroute.force, layers, units, weight=st.none() | numbers, tokens=tokens, phase=phases, where=wheres, rows=rows,
        steps=steps,
    ),
    st.builds(
        wb.reroute.bias, layers, st.dictionaries(st.integers(0, 7), numbers, min_size=1), tokens=tokens
    ),
    st.builds(wb.reroute.replay, st.integers(0, 2**62), layers=layers, tokens=tokens, phase=phases),
    st.builds(wb.skip.block, layers),
    st.builds(wb.mask.heads, layers, units, tokens=tokens, phase=phases, steps=steps),
)  # fmt: skip
plans = st.lists(edits, max_size=4).map(wb.Plan)


@given(plans)
def test_json_and_python_make_the_same_plan(plan: wb.Plan) -> None:
    assert wb.Plan.from_json(plan.to_json()) == plan
    assert wb.Plan.from_json(plan.to_json()).hash == plan.hash
    assert eval(plan.to_python(), {"wb": wb, "slice": slice}) == plan


@given(plans, st.randoms())
def test_hash_ignores_the_order_of_edits_that_commute(plan: wb.Plan, random: Any) -> None:
    order = list(plan.edits)
    for _ in range(8):
        if len(order) > 1:
            n = random.randrange(len(order) - 1)
            if order[n].commutes(order[n + 1]) and order[n + 1].commutes(order[n]):
                order[n], order[n + 1] = order[n + 1], order[n]
    assert wb.Plan(order).hash == plan.hash


@given(edits, edits)
def test_commuting_is_mutual(one: Any, other: Any) -> None:
    assert one.commutes(other) == other.commutes(one)


def test_order_counts_where_edits_collide() -> None:
    ban, force = wb.reroute.ban(1, 3), wb.reroute.force(1, 3)
    assert wb.Plan([ban, force]).hash != wb.Plan([force, ban]).hash
    assert "both banned and forced" in wb.Plan([ban, force]).collisions()[0]
    assert wb.Plan([ban, wb.reroute.force(1, 4)]).collisions() == []
    elsewhere = wb.reroute.force(2, 3)
    assert wb.Plan([ban, elsewhere]).hash == wb.Plan([elsewhere, ban]).hash


def test_every_kind_changes_the_hash_and_disabled_edits_do_not_count() -> None:
    some = [
        wb.reroute.ban(1, 3), wb.reroute.force(1, 3), wb.reroute.bias(1, {3: 1.0}), wb.reroute.replay(7),
        wb.skip.block(1), wb.mask.heads(1, 0),
    ]  # fmt: skip
    hashes = {wb.Plan(edits).hash for n in range(3) for edits in itertools.combinations(some, n)}
    assert len(hashes) == 1 + 6 + 15
    off = some[0].model_copy(update={"enabled": False})
    assert wb.Plan([off]).hash == wb.Plan().hash != wb.Plan([some[0]]).hash


def test_plans_are_frozen_and_changed_by_making_new_ones() -> None:
    plan = wb.Plan([wb.skip.block(1)])
    longer = plan + wb.mask.heads(0, 1)
    assert len(plan) == 1 and len(longer) == 2 and bool(wb.Plan())
    assert longer.without(0).edits == (wb.mask.heads(0, 1),)
    assert longer.replace(0, wb.skip.block(2)).edits[0].layers == (2,)
    with pytest.raises(PlanError, match="no edit number 5"):
        longer.without(5)
    with pytest.raises(Exception, match="frozen"):
        plan.edits[0].layers = (3,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"edits": [{"kind": "reroute.bam"}]}', "Edit 0 of the plan has the unknown kind 'reroute.bam'"),
        ('{"edits": [{"layers": [1]}]}', "has no kind"),
        ('{"edits": [{"kind": "reroute.ban", "layers": [1]}]}', "experts: Field required"),
        ('{"edits": [{"kind": "skip.block", "layers": [-1]}]}', "layer -1 is negative"),
        ('{"edits": [{"kind": "skip.block", "layers": []}]}', "name at least one layer"),
        ('{"edits": [{"kind": "skip.block", "layers": [1], "colour": "red"}]}', "Extra inputs"),
        ('{"version": 2}', "version"),
    ],
)
def test_bad_plan_files_name_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        wb.Plan.from_json(text)
    assert caught.value.problem and caught.value.remedy


@pytest.mark.parametrize(
    "make",
    [
        lambda: wb.reroute.ban(-1, 0),
        lambda: wb.reroute.ban(0, []),
        lambda: wb.reroute.ban("some", 0),
        lambda: wb.reroute.ban(0, True),
        lambda: wb.reroute.force(0, 1, weight=float("nan")),
        lambda: wb.reroute.bias(0, {}),
        lambda: wb.reroute.bias(0, {0: float("-inf")}),
        lambda: wb.mask.heads(0, 0, tokens=slice(5, 3)),
        lambda: wb.mask.heads(0, 0, tokens=slice(0, 9, 2)),
        lambda: wb.mask.heads(0, 0, tokens="yesterday"),
        lambda: wb.mask.heads(0, 0, phase="never"),
    ],
)
def test_bad_edits_are_refused_when_made(make: Any) -> None:
    with pytest.raises(PlanError):
        make()


def _facts() -> Any:
    """A model of three layers: sparse, dense without attention, sparse but unproved."""
    sparse = SimpleNamespace(num_experts=4, choosable=4, top_k=2, proved=True, reason="")
    unproved = SimpleNamespace(
        num_experts=4, choosable=4, top_k=2, proved=False, reason="its rule is unknown"
    )
    heads = SimpleNamespace(num_heads=2)
    blocks = [
        SimpleNamespace(moe=m, attention=a, streams=1, hands_on=False)
        for m, a in ((sparse, heads), (None, None), (unproved, heads))
    ]

    def layer(number: int) -> Any:
        if number >= 3:
            raise AddressError(f"There is no layer {number}.", "Layers are 0 to 2.")
        return blocks[number]

    def require(address: wb.Address, write: bool = False) -> None:
        block = layer(address.layer or 0)
        if (
            address.site.needs == "moe"
            and block.moe is None
            or address.site.needs == "attention"
            and not block.attention
        ):
            raise EditRefused(f"{address} is not here.", "Choose another layer.")

    return SimpleNamespace(num_layers=3, moe_layers=(0, 2), layer=layer, require=require)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (wb.reroute.ban(1, 0), "not here"),
        (wb.reroute.ban(0, 4), "names expert 4, but layer 0 has experts 0 to 3"),
        (wb.reroute.ban(0, [0, 1, 2]), "leaves 1 of 4 experts"),
        (wb.reroute.ban(2, 0), "its rule is unknown"),
        (wb.reroute.force(0, [0, 1, 2]), "names 3 experts, but a token of layer 0 uses 2"),
        (wb.reroute.bias(0, [1.0, 2.0]), "has 2 numbers, but there are 4 experts in layer 0"),
        (wb.mask.heads(0, 2), "names head 2, but layer 0 has heads 0 to 1"),
        (wb.mask.heads(1, 0), "not here"),
        (wb.skip.block("all"), "no block of the model"),
        (wb.skip.alias(0, 0, tokens=3), "all tokens"),
    ],
)
def test_edits_that_cannot_act_are_refused_with_the_reason(edit: Any, says: str) -> None:
    with pytest.raises(EditRefused, match=says):
        wb.Plan([edit]).check(_facts())
    wb.Plan([edit.model_copy(update={"enabled": False})]).check(_facts())


def test_a_layer_that_does_not_exist_is_refused() -> None:
    with pytest.raises(AddressError, match="no layer 9"):
        wb.Plan([wb.skip.block(9)]).check(_facts())


def test_bans_are_counted_over_the_whole_plan() -> None:
    with pytest.raises(EditRefused, match="leaves 1 of 4 experts in layer 0"):
        wb.Plan([wb.reroute.ban(0, [0, 1]), wb.reroute.ban(0, [2])]).check(_facts())


def test_nothing_else_may_reroute_where_routes_are_replayed() -> None:
    with pytest.raises(EditRefused, match="a replay fixes"):
        wb.Plan([wb.reroute.replay(5, layers=0), wb.reroute.ban(0, 1)]).check(_facts())
    wb.Plan([wb.reroute.replay(5, layers=0, tokens=[1]), wb.reroute.ban(0, 1, tokens=[2])]).check(_facts())


def test_schema_lists_every_kind() -> None:
    schema = json.dumps(wb.Plan.json_schema())
    assert all(kind in schema for kind in kinds())


@pytest.mark.parametrize("size", [3, 300])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_of_an_edit_are_finite(size: int, wrong: float) -> None:
    for make in (lambda numbers: wb.mask.direction(1, numbers), lambda numbers: wb.reroute.bias(1, numbers)):
        with pytest.raises(PlanError, match="not finite"):
            make([0.0] * (size - 1) + [wrong])
