"""evaluate: predictions.csv -> metrics.json, curves and figures of one run."""

from typing import Any

import numpy as np
import pandas as pd

from pneumo.base.artifacts import write_folder, write_json
from pneumo.base.config import Params, Run, load_group
from pneumo.domain import figures, metrics
from pneumo.domain.predictions import Scores, read_predictions, select_scores


def run(params: Params, run: Run) -> None:
    """Score one run on the test set, with the threshold chosen on validation."""
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    table = read_predictions(run.model_dir / "predictions.csv")
    val, test = select_scores(table, "val"), select_scores(table, "test")
    if len(test.classes) == 2:
        threshold = metrics.choose_threshold(val.y_true, val.probabilities[:, 1], params.threshold)
        y_pred = (test.probabilities[:, 1] >= threshold).astype(np.int64)
        scores: dict[str, Any] = {
            "threshold": threshold,
            "test": score_two_classes(test, threshold),
            "test_at_0.5": score_two_classes(test, 0.5),
            "val": score_two_classes(val, threshold),
        }
    else:
        y_pred = test.probabilities.argmax(axis=1)
        scores = {
            "threshold": None,
            "test": metrics.score_classes(test.y_true, test.probabilities, test.classes),
            "val": metrics.score_classes(val.y_true, val.probabilities, val.classes),
        }
    confusion = metrics.tabulate_confusion(test.y_true, y_pred, test.classes)
    roc, precision_recall = tabulate_curves(test)
    with write_folder(run.report_dir) as folder:
        write_json(folder / "metrics.json", {"n_test": len(test.y_true), "n_val": len(val.y_true), **scores})
        confusion.to_csv(folder / "confusion.csv", index=False)
        pd.concat(curve.assign(name=name) for name, curve in roc.items()).to_csv(
            folder / "roc.csv", index=False, float_format="%.6g"
        )
        pd.concat(curve.assign(name=name) for name, curve in precision_recall.items()).to_csv(
            folder / "precision_recall.csv", index=False, float_format="%.6g"
        )
        heading = f"{title}\n{run.name}, test"
        matrix = metrics.count_confusion(confusion, test.classes)
        figures.save_figure(
            figures.plot_confusion_matrices({"": matrix}, heading, n_columns=1), folder / "confusion.png"
        )
        figures.save_figure(figures.plot_roc_curves(roc, heading), folder / "roc.png")
        figures.save_figure(
            figures.plot_precision_recall_curves(precision_recall, heading), folder / "precision_recall.png"
        )
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
    y_pred = (y_score >= threshold).astype(np.int64)
    return metrics.score_binary(scores.y_true, y_score) | metrics.score_decisions(scores.y_true, y_pred)


def tabulate_curves(scores: Scores) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Return ROC and precision-recall curves by class: of the second of two, of each of more."""
    numbers = [1] if len(scores.classes) == 2 else range(len(scores.classes))
    roc, precision_recall = {}, {}
    for number in numbers:
        y_true = (scores.y_true == number).astype(np.int64)
        y_score = scores.probabilities[:, number]
        roc[scores.classes[number]] = metrics.tabulate_roc(y_true, y_score)
        precision_recall[scores.classes[number]] = metrics.tabulate_precision_recall(y_true, y_score)
    return roc, precision_recall
