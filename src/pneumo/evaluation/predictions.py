"""predictions.csv: the boundary between networks and statistics.

One row an image of the validation and test sets: `id`, `split`, `patient`, `y_true` (class number) and
`p_<class>`, the probability of each class.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.labels import CLASSES, Task

_PREFIX = "p_"


@dataclass(frozen=True)
class Scores:
    """Predictions for one split.

    Attributes:
        classes: names, in the order of class numbers.
        y_true: int array of shape (n,), class numbers.
        probabilities: float array of shape (n, n_classes).
        patients: str array of shape (n,).
    """

    classes: tuple[str, ...]
    y_true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    patients: npt.NDArray[np.object_]


def number_classes(manifest: pd.DataFrame, task: Task) -> npt.NDArray[np.int64]:
    """Return the class number of each image under a task, or -1 where its subtype is not known.

    Args:
        manifest: with the columns `label` and `subtype`.
        task: `binary` goes by label, `subtype` by subtype.

    Returns:
        int array of shape (n,).
    """
    column = "label" if task is Task.binary else "subtype"
    numbers = {name: number for number, name in enumerate(CLASSES[task])}
    return manifest[column].map(lambda name: numbers.get(name, -1)).to_numpy(np.int64)


def tabulate_predictions(
    manifest: pd.DataFrame,
    classes: tuple[str, ...],
    y_true: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
) -> pd.DataFrame:
    """Put predictions beside what they are predictions of.

    Args:
        manifest: the n rows that were predicted.
        classes: names, in the order of class numbers.
        y_true: int array of shape (n,).
        probabilities: float32 array of shape (n, n_classes).
    """
    table = manifest[["id", "split", "patient"]].assign(y_true=y_true)
    for number, name in enumerate(classes):
        table[_PREFIX + name] = probabilities[:, number]
    return table


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write predictions.csv with digits enough to give every float32 back."""
    table.to_csv(path, index=False, float_format="%.9g")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions.csv."""
    return pd.read_csv(path, dtype={"patient": str})


def select_scores(table: pd.DataFrame, split: str) -> Scores:
    """Return the rows of one split as arrays."""
    rows = table[table["split"] == split]
    columns = [column for column in table.columns if column.startswith(_PREFIX)]
    return Scores(
        tuple(column.removeprefix(_PREFIX) for column in columns),
        rows["y_true"].to_numpy(np.int64),
        rows[columns].to_numpy(np.float64),
        rows["patient"].to_numpy(object),
    )


def decide(probabilities: npt.NDArray[np.float64], threshold: float | None) -> npt.NDArray[np.int64]:
    """Turn probabilities into decisions.

    Args:
        probabilities: float array of shape (n, n_classes).
        threshold: from which on the second of two classes is chosen; None chooses the most probable class.

    Returns:
        int array of shape (n,), class numbers.
    """
    if threshold is None:
        return probabilities.argmax(axis=1)
    return (probabilities[:, 1] >= threshold).astype(np.int64)
