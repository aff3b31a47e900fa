import json
import platform
import shutil
from importlib.metadata import version

import keras
import pandas as pd
import pytest

from pneumo.base.artifacts import hash_file
from pneumo.cli import main
from workspace import edit_manifest, edit_params, swap_test_labels

TRAIN = ["train", "--combo", "raw", "--model", "dense", "--seed", "0"]


def test_train_needs_each_class_in_validation(workspace, phantom_data, capsys):
    shutil.copytree(phantom_data, workspace / "data")
    assert main(["weights", "--model", "dense"]) == 0
    edit_manifest(lambda manifest: manifest[(manifest["split"] != "val") | (manifest["label"] != "normal")])
    assert main(TRAIN) == 1
    assert capsys.readouterr().err.endswith("pneumo: Expected normal images in val. Received: none\n")
    assert not (workspace / "models/tiny").exists()


def test_train_does_not_look_at_test_labels(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    folder = workspace / "models/tiny/raw/dense/0"

    assert main(["weights", "--model", "dense"]) == 0

    def train():
        assert main(TRAIN) == 0
        return pd.read_csv(folder / "history.csv"), pd.read_csv(folder / "predictions.csv")

    history, predictions = train()
    edit_manifest(swap_test_labels)
    swapped_history, swapped_predictions = train()
    pd.testing.assert_frame_equal(swapped_history, history)
    is_test = predictions["split"] == "test"
    predictions.loc[is_test, "y_true"] = 1 - predictions["y_true"]
    pd.testing.assert_frame_equal(swapped_predictions, predictions)
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "model.keras",
        "predictions.csv",
        "run.json",
    ]


def test_a_recipe_may_train_on_validation_images_too(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    edit_params(
        workspace,
        "phases: {fit: {epochs: 2}}}",
        "phases: {fit: {epochs: 2, patience: null}}, keep_best: false, refit: {n_folds: 2}}",
    )
    assert main(["weights", "--model", "dense"]) == 0
    assert main(TRAIN) == 0
    predictions = pd.read_csv("models/tiny/raw/dense/0/predictions.csv")
    manifest = pd.read_csv("data/phantom/manifest.csv").set_index("id")
    assert sorted(predictions["id"]) == sorted(manifest.index[manifest["split"] != "train"])
    assert (manifest.loc[predictions["id"], "split"].to_numpy() == predictions["split"]).all()
    assert predictions["p_pneumonia"].between(0.001, 0.999).all()
    assert pd.read_csv("models/tiny/raw/dense/0/history.csv")["val_auc"].isna().all()


def test_a_sheet_of_views_is_written_and_changes_no_other_file(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    folder = workspace / "models/tiny/raw/dense/0"
    assert main(["weights", "--model", "dense"]) == 0

    def train():
        keras.backend.clear_session()
        assert main(TRAIN) == 0
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}

    edit_params(
        workspace,
        "phases: {fit: {epochs: 2}}}",
        "phases: {fit: {epochs: 2, augment: true}}, augmentation: {flip: true}}",
    )
    files = train()
    assert files.pop("views.webp")[8:12] == b"WEBP"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pneumo.stages.train.draw_sheet", lambda *_: None)
        assert train() == files


def test_run_json_says_under_what_a_run_was_trained(trained):
    record = json.loads((trained / "models/tiny/raw/cnn/0/run.json").read_text())
    assert record["backend"] == keras.backend.backend()
    assert record["versions"]["keras"] == version("keras")
    assert record["versions"][record["backend"]] == version(record["backend"])
    assert record["versions"]["python"] == platform.python_version()
    assert record["device"] in keras.distribution.list_devices()
    assert record["processor"]
    hashes = {
        "requirements.lock": None,
        "manifest.csv": hash_file(trained / "data/phantom/manifest.csv"),
        "images.npy": hash_file(trained / "data/phantom/raw/images.npy"),
    }
    assert record["hashes"] == hashes
    assert record["weights"] == {"pretrained": None, "file": None, "sha256": None}
    assert record["recipe"]["network"]["filters"] == [4]
    assert record["recipe"]["phases"]["fit"]["optimizer"] == "adam"
    seconds = json.loads((trained / "models/.seconds/tiny/raw/cnn/0.json").read_text())
    assert seconds["train_s"] > 0
