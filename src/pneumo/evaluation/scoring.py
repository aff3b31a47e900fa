"""What one run's predictions come to: how it decides, and how well."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.base.decision import DecisionRule
from pneumo.evaluation import calibration, metrics, thresholds
from pneumo.evaluation.metrics import FloatArray, IntArray
from pneumo.evaluation.predictions import Scores

Kind = TypeVar("Kind", bound=np.generic)  # of an array's entries
AS_PREDICTED, SCALED = "as predicted", "temperature scaled"


@dataclass(frozen=True)
class FoldRule:
    """How a cross-validated run decides: the network of each fold by a rule of its own.

    Attributes:
        rules: fold -> the rule of its network, fitted on its validation images.
    """

    rules: dict[int, DecisionRule]

    @property
    def threshold(self) -> float | None:
        """Mean over folds, for people; no decision is made at it."""
        values = [rule.threshold for rule in self.rules.values() if rule.threshold is not None]
        return float(np.mean(values)) if values else None

    @property
    def temperature(self) -> float:
        """Mean over folds, likewise."""
        return float(np.mean([rule.temperature for rule in self.rules.values()]))


Rule = DecisionRule | FoldRule


def fit_rule(val: Scores, threshold: Threshold) -> DecisionRule:
    """Choose the threshold and fit the temperature of one network.

    Args:
        val: its predictions for its validation set.
        threshold: how to choose it.

    Raises:
        PneumoError: the validation set holds one class only.
    """
    chosen = None
    if len(val.classes) == 2:
        chosen = thresholds.choose_threshold(val.y_true, val.probabilities[:, 1], threshold)
    return DecisionRule(chosen, calibration.fit_temperature(val.y_true, val.probabilities))


def fit_run_rule(val: Scores, threshold: Threshold) -> Rule:
    """Fit the rule of a run, or one for each of its folds; see `fit_rule`."""
    if val.folds is None:
        return fit_rule(val, threshold)
    return FoldRule(
        {int(fold): fit_rule(val.take(val.folds == fold), threshold) for fold in np.unique(val.folds)}
    )


def decide(scores: Scores, rule: Rule) -> IntArray:
    """Return the class that a run gives each image, by the rule of the network that predicted it."""
    return _apply(DecisionRule.decide, scores, rule)


def calibrate(scores: Scores, rule: Rule) -> FloatArray:
    """Return calibrated probabilities, float array of shape (n, n_classes), likewise."""
    return _apply(DecisionRule.calibrate, scores, rule)


def score_run(val: Scores, test: Scores, rule: Rule) -> dict[str, Any]:
    """Return every metric of a run, as metrics.json holds them."""
    scores: dict[str, Any] = {
        "n_test": len(test.y_true),
        "n_val": len(val.y_true),
        "threshold": rule.threshold,
    }
    if rule.threshold is None:
        scores["test"] = metrics.score_classes(test.y_true, test.probabilities, test.classes, test.folds)
        scores["val"] = metrics.score_classes(val.y_true, val.probabilities, val.classes, val.folds)
    else:
        ranking = metrics.score_binary(test.y_true, test.probabilities[:, 1], test.folds)
        scores["test"] = ranking | metrics.score_decisions(test.y_true, decide(test, rule))
        scores["test_at_0.5"] = ranking | decide_two_classes(test, 0.5)
        scores["val"] = metrics.score_binary(
            val.y_true, val.probabilities[:, 1], val.folds
        ) | metrics.score_decisions(val.y_true, decide(val, rule))
    scores["temperature"] = rule.temperature
    reliability = tabulate_reliability(test, rule)
    for key, name in (("calibration", AS_PREDICTED), ("calibration_scaled", SCALED)):
        bins = reliability[reliability["name"] == name]
        parts = calibration.split_brier(bins)._asdict()
        scores[key] = {"calibration_error": calibration.score_calibration_error(bins), **parts}
    return scores


def tabulate_run(
    val: Scores, test: Scores, rule: Rule, threshold: Threshold, prevalence: float
) -> dict[str, pd.DataFrame]:
    """Return the tables behind a run's curves.

    Args:
        val: predictions for the validation set.
        test: predictions for the test set.
        rule: how the run decides.
        threshold: parameters of every way to choose one.
        prevalence: of the second of two classes where the model is to be used; for the net benefit.

    Returns:
        `roc` and `precision_recall` (a curve a class, and a fold, `name`), `confusion` (a row an image),
        `calibration` (reliability, before and after scaling), and for two classes `operating_points` and
        `net_benefit`.
    """
    tables = {
        "roc": tabulate_roc(test),
        "precision_recall": _join(
            {name: metrics.tabulate_precision_recall(*each) for name, each in _split_curves(test).items()}
        ),
        "confusion": metrics.tabulate_confusion(test.y_true, decide(test, rule), test.classes),
        "calibration": tabulate_reliability(test, rule),
    }
    if rule.threshold is not None:
        tables["operating_points"] = tabulate_operating_points(val, test, threshold)
        calibrated = calibrate(test, rule)[:, 1]
        tables["net_benefit"] = calibration.tabulate_net_benefit(
            test.y_true, calibrated, float(val.y_true.mean()), prevalence
        )
    return tables


def tabulate_roc(test: Scores) -> pd.DataFrame:
    """Return a ROC curve a class, and a fold, `name`; of two classes that of the second."""
    return _join({name: metrics.tabulate_roc(*each) for name, each in _split_curves(test).items()})


def decide_two_classes(scores: Scores, threshold: float) -> metrics.Scorecard:
    """Return the metrics of decisions between two classes at a threshold."""
    y_pred = (scores.probabilities[:, 1] >= threshold).astype(np.int64)
    return metrics.score_decisions(scores.y_true, y_pred)


def tabulate_reliability(scores: Scores, rule: Rule) -> pd.DataFrame:
    """Bin the probabilities of the second of two classes, else those of the predicted class being right.

    Returns:
        Rows of `calibration.bin_scores`, with `name`: AS_PREDICTED or SCALED.
    """

    def bin_probabilities(probabilities: FloatArray) -> pd.DataFrame:
        if len(scores.classes) == 2:
            return calibration.bin_scores(scores.y_true, probabilities[:, 1])
        is_right = probabilities.argmax(axis=1) == scores.y_true
        return calibration.bin_scores(is_right.astype(np.int64), probabilities.max(axis=1))

    return _join(
        {
            AS_PREDICTED: bin_probabilities(scores.probabilities),
            SCALED: bin_probabilities(calibrate(scores, rule)),
        }
    )


def tabulate_operating_points(val: Scores, test: Scores, threshold: Threshold) -> pd.DataFrame:
    """Return what each way to choose a threshold on validation comes to on validation and on the test set.

    Returns:
        One row a method: `method`, `threshold`, `sensitivity_val`, `specificity_val`, `sensitivity`,
        `specificity`, `precision`, `npv`; the last row is 0.5, which is not chosen on any data. With
        cross-validation each fold has a threshold of its own, and `threshold` is their mean.
    """
    rules: dict[str, Rule] = {
        method.value: fit_run_rule(val, replace(threshold, method=method)) for method in ThresholdMethod
    }
    rules["0.5"] = DecisionRule(0.5, 1.0)
    rows = []
    for method, rule in rules.items():
        on_val, on_test = (metrics.score_decisions(each.y_true, decide(each, rule)) for each in (val, test))
        rows.append(
            {"method": method, "threshold": rule.threshold}
            | {f"{name}_val": on_val[name] for name in ("sensitivity", "specificity")}
            | {name: on_test[name] for name in ("sensitivity", "specificity", "precision", "npv")}
        )
    return pd.DataFrame(rows)


def _apply(
    method: Callable[[DecisionRule, FloatArray], npt.NDArray[Kind]], scores: Scores, rule: Rule
) -> npt.NDArray[Kind]:
    """Apply a method of rules to probabilities, those of a fold by the rule of its network."""
    if isinstance(rule, DecisionRule):
        return method(rule, scores.probabilities)
    parts = {fold: np.flatnonzero(scores.folds == fold) for fold in rule.rules}
    found = [method(rule.rules[fold], scores.probabilities[rows]) for fold, rows in parts.items()]
    return np.concatenate(found)[np.argsort(np.concatenate(list(parts.values())))]


def _split_classes(scores: Scores) -> dict[str, tuple[IntArray, FloatArray]]:
    """Return each class against the rest: whether an image is of it, and its probability."""
    numbers = [1] if len(scores.classes) == 2 else range(len(scores.classes))
    return {
        scores.classes[k]: ((scores.y_true == k).astype(np.int64), scores.probabilities[:, k])
        for k in numbers
    }


def _split_curves(scores: Scores) -> dict[str, tuple[IntArray, FloatArray]]:
    """Return each class against the rest, within each fold where there are folds."""
    if scores.folds is None:
        return _split_classes(scores)
    return {
        f"{name}, fold {fold}": each
        for fold in np.unique(scores.folds)
        for name, each in _split_classes(scores.take(scores.folds == fold)).items()
    }


def _join(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table.assign(name=name) for name, table in tables.items()], ignore_index=True)
