"""Thresholds, against a search over all of them by counting images."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from pneumo.base.artifacts import read_json, write_json
from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.base.errors import PneumoError
from pneumo.evaluation.thresholds import NOBODY, choose_threshold

METHODS = {
    "youden": Threshold(ThresholdMethod.youden),
    **{f"sensitivity {s}": Threshold(ThresholdMethod.sensitivity, s) for s in (0.01, 0.5, 0.9, 0.95, 1.0)},
    **{f"cost {c}": Threshold(ThresholdMethod.cost, cost_ratio=c) for c in (0.001, 0.1, 1.0, 3.0, 20.0)},
}


def draw(seed, n=60, digits=6, positives=0.6):
    generator = np.random.default_rng(seed)
    y_true = (generator.random(n) < positives).astype(np.int64)
    y_true[:2] = 0, 1
    return y_true, np.clip(generator.normal(0.4 + 0.2 * y_true, 0.2), 0.001, 0.999).round(digits)


def draw_saturated(dtype, seed=0, n=200):
    """Return scores of a network that is sure of nearly everything, and wrong at times."""
    generator = np.random.default_rng(seed)
    y_true = generator.integers(0, 2, n)
    values = np.array([0, 1e-30, 1e-9, 2e-9, 1e-7, 0.5, 1 - 1e-7, 1 - 2e-9, 1 - 1e-9, 1], dtype)
    likely = np.clip(generator.normal(2 + 5 * y_true, 2.5).round(), 0, 9).astype(int)
    return y_true, values[likely]


SCORES = {
    "without ties": draw(0),
    "with all digits": draw(5, digits=16),
    "with ties": draw(1, digits=1),
    "few positives": draw(2, digits=2, positives=0.05),
    "few negatives": draw(3, digits=2, positives=0.95),
    "perfect": (np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])),
    "reversed": (np.array([1, 1, 0]), np.array([0.1, 0.2, 0.9])),
    "all equal": (np.array([0, 1, 1]), np.array([0.4, 0.4, 0.4])),
    "all 0": (np.array([0, 1, 1]), np.zeros(3)),
    "all 1": (np.array([0, 1, 1]), np.ones(3)),
    "tiny": (np.array([0, 0, 1, 1]), np.array([1e-9, 2e-9, 3e-9, 4e-9])),
    "saturated float64": draw_saturated(np.float64),
    "saturated float32": draw_saturated(np.float32, 1),
}


def each(cases):
    return pytest.mark.parametrize(("y_true", "y_score"), cases.values(), ids=cases.keys())


def count(y_true, y_pred):
    """Return how many positives are found and how many negatives are called positive."""
    found = sum(t == 1 and bool(p) for t, p in zip(y_true, y_pred, strict=True))
    return found, sum(t == 0 and bool(p) for t, p in zip(y_true, y_pred, strict=True))


def search(y_true, y_score, threshold):
    """Return the highest of the best thresholds by whole numbers and decimals alone."""
    n_positive, n_negative = int(y_true.sum()), int((1 - y_true).sum())
    rows = []
    for candidate in [math.inf, *sorted({float(score) for score in y_score}, reverse=True)]:
        found, alarms = count(y_true, [float(score) >= candidate for score in y_score])
        rows.append((candidate, found, alarms))
    if threshold.method is ThresholdMethod.sensitivity:
        percent = round(threshold.sensitivity * 100)
        return next(candidate for candidate, found, _ in rows if 100 * found >= percent * n_positive)

    def rate(found, alarms):
        if threshold.method is ThresholdMethod.youden:
            return found * n_negative - alarms * n_positive
        return -(round(threshold.cost_ratio * 1000) * (n_positive - found) + 1000 * alarms)

    best = max(rate(found, alarms) for _, found, alarms in rows)
    return next(candidate for candidate, found, alarms in rows if rate(found, alarms) == best)


@each(SCORES)
@pytest.mark.parametrize("threshold", METHODS.values(), ids=METHODS.keys())
def test_threshold_is_exactly_the_highest_of_the_best(y_true, y_score, threshold):
    expected = search(y_true, y_score, threshold)
    received = choose_threshold(y_true, y_score, threshold)
    assert type(received) is float
    assert received == (NOBODY if expected == math.inf else expected)
    np.testing.assert_array_equal(y_score >= received, y_score.astype(float) >= expected)


@each(SCORES)
@pytest.mark.parametrize("threshold", METHODS.values(), ids=METHODS.keys())
def test_a_stored_threshold_decides_as_the_chosen_one(y_true, y_score, threshold, tmp_path):
    chosen = choose_threshold(y_true, y_score, threshold)
    write_json(tmp_path / "metrics.json", {"threshold": chosen})
    pd.DataFrame({"threshold": [chosen]}).to_csv(tmp_path / "points.csv", index=False)
    from_csv = pd.read_csv(tmp_path / "points.csv")["threshold"][0]
    for read in (read_json(tmp_path / "metrics.json")["threshold"], float(from_csv)):
        assert read == chosen
        np.testing.assert_array_equal(y_score >= read, y_score >= chosen)
    assert "Infinity" not in json.dumps(chosen)


def test_youden_of_a_useless_model_calls_nobody():
    y_score = np.array([1.0, 1.0, 0.5])
    chosen = choose_threshold(np.array([0, 0, 1]), y_score, METHODS["youden"])
    assert chosen == NOBODY
    for dtype in (np.float32, np.float64):
        assert not (y_score.astype(dtype) >= chosen).any()


def test_ties_of_youden_are_not_decided_by_rounding():
    # 3/10 of the positives and no false alarm are as good as 10/10 less 49/70, but not so in floats.
    y_true = np.repeat([1, 1, 0], [3, 7, 70])
    y_score = np.repeat([0.9, 0.1, 0.1, 0.0], [3, 7, 49, 21])
    assert 3 / 10 < 1 - 49 / 70
    assert choose_threshold(y_true, y_score, METHODS["youden"]) == 0.9


@pytest.mark.parametrize("n_positive", [7, 20, 40, 60, 100, 140, 1000])
@pytest.mark.parametrize("percent", [5, 28, 29, 55, 57, 58, 90, 95, 99])
def test_a_sensitivity_is_reached_with_as_few_images_as_it_takes(n_positive, percent):
    y_true = np.repeat([1, 0], [n_positive, 5])
    y_score = np.linspace(1, 0, n_positive + 5)
    needed = -(-n_positive * percent // 100)
    for sensitivity in (percent / 100, 1 - (100 - percent) / 100, percent * 0.01):
        chosen = choose_threshold(y_true, y_score, Threshold(ThresholdMethod.sensitivity, sensitivity))
        assert (y_score >= chosen).sum() == needed


ONE_CLASS = {
    "all positive": (np.array([1, 1, 1]), np.array([0.2, 0.6, 0.6])),
    "all negative": (np.array([0, 0, 0]), np.array([0.2, 0.6, 0.6])),
    "none": (np.array([], int), np.array([])),
}


@each(ONE_CLASS)
@pytest.mark.parametrize("method", ThresholdMethod)
def test_no_threshold_without_both_classes(y_true, y_score, method):
    with pytest.raises(PneumoError, match="Expected both classes in the validation set"):
        choose_threshold(y_true, y_score, Threshold(method))
