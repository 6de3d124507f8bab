from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy import stats as reference

from lowdata_cpt.analysis import stats


def over_last(values: ArrayLike) -> np.ndarray:
    return np.asarray(values).mean(axis=-1)


numbers = st.lists(st.floats(-100, 100).map(lambda x: round(x, 6)), min_size=1, max_size=30)


@given(numbers)
def test_iqm_is_scipys_trimmed_mean(values: list[float]) -> None:
    assert stats.iqm(values) == pytest.approx(reference.trim_mean(values, 0.25), abs=1e-9)


def test_iqm_by_hand() -> None:
    assert float(stats.iqm([100, 1, 2, 3, 4, 5, 6, -50])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert float(stats.iqm([1, 2, np.nan, 3, 1000])) == pytest.approx(2.5)  # four values: one cut at each end
    assert stats.iqm(np.arange(12.0).reshape(3, 4)).shape == (3,)


def test_one_seed_gives_no_interval() -> None:
    for found in (stats.joint_interval([1.0]), stats.bootstrap_interval([1.0, 2.0], ["a", "a"], [0, 0])):
        assert not found.known
        assert not found.excludes_zero


def test_one_cluster_in_one_stratum_gives_no_interval() -> None:
    assert not stats.bootstrap_interval([1.0, 2.0, 3.0], ["a", "a", "b"], [0, 1, 0]).known


def test_bootstrap_matches_exhaustive_enumeration() -> None:
    values = np.array([0.0, 1.0, 5.0])
    found = stats.bootstrap_interval(values, ["a"] * 3, range(3), over_last, resamples=40_000)
    every = np.array([np.mean(draw) for draw in itertools.product(values, repeat=3)])
    assert found.estimate == pytest.approx(2.0)
    assert found.standard_error == pytest.approx(every.std(), rel=0.02)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, [0.025, 0.975], method="inverted_cdf")))


def test_bootstrap_is_seeded_and_keeps_clusters_and_strata_together() -> None:
    values, strata, clusters = [1, 1, 9, 9, 5, 5], ["a"] * 4 + ["b"] * 2, [0, 0, 1, 1, 0, 1]
    first = stats.bootstrap_interval(values, strata, clusters, over_last)
    again = stats.bootstrap_interval(values, strata, clusters, over_last)
    assert (first.low, first.high, first.standard_error) == (again.low, again.high, again.standard_error)
    # clusters of `a` come whole, `b` is always two fives: only three means are possible
    assert first.low == pytest.approx((4 * 1 + 10) / 6)
    assert first.high == pytest.approx((4 * 9 + 10) / 6)


def test_coverage_with_three_seeds() -> None:
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((400, 3))
    t = [stats.joint_interval(d) for d in draws]
    b = [stats.bootstrap_interval(d, ["a"] * 3, range(3), over_last, resamples=500) for d in draws]
    assert 0.92 < np.mean([i.low <= 0 <= i.high for i in t]) < 0.98
    assert 0.65 < np.mean([i.low <= 0 <= i.high for i in b]) < 0.82


