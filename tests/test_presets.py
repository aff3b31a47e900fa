"""Presets of the earlier systems, end to end on a few phantoms: one epoch a phase, random weights."""

import contextlib
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from pneumo.base.config import build, load_group, load_params
from pneumo.cli import main
from pneumo.domain.recipe import BACKBONES, Recipe
from tiny_project import ROOT

PRESETS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("seed_*.yaml"))
SIZE_PX = 32


def shrink_preset(preset):
    """Return the content of a preset's params.yaml, made small."""
    params = yaml.safe_load((ROOT / f"conf/experiment/{preset}.yaml").read_text())
    for model in params["models"]:
        recipe = build(Recipe, load_group("model", model), model)
        least = BACKBONES[recipe.network.name].min_size_px if recipe.network.has_backbone else 16
        network = {"input_size_px": max(SIZE_PX, least), "weights": "random"}
        phases = {name: {"epochs": 1} for name in recipe.phases}
        params["models"][model] = {"network": network, "phases": phases, "batch_size": 16}
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
def test_the_label_leak_is_in_the_grey_values(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(shrink_preset("seed_000"), sort_keys=False))
    with contextlib.chdir(tmp_path):
        assert main(["download"]) == 0
        script = [sys.executable, ROOT / "examples/label_leak.py", "data/raw/phantom", "--epochs", "1"]
        result = subprocess.run(
            [*script, "--output", "leak.json"], capture_output=True, text=True, check=True
        )
        leak = yaml.safe_load((tmp_path / "leak.json").read_text())
    assert "order by class" in result.stdout
    assert leak["order by class"]["rule"]["roc_auc"] > 0.95
    assert leak["one order"]["rule"]["roc_auc"] < 0.8
