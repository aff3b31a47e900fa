import copy

import numpy as np
import pandas as pd

from pneumo.report.provenance import (
    find_same_images,
    list_fixed_models,
    list_inputs,
    tabulate_environments,
    update_seconds,
)
from workspace import RECORD


def change(**values):
    return copy.deepcopy(RECORD) | values


def test_runs_of_one_environment_are_one_row():
    table = tabulate_environments({f"raw/cnn/{seed}": RECORD for seed in range(3)})
    assert len(table) == 1
    assert table["n_runs"][0] == 3
    assert table["runs"][0] == "raw/cnn/0, raw/cnn/1, raw/cnn/2"
    assert table["versions"][0] == "python 3.11.0, keras 3.0.0"
    assert table["lock"][0] == "-"


def test_another_version_processor_device_or_lock_is_another_row_the_commonest_first():
    records = {
        "a/cnn/0": change(versions=RECORD["versions"] | {"keras": "3.1.0"}),
        "b/cnn/0": RECORD,
        "c/cnn/0": RECORD,
        "d/cnn/0": change(processor="another"),
        "e/cnn/0": change(device="gpu:0"),
        "f/cnn/0": change(hashes=RECORD["hashes"] | {"requirements.lock": "f" * 64}),
    }
    table = tabulate_environments(records)
    assert table["runs"].tolist() == ["b/cnn/0, c/cnn/0", "a/cnn/0", "d/cnn/0", "e/cnn/0", "f/cnn/0"]
    assert table["lock"].tolist()[-1] == "f" * 12


def test_inputs_are_named_once():
    weights = {"pretrained": "mobilenet", "file": "mobilenet.h5", "sha256": "w"}
    records = {
        "raw/cnn/0": RECORD,
        "raw/cnn/1": RECORD,
        "clahe/cnn/0": change(weights=weights, hashes=RECORD["hashes"] | {"images.npy": "j"}),
    }
    assert list_inputs(records) == {
        "manifest.csv": "m",
        "images.npy of raw": "i",
        "images.npy of clahe": "j",
        "mobilenet.h5": "w",
    }


KEY, OTHER = ("raw", "cnn", 0), ("raw", "cnn", 1)


def test_combos_with_the_same_images_are_found():
    hashes = {"raw": "a", "trim": "a", "clahe": "b", "equalize": "c", "twice": "c"}
    records = {
        f"{combo}/cnn/{seed}": change(hashes=RECORD["hashes"] | {"images.npy": each})
        for combo, each in hashes.items()
        for seed in (0, 1)
    }
    assert find_same_images(records) == [["raw", "trim"], ["equalize", "twice"]]
    assert find_same_images({"raw/cnn/0": RECORD, "raw/cnn/1": RECORD}) == []


def test_a_model_that_varies_images_in_one_phase_does_not_see_them_as_they_are():
    phases = {"head": {"augment": False}, "finetune": {"augment": True}}
    records = {"raw/cnn/0": RECORD, "raw/big/0": change(recipe={"phases": phases})}
    assert list_fixed_models(records) == ["cnn"]


def test_seconds_stay_as_long_as_the_predictions_do():
    first = update_seconds(None, {KEY: 7.0, OTHER: 8.0}, {KEY: "a", OTHER: "b"})
    assert first["train_s"].tolist() == [7.0, 8.0]
    second = update_seconds(first, {KEY: 70.0, OTHER: 80.0}, {KEY: "a", OTHER: "c"})
    assert second["train_s"].tolist() == [7.0, 80.0]
    assert second["predictions"].tolist() == ["a", "c"]


def test_seconds_survive_the_way_through_a_file(tmp_path):
    table = update_seconds(None, {KEY: 7.1, OTHER: None}, {KEY: "a", OTHER: "b"})
    table.to_csv(tmp_path / "seconds.csv", index=False, float_format="%.6g")
    read = pd.read_csv(tmp_path / "seconds.csv")
    again = update_seconds(read, {KEY: None, OTHER: 9.0}, {KEY: "a", OTHER: "b"})
    assert again["train_s"].tolist() == [7.1, 9.0]


def test_seconds_of_a_run_trained_elsewhere_are_unknown():
    table = update_seconds(None, {KEY: None}, {KEY: "a"})
    assert np.isnan(table["train_s"][0])
