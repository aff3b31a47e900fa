"""The few numbers that `dvc metrics diff` and `dvc exp show` lay side by side."""

from typing import Any

import pandas as pd

from pneumo.report.answer import select_primary

BEST_METRICS = ("roc_auc", "accuracy", "sensitivity", "specificity")


def summarize(effects: pd.DataFrame, leaderboard: pd.DataFrame) -> dict[str, Any]:
    """Return effects and a few means, rounded to 4 digits; None where one is not defined.

    Args:
        effects: as `answer.find_answer` takes them.
        leaderboard: ordered by validation.

    Returns:
        `effects`, of each combo on ROC AUC; `best`, BEST_METRICS of the first row; and `roc_auc`, the mean
        of each combo and model.
    """
    first = leaderboard.iloc[0]
    means: dict[str, dict[str, float | None]] = {}
    for row in leaderboard.sort_values(["combo", "model"]).itertuples():
        means.setdefault(str(row.combo), {})[str(row.model)] = _round(row.roc_auc)
    primary = select_primary(effects)
    return {
        "effects": dict(zip(primary["subject"], map(_round, primary["difference"]), strict=True)),
        "best": {metric: _round(first[metric]) for metric in BEST_METRICS},
        "roc_auc": means,
    }


def _round(value: Any) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)
