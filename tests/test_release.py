"""The released model, and that its card says what it holds."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from import_graph import ROOT
from pneumo.base.config import load_group
from pneumo.commands.predict import RELEASE_PATH
from pneumo.prediction.bundle import Bundle
from pneumo.prediction.explainer import can_explain
from pneumo.prediction.predictor import Predictor

RELEASE = ROOT / RELEASE_PATH
SHOWN = {
    "ROC AUC": "roc_auc",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


@pytest.fixture(scope="module")
def bundle():
    return Bundle(RELEASE)


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle)


def test_it_is_small_and_explains_itself_without_keras(bundle, predictor):
    assert RELEASE.stat().st_size < 10e6
    assert bundle.formats == [".onnx"]
    assert can_explain(bundle, predictor)


def test_the_card_states_its_metrics(bundle):
    text = (RELEASE.parent / "README.md").read_text()
    rows = dict(re.findall(r"^\| ([a-zA-Z ]+) \| (\d.*\d) \|$", text, re.MULTILINE))
    for name, key in SHOWN.items():
        metric = bundle.card.metrics[key]
        assert rows[name] == f"{metric.value:.3f} | {metric.low:.3f} to {metric.high:.3f}"
    assert f"{bundle.card.n_test} images" in text
    assert f"`{bundle.card.runs[0]}`" in text


def test_it_was_trained_by_the_committed_recipe(bundle):
    _, _, model, _ = bundle.card.runs[0].split("/")
    stored, recipe = bundle.card.provenance[0]["recipe"], load_group("model", model)
    assert {key: stored[key] for key in recipe if key not in ("network", "augmentation", "phases")} == {
        key: value for key, value in recipe.items() if key not in ("network", "augmentation", "phases")
    }
    for part in ("network", "augmentation"):
        for key, value in recipe[part].items():
            assert stored[part][key] == value
    assert list(stored["phases"]) == list(recipe["phases"])
    for name, phase in recipe["phases"].items():
        for key, value in phase.items():
            assert stored["phases"][name][key] == value


def test_noise_is_unlike_its_training_images(predictor):
    size_px = predictor.card.size_px
    noise = np.random.default_rng(0).integers(0, 256, (8, size_px, size_px), dtype=np.uint8)
    assert all(verdict.is_unlike_training for verdict in predictor.judge(noise))


ARCHIVE = Path(os.environ.get("PNEUMO_REAL_DATA", ""), "chest_xray_224.zip")


@pytest.mark.real_images
@pytest.mark.skipif(
    not ARCHIVE.is_file(), reason=f"needs the real images: PNEUMO_REAL_DATA has no {ARCHIVE.name}"
)
def test_it_does_on_the_test_set_what_its_card_says(bundle, predictor, tmp_path):
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if re.search(r"/test/\w+/.*\.jpe?g$", f"/{name}")]
        archive.extractall(tmp_path, names)
    paths = [tmp_path / name for name in names]
    verdicts = [prediction.verdict for prediction in predictor.predict(paths)]
    truth = np.array([path.parent.name.lower() for path in paths])
    labels = np.array([verdict.label for verdict in verdicts])
    assert len(paths) == bundle.card.n_test
    assert np.mean(labels == truth) == pytest.approx(bundle.card.metrics["accuracy"].value)
    for name, label in (("sensitivity", "pneumonia"), ("specificity", "normal")):
        assert np.mean(labels[truth == label] == label) == pytest.approx(bundle.card.metrics[name].value)
    assert np.mean([verdict.is_unlike_training for verdict in verdicts]) < 0.05


def test_it_answers_without_tensorflow(tmp_path):
    image = tmp_path / "grey.png"
    Image.fromarray(np.full((64, 64), 128, np.uint8)).save(image)
    code = (
        "import sys; from pneumo.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'keras', 'jax'} & set(sys.modules); assert not heavy, heavy; sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "predict", str(image), "--model", str(RELEASE), "--explain"]
    done = subprocess.run([*command, str(tmp_path / "maps")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"grey\.png: (normal|pneumonia) \(probability of pneumonia \d\.\d{3}, threshold", done.stdout
    )
    assert len(list((tmp_path / "maps").iterdir())) == 1
