"""The files that `dvc plots` draws, with the templates in .dvc/plots/."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pneumo.report.answer import select_primary

GroupKey = tuple[str, str]  # combo, model
N_POINTS = 51  # of a ROC curve


def write_plots(
    effects: pd.DataFrame,
    curves: Mapping[GroupKey, pd.DataFrame],
    matrices: Mapping[GroupKey, pd.DataFrame],
    best_model: str,
    folder: Path,
) -> None:
    """Write what dvc.yaml declares as plots: the forest plot, ROC curves and confusion matrices.

    Args:
        effects: as `answer.find_answer` takes them.
        curves: ROC curve of each combo and model.
        matrices: confusion matrix of each combo and model, rows actual.
        best_model: the model whose matrices are written.
        folder: an existing folder.
    """
    tables = {
        "effects": select_primary(effects).rename(columns={"subject": "combo"})[
            ["combo", "difference", "low", "high"]
        ],
        "roc": _tabulate_curves(curves),
        "confusion": _tabulate_matrices(matrices, best_model),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.4f")


def _tabulate_curves(curves: Mapping[GroupKey, pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for (combo, model), curve in curves.items():
        kept = curve.iloc[_spread(len(curve))][["false_positive_rate", "sensitivity"]]
        parts.append(kept.assign(model=model, combo=combo))
    return pd.concat(parts)[["model", "combo", "false_positive_rate", "sensitivity"]]


def _spread(n: int) -> list[int]:
    # Closer together on the left, where curves rise.
    return sorted({round((n - 1) * (i / (N_POINTS - 1)) ** 2) for i in range(N_POINTS)}) if n else []


def _tabulate_matrices(matrices: Mapping[GroupKey, pd.DataFrame], best_model: str) -> pd.DataFrame:
    rows = [
        {
            "combo": combo,
            "actual": actual,
            "predicted": predicted,
            "images": value,
            "share": value / max(of_actual.sum(), 1),
        }
        for (combo, model), matrix in matrices.items()
        if model == best_model
        for actual, of_actual in matrix.iterrows()
        for predicted, value in of_actual.items()
    ]
    return pd.DataFrame(rows)