def draws(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Means over redrawn images of [S, M]: [S, count]."""
    weights = rng.multinomial(values.shape[1], np.full(values.shape[1], 1 / values.shape[1]), size=count)
    return values @ weights.T / values.shape[1]


def test_joint_interval_is_the_pigeonhole_bootstrap() -> None:
    """Redrawing seeds and images, seed deviations widened by √(S/(S − 1)), has the same standard error."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((4, 1)) + rng.standard_normal((1, 50)) + rng.standard_normal((4, 50))
    replicates = draws(values, 20_000, rng)
    found = stats.joint_interval(values.mean(axis=1), replicates, 50)
    centre = replicates.mean(axis=0)
    picked = rng.integers(4, size=(4, 20_000))
    redrawn = np.take_along_axis(replicates - centre, picked, axis=0).mean(axis=0) * math.sqrt(4 / 3)
    assert found.standard_error == pytest.approx((centre + redrawn).std(), rel=0.02)
    images, seeds = centre.var(ddof=1), replicates.var(axis=0, ddof=1).mean() / 4
    freedom = (images + seeds) ** 2 / (images**2 / 49 + seeds**2 / 3)
    assert found.degrees_of_freedom == pytest.approx(freedom)
    assert found.high - found.estimate == pytest.approx(reference.t.ppf(0.975, freedom) * found.standard_error)
    assert (found.estimate, found.covers) == (pytest.approx(values.mean()), "seeds and test images")


@pytest.mark.parametrize("seed_noise", [0.02, 1.0])
def test_joint_interval_covers_what_seeds_alone_do_not(seed_noise: float) -> None:
    """Three seeds that share 60 test images: a paired t over seeds forgets the images and misses too often.

    Whether images or seeds vary more, 95 of 100 is what is meant: neither much less nor always.
    """
    rng = np.random.default_rng(5)
    joint, seeds = [], []
    for _ in range(400):
        of_seeds, of_images = seed_noise * rng.standard_normal((3, 1)), 2 * rng.standard_normal((1, 60))
        values = of_seeds + of_images + 0.1 * rng.standard_normal((3, 60))
        means = values.mean(axis=1)
        joint.append(stats.joint_interval(means, draws(values, 200, rng), 60))
        seeds.append(stats.joint_interval(means))
    assert 0.92 < np.mean([one.low <= 0 <= one.high for one in joint]) < 0.99
    if seed_noise < 1:
        assert np.mean([one.low <= 0 <= one.high for one in seeds]) < 0.2
        # With the degrees of freedom of the seeds alone it would be nearly always.
        few = [reference.t.ppf(0.975, 2) * one.standard_error for one in joint]
        assert np.mean([abs(one.estimate) <= half for one, half in zip(joint, few, strict=True)]) > 0.99


def test_few_test_images_widen_the_interval_of_one_seed() -> None:
    replicates = np.random.default_rng(0).normal(1.0, 0.5, (1, 4000))
    few, many = (stats.joint_interval([1.0], replicates, images) for images in (5, 1000))
    assert (few.high - 1) / (many.high - 1) == pytest.approx(reference.t.ppf(0.975, 4) / reference.t.ppf(0.975, 999))


def test_without_outcomes_the_interval_is_the_paired_t_of_seeds() -> None:
    values = [0.3, 0.1, 0.5]
    found = stats.joint_interval(values)
    low, high = reference.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high, found.covers) == (pytest.approx(low), pytest.approx(high), "seeds")
    assert found.p_value == pytest.approx(reference.ttest_1samp(values, 0).pvalue)
    assert stats.joint_interval([-value for value in values]).p_value == pytest.approx(found.p_value)
    assert not stats.joint_interval([0.3]).known
    assert math.isnan(stats.joint_interval([0.3]).p_value)


def test_one_group_of_test_images_says_nothing_of_others() -> None:
    drawn = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 4.0]])
    assert stats.joint_interval([1.0, 2.0], drawn, 1) == stats.joint_interval([1.0, 2.0])
    assert stats.joint_interval([1.0, 2.0], drawn, 2).covers == "seeds and test images"


def test_one_seed_covers_test_images_and_says_so() -> None:
    replicates = np.random.default_rng(0).normal(1.0, 0.5, (1, 4000))
    found = stats.joint_interval([1.0], replicates)
    assert found.covers == "test images"
    assert found.high - 1.0 == pytest.approx(1.96 * 0.5, rel=0.05)
    assert stats.minimum_detectable_effect(0.5, math.inf) == pytest.approx(0.5 * (1.959964 + 0.841621), rel=1e-3)


def test_mean_of_intervals_is_welchs() -> None:
    groups = [[2.0, 4.0, 9.0], [10.0, 20.0]]
    found = stats.mean_of_intervals([stats.joint_interval(group) for group in groups])
    parts = np.array([np.var(group, ddof=1) / len(group) for group in groups]) / 4
    freedom, error = parts.sum() ** 2 / (parts**2 / [2, 1]).sum(), math.sqrt(parts.sum())
    half = reference.t.ppf(0.975, freedom) * error
    assert (found.estimate, found.low, found.high) == pytest.approx((10.0, 10 - half, 10 + half))
    assert (found.standard_error, found.degrees_of_freedom) == pytest.approx((error, freedom))
    part = stats.joint_interval([1.0, 2.0], np.array([[1.0, 2.0], [2.0, 1.0]]))
    assert stats.mean_of_intervals([part, stats.joint_interval([1.0, 3.0])]).covers == "seeds, and test images in part"
    assert not stats.mean_of_intervals([part, stats.joint_interval([1.0])]).known


