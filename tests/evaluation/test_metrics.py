import math

import numpy as np
import pytest

from pneumo.evaluation.metrics import (
    count_confusion,
    score_binary,
    score_classes,
    score_decisions,
    tabulate_confusion,
    tabulate_precision_recall,
    tabulate_roc,
)

CLASSES = ("normal", "bacterial", "viral")


def draw_scores(seed, n=60, digits=6, positives=0.6):
    generator = np.random.default_rng(seed)
    y_true = (generator.random(n) < positives).astype(np.int64)
    y_true[:2] = 0, 1
    return y_true, np.clip(generator.normal(0.4 + 0.2 * y_true, 0.2), 0.001, 0.999).round(digits)


def draw_probabilities(seed, n=80, classes=(0, 1, 2)):
    generator = np.random.default_rng(seed)
    y_true = generator.choice(classes, n)
    weights = generator.random((n, 3)) + 0.7 * np.eye(3)[y_true]
    return y_true, weights / weights.sum(axis=1, keepdims=True)


SCORES = {
    "without ties": draw_scores(0),
    "with ties": draw_scores(1, digits=1),
    "few positives": draw_scores(2, digits=2, positives=0.05),
    "few negatives": draw_scores(3, digits=2, positives=0.95),
    "perfect": (np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])),
    "reversed": (np.array([1, 1, 0]), np.array([0.1, 0.2, 0.9])),
    "all equal": (np.array([0, 1, 1]), np.array([0.4, 0.4, 0.4])),
}
ONE_CLASS = {
    "all positive": (np.array([1, 1, 1]), np.array([0.2, 0.6, 0.6])),
    "all negative": (np.array([0, 0, 0]), np.array([0.2, 0.6, 0.6])),
}


def each(cases):
    return pytest.mark.parametrize(("y_true", "y_score"), cases.values(), ids=cases.keys())


# Second implementations, by definition


def divide(numerator, denominator):
    return numerator / denominator if denominator else None


def roc_auc(y_true, y_score):
    pairs = [(p > n) + (p == n) / 2 for p in y_score[y_true == 1] for n in y_score[y_true == 0]]
    return divide(sum(pairs), len(pairs))


def average_precision(y_true, y_score):
    if len(set(y_true)) < 2:
        return None
    total, last_recall = 0.0, 0.0
    for threshold in sorted(set(y_score), reverse=True):
        chosen = y_true[y_score >= threshold]
        recall = chosen.sum() / y_true.sum()
        total += (recall - last_recall) * chosen.mean()
        last_recall = recall
    return total


def log_loss(y_true, y_score):
    return -np.mean([math.log(s if y else 1 - s) for y, s in zip(y_true, y_score, strict=True)])


def count(y_true, y_pred):
    pairs = list(zip(y_true.tolist(), y_pred.tolist(), strict=True))
    return [pairs.count(pair) for pair in ((1, 1), (0, 1), (0, 0), (1, 0))]


def correlate(a, b):
    """Return Pearson's correlation, which Matthews's coefficient is for two classes."""
    return None if np.ptp(a) == 0 or np.ptp(b) == 0 else np.corrcoef(a, b)[0, 1]


def decisions(y_true, y_pred):
    tp, fp, tn, fn = count(y_true, y_pred)
    sensitivity, specificity = divide(tp, tp + fn), divide(tn, tn + fp)
    both = sensitivity is not None and specificity is not None
    precision = divide(tp, tp + fp)
    return {
        "accuracy": (tp + tn) / len(y_true),
        "balanced_accuracy": (sensitivity + specificity) / 2 if both else None,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": precision,
        "npv": divide(tn, tn + fn),
        "f1": divide(tp, tp + (fp + fn) / 2),
        "mcc": correlate(y_true, y_pred),
    }


def expect_equal(received, expected):
    assert received.keys() == expected.keys()
    for name, value in expected.items():
        assert received[name] == (None if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)), name


# Two classes


@each(SCORES | ONE_CLASS)
def test_score_binary(y_true, y_score):
    expected = {
        "roc_auc": roc_auc(y_true, y_score),
        "average_precision": average_precision(y_true, y_score),
        "brier_score": sum((y_score - y_true) ** 2) / len(y_true),
        "log_loss": log_loss(y_true, y_score),
    }
    expect_equal(score_binary(y_true, y_score), expected)


@each(ONE_CLASS)
def test_ranking_of_one_class_is_undefined(y_true, y_score):
    scores = score_binary(y_true, y_score)
    assert scores["roc_auc"] is scores["average_precision"] is None


def test_certainties_have_a_finite_loss():
    scores = score_binary(np.array([0, 1]), np.array([1.0, 0.0]))
    assert scores["brier_score"] == 1
    assert 30 < scores["log_loss"] < math.inf


@each(SCORES | ONE_CLASS)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_score_decisions(y_true, y_score, threshold):
    y_pred = (y_score >= threshold).astype(np.int64)
    expect_equal(score_decisions(y_true, y_pred), decisions(y_true, y_pred))


