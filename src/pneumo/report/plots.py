"""The files that `dvc plots` draws."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

GroupKey = tuple[str, str]  # combo, model


def write_plots(
    leaderboard: pd.DataFrame,
    curves: Mapping[GroupKey, pd.DataFrame],
    decisions: Mapping[GroupKey, pd.DataFrame],
    folder: Path,
) -> None:
    """Write what dvc.yaml declares as plots: bars, and ROC curve and decisions of each combo and model.

    Args:
        leaderboard: with `combo`, `model`, `roc_auc` and `accuracy`.
        curves: ROC curve of each combo and model.
        decisions: of each combo and model, `actual` and `predicted`, a row an image and seed.
        folder: an existing folder.
    """
    bars = leaderboard[["combo", "model", "roc_auc", "accuracy"]].sort_values(["model", "combo"])
    bars.insert(0, "run", bars.pop("model") + " / " + bars.pop("combo"))
    bars.to_csv(folder / "bars.csv", index=False, float_format="%.4f")
    for name, tables in (("roc", curves), ("confusion", decisions)):
        (folder / name).mkdir()
        for (combo, model), table in tables.items():
            table.to_csv(folder / name / f"{model}_{combo}.csv", index=False, float_format="%.4f")
