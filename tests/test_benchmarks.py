import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import system_001
from hostile import jpeg

ROOT = Path(__file__).parent.parent
N_IMAGES_A_CLASS = 10


@pytest.fixture
def images_dir(tmp_path):
    for i, name in enumerate(("NORMAL", "PNEUMONIA")):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for j in range(N_IMAGES_A_CLASS):
            (folder / f"{j}.jpeg").write_bytes(jpeg(seed=2 * j + i))
    return tmp_path / "images"


def run_benchmark(name, *args, output):
    command = [sys.executable, f"benchmarks/{name}.py", *map(str, args), "--output", str(output)]
    finished = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, json.loads(output.read_text())


def test_preprocessing(images_dir, tmp_path):
    table, result = run_benchmark(
        "preprocessing", images_dir, "--rounds", 3, "--copies", 1, 20, output=tmp_path / "result.json"
    )
    assert result["n_files"] == 2 * N_IMAGES_A_CLASS
    assert set(result["speed"]) == {"raw", "clahe", "crop_clahe"}
    for row in result["speed"].values():
        assert 0 < row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert row["decode_images_per_s"] > 0
        assert row["preprocess_images_per_s"] > 0
    few_mb, many_mb = (result["peak_memory_mb_by_n_images"][str(n)] for n in (20, 400))
    assert 20 < few_mb < 1000
    assert many_mb < few_mb + 100
    assert "crop_clahe" in table
    assert "of preprocessing 400 images" in table


