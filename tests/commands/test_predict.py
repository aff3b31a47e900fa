"""From image files and a bundle to lines and tables."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.base.errors import PneumoError
from pneumo.cli import main
from pneumo.commands import predict
from pneumo.commands.predict import format_prediction
from pneumo.prediction.predictor import Prediction, Verdict

ONNX_START_LIMIT_S = 8  # it takes about 1; a guard, no measure


@pytest.fixture(autouse=True)
def _here(exported, monkeypatch):
    monkeypatch.chdir(exported)


@pytest.fixture
def images(tmp_path):
    """Fill a folder with two good images, a broken one and what is no image."""
    good = next(Path("data/raw/phantom/test/NORMAL").iterdir())
    folder = tmp_path / "in"
    (folder / "below").mkdir(parents=True)
    for name in ("b.jpeg", "below/a.JPEG"):
        shutil.copyfile(good, folder / name)
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("left out")
    return folder


def test_a_folder_and_files_are_read_and_bad_ones_named(images, capsys):
    assert main(["predict", str(images), str(images / "gone.png"), "--model", "model.pneumo"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.partition(":")[0].rpartition("/")[2] for line in lines] == [
        "b.jpeg",
        "a.JPEG",
        "broken.png",
        "gone.png",
    ]
    assert "(probability of pneumonia 0." in lines[0]
    assert ", threshold 0." in lines[0]
    assert "not read: not a readable JPEG, PNG" in lines[2]
    assert lines[3].endswith("not read: No such file or directory")
    assert captured.err == "pneumo: 2 of 4 files could not be read.\n"


def test_patterns_are_expanded(images, capsys):
    assert main(["predict", f"{images}/**/*.[jJ]*", "--model", "model.pneumo"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["predict", f"{images}/*.tiff", "--model", "model.pneumo"]) == 1
    assert "Expected files that match. Received: none." in capsys.readouterr().err
    shutil.copyfile(images / "b.jpeg", images / "scan[1].jpeg")
    assert main(["predict", f"{images}/scan[1].jpeg", "--model", "model.pneumo"]) == 0


def test_a_folder_without_images_is_an_error(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--model", "model.pneumo"]) == 1
    assert "Received: a folder without any" in capsys.readouterr().err


def test_tables(images, tmp_path, capsys):
    csv_path, json_path = tmp_path / "out.csv", tmp_path / "out.json"
    options = ["--csv", str(csv_path), "--json", str(json_path)]
    assert main(["predict", str(images), "--model", "model.pneumo", *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "broken.png: not read: not a readable" in captured.err
    rows = json.loads(json_path.read_text())
    assert list(rows[0]) == [
        *("path", "label", "p_normal", "p_pneumonia", "threshold", "novelty", "unlike", "error"),
    ]
    assert [Path(row["path"]).name for row in rows] == ["b.jpeg", "a.JPEG", "broken.png"]
    assert rows[0]["p_normal"] + rows[0]["p_pneumonia"] == pytest.approx(1)
    assert rows[0]["label"] == ("pneumonia" if rows[0]["p_pneumonia"] >= rows[0]["threshold"] else "normal")
    assert rows[0]["unlike"] == (rows[0]["novelty"] > 1)
    assert [row["error"] is None for row in rows] == [True, True, False]
    assert set(rows[2].values()) == {None, rows[2]["path"], rows[2]["error"]}
    with csv_path.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [list(row.values()) for row in table] == [
        ["" if value is None else str(value) for value in row.values()] for row in rows
    ]


def test_explanations(images, tmp_path, capsys):
    folder = tmp_path / "pictures"
    table = tmp_path / "out.json"
    options = ["--explain", str(folder), "--json", str(table)]
    assert main(["predict", str(images), "--model", "both.pneumo", *options]) == 1
    names = [row["explanation"] for row in json.loads(table.read_text())]
    assert names == ["00000_b.png", "00001_a.png", None]
    assert sorted(path.name for path in folder.iterdir()) == names[:2]
    picture = np.asarray(Image.open(folder / names[0]))
    assert picture.shape == (32, 32, 3)
    assert np.ptp(picture.astype(int), axis=2).max() > 50  # there is colour in it
    capsys.readouterr()
    assert main(["predict", str(images), "--model", "onnx.pneumo", *options]) == 1
    assert "Expected networks in Keras" in capsys.readouterr().err


def test_the_released_model_is_the_default(images, tmp_path, monkeypatch, capsys):
    model = Path("model.pneumo").absolute()
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(images / "b.jpeg")]) == 1
    assert "Expected a model, or models/release/model.pneumo in this folder" in capsys.readouterr().err
    Path("models/release").mkdir(parents=True)
    shutil.copyfile(model, predict.RELEASE_PATH)
    assert main(["predict", str(images / "b.jpeg")]) == 0


def test_onnx_runs_without_keras_and_starts_quickly(images):
    script = """
import json, sys, time
start = time.process_time()
from pneumo.cli import main
status = main(["predict", sys.argv[1], "--model", "onnx.pneumo"])
heavy = {"keras", "tensorflow", "jax", "torch", "onnx", "matplotlib", "sklearn", "pandas"} & set(sys.modules)
print(json.dumps([status, sorted(heavy), time.process_time() - start]))
"""
    command = [sys.executable, "-c", script, str(images / "b.jpeg")]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    status, heavy, seconds = json.loads(process.stdout.splitlines()[-1])
    assert status == 0
    assert heavy == []
    assert seconds < ONNX_START_LIMIT_S


def test_onnx_runtime_reports_nothing_to_its_makers(images, tmp_path):
    # Where it does, it keeps what it is going to send in files here.
    home = tmp_path / "home"
    home.mkdir()
    script = "import sys; from pneumo.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "predict", str(images / "b.jpeg"), "--model", "onnx.pneumo"]
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(home))
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(command, env=environment | places, check=True)
    assert list(home.iterdir()) == []


class TestFormat:
    def test_more_classes_have_no_threshold(self):
        verdict = Verdict("bacterial", {"normal": 0.1, "bacterial": 0.7, "viral": 0.2}, None, 0.5)
        line = format_prediction(Prediction(Path("a.png"), None, verdict))
        assert line == "a.png: bacterial (probabilities: normal 0.100, bacterial 0.700, viral 0.200)"

    @pytest.mark.parametrize(("novelty", "warns"), [(None, False), (0.9, False), (1.1, True)])
    def test_an_image_unlike_those_of_training_gets_a_warning(self, novelty, warns):
        verdict = Verdict("normal", {"normal": 0.9, "pneumonia": 0.1}, 0.4, novelty)
        line = format_prediction(Prediction(Path("a.png"), None, verdict))
        assert line.startswith("a.png: normal (probability of pneumonia 0.100, threshold 0.400)")
        assert line.endswith("; unlike the training images, so do not rely on this") == warns


def test_a_model_must_be_named_or_released(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PneumoError, match="Expected a model"):
        predict.find_model(None)
    assert predict.find_model(Path("x.pneumo")) == Path("x.pneumo")
