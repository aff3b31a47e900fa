"""evaluate: predictions.csv -> metrics.json, curves and figures of one run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pneumo.base.artifacts import write_folder, write_json
from pneumo.base.config import Params, Run, Threshold, ThresholdMethod, load_group
from pneumo.evaluation import calibration, metrics, thresholds
from pneumo.evaluation.predictions import Scores, decide, read_predictions, select_scores
from pneumo.report import figures


def run(params: Params, run: Run) -> None:
    """Score one run on the test set, with threshold and temperature chosen on validation."""
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    table = read_predictions(run.model_dir / "predictions.csv")
    val, test = select_scores(table, "val"), select_scores(table, "test")
    if len(test.classes) == 2:
        threshold = thresholds.choose_threshold(val.y_true, val.probabilities[:, 1], params.threshold)
        y_pred = decide(test.probabilities, threshold)
        scores: dict[str, Any] = {
            "threshold": threshold,
            "test": score_two_classes(test, threshold),
            "test_at_0.5": score_two_classes(test, 0.5),
            "val": score_two_classes(val, threshold),
        }
    else:
        y_pred = decide(test.probabilities, None)
        scores = {
            "threshold": None,
            "test": metrics.score_classes(test.y_true, test.probabilities, test.classes),
            "val": metrics.score_classes(val.y_true, val.probabilities, val.classes),
        }
    temperature = calibration.fit_temperature(val.y_true, val.probabilities)
    scaled = calibration.scale_temperature(test.probabilities, temperature)
    reliability = {
        "as predicted": bin_reliability(test, test.probabilities),
        "temperature scaled": bin_reliability(test, scaled),
    }
    scores["temperature"] = temperature
    for key, bins in zip(("calibration", "calibration_scaled"), reliability.values(), strict=True):
        parts = calibration.split_brier(bins)._asdict()
        scores[key] = {"calibration_error": calibration.score_calibration_error(bins), **parts}

    heading = f"{title}\n{run.name}, test"
    with write_folder(run.report_dir) as folder:
        write_json(folder / "metrics.json", {"n_test": len(test.y_true), "n_val": len(val.y_true), **scores})
        write_confusion(test, y_pred, heading, folder)
        write_curves(test, heading, folder)
        _join(reliability).to_csv(folder / "calibration.csv", index=False, float_format="%.6g")
        figures.save_figure(figures.plot_reliability(reliability, heading), folder / "calibration.png")
        if len(test.classes) == 2:
            points = tabulate_operating_points(val, test, params.threshold)
            points.to_csv(folder / "operating_points.csv", index=False)
            prevalence = float(val.y_true.mean())
            benefit = calibration.tabulate_net_benefit(test.y_true, scaled[:, 1], prevalence, prevalence)
            benefit.to_csv(folder / "net_benefit.csv", index=False, float_format="%.6g")
            if len(benefit):
                stated = f"{heading}, prevalence {prevalence:.0%}"
                figures.save_figure(figures.plot_net_benefit(benefit, stated), folder / "net_benefit.png")
        history = pd.read_csv(run.model_dir / "history.csv")
        figures.save_figure(figures.plot_history(history, f"{title}\n{run.name}"), folder / "history.png")
    shown = (
        f"{label} {'undefined' if scores['test'][metric] is None else format(scores['test'][metric], '.3f')}"
        for metric, label in (("roc_auc", "ROC AUC"), ("accuracy", "accuracy"))
    )
    print(f"{run.name}: test {', '.join(shown)}")


def score_two_classes(scores: Scores, threshold: float) -> metrics.Scorecard:
    """Return every metric of two classes at a threshold."""
    y_score = scores.probabilities[:, 1]
    y_pred = decide(scores.probabilities, threshold)
    return metrics.score_binary(scores.y_true, y_score) | metrics.score_decisions(scores.y_true, y_pred)


def bin_reliability(scores: Scores, probabilities: metrics.FloatArray) -> pd.DataFrame:
    """Bin probabilities: of the second of two classes, else of the predicted class being right."""
    if len(scores.classes) == 2:
        return calibration.bin_scores(scores.y_true, probabilities[:, 1])
    is_right = probabilities.argmax(axis=1) == scores.y_true
    return calibration.bin_scores(is_right.astype(np.int64), probabilities.max(axis=1))


def tabulate_operating_points(val: Scores, test: Scores, threshold: Threshold) -> pd.DataFrame:
    """Return what each way to choose a threshold on validation comes to on validation and on the test set.

    Returns:
        One row a method: `method`, `threshold`, `sensitivity_val`, `specificity_val`, `sensitivity`,
        `specificity`, `precision`, `npv`; the last row is 0.5, which nobody chose.
    """
    chosen = {
        method.value: thresholds.choose_threshold(
            val.y_true, val.probabilities[:, 1], replace(threshold, method=method)
        )
        for method in ThresholdMethod
    }
    rows = []
    for method, value in (chosen | {"0.5": 0.5}).items():
        on_val, on_test = score_two_classes(val, value), score_two_classes(test, value)
        rows.append(
            {"method": method, "threshold": value}
            | {f"{name}_val": on_val[name] for name in ("sensitivity", "specificity")}
            | {name: on_test[name] for name in ("sensitivity", "specificity", "precision", "npv")}
        )
    return pd.DataFrame(rows)


def write_confusion(test: Scores, y_pred: metrics.IntArray, heading: str, folder: Path) -> None:
    """Write confusion.csv, one row an image, and its picture."""
    confusion = metrics.tabulate_confusion(test.y_true, y_pred, test.classes)
    confusion.to_csv(folder / "confusion.csv", index=False)
    matrix = metrics.count_confusion(confusion, test.classes)
    figures.save_figure(
        figures.plot_confusion_matrices({"": matrix}, heading, n_columns=1), folder / "confusion.png"
    )


def write_curves(test: Scores, heading: str, folder: Path) -> None:
    """Write ROC and precision-recall curves by class: of the second of two, of each of more."""
    numbers = [1] if len(test.classes) == 2 else range(len(test.classes))
    roc, precision_recall = {}, {}
    for number in numbers:
        y_true = (test.y_true == number).astype(np.int64)
        y_score = test.probabilities[:, number]
        roc[test.classes[number]] = metrics.tabulate_roc(y_true, y_score)
        precision_recall[test.classes[number]] = metrics.tabulate_precision_recall(y_true, y_score)
    _join(roc).to_csv(folder / "roc.csv", index=False, float_format="%.6g")
    _join(precision_recall).to_csv(folder / "precision_recall.csv", index=False, float_format="%.6g")
    figures.save_figure(figures.plot_roc_curves(roc, heading), folder / "roc.png")
    figures.save_figure(
        figures.plot_precision_recall_curves(precision_recall, heading), folder / "precision_recall.png"
    )


def _join(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(table.assign(name=name) for name, table in tables.items())
