"""Intervals and nulls against scipy, against enumeration, and by their coverage."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from workbench.analysis import bootstrap, permutation
from workbench.errors import StoreError


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=60)
    got = bootstrap(values, draws=4000, seed=1).iloc[0]
    want = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=2
    ).confidence_interval
    assert got.estimate == pytest.approx(values.mean())
    np.testing.assert_allclose([got.low, got.high], want, atol=0.05)
    assert got.units == 60


def test_bootstrap_of_groups_draws_whole_groups():
    """Ten equal values a group: as sure as the group means alone, and less sure than sixty values would seem."""
    means = np.random.default_rng(1).normal(size=12)
    values, groups = np.repeat(means, 10), np.repeat(np.arange(12), 10)
    whole = bootstrap(values, groups=groups, seed=3).iloc[0]
    alone = bootstrap(means, seed=3).iloc[0]
    naive = bootstrap(values, seed=3).iloc[0]
    np.testing.assert_allclose([whole.low, whole.high], [alone.low, alone.high])
    assert whole.high - whole.low > 2 * (naive.high - naive.low)


def test_bootstrap_takes_any_statistic_and_repeats_itself():
    values = np.arange(20.0)
    one, two = (bootstrap(values, np.median, draws=200, seed=5) for _ in range(2))
    assert one.equals(two) and one.estimate[0] == 9.5
    with pytest.raises(StoreError, match="units"):
        bootstrap([1.0, 2.0], groups=[7, 7])
    with pytest.raises(StoreError, match="2 values and 1 groups"):
        bootstrap([1.0, 2.0], groups=[7])


def test_paired_permutation_agrees_with_all_signs():
    a, b = np.array([2.0, 3.5, 1.0, 4.0, 2.5, 3.0]), np.array([1.0, 3.0, 1.5, 2.0, 2.0, 1.0])
    every = np.array([((a - b) * signs).mean() for signs in product((-1, 1), repeat=6)])
    exact = (np.abs(every) >= abs((a - b).mean()) - 1e-12).mean()
    got = permutation(a, b, paired=True, draws=20_000).iloc[0]
    assert got.p_value == pytest.approx(exact, abs=0.01)
    assert got.null_sd == pytest.approx(every.std(), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_permutation_agrees_with_scipy(alternative):
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.6, 1, 14), rng.normal(size=11)
    want = stats.permutation_test(
        (a, b), lambda x, y: x.mean() - y.mean(), alternative=alternative, n_resamples=9999, rng=3
    )
    got = permutation(a, b, alternative=alternative).iloc[0]
    assert got.difference == pytest.approx(want.statistic)
    # scipy doubles the smaller tail, ours counts both: the two agree on a null that is nearly symmetric.
    assert got.p_value == pytest.approx(want.pvalue, abs=0.015)


def test_equal_values_are_no_evidence():
    assert permutation([1.0, 1.0, 1.0], [1.0, 1.0], draws=50).p_value[0] == 1
    for first, second, paired in (([], [1.0], False), ([1.0], [1.0, 2.0], True)):
        with pytest.raises(StoreError, match="cannot be compared"):
            permutation(first, second, paired=paired)
