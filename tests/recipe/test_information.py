"""Bits and their nulls against independent references and on planted dependence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from data.recipe.information import Choices, about_label, about_label_at_token, information

ROWS, LENGTH, EXPERTS = 120, 30, 4


def planted(follows: str) -> tuple[Choices, np.ndarray]:
    """Choices that follow the row's label, the token, or nothing; tokens are the label's own in two of three cases."""
    rng = np.random.default_rng(0)
    label = np.arange(ROWS) % 3
    row = np.repeat(np.arange(ROWS), LENGTH)
    token = np.where(rng.random(ROWS * LENGTH) < 0.67, label[row], rng.integers(0, 3, ROWS * LENGTH))
    noise = rng.integers(0, EXPERTS, ROWS * LENGTH)
    expert = {"label": label[row], "token": token, "nothing": noise}[follows]
    return Choices(row, token, np.where(rng.random(ROWS * LENGTH) < 0.8, expert, noise)), label


def test_information_equals_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 5, 4_000), rng.integers(0, 7, 4_000)
    right = np.where(rng.random(4_000) < 0.4, left, right)
    table = np.zeros((5, 7))
    np.add.at(table, (left, right), 1)
    assert information(table) == pytest.approx(mutual_info_score(left, right) / np.log(2))


def test_independent_sides_carry_no_information() -> None:
    assert information(np.outer([1.0, 2.0, 3.0], [4.0, 1.0])) == pytest.approx(0, abs=1e-12)


def test_bits_equal_those_of_scikit_learn_and_stand_out_only_where_experts_follow_the_label() -> None:
    choices, label = planted("label")
    found = about_label(choices, label, EXPERTS)
    assert found["bits"] == pytest.approx(mutual_info_score(label[choices.row], choices.expert) / np.log(2))
    assert found["bits"] > 10 * found["null_high"] > 10 * found["null_mean"] > 0
    blind = about_label(*planted("nothing"), EXPERTS)
    assert blind["bits"] < 2 * blind["null_high"]


def test_at_fixed_token_identity_following_the_token_tells_nothing() -> None:
    choices, label = planted("token")
    assert about_label(choices, label, EXPERTS)["bits"] > 0.2
    at_token = about_label_at_token(choices, label, EXPERTS)
    assert at_token["null_mean"] * 0.5 < at_token["bits"] < at_token["null_high"] * 1.2
    followed = about_label_at_token(*planted("label"), EXPERTS)
    assert followed["bits"] > 5 * followed["null_high"]


def test_bits_at_token_are_the_mean_of_each_tokens_own_and_leave_out_tokens_of_one_label() -> None:
    choices, label = planted("label")
    alone = choices.token == 2
    alone &= label[choices.row] != 0
    token = np.where(
        alone & (label[choices.row] == 1), 7, choices.token
    )  # token 7 occurs under label 1 alone
    found = about_label_at_token(Choices(choices.row, token, choices.expert), label, EXPERTS)
    total = expected = 0.0
    for one in (0, 1, 2):
        where = token == one
        expected += (
            where.sum() * mutual_info_score(label[choices.row[where]], choices.expert[where]) / np.log(2)
        )
        total += where.sum()
    assert found["bits"] == pytest.approx(expected / total)
