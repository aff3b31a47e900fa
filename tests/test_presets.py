"""Presets and recipes, made small: one epoch a phase, random weights, a few images."""

import contextlib
import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from pneumo.base.config import build, load_group, load_params
from pneumo.cli import main
from pneumo.training.recipe import BACKBONES, Recipe
from tiny_project import ROOT

PRESETS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("system_*.yaml"))
RECIPES = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
SIZE_PX = 32

# Trains recipes on noise and prints the hash of each model file and of its predictions.
TRAINER = """
import hashlib, json, sys
from pathlib import Path

import keras
import numpy as np

from pneumo.base.config import build, load_group
from pneumo.base.reproducibility import make_deterministic
from pneumo.prediction.bundle import Card, save_bundle
from pneumo.training.networks import build_classifier
from pneumo.training.recipe import Recipe
from pneumo.training.fit import TrainingData, fit_classifier, predict_probabilities

make_deterministic()
size_px, folder, recipes = int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
images = np.random.default_rng(0).integers(0, 256, (40, size_px, size_px, 1), dtype=np.uint8)
rows, classes = np.arange(40), np.arange(40) % 2
data = TrainingData(images, rows[:32], classes[:32], rows[32:], classes[32:], 2)
for name, overrides in recipes.items():
    keras.backend.clear_session()
    recipe = build(Recipe, load_group("model", name, overrides), name)
    classifier = build_classifier(recipe, images.shape[1:], 2, 0, None)
    fit_classifier(classifier, recipe, data, 0, lambda: classifier.extractor.predict(images, verbose=0))
    path = folder / f"{name}.keras"
    save_bundle(classifier.model, Card(["normal", "pneumonia"], [], 0.5, "noise"), path)
    scores = predict_probabilities(classifier.model, images, rows).tobytes()
    print("hash", name, hashlib.sha256(path.read_bytes() + scores).hexdigest())
"""


def shrink_recipe(model):
    """Return what to override in a recipe to make it small."""
    recipe = build(Recipe, load_group("model", model), model)
    least = BACKBONES[recipe.network.name].min_size_px if recipe.network.has_backbone else 16
    network = {"input_size_px": max(SIZE_PX, least), "weights": "random"}
    phases = {name: {"epochs": 1} for name in recipe.phases}
    return {"network": network, "phases": phases, "batch_size": 16}


def shrink_preset(preset):
    """Return the content of a preset's params.yaml, made small."""
    params = yaml.safe_load((ROOT / f"conf/experiment/{preset}.yaml").read_text())
    params["models"] = {model: shrink_recipe(model) for model in params["models"]}
    small = {"data": {"source": "phantom", "n_train": 60, "n_val": 6, "n_test": 24}, "image_size_px": SIZE_PX}
    return params | small | {"seeds": [0]}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_preset_runs_end_to_end(preset, tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    with contextlib.chdir(tmp_path):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(shrink_preset(preset), sort_keys=False))
        params = load_params()
        assert main(["check"]) == 0
        for stage in ("download", "prepare"):
            assert main([stage]) == 0
        for combo in params.combos:
            assert main(["preprocess", "--combo", combo]) == 0
        for run in params.runs:
            options = ["--combo", run.combo, "--model", run.model, "--seed", str(run.seed)]
            for stage in ("train", "evaluate"):
                assert main([stage, *options]) == 0
        for combo in params.combos:
            for stage in ("explain", "external"):
                assert main([stage, "--combo", combo]) == 0
        for stage in ("audit", "compare"):
            assert main([stage]) == 0
        leaderboard = pd.read_csv(f"reports/{preset}/leaderboard.csv")
        assert len(leaderboard) == len(params.combos) * len(params.models)
        assert leaderboard["accuracy"].between(0, 1).all()


@pytest.mark.slow
def test_every_recipe_gives_the_same_bytes_twice(tmp_path):
    recipes = json.dumps({name: shrink_recipe(name) for name in RECIPES})
    found = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        script = [sys.executable, "-c", TRAINER, str(SIZE_PX), folder, recipes]
        result = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        found.append([line for line in result.stdout.splitlines() if line.startswith("hash ")])
    assert [line.split()[1] for line in found[0]] == RECIPES
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_label_leak_is_in_the_grey_values(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(shrink_preset("system_000"), sort_keys=False))
    with contextlib.chdir(tmp_path):
        assert main(["download"]) == 0
        script = [sys.executable, ROOT / "examples/label_leak.py", "data/raw/phantom", "--epochs", "1"]
        result = subprocess.run(
            [*script, "--output", "leak.json"], capture_output=True, text=True, check=True
        )
        leak = yaml.safe_load((tmp_path / "leak.json").read_text())
    assert "order by class" in result.stdout
    rule = {name: row["rule"]["roc_auc"] for name, row in leak["rows"].items()}
    assert rule["order by class"] > 0.95
    assert rule["one order"] < 0.8
    assert rule["classes drawn at random, order by class"] > 0.95
    assert leak["n_epochs"] == 1