@pytest.mark.parametrize(
    ("y_true", "y_pred", "undefined"),
    [
        ([1, 1], [1, 1], {"specificity", "balanced_accuracy", "npv", "mcc"}),
        ([0, 0], [0, 0], {"sensitivity", "balanced_accuracy", "precision", "f1", "mcc"}),
        ([0, 1], [0, 0], {"precision", "mcc"}),
        ([0, 1], [1, 1], {"npv", "mcc"}),
        ([0, 1], [1, 0], set()),
    ],
)
def test_undefined_metrics_are_none(y_true, y_pred, undefined):
    scores = score_decisions(np.array(y_true), np.array(y_pred))
    assert {name for name, value in scores.items() if value is None} == undefined


# More classes


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1,)], ids=str)
def test_score_classes(classes):
    y_true, probabilities = draw_probabilities(4, classes=classes)
    y_pred = np.array([max(range(3), key=lambda number: row[number]) for row in probabilities])
    scores = score_classes(y_true, probabilities, CLASSES)

    per_class = scores.pop("per_class")
    for number, name in enumerate(CLASSES):
        is_class, is_chosen = (y_true == number).astype(int), (y_pred == number).astype(int)
        ranking = score_binary(is_class, probabilities[:, number])
        expect_equal(per_class[name], ranking | decisions(is_class, is_chosen))

    def average(metric):
        values = [per_class[name][metric] for name in CLASSES]
        return None if None in values else sum(values) / 3

    macros = ("roc_auc", "average_precision", "sensitivity", "specificity", "precision", "npv", "f1")
    expected = {metric: average(metric) for metric in macros}
    expected["balanced_accuracy"] = expected["sensitivity"]
    expected["accuracy"] = sum(t == p for t, p in zip(y_true, y_pred, strict=True)) / len(y_true)
    expected["log_loss"] = -np.mean([math.log(row[t]) for row, t in zip(probabilities, y_true, strict=True)])
    truth = [[float(number == t) for number in range(3)] for t in y_true]
    expected["brier_score"] = ((probabilities - truth) ** 2).sum() / len(y_true)
    expected["mcc"] = correlate_classes(y_true, y_pred)
    expect_equal(scores, expected)
    assert (scores["roc_auc"] is None) == (len(classes) < 3)


def correlate_classes(y_true, y_pred):
    """Return Gorodkin's R_K: the covariance of the indicators, summed over classes, over both deviations."""
    true, pred = (np.eye(3)[y] - np.eye(3)[y].mean(axis=0) for y in (y_true, y_pred))
    return divide((true * pred).sum(), math.sqrt((true**2).sum() * (pred**2).sum()))


def test_probabilities_of_stored_digits_need_not_sum_to_one_exactly():
    y_true, probabilities = draw_probabilities(5, n=2000)
    stored = probabilities.astype(np.float32).astype(float)
    assert np.abs(stored.sum(axis=1) - 1).max() > 1e-8
    exact, received = (score_classes(y_true, p, CLASSES)["log_loss"] for p in (probabilities, stored))
    assert received == pytest.approx(exact, abs=1e-6)


# Tables


def test_confusion_is_counted():
    y_true, y_pred = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 2, 2, 0, 2])
    table = tabulate_confusion(y_true, y_pred, CLASSES)
    assert table.iloc[1].to_dict() == {"actual": "normal", "predicted": "viral"}
    counts = count_confusion(table, CLASSES)
    assert counts.index.tolist() == counts.columns.tolist() == list(CLASSES)
    assert counts.to_numpy().tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 2]]


@each(SCORES)
def test_roc_curve(y_true, y_score):
    curve = tabulate_roc(y_true, y_score)
    ends = curve[["false_positive_rate", "sensitivity"]].iloc[[0, -1]]
    assert ends.to_numpy().tolist() == [[0, 0], [1, 1]]
    assert curve["threshold"].isna().tolist() == [True] + [False] * (len(curve) - 1)
    for row in curve[1:].itertuples():
        tp, fp, tn, fn = count(y_true, y_score >= row.threshold)
        assert (row.sensitivity, row.false_positive_rate) == pytest.approx((tp / (tp + fn), fp / (fp + tn)))
    area = np.trapezoid(curve["sensitivity"], curve["false_positive_rate"])
    assert area == pytest.approx(roc_auc(y_true, y_score))


@each(SCORES)
def test_precision_recall_curve(y_true, y_score):
    curve = tabulate_precision_recall(y_true, y_score)
    assert curve.loc[0, "recall"] == 1
    assert curve.iloc[-1][["recall", "precision"]].tolist() == [0, 1]
    assert curve["threshold"].isna().tolist() == [False] * (len(curve) - 1) + [True]
    for row in curve[:-1].itertuples():
        tp, fp, _, fn = count(y_true, y_score >= row.threshold)
        assert (row.recall, row.precision) == pytest.approx((tp / (tp + fn), tp / (tp + fp)))


@pytest.mark.parametrize("number", [0, 1])
def test_curves_of_one_class_have_no_rows(number):
    y_true, y_score = np.full(3, number), np.array([0.1, 0.5, 0.9])
    assert list(tabulate_roc(y_true, y_score).columns) == ["false_positive_rate", "sensitivity", "threshold"]
    assert list(tabulate_precision_recall(y_true, y_score).columns) == ["recall", "precision", "threshold"]
    assert len(tabulate_roc(y_true, y_score)) == len(tabulate_precision_recall(y_true, y_score)) == 0
