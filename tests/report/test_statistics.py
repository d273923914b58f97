"""The statistics against SciPy, against published numbers, and against simulated sweeps without a true difference."""

import math

import numpy as np
import pytest
from scipy import stats

from transformer_jax.evaluation.significance import compare_sentences
from transformer_jax.report.power import power, power_of_equality, seeds_needed
from transformer_jax.report.statistics import (
    MeanTest,
    bootstrap_interval,
    correlation,
    equality,
    exact_share,
    holm,
    paired_differences,
    paired_t,
    sign_flip,
    summarize,
    welch,
)

# Student (1908): hours of sleep gained by ten patients under two drugs.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_paired_t_gives_students_own_numbers():
    test = paired_t(paired_differences(SLEEP_2, SLEEP_1))
    assert (test.n, test.mean, test.sd) == (10, pytest.approx(1.58), pytest.approx(1.2300, abs=1e-4))
    assert (test.t, test.p) == (pytest.approx(4.0621, abs=1e-4), pytest.approx(0.00283, abs=1e-5))
    assert (test.interval.low, test.interval.high) == (
        pytest.approx(0.70011, abs=1e-5),
        pytest.approx(2.45989, abs=1e-5),
    )
    assert test.effect_size == pytest.approx(1.2846, abs=1e-4)


def test_interval_excludes_zero_exactly_when_p_is_below_the_level():
    rng = np.random.default_rng(0)
    tests = [paired_t(rng.normal(1.0, 1.0, size=4)) for _ in range(200)]
    significant = [test.p < 0.05 for test in tests]
    assert 10 < sum(significant) < 190
    assert significant == [test.interval.low > 0 or test.interval.high < 0 for test in tests]


def test_summary_of_few_values():
    assert summarize([]).mean is None
    assert (summarize([0.5]).mean, summarize([0.5]).sd, summarize([0.5]).interval) == (0.5, None, None)
    two = summarize([1.0, 2.0])
    assert two.sd == pytest.approx(math.sqrt(0.5))
    assert two.interval.half_width == pytest.approx(12.7062 * 0.5, abs=1e-4)  # t(0.975, 1 df) times the standard error
    assert summarize([0.1, 0.1, 0.1]).sd == 0.0


def test_differences_equal_but_for_rounding_have_no_spread():
    control, treatment = [0.8, 0.7, 0.6], [0.9, 0.8, 0.7]
    assert np.ptp(np.subtract(treatment, control)) > 0
    test = paired_t(paired_differences(treatment, control))
    assert test.mean == pytest.approx(0.1)
    assert (test.sd, test.p, test.t, test.interval) == (0.0, None, None, None)


def test_small_true_differences_are_not_taken_for_rounding():
    differences = paired_differences([1 + 1e-9, 1 + 3e-9], [1.0, 1.0])
    assert differences == pytest.approx([1e-9, 3e-9], rel=1e-5)


def test_no_difference_at_all_is_no_evidence():
    test = paired_t(paired_differences([0.3, 0.4], [0.3, 0.4]))
    assert (test.mean, test.p, test.effect_size) == (0.0, 1.0, None)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="one length"):
        paired_differences([1.0, 2.0], [1.0])


def test_one_pair_has_no_test():
    test = paired_t([0.2])
    assert (test.n, test.mean, test.p, test.interval) == (1, 0.2, None, None)


def test_sign_flip_counts_the_patterns():
    # Of the 64 sign patterns of 1..6 two sum to 21 or -21, and two more, with the sign of the 1 flipped, to 19 or -19.
    assert sign_flip([1, 2, 3, 4, 5, 6]).p == pytest.approx(2 / 64)
    assert sign_flip([-1, 2, 3, 4, 5, 6]).p == pytest.approx(4 / 64)
    assert sign_flip([1, 2, 3, 4, 5, 6]).smallest_p == pytest.approx(2 / 64)
    assert sign_flip([0.0] * 6).p == 1.0
    assert sign_flip([1, 2, 3, 4, 5]) is None


def test_sign_flip_of_many_seeds_samples_patterns():
    test = sign_flip(np.random.default_rng(0).normal(0.5, 1.0, size=20))
    t = stats.ttest_1samp(np.random.default_rng(0).normal(0.5, 1.0, size=20), 0.0)
    assert test.smallest_p < 1e-4
    assert test.p == pytest.approx(t.pvalue, rel=0.3, abs=0.003)


