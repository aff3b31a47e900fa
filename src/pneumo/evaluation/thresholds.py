"""The decision threshold, chosen on validation."""

import math

import numpy as np
from sklearn.metrics import confusion_matrix_at_thresholds

from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.base.errors import PneumoError
from pneumo.evaluation.metrics import FloatArray, IntArray

NOBODY = 2.0  # a threshold that no probability reaches; unlike infinity it can be written as JSON


def choose_threshold(y_true: IntArray, y_score: FloatArray, threshold: Threshold) -> float:
    """Choose a decision threshold on validation data.

    The candidates are the observed scores and NOBODY, which calls no image positive. `youden` takes the one
    with the greatest sensitivity + specificity (Youden 1950), `cost` that of the least cost, where a missed
    case costs as much as `cost_ratio` false alarms, and `sensitivity` the highest that reaches the given
    sensitivity. Of several that are equally good the highest is taken, the one with the fewest false alarms.
    Candidates are compared by counts of images, so rounding decides no tie.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,), probabilities in [0, 1].
        threshold: the method and its parameter.

    Returns:
        Threshold t, exactly an observed score or NOBODY; predictions are y_score >= t. Store it with all its
        digits: with one digit less, images that score exactly t may be decided differently.

    Raises:
        PneumoError: y_true holds one class only.
    """
    if len(np.unique(y_true)) < 2:
        raise PneumoError("Expected both classes in the validation set. Received: one")
    _, alarms, missed, found, candidates = confusion_matrix_at_thresholds(y_true, y_score)
    n_positive, n_negative = int(found[-1]), int(alarms[-1])
    alarms, missed, found = np.append(0, alarms), np.append(n_positive, missed), np.append(0, found)
    if threshold.method is ThresholdMethod.youden:
        best = int(np.argmax(found * n_negative - alarms * n_positive))
    elif threshold.method is ThresholdMethod.sensitivity:
        # A product such as 20 * 0.95 may come out a little above the whole number that it stands for.
        best = int(np.argmax(found >= math.ceil(n_positive * threshold.sensitivity - 1e-9)))
    else:
        best = int(np.argmin(np.round(missed * threshold.cost_ratio + alarms, 9)))
    return NOBODY if best == 0 else float(candidates[best - 1])
