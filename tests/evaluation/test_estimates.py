"""Intervals, p and detectable differences, against printed tables, other formulas and random numbers."""

import numpy as np
import pytest
from scipy import special, stats

from pneumo.evaluation import estimates
from pneumo.evaluation.estimates import Estimate, Part, SeedSpread

MANY = 10_000  # degrees of freedom


def make(scores, spread=None, weight=1 / 3, patient_freedom=MANY):
    return estimates.estimate(
        np.asarray(scores), patient_freedom, [] if spread is None else [(spread, weight)]
    )


def draw_normal(value, error, n_draws=2000):
    """Return scores of shape (1 + n_draws,) whose draws have exactly this standard deviation."""
    draws = stats.norm.ppf((np.arange(n_draws) + 0.5) / n_draws)
    return np.append(value, value + error * draws / draws.std(ddof=1))


# Seeds


def stack(points, n_draws=4, noise=0.0, seed=0):
    """Return scores of shape (k, 1 + n_draws)."""
    points = np.asarray(points, float)
    draws = points[:, None] + noise * np.random.default_rng(seed).standard_normal((len(points), n_draws))
    return np.column_stack([points, draws])


def test_seeds_are_pooled_within_combos():
    spread = estimates.pool_seeds([stack([0.1, 0.3]), stack([0.8, 0.9, 1.0]), stack([0.5])])
    assert spread.degrees_of_freedom == 3
    assert spread.variance == pytest.approx((2 * 0.1**2 + 2 * 0.1**2) / 3)
    assert spread.in_draws == pytest.approx(0)
    assert spread.is_known


@pytest.mark.parametrize("points", [[[0.5], [0.9]], [[0.5, 0.7], [0.9]], [[0.5]], []])
def test_one_seed_or_one_degree_of_freedom_tells_nothing_of_the_spread(points):
    assert not estimates.pool_seeds([stack(one) for one in points]).is_known


def test_the_spread_of_one_seed_is_unknown_and_not_none():
    spread = estimates.pool_seeds([stack([0.5]), stack([0.9])])
    assert np.isnan(spread.variance)
    assert spread.degrees_of_freedom == 0


def test_an_undefined_score_is_left_out_of_the_spread():
    whole = [stack([0.1, 0.3, 0.2]), stack([0.5, 0.6])]
    with_gap = [whole[0], np.vstack([whole[1], np.full((1, 5), np.nan)]), np.full((2, 5), np.nan)]
    assert estimates.pool_seeds(with_gap) == estimates.pool_seeds(whole)
    assert estimates.pool_seeds(whole).degrees_of_freedom == 3


def test_draws_hold_the_part_of_the_spread_that_is_of_each_network_alone():
    generator = np.random.default_rng(0)
    shared = 0.3 * generator.standard_normal(4000)  # draws of patients that suit all networks alike
    combos = [stack([0.5] * 3, 4000, noise=0.1, seed=seed) for seed in range(5)]
    for combo in combos:
        combo[:, 1:] += shared
    assert estimates.pool_seeds(combos).in_draws == pytest.approx(0.1**2, rel=0.05)


def test_draws_that_are_undefined_are_left_out_of_the_part_in_draws():
    combo = stack([0.5, 0.6, 0.7], 1000, noise=0.1)
    gap = combo.copy()
    gap[1, 1:501] = np.nan
    spread = estimates.pool_seeds([gap])
    assert spread == estimates.pool_seeds([np.delete(combo, np.arange(1, 501), axis=1)])
    gap[2, 1:] = np.nan
    assert estimates.pool_seeds([gap]).in_draws == 0


# The distribution


@pytest.mark.parametrize(
    ("freedoms", "degrees", "quantile"),
    [
        ((6, 6), 0, 2.447),
        ((6, 6), 15, 2.440),
        ((6, 6), 30, 2.435),
        ((6, 6), 45, 2.435),
        ((8, 8), 45, 2.292),
        ((6, 12), 45, 2.301),
        ((12, 12), 45, 2.167),
    ],
)
def test_quantiles_are_those_of_fishers_table(freedoms, degrees, quantile):
    """Fisher and Yates, Statistical Tables, table VI: 5 % points of Behrens's test, to three decimals."""
    errors = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    result = Estimate(0.0, *(Part(*pair) for pair in zip(errors, freedoms, strict=True)))
    assert -result.find_interval()[0] == pytest.approx(quantile, abs=0.0011)


