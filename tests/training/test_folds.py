"""A run of several networks: what each learns from, and how their predictions are joined."""

import numpy as np
import pandas as pd
import pytest

from pneumo.base.labels import Task
from pneumo.training import folds
from pneumo.training.dataset import Dataset, TrainedRun
from pneumo.training.fit import TrainingData
from pneumo.training.folds import join_folds, train_folds

N, N_FOLDS = 30, 3


def make_parts(n_folds=N_FOLDS):
    """Return the divisions of images of which each third is tested in one fold and validates in the next."""
    third = np.random.default_rng(0).permutation(N) % N_FOLDS
    y_true = np.arange(N) % 2
    manifest = pd.DataFrame({"id": [f"{i}.png" for i in range(N)], "patient": [f"p{i}" for i in range(N)]})
    parts = []
    for fold in range(n_folds):
        split = np.select([third == fold, third == (fold + 1) % N_FOLDS], ["test", "val"], "train")
        train, val, test = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
        training = TrainingData(np.zeros((N, 4, 4, 1), np.uint8), train, y_true[train], val, y_true[val], 2)
        parts.append(Dataset(manifest.assign(split=split), None, y_true, training, test, None))
    return parts


@pytest.fixture
def seen(monkeypatch):
    """Train nothing; return the datasets in the order in which they are trained on, and what was saved."""
    seen = {"trained": [], "saved": []}

    class Classifier:
        def __init__(self, number):
            self.model = f"network {number}"

    def train_run(data, recipe, seed):
        assert (recipe, seed) == ("recipe", 7)
        number = len(seen["trained"])
        seen["trained"].append(data)
        rows = np.concatenate([data.training.val_rows, data.test_rows])
        positive = (rows + 100 * number).astype(np.float32)
        history = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, number]})
        return TrainedRun(Classifier(number), history, rows, np.stack([-positive, positive], axis=1))

    monkeypatch.setattr(folds, "train_run", train_run)
    monkeypatch.setattr(folds, "save_network", lambda model, path: seen["saved"].append((model, path)))
    return seen


def test_predictions_of_folds_are_joined_row_by_row(seen):
    parts = make_parts()
    history, table = train_folds(parts, "recipe", 7, Task.binary, "path")
    assert seen["trained"] == parts
    assert seen["saved"] == [("network 0", "path")]
    assert list(table.columns) == ["id", "split", "patient", "fold", "y_true", "p_normal", "p_pneumonia"]
    expected = {}
    for fold, part in enumerate(parts):
        for i in range(N):
            if part.manifest["split"][i] != "train":
                expected[f"{i}.png", part.manifest["split"][i], fold] = (f"p{i}", i % 2, i + 100 * fold)
    found = {
        (row.id, row.split, row.fold): (row.patient, row.y_true, row.p_pneumonia)
        for row in table.itertuples()
    }
    assert found == expected
    assert len(table) == len(expected)
    assert table.loc[table["split"] == "test", "id"].tolist() == [f"{i}.png" for i in range(N)]
    assert table.index.tolist() == list(range(len(table)))
    assert history["fold"].tolist() == [0, 0, 1, 1, 2, 2]
    assert history["loss"].tolist() == [0.5, 0, 0.5, 1, 0.5, 2]


def test_a_run_of_one_network_has_no_folds(seen):
    history, table = train_folds(make_parts(1), "recipe", 7, Task.binary, "path")
    assert "fold" not in table
    assert "fold" not in history
    assert table["split"].tolist() == ["val"] * 10 + ["test"] * 10
    assert len(seen["saved"]) == 1


def test_other_folds_test_the_same_images_in_the_same_order():
    tables = [
        [
            pd.DataFrame({"id": list(ids), "split": "test", "patient": "p", "y_true": 0}, index=rows)
            for ids, rows in (("ac", [0, 2]), ("b", [1]))
        ],
        [
            pd.DataFrame({"id": list(ids), "split": "test", "patient": "p", "y_true": 0}, index=rows)
            for ids, rows in (("b", [1]), ("ac", [0, 2]))
        ],
    ]
    joined = [join_folds(each) for each in tables]
    assert [each["id"].tolist() for each in joined] == [["a", "b", "c"]] * 2
    assert [each["fold"].tolist() for each in joined] == [[0, 1, 0], [1, 0, 1]]
