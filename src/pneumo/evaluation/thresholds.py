"""The decision threshold, chosen on validation."""

import math

import numpy as np
from sklearn.metrics import roc_curve

from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.base.errors import PneumoError
from pneumo.evaluation.metrics import FloatArray, IntArray


def choose_threshold(y_true: IntArray, y_score: FloatArray, threshold: Threshold) -> float:
    """Choose a decision threshold on validation data.

    Among the observed scores: `youden` takes the highest that maximises sensitivity + specificity (Youden
    1950), `sensitivity` the highest that reaches the given sensitivity, `cost` the highest of the least cost,
    where a missed case costs as much as `cost_ratio` false alarms.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,), probabilities in [0, 1].
        threshold: the method and its parameter.

    Returns:
        Threshold t, rounded down to 6 digits; predictions are y_score >= t.

    Raises:
        PneumoError: y_true holds one class only.
    """
    if len(np.unique(y_true)) < 2:
        raise PneumoError("Expected both classes in the validation set. Received: one")
    false_positive_rate, sensitivity, candidates = roc_curve(y_true, y_score, drop_intermediate=False)
    if threshold.method is ThresholdMethod.youden:
        best = int(np.argmax(sensitivity - false_positive_rate))
    elif threshold.method is ThresholdMethod.sensitivity:
        best = int(np.argmax(sensitivity >= threshold.sensitivity))
    else:
        n_positive = int(y_true.sum())
        missed = (1 - sensitivity) * n_positive
        alarms = false_positive_rate * (len(y_true) - n_positive)
        best = int(np.argmin(np.round(missed * threshold.cost_ratio + alarms, 9)))
    return math.floor(min(candidates[best], 1.0) * 1e6) / 1e6