@pytest.mark.parametrize("errors", [(1.0, 0.01), (1.0, 0.5), (0.5, 1.0), (0.01, 1.0)])
@pytest.mark.parametrize("freedom", [2, 2.7, 10])
def test_p_is_the_share_of_random_sums_that_lie_further_out(errors, freedom):
    generator = np.random.default_rng(0)
    sums = errors[0] * generator.standard_t(40, 400_000) + errors[1] * generator.standard_t(freedom, 400_000)
    for value in (0.3, -1.5, 4.0):
        p = Estimate(value, Part(errors[0], 40), Part(errors[1], freedom)).p
        share = np.mean(np.abs(sums) >= abs(value))
        assert p == pytest.approx(share, abs=5 * np.sqrt(p / 400_000) + 1e-6)


def test_with_one_part_alone_it_is_students_t():
    for parts in ((Part(0.2, 13), Part(0.0, 4)), (Part(0.0, 99), Part(0.2, 13))):
        result = Estimate(0.5, *parts)
        assert result.p == pytest.approx(2 * stats.t.sf(2.5, 13), rel=1e-9)
        assert result.find_interval()[0] == pytest.approx(0.5 - 0.2 * stats.t.ppf(0.975, 13), rel=1e-9)


def draw_estimates(n=400):
    generator = np.random.default_rng(0)
    for i in range(n):
        errors = 10.0 ** generator.uniform(-6, 0, 2) * generator.integers(0, 2, 2) if i % 4 else np.ones(2)
        freedoms = generator.integers(9, 600), generator.uniform(2, 30)
        scale = np.hypot(*errors) or 1.0
        value = float(generator.normal(0, 2.5) * scale)
        yield Estimate(value, Part(float(errors[0]), int(freedoms[0])), Part(float(errors[1]), freedoms[1]))


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95, 0.999])
def test_p_is_small_exactly_where_the_interval_excludes_0(coverage):
    n_excluded = 0
    for result in draw_estimates():
        low, high = result.find_interval(coverage)
        excludes = low > 0 or high < 0
        assert (result.p < 1 - coverage) == excludes, result
        n_excluded += excludes
    assert 40 < n_excluded < 360


@pytest.mark.parametrize("margin", [0.01, 0.3, 2.0])
def test_p_within_a_margin_is_small_exactly_where_the_90_percent_interval_lies_in_it(margin):
    n_within = 0
    for result in draw_estimates():
        low, high = result.find_interval(0.9)
        assert (result.find_p_within(margin) < 0.05) == (-margin < low and high < margin), result
        n_within += -margin < low and high < margin
    assert 5 < n_within < 395


# Estimates


def test_identical_combos_do_not_differ():
    result = make(np.zeros(101), SeedSpread(0.0, 0.0, 2), 2 / 3)
    assert result.find_interval() == (0, 0)
    assert (result.value, result.p, result.find_detectable(0.05)) == (0, 1, 0)
    assert result.find_p_within(0.01) == 0


def test_p_and_detectable_difference_of_a_known_error():
    result = make(draw_normal(0.0196, 0.01), SeedSpread(0.0, 0.0, 4))
    assert result.standard_error == pytest.approx(0.01, rel=0.001)
    assert result.p == pytest.approx(0.05, abs=0.001)
    assert result.find_interval() == pytest.approx((0, 0.0392), abs=2e-5)
    assert result.find_detectable(0.05) == pytest.approx((1.96 + 0.8416) * 0.01, rel=0.001)


def test_the_spread_over_seeds_widens_an_interval():
    scores = draw_normal(0.03, 0.01)
    without = make(scores, SeedSpread(0.0, 0.0, 10))
    spread = make(scores, SeedSpread(0.03**2, 0.0, 10), 1 / 9)
    assert spread.standard_error == pytest.approx(np.sqrt(0.01**2 + 0.03**2 / 9), rel=0.001)
    assert spread.p > without.p
    assert np.ptp(spread.find_interval()) > np.ptp(without.find_interval())


