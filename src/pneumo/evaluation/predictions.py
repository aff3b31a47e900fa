"""Stored predictions as arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.tables import PROBABILITY_PREFIX


@dataclass(frozen=True)
class Scores:
    """Predictions for one split.

    Attributes:
        classes: names, in the order of class numbers.
        y_true: int array of shape (n,), class numbers.
        probabilities: float array of shape (n, n_classes).
        patients: str array of shape (n,).
        folds: int array of shape (n,), whose network predicted each image; None where there is one network.
    """

    classes: tuple[str, ...]
    y_true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    patients: npt.NDArray[np.object_]
    folds: npt.NDArray[np.int64] | None = None

    def take(self, rows: npt.NDArray[np.bool_]) -> "Scores":
        """Return some rows; `rows` is a bool array of shape (n,)."""
        folds = None if self.folds is None else self.folds[rows]
        return Scores(self.classes, self.y_true[rows], self.probabilities[rows], self.patients[rows], folds)


def select_scores(table: pd.DataFrame, split: str) -> Scores:
    """Return the rows of one split as arrays."""
    rows = table[table["split"] == split]
    columns = [column for column in table.columns if column.startswith(PROBABILITY_PREFIX)]
    return Scores(
        tuple(column.removeprefix(PROBABILITY_PREFIX) for column in columns),
        rows["y_true"].to_numpy(np.int64),
        rows[columns].to_numpy(np.float64),
        rows["patient"].to_numpy(object),
        rows["fold"].to_numpy(np.int64) if "fold" in rows else None,
    )
