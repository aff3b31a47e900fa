"""Scores of stored predictions, by their scikit-learn names where those exist.

A quantity that the data leave undefined (precision where nothing is predicted positive, AUC where one class
is missing) is None, never a guess.

With cross-validation, probabilities of different folds come from different networks and are not on one scale.
So images are ranked within their folds alone. ROC AUC is then the share of all pairs of a positive and a
negative image of one fold that are ranked rightly, the mean over folds weighted by their pairs. Average
precision is the mean of the precision at each positive among the images of its fold.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    log_loss,
    matthews_corrcoef,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Scorecard = dict[str, float | None]


def split_folds(folds: IntArray | None, n: int) -> list[IntArray]:
    """Return the rows of each fold; all rows, once, where there are no folds.

    Args:
        folds: int array of shape (n,), or None.
        n: number of rows.
    """
    if folds is None:
        return [np.arange(n)]
    return [np.flatnonzero(folds == fold) for fold in np.unique(folds)]


def score_binary(y_true: IntArray, y_score: FloatArray, folds: IntArray | None = None) -> Scorecard:
    """Return the metrics of two classes that need no threshold.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,), probabilities in [0, 1].
        folds: int array of shape (n,); None where one network predicted all images.
    """
    ranked = [rows for rows in split_folds(folds, len(y_true)) if len(np.unique(y_true[rows])) == 2]
    n_positive = [y_true[rows].sum() for rows in ranked]
    n_pairs = [n * (len(rows) - n) for n, rows in zip(n_positive, ranked, strict=True)]
    return {
        "roc_auc": _average([roc_auc_score(y_true[rows], y_score[rows]) for rows in ranked], n_pairs),
        "average_precision": _average(
            [average_precision_score(y_true[rows], y_score[rows]) for rows in ranked], n_positive
        ),
        "brier_score": float(brier_score_loss(y_true, y_score, labels=[0, 1])),
        # Its clip depends on the type: 1e-7 for float32.
        "log_loss": float(log_loss(y_true, y_score.astype(np.float64), labels=[0, 1])),
    }


def score_decisions(y_true: IntArray, y_pred: IntArray) -> Scorecard:
    """Return the metrics of yes-or-no decisions.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_pred: int array of shape (n,), likewise.
    """
    tn, fp, fn, tp = confusion_matrix(y_true, y_pred, labels=[0, 1]).ravel().tolist()
    sensitivity = _divide(tp, tp + fn)
    specificity = _divide(tn, tn + fp)
    return {
        "accuracy": _divide(tp + tn, len(y_true)),
        "balanced_accuracy": _mean([sensitivity, specificity]),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _divide(tp, tp + fp),
        "npv": _divide(tn, tn + fn),
        "f1": _divide(2 * tp, 2 * tp + fp + fn),
        "mcc": _mcc(y_true, y_pred),
    }


def score_classes(
    y_true: IntArray, probabilities: FloatArray, classes: tuple[str, ...], folds: IntArray | None = None
) -> dict[str, Any]:
    """Return the metrics of more than two classes; the class of most probability is the decision.

    Args:
        y_true: int array of shape (n,), class numbers.
        probabilities: float array of shape (n, n_classes), rows sum to 1.
        classes: names, in the order of class numbers.
        folds: int array of shape (n,); None where one network predicted all images.

    Returns:
        Macro averages, and `per_class` with each class against the rest.
    """
    y_pred = probabilities.argmax(axis=1)
    # Stored digits leave sums off by some 1e-7, which log_loss warns of.
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    per_class = {}
    for number, name in enumerate(classes):
        is_class = (y_true == number).astype(np.int64)
        per_class[name] = score_binary(is_class, probabilities[:, number], folds) | score_decisions(
            is_class, (y_pred == number).astype(np.int64)
        )

    def macro(metric: str) -> float | None:
        return _mean([scores[metric] for scores in per_class.values()])

    return {
        "roc_auc": macro("roc_auc"),
        "average_precision": macro("average_precision"),
        "brier_score": float(np.mean(np.sum((probabilities - np.eye(len(classes))[y_true]) ** 2, axis=1))),
        "log_loss": float(log_loss(y_true, shares, labels=range(len(classes)))),
        "accuracy": float(np.mean(y_pred == y_true)),
        "balanced_accuracy": macro("sensitivity"),
        "sensitivity": macro("sensitivity"),
        "specificity": macro("specificity"),
        "precision": macro("precision"),
        "npv": macro("npv"),
        "f1": macro("f1"),
        "mcc": _mcc(y_true, y_pred),
        "per_class": per_class,
    }


def tabulate_confusion(y_true: IntArray, y_pred: IntArray, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return one row an image with the columns `actual` and `predicted`, as DVC's confusion plot takes it."""
    names = np.array(classes, dtype=object)
    return pd.DataFrame({"actual": names[y_true], "predicted": names[y_pred]})


def count_confusion(decisions: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return the confusion matrix of `tabulate_confusion`'s rows: counts, rows actual, columns predicted."""
    counts = pd.crosstab(decisions["actual"], decisions["predicted"])
    return counts.reindex(index=classes, columns=classes, fill_value=0)


def tabulate_roc(y_true: IntArray, y_score: FloatArray) -> pd.DataFrame:
    """Return the ROC curve: false_positive_rate, sensitivity, threshold (inf becomes empty).

    It has no rows where y_true holds one class only.
    """
    if len(np.unique(y_true)) < 2:
        return pd.DataFrame({"false_positive_rate": [], "sensitivity": [], "threshold": []})
    false_positive_rate, sensitivity, thresholds = roc_curve(y_true, y_score)
    return pd.DataFrame(
        {
            "false_positive_rate": false_positive_rate,
            "sensitivity": sensitivity,
            "threshold": np.where(np.isinf(thresholds), np.nan, thresholds),
        }
    )


def tabulate_precision_recall(y_true: IntArray, y_score: FloatArray) -> pd.DataFrame:
    """Return the precision-recall curve: recall, precision, threshold (the last has none).

    It has no rows where y_true holds one class only.
    """
    if len(np.unique(y_true)) < 2:
        return pd.DataFrame({"recall": [], "precision": [], "threshold": []})
    precision, recall, thresholds = precision_recall_curve(y_true, y_score, drop_intermediate=True)
    return pd.DataFrame(
        {"recall": recall, "precision": precision, "threshold": np.append(thresholds, np.nan)}
    )


def _average(values: list[float], weights: list[int]) -> float | None:
    if len(values) == 1:
        return float(values[0])
    return float(np.average(values, weights=weights)) if values else None


def _mcc(y_true: IntArray, y_pred: IntArray) -> float | None:
    if len(np.unique(y_true)) < 2 or len(np.unique(y_pred)) < 2:
        return None
    return float(matthews_corrcoef(y_true, y_pred))


def _divide(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if len(defined) == len(values) else None