def test_bootstrap_from_ten_seeds():
    differences = paired_differences(SLEEP_2, SLEEP_1)
    assert bootstrap_interval(differences[:9]) is None
    assert bootstrap_interval([1.0] * 12) is None
    interval = bootstrap_interval(differences)
    assert 0.7 < interval.low < 1.1  # the t interval begins at 0.70; the outlier of 4.6 moves BCa to the right
    assert 2.2 < interval.high < 3.0
    assert interval == bootstrap_interval(differences)


def test_holm_corrects_step_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_holm_counts_only_tests_that_were_made():
    assert holm([0.02, None, 0.5]) == [pytest.approx(0.04), None, pytest.approx(0.5)]


def test_hypotheses_of_other_sweeps_count_as_if_nothing_were_in_them():
    assert holm([0.01, None, 0.02], others=3) == holm([0.01, None, 0.02, 1.0, 1.0, 1.0])[:3]


def seen(effect: float, sd: float = 1.0) -> MeanTest:
    """What five pairs would have shown."""
    return MeanTest(5, effect * sd, sd, 4.0)


@pytest.mark.parametrize(("effect_size", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_as_in_the_power_tables(effect_size, seeds):
    assert seeds_needed(seen(effect_size), None) == seeds
    assert seeds_needed(seen(-effect_size, sd=3.0), None) == seeds
    assert power(seeds, effect_size) >= 0.8 > power(seeds - 1, effect_size)


def test_seeds_needed_at_the_ends():
    assert seeds_needed(seen(100.0), None) == 2
    assert 5_000 < seeds_needed(seen(0.035), None) < 10_000
    assert seeds_needed(seen(0.001), None) is None
    assert seeds_needed(seen(0.0), None) is None
    assert seeds_needed(MeanTest(5, 0.3, 0.0), None) is None


def test_what_lies_within_the_margin_is_settled_by_showing_that():
    """The published number for a difference of 0 and a margin of one sd, both tests of 5 %, power 80 %: 11 pairs."""
    assert seeds_needed(seen(0.0), margin=1.0) == 11
    assert seeds_needed(seen(0.9), margin=1.0) == seeds_needed(seen(0.9), None) == 12
    assert seeds_needed(seen(0.3), margin=1.0, level=0.01) > seeds_needed(seen(0.3), margin=1.0)


def test_power_of_equality_is_what_simulation_finds():
    samples = np.random.default_rng(4).normal(0.2, 1.0, size=(20_000, 12))
    found = np.mean([equality(paired_t(sample), 1.0) <= 0.05 for sample in samples[:4000]])
    assert power_of_equality(12, 0.2, 1.0) == pytest.approx(found, abs=0.02)


def test_welch_is_that_of_scipy():
    a, b = SLEEP_2[:6], [value / 7 for value in SLEEP_1[:6]]
    test, expected = welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert (test.t, test.p, test.df) == pytest.approx((expected.statistic, expected.pvalue, expected.df))
    assert (test.interval.low, test.interval.high) == pytest.approx((interval.low, interval.high))
    narrow, wide = welch(a, b).interval, welch(a, b, level=0.01).interval
    assert wide.half_width > narrow.half_width
    assert welch([1.0, 1.0], [0.5, 0.5]) == MeanTest(2, 0.5, 0.0)
    assert welch([1.0], [0.5]) == MeanTest(1, 0.5)


def test_equality_is_two_one_sided_tests():
    differences = [0.3, -0.2, 0.1, 0.4, -0.1]
    below = stats.ttest_1samp(differences, 0.5, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -0.5, alternative="greater").pvalue
    assert equality(paired_t(differences), 0.5) == pytest.approx(max(below, above))
    assert equality(paired_t([-d for d in differences]), 0.5) == pytest.approx(max(below, above))
    # At 5 % exactly when the 90 % interval lies within the margin.
    interval = paired_t(differences, level=0.1).interval
    assert equality(paired_t(differences), interval.high) == pytest.approx(0.05)
    assert equality(paired_t([0.1, 0.1]), 0.5) is None


def test_a_share_has_the_interval_of_scipy():
    for hits, n in [(0, 5), (1, 5), (3, 10), (20, 20)]:
        expected = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
        found = exact_share(hits, n)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_correlation_over_seeds():
    assert correlation(SLEEP_1, SLEEP_2) == pytest.approx(stats.pearsonr(SLEEP_1, SLEEP_2).statistic)
    assert correlation([1.0, 2.0], [2.0, 1.0]) is None
    assert correlation([1.0, 1.0, 1.0], [2.0, 1.0, 3.0]) is None


def test_power_is_what_simulation_finds():
    rng = np.random.default_rng(1)
    samples = rng.normal(1.0, 1.0, size=(20_000, 6))
    found = np.mean(stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05)
    assert power(6, 1.0) == pytest.approx(found, abs=0.012)


def test_without_a_true_difference_the_tests_keep_their_level():
    rng = np.random.default_rng(2)
    luck = rng.normal(size=(4000, 6))  # of the seed: shared by both variants
    treatment, control = luck + rng.normal(size=luck.shape), luck + rng.normal(size=luck.shape)
    differences = [paired_differences(a, b) for a, b in zip(treatment, control, strict=True)]
    t_rejects = np.mean([paired_t(d).p <= 0.05 for d in differences])
    flip_rejects = np.mean([sign_flip(d).p <= 0.05 for d in differences[:2000]])
    assert 0.04 <= t_rejects <= 0.06
    assert 0.02 <= flip_rejects <= 0.05  # 2 of 64 patterns: 3.1 %


def test_holm_keeps_the_level_of_a_family():
    rng = np.random.default_rng(3)
    p = stats.ttest_1samp(rng.normal(size=(3000, 5, 4)), 0.0, axis=2).pvalue
    alone = np.mean((p <= 0.05).any(axis=1))
    corrected = np.mean([min(holm(list(family))) <= 0.05 for family in p])
    assert alone > 0.18
    assert 0.035 <= corrected <= 0.06


REFERENCES = [f"the cat number {i} sat on the mat number {i} today" for i in range(60)]
POOR = [line if i % 2 else f"a dog {i}" for i, line in enumerate(REFERENCES)]


def test_sentence_tests_tell_systems_apart():
    result = compare_sentences(POOR, REFERENCES, REFERENCES, samples=200)
    assert result.system == pytest.approx(100.0)
    assert result.base < 80
    assert max(result.bootstrap_p, result.randomization_p) < 0.05
    assert "bs:200" in result.bootstrap_signature
    assert "ar:200" in result.randomization_signature


def test_sentence_tests_see_nothing_where_nothing_is():
    equal = compare_sentences(POOR, list(POOR), REFERENCES, samples=50)
    assert (equal.bootstrap_p, equal.randomization_p) == (1.0, 1.0)
    other_half = [f"a dog {i}" if i % 2 else line for i, line in enumerate(REFERENCES)]
    assert compare_sentences(POOR, other_half, REFERENCES, samples=200).randomization_p > 0.3


def test_sentence_tests_need_lines_that_match():
    with pytest.raises(ValueError, match="lengths differ"):
        compare_sentences(POOR, REFERENCES[1:], REFERENCES)


def bca_in_numpy(x, samples=40_000):
    """Efron 1987: the percentiles that the bias and the skewness of the mean call for."""
    rng = np.random.default_rng(5)
    means = rng.choice(x, (samples, len(x))).mean(axis=1)
    bias = stats.norm.ppf((means < x.mean()).mean())
    left_out = (x.sum() - x) / (len(x) - 1)
    centred = left_out.mean() - left_out
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    return np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))


def test_bootstrap_corrects_for_bias_and_skewness():
    """Values with a long tail, where the plain percentiles lie elsewhere."""
    x = np.exp(np.random.default_rng(6).normal(0.0, 1.2, size=14))
    low, high = bca_in_numpy(x)
    percentile = np.quantile(np.random.default_rng(5).choice(x, (40_000, len(x))).mean(axis=1), [0.025, 0.975])
    found = bootstrap_interval(x)
    assert (found.low, found.high) == (pytest.approx(low, rel=0.02), pytest.approx(high, rel=0.02))
    assert high > 1.05 * percentile[1]
