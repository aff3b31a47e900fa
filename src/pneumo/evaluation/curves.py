"""How sure a ROC curve is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pneumo.evaluation import resampling
from pneumo.evaluation.comparison import Decided
from pneumo.evaluation.metrics import split_folds
from pneumo.evaluation.resampling import FloatArray, IntArray

N_DRAWS = 500
_GRID = np.linspace(0, 1, 201)
_SEED = 0


def band_roc(runs: Sequence[Decided]) -> pd.DataFrame | None:
    """Return the 95 % interval over patients of a mean ROC curve, point by point.

    Args:
        runs: the seeds of one combo and model. Curves are averaged vertically over seeds, over folds if there
            are any, and over classes if there are more than two.

    Returns:
        Frame with `false_positive_rate`, `low` and `high`, 201 rows; None where a curve is not defined.
    """
    first = runs[0]
    if len(np.unique(first.y_true)) < first.probabilities.shape[1]:
        return None
    weights = resampling.draw_weights(first.patients, first.y_true, N_DRAWS, _SEED)
    numbers = [1] if first.probabilities.shape[1] == 2 else range(first.probabilities.shape[1])
    drawn = np.mean(
        [
            draw_curves(
                (run.y_true[rows] == k).astype(np.int64), run.probabilities[rows, k], weights[:, rows]
            )
            for run in runs
            for rows in split_folds(run.folds, len(run.y_true))
            for k in numbers
        ],
        axis=0,
    )
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return pd.DataFrame({"false_positive_rate": _GRID, "low": low, "high": high})


def draw_curves(y_true: IntArray, y_score: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the sensitivity at 201 equally spaced false-positive rates, once for each row of weights.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,).
        weights: float array of shape (n_draws, n), how often each image counts.

    Returns:
        float array of shape (n_draws, 201); nan where a draw has one class only.
    """
    order = np.argsort(-y_score, kind="stable")
    ends = np.flatnonzero(np.diff(y_score[order], append=-np.inf))  # images of equal score count as one
    counts = weights[:, order]
    found = (counts * y_true[order]).cumsum(axis=1)[:, ends]
    alarms = (counts * (1 - y_true[order])).cumsum(axis=1)[:, ends]
    curves = np.full((len(weights), len(_GRID)), np.nan)
    for i, (own_found, own_alarms) in enumerate(zip(found, alarms, strict=True)):
        if own_found[-1] > 0 and own_alarms[-1] > 0:
            curves[i] = np.interp(_GRID, own_alarms / own_alarms[-1], own_found / own_found[-1])
    return curves
