"""A run of one network, or of one a fold, and its joined predictions."""

from pathlib import Path

import keras
import pandas as pd

from pneumo.base.labels import CLASSES, Task
from pneumo.base.tables import tabulate_predictions
from pneumo.training.dataset import Dataset, train_run
from pneumo.training.network_file import save_network
from pneumo.training.recipe import Recipe


def train_folds(
    parts: list[Dataset], recipe: Recipe, seed: int, task: Task, path: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train a network on each division of the images, and save the first.

    Args:
        parts: one, or one a fold.
        recipe: the network and its training.
        seed: of the run.
        task: which classes are told apart.
        path: of the first network.

    Returns:
        The content of history.csv and of predictions.csv, with `fold` where there are several parts.
    """
    histories, tables = [], []
    for fold, data in enumerate(parts):
        if fold > 0:
            keras.utils.clear_session()  # frees the network before
        trained = train_run(data, recipe, seed)
        if fold == 0:
            save_network(trained.classifier.model, path)
        rows = data.manifest.iloc[trained.rows]
        y_true = data.y_true[trained.rows]
        tables.append(tabulate_predictions(rows, CLASSES[task], y_true, trained.probabilities))
        histories.append(trained.history.assign(fold=fold))
    if len(parts) == 1:
        return trained.history, tables[0]
    return pd.concat(histories), join_folds(tables)


def join_folds(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the predictions of a run's networks, one a fold.

    Args:
        tables: of each fold, as `tables.tabulate_predictions` returns them, indexed by row of the manifest.

    Returns:
        The validation rows, fold by fold, then the test rows in the order of the manifest, so that runs with
        other folds test the same images in the same order. `fold`, from 0, stands behind `patient`.
    """
    joined = pd.concat([table.assign(fold=fold) for fold, table in enumerate(tables)])
    is_test = joined["split"] == "test"
    columns = list(tables[0].columns)
    at = columns.index("patient") + 1
    ordered = pd.concat([joined[~is_test], joined[is_test].sort_index()], ignore_index=True)
    return ordered[[*columns[:at], "fold", *columns[at:]]]