def test_what_networks_alone_differ_by_counts_once():
    """Three seeds whose differences are noise of their own: the error is that of the three, not twice it."""
    scores = draw_normal(0.03, 0.01)
    result = make(scores, SeedSpread(3 * 0.01**2, 3 * 0.01**2, 10), 1 / 3)
    assert result.standard_error == pytest.approx(0.01, rel=0.001)
    assert result.patients.standard_error == pytest.approx(0, abs=1e-5)
    assert result.seeds == Part(pytest.approx(0.01), pytest.approx(10))
    more = make(scores, SeedSpread(3 * 0.01**2, 30 * 0.01**2, 10), 1 / 3)
    assert more.patients.standard_error == 0


def test_spreads_of_models_are_joined():
    spreads = [(SeedSpread(4.0, 0.0, 5), 0.25), (SeedSpread(9.0, 0.0, 3), 1 / 3)]
    joined = estimates.estimate(draw_normal(0.0, 1e-9), MANY, spreads).seeds
    assert joined.standard_error == pytest.approx(2.0)
    assert joined.degrees_of_freedom == pytest.approx(4**2 / (1**2 / 5 + 3**2 / 3))


@pytest.mark.parametrize("spread", [None, SeedSpread(np.nan, np.nan, 0), SeedSpread(0.1, 0.0, 1)])
def test_without_a_known_spread_over_seeds_there_is_an_interval_over_patients_and_no_p(spread):
    result = make(draw_normal(0.5, 0.01), spread)
    assert result.interval_over == "patients"
    assert result.find_interval() == pytest.approx((0.5 - 0.0196, 0.5 + 0.0196), abs=2e-5)
    assert np.isnan([result.p, result.find_detectable(0.05), result.find_p_within(0.9)]).all()
    known = make(draw_normal(0.5, 0.01), SeedSpread(0.1, 0.0, 2))
    assert known.interval_over == "patients and seeds"
    assert known.p < 1


def test_one_unknown_spread_of_several_models_is_enough():
    spreads = [(SeedSpread(0.01, 0.0, 5), 0.5), (SeedSpread(np.nan, np.nan, 0), 0.5)]
    assert np.isnan(estimates.estimate(draw_normal(0.5, 0.01), MANY, spreads).p)


@pytest.mark.parametrize(("n_patients", "has_p"), [(2, False), (9, False), (10, True)])
def test_too_few_patients_of_a_class_make_no_p(n_patients, has_p):
    result = make(draw_normal(0.5, 0.01), SeedSpread(0.0, 0.0, 4), patient_freedom=n_patients - 1)
    assert np.isnan(result.p) != has_p
    assert np.isnan(result.find_detectable(0.05)) != has_p
    quantile = stats.t.ppf(0.975, n_patients - 1) * np.sqrt(n_patients / (n_patients - 1))
    assert result.find_interval()[1] == pytest.approx(0.5 + 0.01 * quantile, rel=0.001)


def test_one_patient_of_a_class_makes_no_interval():
    result = make(np.full(101, 0.7), SeedSpread(0.0, 0.0, 4), patient_freedom=0)
    assert np.isnan([*result.find_interval(), *result.find_score_interval(0, 1), result.p]).all()
    assert np.isnan(result.standard_error)
    assert result.value == 0.7


@pytest.mark.parametrize("n_undefined", [0, 400, 600, 1000])
def test_undefined_draws_are_left_out_and_most_of_them_make_all_undefined(n_undefined):
    scores = draw_normal(0.3, 0.01, 1000)
    scores[np.random.default_rng(0).permutation(1000)[:n_undefined] + 1] = np.nan
    result = make(scores, SeedSpread(0.0, 0.0, 4))
    assert np.isnan(result.p) == (n_undefined > 500)
    if n_undefined <= 500:
        assert result.standard_error == pytest.approx(0.01, rel=0.1)


def test_an_undefined_difference_has_no_p():
    result = make(np.full(10, np.nan), SeedSpread(0.0, 0.0, 4))
    numbers = [result.value, *result.find_interval(), *result.find_score_interval(0, 1), result.p]
    assert np.isnan([*numbers, result.find_detectable(0.05), result.find_p_within(1)]).all()


