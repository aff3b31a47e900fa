"""A run on the local engine gives the bytes of `pneumo train` in a process of its own."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pneumo.base.config import build, load_group, load_params
from pneumo.base.paths import run_dir
from pneumo.commands.sweep import MODULES, TARGET
from pneumo.execution.engine import Call
from pneumo.execution.local import LocalEngine
from pneumo.training.recipe import BACKBONES, Recipe
from tiny_project import ROOT
from workspace import read_all

RECIPES = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
QUICK = ("best_fast", "cnn", "mobilenet_frozen")
SIZE_PX = 32
TIMEOUT_S = 1200


@pytest.fixture
def data(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    return workspace


def shrink(recipe):
    """Return what to override in a recipe so that it trains in seconds: fewer pixels and epochs."""
    built = build(Recipe, load_group("model", recipe), recipe)
    least = BACKBONES[built.network.name].min_size_px if built.network.has_backbone else 16
    network = {"input_size_px": max(SIZE_PX, least), "weights": "random"}
    return {"network": network, "phases": {name: {"epochs": 2} for name in built.phases}, "batch_size": 16}


def use_models(workspace, recipes):
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params["models"] = {recipe: shrink(recipe) for recipe in recipes}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return [run for run in load_params().runs if run.combo == "raw"]


def list_commands(run):
    train = ["train", "--combo", run.combo, "--model", run.model, "--seed", str(run.seed)]
    return {"weights": ["weights", "--model", run.model], "train": train}


def run_alone(runs):
    """Train each run in a process that runs nothing else; return the files of all."""
    for run in runs:
        for command in list_commands(run).values():
            environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            script = "import sys; from pneumo.cli import main; sys.exit(main(sys.argv[1:]))"
            subprocess.run([sys.executable, "-c", script, *command], check=True, env=environment)
    return take_files(runs)


def run_on_engine(runs, n_workers):
    """Train all runs on an engine, its workers used by one run after the other."""
    with LocalEngine(n_workers, Path("logs"), MODULES) as engine:
        for stage in ("weights", "train"):
            for run in runs:
                engine.submit(Call(f"{stage} {run.name}", TARGET, (list_commands(run)[stage],)))
            left, deadline = len(runs), time.monotonic() + TIMEOUT_S
            while left:
                assert time.monotonic() < deadline
                for outcome in engine.wait(1):
                    assert (outcome.error, outcome.value) == (None, 0)
                    left -= 1
    return take_files(runs)


def take_files(runs):
    files = {run.name: read_all(run_dir(run)) for run in runs}
    for folder in ("models", "data/.features"):
        shutil.rmtree(folder, ignore_errors=True)
    return files


def assert_same(runs):
    alone, beside = run_alone(runs), run_on_engine(runs, n_workers=2)
    for run in runs:
        names = {str(path) for path in alone[run.name]}
        assert names - {"views.webp"} == {"model.keras", "history.csv", "predictions.csv", "run.json"}
        assert beside[run.name] == alone[run.name]


@pytest.mark.promise
def test_quick_recipes_give_the_same_bytes(data):
    assert_same(use_models(data, QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_gives_the_same_bytes(data, recipe):
    assert_same(use_models(data, [recipe, "dense"]))


@pytest.mark.slow
def test_jax_trains_best_fast_to_the_same_bytes_twice(data, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    runs = use_models(data, ["best_fast"])[:1]
    first = run_alone(runs)
    assert '"backend": "jax"' in first[runs[0].name][Path("run.json")].decode()
    assert run_alone(runs) == first


@pytest.mark.slow
def test_bytes_depend_on_the_threads_of_the_recipe_and_not_on_those_of_the_machine(data, monkeypatch):
    runs = use_models(data, ["cnn"])
    one = run_alone(runs)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert run_alone(runs) == one
    path = data / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["models"]["cnn"]["threads"] = 2
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    two = run_alone(runs)
    assert two["raw/cnn/0"][Path("predictions.csv")] != one["raw/cnn/0"][Path("predictions.csv")]
