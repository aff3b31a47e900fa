"""Intervals and comparisons, against naive computations, published numbers and simulations."""

import itertools

import numpy as np
import pytest
from scipy import stats

from pneumo.evaluation import metrics, resampling

# DeLong, DeLong and Clarke-Pearson (1988): ovarian cancer, three tests. Rows: albumin, total protein, 10
# minus the K-G score, whether surgery helped. Data and results: SAS/STAT 13.1, "Comparing ROC curves".
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
METRICS = ("roc_auc", "accuracy", "sensitivity", "specificity")


def make_predictions(n_classes=2, n=40, seed=0, digits=1):
    """Return y_true, probabilities with many ties, y_pred and patients."""
    generator = np.random.default_rng(seed)
    y_true = np.concatenate([np.arange(n_classes), generator.integers(0, n_classes, n - n_classes)])
    raw = np.round(generator.random((n, n_classes)) + 0.4 * np.eye(n_classes)[y_true], digits) + 0.05
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    patients = np.array([f"patient{i}" for i in generator.integers(0, n // 2, n)], dtype=object)
    return y_true, probabilities, probabilities.argmax(axis=1), patients


# Draws


def test_draws_take_whole_patients():
    y_true, _, _, patients = make_predictions()
    weights = resampling.draw_weights(patients, y_true, 50, seed=0)
    assert weights.shape == (50, 40)
    for patient in set(patients):
        of_patient = weights[:, patients == patient]
        assert (of_patient == of_patient[:, :1]).all()
    assert len(np.unique(weights)) > 2


def test_draws_keep_the_number_of_patients_of_each_class():
    patients = np.array([f"{i // 2}" for i in range(60)], dtype=object)
    y_true = np.repeat([0, 1, 1], 20)
    weights = resampling.draw_weights(patients, y_true, 100, seed=0)
    assert (weights[:, y_true == 0].sum(axis=1) == 20).all()
    assert (weights[:, y_true == 1].sum(axis=1) == 40).all()
    np.testing.assert_array_equal(weights, resampling.draw_weights(patients, y_true, 100, seed=0))
    assert not np.array_equal(weights, resampling.draw_weights(patients, y_true, 100, seed=1))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_a_draw_are_those_of_the_images_drawn(n_classes, seed):
    y_true, probabilities, y_pred, _ = make_predictions(n_classes, seed=seed)
    weights = np.vstack([np.ones(40), np.random.default_rng(seed).integers(0, 4, (5, 40))])
    weights[:, :n_classes] += 1  # each class occurs
    scores = resampling.score_draws(y_true, probabilities, y_pred, weights)
    for i, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(40), counts)
        if n_classes == 2:
            expected = metrics.score_binary(y_true[rows], probabilities[rows, 1])
            expected |= metrics.score_decisions(y_true[rows], y_pred[rows])
        else:
            expected = metrics.score_classes(y_true[rows], probabilities[rows], ("a", "b", "c"))
            del expected["per_class"]
        assert set(scores) == set(expected)
        for name, value in expected.items():
            assert scores[name][i] == pytest.approx(np.nan if value is None else value, nan_ok=True), name


def test_scores_that_a_draw_leaves_undefined_are_nan():
    y_true, probabilities, y_pred, _ = make_predictions()
    scores = resampling.score_draws(y_true, probabilities, y_pred, (y_true == 1)[None].astype(float))
    for name in ("roc_auc", "average_precision", "specificity", "mcc"):
        assert np.isnan(scores[name]).all()
    assert scores["sensitivity"][0] == (y_pred[y_true == 1] == 1).mean()


def test_interval_of_draws():
    assert resampling.find_interval(np.linspace(0, 1, 1001)) == pytest.approx((0.025, 0.975))
    assert resampling.find_interval(np.linspace(0, 1, 1001), coverage=0.5) == pytest.approx((0.25, 0.75))
    assert resampling.find_interval(np.array([0.5, 0.5, np.nan])) == (0.5, 0.5)
    assert np.isnan(resampling.find_interval(np.array([0.5, np.nan, np.nan]))).all()


# Seeds


def test_seeds_are_pooled_within_combos():
    spread = resampling.pool_seeds([np.array([0.1, 0.3]), np.array([0.8, 0.9, 1.0]), np.array([0.5])])
    assert spread.degrees_of_freedom == 3
    assert spread.variance == pytest.approx((2 * 0.1**2 + 2 * 0.1**2) / 3)


def test_one_seed_adds_nothing():
    draws = np.random.default_rng(0).random((1, 100))
    spread = resampling.pool_seeds([np.array([0.5]), np.array([0.9])])
    np.testing.assert_array_equal(resampling.join_seeds(draws, spread, 0), draws[0])


def test_seeds_widen_an_interval():
    spread = resampling.SeedSpread(0.09, 1000)
    joined = resampling.join_seeds(np.zeros((9, 100_000)), spread, 0)
    assert joined.std() == pytest.approx(0.1, rel=0.02)


# Differences


def test_identical_combos_do_not_differ():
    spread = resampling.SeedSpread(0.0, 2)
    result = resampling.compare_draws(np.zeros(3), np.zeros((3, 100)), spread, 0)
    assert (result.value, result.low, result.high, result.p) == (0, 0, 0, 1)


def test_p_and_smallest_detectable_difference_of_a_known_error():
    draws = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)[None] * 0.01 + 0.0196
    result = resampling.compare_draws(np.array([0.0196]), draws, resampling.SeedSpread(0, 0), 0)
    assert result.standard_error == pytest.approx(0.01, rel=0.01)
    assert result.p == pytest.approx(0.05, abs=0.002)
    assert (result.low, result.high) == pytest.approx((0, 0.0392), abs=2e-4)
    assert result.smallest_detectable(0.05) == pytest.approx((1.96 + 0.8416) * 0.01, rel=0.01)


def test_few_seeds_make_a_difference_less_certain():
    draws = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)[None] * 0.01 + np.full((3, 1), 0.03)
    points = np.array([0.02, 0.03, 0.04])
    without = resampling.compare_draws(points, draws, resampling.SeedSpread(0, 0), 0)
    spread = resampling.compare_draws(points, draws, resampling.pool_seeds([points]), 0)
    assert spread.standard_error == pytest.approx(np.sqrt(0.01**2 + 0.01**2 / 3), rel=0.01)
    assert spread.degrees_of_freedom == pytest.approx(2 * 16, rel=0.02)
    assert spread.p > without.p