def test_preprocessing_names_a_folder_without_images(tmp_path):
    command = [sys.executable, "benchmarks/preprocessing.py", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert f"Expected image files in {tmp_path}. Received: none" in finished.stderr


@pytest.mark.slow
def test_augmentation(tmp_path):
    options = ("--n-images", 32, "--rounds", 2, "--size-px", 32)
    table, result = run_benchmark("augmentation", *options, output=tmp_path / "result.json")
    for clock in ("wall", "processor"):
        rows = result["seconds"][clock]
        assert list(rows) == ["none", "chain of layers", "random view"]
        assert rows["none"]["ratio"] == 1
        for row in rows.values():
            assert row["epoch_s"] > 0
            assert 0 < row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    assert "random view" in table


@pytest.fixture
def weights_dir(tmp_path):
    import keras

    backbone = keras.applications.MobileNet(
        alpha=0.75, include_top=False, weights=None, input_shape=(224, 224, 3)
    )
    backbone.save_weights(tmp_path / "mobilenet075_imagenet_notop.weights.h5")
    return tmp_path


@pytest.mark.slow
def test_frozen_features(images_dir, weights_dir, tmp_path):
    table, result = run_benchmark(
        "frozen_features",
        images_dir,
        *("--model", "mobilenet_frozen", "--weights-dir", weights_dir),
        *("--n-images", 15, "--epochs", 2, "--n-second-heads", 1),
        output=tmp_path / "result.json",
    )
    assert result["n_images"] == 15
    assert set(result["usual_way"]["parts_s"]) == {"build", "first epoch", "later epochs"}
    assert set(result["first_head"]["parts_s"]) == {"preprocess", "build", "features", "fit"}
    [second] = result["second_heads"]
    assert set(second["parts_s"]) == {"build", "features", "fit"}
    assert second["parts_s"]["features"] < result["first_head"]["parts_s"]["features"]
    for timing in (result["usual_way"], result["first_head"], second):
        assert 0 <= timing["val_auc"] <= 1
    assert "second head (median)" in table


@pytest.mark.slow
def test_system_001(weights_dir, tmp_path):
    names = {"NORMAL": ["IM-{:04}-0001"], "PNEUMONIA": ["person{}_bacteria_1", "person{}_virus_1"]}
    for folder, forms in names.items():
        path = tmp_path / "data/train" / folder
        path.mkdir(parents=True)
        for i in range(10 * len(forms)):
            (path / f"{forms[i % len(forms)].format(i)}.jpeg").write_bytes(jpeg(seed=len(folder) + i))
    options = ("--n-images", 15, "--copies", 2, "--epochs", 2, "--weights-dir", weights_dir)
    table, result = run_benchmark("system_001", tmp_path / "data", *options, output=tmp_path / "result.json")
    assert result["n_images"] == 30
    for way in ("usual_way", "here"):
        assert list(result[way]) == [f"system_001_{letter}" for letter in "abcdef"]
        assert list(result[way]["system_001_e"]["phases"]) == ["head", "finetune"]
        for timing in result[way].values():
            assert all(len(phase["epoch_s"]) == 2 for phase in timing["phases"].values())
    totals_s = {way: sum(result["extrapolated_s"][way].values()) for way in ("usual_way", "here")}
    here_s = totals_s["here"] + result["preprocess_s"] * result["n_images_extrapolated"] / 30
    assert result["ratio"] == pytest.approx(totals_s["usual_way"] / here_s)
    assert "together" in table


def test_extrapolation_counts_once_what_happens_once():
    phase = system_001.PhaseTiming(epoch_s=[5.0, 2.0, 2.2, 2.1], total_s=12.3)
    # Later epochs take 2.1 s; 3.9 s of the measured ones are compiling.
    assert phase.extrapolate(n_epochs=10, scale=3) == pytest.approx(3.9 + 10 * 3 * 2.1)
    timing = system_001.ModelTiming(fixed_s=1.0, per_image_s=4.0, phases={"fit": phase})
    assert timing.total_s == pytest.approx(17.3)
    recipe = SimpleNamespace(phases={"fit": SimpleNamespace(epochs=10)})
    assert timing.extrapolate(recipe, scale=3) == pytest.approx(1 + 3 * 4 + 3.9 + 63)


@pytest.mark.slow
def test_scale(tmp_path):
    table, result = run_benchmark(
        "scale", "--n-images", 300, "--image-px", 64, "--size-px", 32, output=tmp_path / "result.json"
    )
    stages = result["stages"]["300"]
    assert {"prepare", "audit", "preprocess raw", "train", "compare"} <= set(stages)
    for measured in stages.values():
        assert measured["seconds"] > 0
        assert 20 < measured["peak_mb"] < 3000
    assert "predictions.csv" in table


@pytest.mark.slow
def test_gpu(tmp_path):
    options = ("--n-images", 8, "--size-px", 32, "--batch-size", 4, "--epochs", 1, "--cpu")
    table, result = run_benchmark("gpu", *options, output=tmp_path / "result.json")
    assert list(result) == ["MobileNet 0.75", "DenseNet121"]
    for row in result.values():
        assert row["images_per_s"] > 0
        assert 0 <= row["input_share"] < 1
        assert row["ratio_to_cpu"] == pytest.approx(row["images_per_s"] / row["cpu"]["images_per_s"])
    assert table.count("\n") == 4


@pytest.mark.slow
def test_cpu(tmp_path):
    options = ("--n-images", 8, "--size-px", 32, "--batch-size", 4, "--rounds", 2, "--threads", 1)
    options = (*options, "--networks", "MobileNet 0.75")
    table, result = run_benchmark("cpu", *options, output=tmp_path / "result.json")
    assert result["threads"] == 1
    ways = result["ways"]["MobileNet 0.75"]
    assert {"here", "Keras, usual way", "PyTorch"} <= set(ways["training"])
    assert {"here", "Keras, usual way", "ONNX Runtime", "OpenVINO"} <= set(ways["features"])
    for task in ways.values():
        assert task["here"]["ratio"] == 1
        for row in filter(None, task.values()):
            assert row["images_per_s"] > 0
            assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    assert ways["features"]["ONNX Runtime"] is not None
    assert table.count("\n") == 2 + sum(map(len, ways.values()))
