"""Runs side by side: frames over all runs of an experiment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

METRICS = (
    "roc_auc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "npv",
    "f1",
    "mcc",
    "average_precision",
    "brier_score",
    "log_loss",
)
SUMMARY_METRICS = ("roc_auc", "accuracy", "sensitivity", "specificity")
_GRID = np.linspace(0, 1, 201)


def tabulate_runs(results: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> pd.DataFrame:
    """Put every run's metrics into one row.

    Args:
        results: (combo, model, seed) -> content of its metrics.json.

    Returns:
        Frame with `combo`, `model`, `seed`, `threshold`, METRICS on the test set at the validation threshold,
        the same with the suffix `_at_0.5` (two classes only), and `val_roc_auc`.
    """
    rows = []
    for (combo, model, seed), result in results.items():
        row: dict[str, Any] = {"combo": combo, "model": model, "seed": seed, "threshold": result["threshold"]}
        row |= {metric: result["test"][metric] for metric in METRICS}
        if "test_at_0.5" in result:
            row |= {f"{metric}_at_0.5": result["test_at_0.5"][metric] for metric in METRICS}
        rows.append(row | {"val_roc_auc": result["val"]["roc_auc"]})
    return pd.DataFrame(rows)


def rank_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds and order by validation, never by the test set.

    Args:
        runs: as `tabulate_runs` returns them, at least one.

    Returns:
        One row a combo and model: `n_seeds`, `val_roc_auc`, and for each of METRICS its mean on the test set,
        with the least and the greatest over seeds in `<metric>_min` and `<metric>_max`. Seeds for which a
        metric is not defined are left out of it.
    """
    groups = runs.groupby(["combo", "model"], sort=False)
    table = groups.agg(n_seeds=("seed", "size"), val_roc_auc=("val_roc_auc", "mean"))
    for metric in METRICS:
        values = groups[metric].agg(["mean", "min", "max"])
        # Rounding can carry the mean of equal values past them, which error bars do not forgive.
        table[metric] = values["mean"].clip(values["min"], values["max"])
        table[f"{metric}_min"], table[f"{metric}_max"] = values["min"], values["max"]
    return table.reset_index().sort_values("val_roc_auc", ascending=False, kind="stable", ignore_index=True)


def summarize(leaderboard: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return a few means as combo -> model -> metric, rounded to 4 digits, for DVC to show and compare."""
    summary: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in leaderboard.sort_values(["combo", "model"]).to_dict("records"):
        values = {name: None if pd.isna(row[name]) else round(row[name], 4) for name in SUMMARY_METRICS}
        summary.setdefault(str(row["combo"]), {})[str(row["model"])] = values
    return summary


def average_roc(curves: list[pd.DataFrame]) -> pd.DataFrame:
    """Average ROC curves vertically: mean sensitivity at equally spaced false-positive rates.

    Args:
        curves: frames with `false_positive_rate` and `sensitivity`, neither falling. Where a curve rises
            straight up, its highest point counts.

    Returns:
        Frame with the same two columns and 201 rows; it begins at (0, 0).
    """
    mean = np.mean(
        [np.interp(_GRID, curve["false_positive_rate"], curve["sensitivity"]) for curve in curves], axis=0
    )
    return pd.DataFrame({"false_positive_rate": np.append(0.0, _GRID), "sensitivity": np.append(0.0, mean)})


def join_predictions(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put the predictions of all runs into one small table, from which every statistic can be made anew.

    Args:
        tables: run name -> content of its predictions.csv; all on the same images.

    Returns:
        One row an image: `id`, `split`, `patient`, `y_true`, and a column a run and class,
        `<run name>:<class>`, rounded to 5 digits; of two classes only the second.
    """
    joined = next(iter(tables.values()))[["id", "split", "patient", "y_true"]].copy()
    columns = {}
    for name, table in tables.items():
        if not table["id"].equals(joined["id"]):
            raise ValueError(f"Expected {name} to hold the same images as the first run.")
        scores = [column for column in table.columns if column.startswith("p_")]
        for column in scores[1:] if len(scores) == 2 else scores:
            columns[f"{name}:{column.removeprefix('p_')}"] = table[column].round(5)
    return pd.concat([joined, pd.DataFrame(columns)], axis=1)