def test_an_undefined_difference_has_no_p():
    result = resampling.compare_draws(
        np.array([np.nan]), np.full((1, 9), np.nan), resampling.SeedSpread(0, 0), 0
    )
    assert np.isnan([result.value, result.low, result.p, result.smallest_detectable(0.05)]).all()


def test_holm():
    corrected = resampling.correct_holm(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(corrected, [0.03, np.nan, 0.06, 0.06])
    assert np.isnan(resampling.correct_holm(np.array([np.nan]))).all()


# DeLong and McNemar


def compare_naively(y_true, a, b):
    """DeLong's test from its definition: every positive against every negative."""

    def place(scores):
        positive, negative = scores[y_true == 1], scores[y_true == 0]
        wins = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
        return wins.mean(axis=1), wins.mean(axis=0)

    (a10, a01), (b10, b01) = place(a), place(b)
    covariance = np.cov(a10, b10) / len(a10) + np.cov(a01, b01) / len(a01)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = a10.mean() - b10.mean()
    return difference, np.sqrt(variance), 2 * stats.norm.sf(abs(difference) / np.sqrt(variance))


@pytest.mark.parametrize("digits", [1, 2, 12])
@pytest.mark.parametrize("seed", range(5))
def test_delong_is_the_naive_computation(seed, digits):
    y_true, a, _, _ = make_predictions(n=60, seed=seed, digits=digits)
    _, b, _, _ = make_predictions(n=60, seed=seed + 100, digits=digits)
    result = resampling.compare_rankings(y_true, a[None, :, 1], b[None, :, 1])
    np.testing.assert_allclose(result, compare_naively(y_true, a[:, 1], b[:, 1]), rtol=0, atol=1e-10)


def test_delong_averages_seeds():
    y_true, a, _, _ = make_predictions(n=60, seed=1)
    _, b, _, _ = make_predictions(n=60, seed=2)
    one = resampling.compare_rankings(y_true, a[None, :, 1], b[None, :, 1])
    three = resampling.compare_rankings(y_true, np.array([a[:, 1]] * 3), np.array([b[:, 1]] * 3))
    assert three == pytest.approx(one)
    assert resampling.compare_rankings(y_true, a[None, :, 1], a[None, :, 1]) == (0, 0, 1)


def test_delong_gives_the_published_numbers():
    albumin, protein, score, y_true = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    y_true, score = y_true.astype(int), 10 - score
    for values, area, error in ((score, 0.7258, 0.1028), (albumin, 0.7366, 0.0927), (protein, 0.6478, 0.1)):
        below, above = resampling.place_scores(y_true, values)
        assert below.mean() == pytest.approx(area, abs=5e-5)
        assert above.mean() == pytest.approx(area, abs=5e-5)
        variance = below.var(ddof=1) / len(below) + above.var(ddof=1) / len(above)
        assert np.sqrt(variance) == pytest.approx(error, abs=5e-5)
    for values, difference, error in ((albumin, 0.0108, 0.0953), (protein, -0.078, 0.1046)):
        result = resampling.compare_rankings(y_true, values[None], score[None])
        assert result[:2] == pytest.approx((difference, error), abs=6e-5)


def test_mcnemar_is_a_coin_toss_over_the_images_they_disagree_on():
    a = np.array([True] * 9 + [False] * 2 + [True] * 20)
    b = np.array([False] * 9 + [True] * 2 + [True] * 20)
    assert resampling.compare_decisions(a, b) == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert resampling.compare_decisions(a, a) == 1


# Simulations: combos with the same true scores, judged again and again on other patients and seeds


PATIENT_SIZES = np.tile([1, 1, 1, 1, 1, 1, 1, 2, 3, 5], 18)
PATIENTS = np.repeat(np.arange(len(PATIENT_SIZES)), PATIENT_SIZES)
NAMES = PATIENTS.astype(str).astype(object)
Y_TRUE = (PATIENTS % 5 < 3).astype(int)
PATIENT_SD, IMAGE_SD, SEED_IMAGE_SD, SEPARATION = 0.6, 0.6, 0.5, 2.0


def simulate(generator, n_combos, n_seeds, seed_sd, n_draws):
    """Return metric -> scores of shape (n_combos, n_seeds, 1 + n_draws), the first on the whole test set."""
    shared = PATIENT_SD * generator.standard_normal(len(PATIENT_SIZES))[PATIENTS]
    shared = shared + IMAGE_SD * generator.standard_normal(len(PATIENTS))
    drawn = resampling.draw_weights(NAMES, Y_TRUE, n_draws, int(generator.integers(2**31)))
    weights = np.vstack([np.ones(len(PATIENTS)), drawn])
    scores = {metric: np.empty((n_combos, n_seeds, 1 + n_draws)) for metric in METRICS}
    for combo, seed in itertools.product(range(n_combos), range(n_seeds)):
        separation = SEPARATION + seed_sd * generator.standard_normal()
        value = shared + Y_TRUE * separation + SEED_IMAGE_SD * generator.standard_normal(len(PATIENTS))
        positive = stats.norm.cdf(value - SEPARATION / 2)
        run = resampling.score_draws(
            Y_TRUE, np.stack([1 - positive, positive], axis=1), (positive >= 0.5).astype(int), weights
        )
        for metric in METRICS:
            scores[metric][combo, seed] = run[metric]
    return scores


def find_truth(seed_sd):
    spread = np.sqrt(PATIENT_SD**2 + IMAGE_SD**2 + SEED_IMAGE_SD**2)
    separations = SEPARATION + seed_sd * stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    sensitivity = stats.norm.cdf((separations - SEPARATION / 2) / spread).mean()
    specificity = stats.norm.cdf(SEPARATION / 2 / spread)
    return {
        "roc_auc": stats.norm.cdf(separations / (spread * np.sqrt(2))).mean(),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "accuracy": Y_TRUE.mean() * sensitivity + (1 - Y_TRUE.mean()) * specificity,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("n_seeds", "seed_sd"), [(1, 0), (3, 0.1), (3, 0.3)])
def test_95_percent_intervals_hold_the_truth_95_times_in_100(n_seeds, seed_sd):
    generator = np.random.default_rng(0)
    truth = find_truth(seed_sd)
    hits = []
    for i in range(300):
        for metric, scores in simulate(generator, 4, n_seeds, seed_sd, 300).items():
            spread = resampling.pool_seeds(list(scores[:, :, 0]))
            low, high = resampling.find_interval(resampling.join_seeds(scores[0, :, 1:], spread, i))
            hits.append(low <= truth[metric] <= high)
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("n_seeds", "seed_sd"), [(1, 0), (3, 0), (3, 0.1), (3, 0.3)])
def test_combos_that_do_not_differ_are_called_different_at_most_5_times_in_100(n_seeds, seed_sd):
    generator = np.random.default_rng(1)
    n_combos, n_tables = 4, 200
    n_false = 0
    for i in range(n_tables):
        p_values = []
        for scores in simulate(generator, n_combos, n_seeds, seed_sd, 200).values():
            pairs = [scores[a] - scores[b] for a, b in itertools.combinations(range(n_combos), 2)]
            pooled = resampling.pool_seeds([pair[:, 0] for pair in pairs])
            spread = resampling.SeedSpread(pooled.variance, (n_combos - 1) * (n_seeds - 1))
            p_values += [resampling.compare_draws(pair[:, 0], pair[:, 1:], spread, i).p for pair in pairs]
        n_false += (resampling.correct_holm(np.array(p_values)) <= 0.05).any()
    assert n_false / n_tables <= 0.05
