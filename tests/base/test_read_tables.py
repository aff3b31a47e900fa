import pandas as pd
import pytest

from pneumo.base.errors import PneumoError
from pneumo.base.tables import find_training_images, locate_predictions, select_first_fold


def make_table(splits, **columns):
    return pd.DataFrame({"id": list("abcde")[: len(splits)], "split": splits, **columns})


def test_predictions_are_located_by_id():
    manifest = make_table(["train", "val", "test", "test"])
    table = manifest.iloc[[3, 1, 2]].reset_index(drop=True)
    assert locate_predictions(table, manifest, "raw/cnn/0").tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("ids", "n_others", "first"), [("cbz", 2, "b"), ("caz", 2, "a"), ("cz", 1, "z"), ("z", 1, "z")]
)
def test_predictions_of_other_images_or_splits_are_refused(ids, n_others, first):
    manifest = make_table(["train", "val", "test"])
    table = pd.DataFrame({"id": list(ids), "split": "test"}, index=range(7, 7 + len(ids)))
    message = f"raw/cnn/0: Expected predictions .* Received: {n_others} others, such as {first}\\."
    with pytest.raises(PneumoError, match=message):
        locate_predictions(table, manifest, "raw/cnn/0")


def test_with_folds_an_image_may_be_in_any_split():
    manifest = make_table(["folds"] * 3)
    table = pd.DataFrame({"id": ["c", "b"], "split": ["test", "val"]})
    assert locate_predictions(table, manifest, "raw/cnn/0").tolist() == [2, 1]
    with pytest.raises(PneumoError, match=r"Received: 1 others, such as z\."):
        locate_predictions(table.assign(id=["c", "z"]), manifest, "raw/cnn/0")


def test_the_first_network_has_predicted_the_first_fold():
    table = make_table(["val", "val", "test", "test"], fold=[0, 1, 1, 0])
    first = select_first_fold(table)
    assert first["id"].tolist() == ["a", "d"]
    assert list(first.columns) == ["id", "split"]
    alone = make_table(["val", "test"])
    assert select_first_fold(alone) is alone


@pytest.mark.parametrize(("split", "expected"), [("train", True), ("folds", True), ("val", False)])
def test_images_that_are_trained_on(split, expected):
    assert find_training_images(make_table([split])).tolist() == [expected]