def test_sign_flip_by_hand() -> None:
    assert stats.sign_flip_test([1, 1, 1]) == pytest.approx(2 / 8)
    assert stats.sign_flip_test([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert stats.sign_flip_test([1, -1]) == 1.0
    assert stats.sign_flip_test([0.0, 0.0]) == 1.0
    # sizes of one seed flip together: three clusters, not six differences
    assert stats.sign_flip_test([1] * 6, [0, 0, 1, 1, 2, 2]) == pytest.approx(2 / 8)
    assert stats.sign_flip_test([1] * 14) == pytest.approx(2 / 2**14)
    # drawn, not counted: none of the draws is as large, and p is not zero all the same
    assert stats.sign_flip_test([1] * 60) == pytest.approx(1 / 10_001)


def test_sign_flip_is_scipys_permutation_test() -> None:
    values = np.array([0.4, -0.1, 0.7, 0.2, 0.9, -0.3, 0.5])
    expected = reference.permutation_test(
        (values, np.zeros(7)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert stats.sign_flip_test(values) == pytest.approx(expected.pvalue)
    many = np.concatenate([values, values, values])
    assert stats.sign_flip_test(many) == pytest.approx(reference.ttest_1samp(many, 0).pvalue, abs=0.005)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    adjusted = stats.holm([0.02, math.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.04, 0.04])
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_bonferroni(p: list[float]) -> None:
    adjusted = stats.holm(p)
    assert (adjusted >= np.array(p) - 1e-12).all()
    assert (adjusted <= np.minimum(len(p) * np.array(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-12).all()


@pytest.mark.parametrize(("count", "effect"), [(10, 0.9960), (34, 0.4950)])
def test_detectable_effect_of_published_power_tables(count: int, effect: float) -> None:
    found = stats.minimum_detectable_effect(1 / math.sqrt(count), count - 1)
    assert found == pytest.approx(effect, abs=5e-4)


def test_detectable_effect_has_the_power_it_promises() -> None:
    effect = stats.minimum_detectable_effect(1 / math.sqrt(5), 4)
    draws = np.random.default_rng(0).standard_normal((20_000, 5)) + effect
    assert (reference.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.015)
    assert math.isnan(stats.minimum_detectable_effect(math.nan, 4))
    assert effect < stats.minimum_detectable_effect(1 / math.sqrt(5), 1) < math.inf  # two seeds


def test_rank_stability() -> None:
    same = stats.rank_stability([[3, 2, 1], [30, 20, 10], [0.3, 0.2, 0.1]])
    assert same.mean_rank == pytest.approx([1, 2, 3])
    assert same.concordance == pytest.approx(1.0)
    opposed = stats.rank_stability([[1, 2], [2, 1]])
    assert opposed.concordance == pytest.approx(0.0)
    with pytest.raises(ValueError, match="complete"):
        stats.rank_stability([[1, math.nan]])


def test_concordance_is_friedmans() -> None:
    table = np.random.default_rng(2).integers(0, 4, (6, 4)).astype(float)
    chi = reference.friedmanchisquare(*table.T).statistic
    assert stats.rank_stability(table).concordance == pytest.approx(chi / (6 * 3))


@pytest.mark.parametrize(("low", "high", "excluded"), [(0.0, 1.0, False), (-1.0, 0.0, False), (0.1, 1.0, True)])
def test_an_interval_that_touches_zero_does_not_exclude_it(low: float, high: float, excluded: bool) -> None:
    assert stats.Interval((low + high) / 2, low, high).excludes_zero is excluded
    assert stats.Interval(-(low + high) / 2, -high, -low).excludes_zero is excluded
