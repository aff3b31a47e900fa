"""Draws of patients, DeLong and sign flips, against naive computations and published numbers."""

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


def draw_saturated(n_classes):
    """Return predictions of a network that is sure, with digits as predictions.csv stores them."""
    generator = np.random.default_rng(3)
    y_true = np.arange(120) % n_classes
    logits = 25 * (generator.normal(size=(120, n_classes)) + np.eye(n_classes)[y_true])
    logits[:9] = 300 * np.eye(n_classes)[generator.integers(0, n_classes, 9)]
    raw = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    stored = np.array([[float(f"{value:.9g}") for value in row] for row in probabilities])
    return y_true, stored, stored.argmax(axis=1)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_of_saturated_probabilities_are_those_of_metrics(n_classes):
    y_true, probabilities, y_pred = draw_saturated(n_classes)
    assert (probabilities == 1).sum() > 5
    assert (probabilities < 1e-9).sum() > 5
    scores = resampling.score_draws(y_true, probabilities, y_pred, np.ones((1, len(y_true))))
    if n_classes == 2:
        expected = metrics.score_binary(y_true, probabilities[:, 1]) | metrics.score_decisions(y_true, y_pred)
    else:
        expected = metrics.score_classes(y_true, probabilities, ("a", "b", "c"))
        del expected["per_class"]
    for name, value in expected.items():
        assert scores[name][0] == pytest.approx(value, rel=1e-12), name


def test_macro_averages_are_undefined_where_one_class_is():
    y_true, probabilities = np.array([0, 0, 1, 1, 2, 2]), np.eye(3)[[0, 0, 1, 1, 0, 1]] * 0.7 + 0.1
    y_pred = probabilities.argmax(axis=1)  # nothing is called the third class
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]], float)
    scores = resampling.score_draws(y_true, probabilities, y_pred, weights)
    assert np.isnan(scores["precision"]).all()
    assert np.isnan(scores["roc_auc"]).tolist() == [False, True]
    assert np.isnan(scores["sensitivity"]).tolist() == [False, True]
    assert metrics.score_classes(y_true, probabilities, ("a", "b", "c"))["precision"] is None


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


def test_patients_of_the_smallest_class_are_counted():
    patients = np.array(["a", "a", "b", "c", "c", "d"], dtype=object)
    assert resampling.count_patient_freedom(patients, np.array([0, 0, 0, 1, 1, 1])) == 1
    assert resampling.count_patient_freedom(patients, np.array([0, 1, 1, 1, 1, 1])) == 0
    assert resampling.count_patient_freedom(patients, np.zeros(6, int)) == 3


# DeLong


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


def test_delong_of_one_seed_more_is_not_surer_of_ties():
    y_true = np.array([0, 0, 1, 1])
    assert resampling.compare_rankings(y_true, np.full((2, 4), 0.5), np.full((2, 4), 0.3)) == (0, 0, 1)


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


# Decisions


def flip_all_signs(correct_a, correct_b, patients):
    """Return the p of a sign-flip test by trying every flip."""
    right = correct_a.sum(axis=0) - correct_b.sum(axis=0)
    counts = [right[patients == name].sum() for name in sorted(set(patients))]
    sums = np.array(list(itertools.product((-1, 1), repeat=len(counts)))) @ counts
    return np.mean(np.abs(sums) >= abs(sum(counts)))


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_sign_flips_are_those_tried_one_by_one(n_seeds, seed):
    generator = np.random.default_rng(seed)
    patients = generator.integers(0, 11, 25).astype(str).astype(object)
    correct_a, correct_b = (generator.random((n_seeds, 25)) < rate for rate in (0.8, 0.5))
    received = resampling.compare_decisions(correct_a, correct_b, patients)
    assert received == pytest.approx(flip_all_signs(correct_a, correct_b, patients), abs=1e-12)


def test_with_one_seed_and_one_image_a_patient_a_sign_flip_test_is_mcnemars():
    a = np.array([True] * 9 + [False] * 2 + [True] * 20)[None]
    b = np.array([False] * 9 + [True] * 2 + [True] * 20)[None]
    names = np.arange(31).astype(str).astype(object)
    assert resampling.compare_decisions(a, b, names) == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert resampling.compare_decisions(a, a, names) == 1


def test_a_tie_of_two_seeds_speaks_for_neither_combo():
    # Each combo is right in 70 % of images under either seed; a errs on the same images, b on others.
    n, names = 200, np.arange(200).astype(str).astype(object)
    wrong_first, wrong_second = np.arange(n) < 0.3 * n, np.arange(n) >= 0.7 * n
    a, b = np.stack([~wrong_first, ~wrong_first]), np.stack([~wrong_first, ~wrong_second])
    assert a.mean() == b.mean()
    assert resampling.compare_decisions(a, b, names) > 0.9


def test_a_patient_counts_once():
    generator = np.random.default_rng(0)
    a, b = generator.random((1, 40)) < 0.8, generator.random((1, 40)) < 0.5
    names = np.arange(40).astype(str).astype(object)
    copies = np.repeat(np.arange(40), 5)
    expected = resampling.compare_decisions(a, b, names)
    assert resampling.compare_decisions(a[:, copies], b[:, copies], names[copies]) == pytest.approx(expected)


def test_many_images_are_compared_at_once():
    generator = np.random.default_rng(0)
    a, b = generator.random((3, 20_000)) < 0.9, generator.random((3, 20_000)) < 0.89
    names = generator.integers(0, 5000, 20_000).astype(str).astype(object)
    counts = np.bincount(names.astype(int), weights=a.sum(axis=0) - b.sum(axis=0))
    p = resampling.compare_decisions(a, b, names)
    assert p == pytest.approx(2 * stats.norm.sf(abs(counts.sum()) / np.sqrt((counts**2).sum())), rel=0.01)


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_equal_combos_are_called_unequal_at_most_5_times_in_100(n_seeds):
    generator = np.random.default_rng(n_seeds)
    sizes = np.resize([1, 1, 2, 4], 60)
    patients = np.repeat(np.arange(60), sizes).astype(str).astype(object)
    p = []
    for _ in range(1000):
        hardness = np.repeat(generator.random(60), sizes)  # images of a patient are hard or easy together
        a, b = (generator.random((n_seeds, len(patients))) > hardness for _ in range(2))
        p.append(resampling.compare_decisions(a, b, patients))
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.065  # standard error 0.007