# Scores with bounds


@pytest.mark.parametrize(
    ("value", "lowest", "highest"), [(0.93, 0, 1), (0.5, 0, 1), (0.7, -1, 1), (0.4, 0, 2)]
)
def test_interval_of_a_score_is_that_of_its_logit(value, lowest, highest):
    low, high = make(draw_normal(value, 0.02)).find_score_interval(lowest, highest)
    share = (value - lowest) / (highest - lowest)
    reach = 1.96 * 0.02 / (highest - lowest) / (share * (1 - share))
    expected = special.expit(special.logit(share) + np.array([-reach, reach]))
    assert (low, high) == pytest.approx(lowest + (highest - lowest) * expected, abs=1e-5)


def test_interval_without_an_upper_bound_is_that_of_the_logarithm():
    low, high = make(draw_normal(0.3, 0.03)).find_score_interval(0, np.inf)
    assert (low, high) == pytest.approx((0.3 * np.exp(-0.196), 0.3 * np.exp(0.196)), rel=1e-4)
    assert make(draw_normal(0.3, 1e6)).find_score_interval(0, np.inf)[1] < np.inf
    assert np.isnan(make(np.zeros(9)).find_score_interval(0, np.inf)).all()


@pytest.mark.parametrize("error", [1e-9, 0.02, 5.0, 1e9])
@pytest.mark.parametrize("value", [1e-12, 0.3, 1 - 1e-12])
def test_interval_of_a_score_keeps_within_bounds_and_holds_the_score(value, error):
    low, high = make(draw_normal(value, error)).find_score_interval(0, 1)
    assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("n_patients", [2, 20, 400])
def test_a_perfect_score_is_as_sure_as_a_proportion_of_all_patients(n_patients):
    for score, expected in ((1.0, 0.025 ** (1 / n_patients)), (0.0, 1 - 0.025 ** (1 / n_patients))):
        result = make(np.full(50, score), patient_freedom=n_patients - 1).find_score_interval(0, 1)
        exact = stats.binomtest(round(score * n_patients), n_patients).proportion_ci(method="exact")
        assert result == pytest.approx((exact.low, exact.high))
        assert expected in (pytest.approx(result[0]), pytest.approx(result[1]))
    low, high = make(np.full(50, -1.0), patient_freedom=n_patients - 1).find_score_interval(-1, 1)
    assert (low, high) == pytest.approx((-1, 1 - 2 * 0.025 ** (1 / n_patients)))


# What would be found


@pytest.mark.parametrize("level", [0.05, 0.002])
@pytest.mark.parametrize(
    "parts", [(Part(1.0, MANY), Part(0.0, 4)), (Part(0.5, MANY), Part(1, 4)), (Part(0.5, MANY), Part(1, 12))]
)
def test_a_difference_of_the_detectable_size_is_found_in_80_of_100_experiments(parts, level):
    patients, seeds = parts
    size = Estimate(0.0, *parts).find_detectable(level)
    generator = np.random.default_rng(0)
    n = 2000
    values = size + Estimate(0.0, *parts).standard_error * generator.standard_normal(n)
    errors = seeds.standard_error * np.sqrt(
        generator.chisquare(seeds.degrees_of_freedom, n) / seeds.degrees_of_freedom
    )
    found = [
        Estimate(value, patients, Part(error, seeds.degrees_of_freedom)).p <= level
        for value, error in zip(values, errors, strict=True)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


# Holm


def test_holm():
    corrected = estimates.correct_holm(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(corrected, [0.03, np.nan, 0.06, 0.06])
    assert np.isnan(estimates.correct_holm(np.array([np.nan]))).all()
    assert len(estimates.correct_holm(np.array([]))) == 0


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_step_by_step(seed):
    p = np.random.default_rng(seed).random(12) ** 4
    corrected = estimates.correct_holm(p)
    rejected = set()
    for step, i in enumerate(np.argsort(p)):
        if p[i] > 0.05 / (len(p) - step):
            break
        rejected.add(i)
    assert set(np.flatnonzero(corrected <= 0.05)) == rejected
