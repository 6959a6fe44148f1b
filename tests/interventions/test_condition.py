"""The language of conditions: read into data, written back, and refused with what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import PlanError
from workbench.interventions.condition import Comparison, Joined, Not, comparisons, evaluate, parse

unquoted = st.text(st.characters(exclude_characters="'"), max_size=5)
leaves = st.one_of(
    st.builds(
        Comparison, st.sampled_from(["margin", "entropy", "top_weight"]), st.sampled_from(["<", "<=", ">", ">=", "=="]),
        st.floats(-1e9, 1e9, allow_nan=False), layer=st.none() | st.integers(0, 50),
    ),
    st.builds(Comparison, st.sampled_from(["position", "token"]), st.just("!="), st.integers(0, 99).map(float)),
    st.builds(Comparison, st.just("text"), st.sampled_from(["==", "!="]), unquoted),
    st.builds(Comparison, st.just("text"), st.just("~"), st.sampled_from(["^a", "[0-9]+", 'say "x"'])),
    st.builds(Comparison, st.just("part"), st.just("=="), st.sampled_from(["prompt", "generated"])),
    st.builds(Comparison, st.just("label"), st.just("=="), st.one_of(st.booleans(), st.just("en")), key=st.just("key")),
)  # fmt: skip
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner), st.builds(Joined, st.sampled_from(["and", "or"]), st.tuples(inner, inner))
    ),
    max_leaves=5,
)


def _truth(condition: object, facts: dict[Comparison, bool]) -> bool:
    if isinstance(condition, Comparison):
        return facts[condition]
    if isinstance(condition, Not):
        return not _truth(condition.part, facts)
    parts = [_truth(part, facts) for part in condition.parts]
    return all(parts) if condition.word == "and" else any(parts)


@given(conditions, st.randoms())
def test_what_is_written_is_read_back_and_means_the_same(condition: object, random: object) -> None:
    text = str(condition)
    if len(text) > 400:
        return
    again = parse(text)
    assert str(parse(str(again))) == str(again)
    facts = {one: random.random() < 0.5 for one in comparisons(condition)}
    assert bool(evaluate(again, lambda one: np.array(facts[one]))) == _truth(condition, facts)


def test_and_binds_before_or_and_comparisons_chain() -> None:
    assert parse("position < 1 or position > 2 and not token == 3") == Joined(
        "or",
        (
            Comparison("position", "<", 1.0),
            Joined("and", (Comparison("position", ">", 2.0), Not(Comparison("token", "==", 3.0)))),
        ),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it ends where a name is expected"),
        ("margin", "after 'margin' one of"),
        ("margin < 'a'", "margin is a number"),
        ("loss < 3", "'loss' is not known"),
        ("__import__('os') == 1", "after '__import__' one of"),
        ("margin < 0.05 extra", "'extra' is not expected"),
        ("(margin < 1", "parenthesis is not closed"),
        ("position.2 < 1", "a layer number follows"),
        ("text ~ '['", "not a regular expression"),
        ("text < 'a'", "text is compared"),
        ("part == 'middle'", "part is compared"),
        ("label.a < 'b'", "by == or !="),
        ("margin < true", "margin is a number"),
        ("(" * 25 + "margin < 1" + ")" * 25, "nested"),
        ("margin < 1 and " * 40 + "margin < 1", "at most 400|longer than 400"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        wb.reroute.ban(0, 1, where=text)


def test_a_condition_is_kept_in_its_normal_form() -> None:
    one = wb.reroute.ban(0, 1, where="(margin<5e-2)")
    assert one.where == "margin < 0.05" and one == wb.reroute.ban(0, 1, tokens="margin < 0.05")
    assert wb.Plan([one]).hash != wb.Plan([wb.reroute.ban(0, 1)]).hash
    assert "where margin < 0.05" in one.describe()
    with pytest.raises(PlanError, match="both hold a condition"):
        wb.reroute.ban(0, 1, tokens="margin < 1", where="margin < 2")
