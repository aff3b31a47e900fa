"""The two tables that one room writes and another reads.

- manifest.csv, from `data`: one row an image, and what its file and its name say. With cross-validation,
  `split` is FOLDS, and `group` numbers the images that stay together.
- predictions.csv, from `training`: one row an image of the validation and test sets, with `id`, `split`,
  `patient`, `y_true` (class number) and `p_<class>`, the probability of each class. Every score is computed
  from it. With cross-validation, `fold` says whose network predicted: each image is tested in one fold, and
  may validate in others.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, FOLDS, Task

PROBABILITY_PREFIX = "p_"
_TEXT = {"id": str, "patient": str, "view": str, "sex": str, "site": str}


def read_manifest(path: Path) -> pd.DataFrame:
    """Read manifest.csv.

    Returns:
        Frame with `manifest.COLUMNS` of the room `data`, and those of view, age, sex and site that are known;
        row i belongs to row i of every combo's images.npy.
    """
    return pd.read_csv(path, dtype=_TEXT)


def has_folds(manifest: pd.DataFrame) -> bool:
    """Return whether the images of a manifest are cross-validated."""
    return bool((manifest["split"] == FOLDS).any())


def find_training_images(manifest: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the images that are trained on; with cross-validation that is every one.

    Args:
        manifest: with the column `split`.
    """
    return manifest["split"].isin(["train", FOLDS])


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
        table[PROBABILITY_PREFIX + name] = probabilities[:, number]
    return table


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write predictions.csv with digits enough to give every float32 back."""
    table.to_csv(path, index=False, float_format="%.9g")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions.csv."""
    return pd.read_csv(path, dtype=_TEXT)


def select_first_fold(table: pd.DataFrame) -> pd.DataFrame:
    """Return what is about model.keras: all rows, or with cross-validation those of the first fold.

    Args:
        table: content of predictions.csv or of history.csv.
    """
    if "fold" not in table:
        return table
    return table[table["fold"] == 0].drop(columns="fold").reset_index(drop=True)


def locate_predictions(table: pd.DataFrame, manifest: pd.DataFrame, name: str) -> npt.NDArray[np.int64]:
    """Return the row of the manifest of each prediction.

    Args:
        table: with `id` and `split`.
        manifest: with `id` and `split`.
        name: of the run, for the message.

    Raises:
        PneumoError: an image is not in the manifest, or is in another split there.
    """
    rows = pd.Index(manifest["id"]).get_indexer(table["id"]).astype(np.int64)
    known = manifest["split"].to_numpy()[rows]
    strange = (rows < 0) | ((known != table["split"]) & (known != FOLDS))
    if strange.any():
        raise PneumoError(
            f"{name}: Expected predictions for the manifest's images, in the same split. Received: "
            f"{strange.sum()} others, such as {table['id'][strange].iloc[0]}. Run `dvc repro`."
        )
    return rows
