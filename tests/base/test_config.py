import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from import_graph import ROOT
from pneumo.base import config
from pneumo.base.config import (
    Params,
    Run,
    Split,
    ThresholdMethod,
    build,
    expect_name,
    load_group,
    load_params,
)
from pneumo.base.errors import PneumoError
from pneumo.base.labels import Task
from pneumo.base.paths import run_dir, run_report_dir
from pneumo.data.sources import load_source
from pneumo.preprocessing.combo import parse_combo
from pneumo.training.recipe import BACKBONES, Monitor, Phase, Recipe, find_weights

EXPERIMENT = """\
experiment: demo
data: {source: phantom, name: phantom, n_train: 40}
split: {val_fraction: 0.25, seed: 3}
image_size_px: 64
task: subtype
combos:
  raw: []
  clahe: [{clahe: {clip_limit: 2}}]
models:
  cnn: {phases: {fit: {learning_rate: 1e-3}}}
  dense:
seeds: [7, 0]
ensembles: {}
threshold: {method: sensitivity, sensitivity: 0.9}
prevalence: 0.2
equivalence_margin: 0.01
weights_dir: weights
external: {}
"""


def find_names(group):
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def params_path(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(EXPERIMENT)
    return path


def expect_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# What conf/ holds


@pytest.mark.parametrize("group", ["data", "model", "experiment"])
def test_names_of_files_can_stand_in_params(group):
    for name in find_names(group):
        expect_name(group, name)


@pytest.mark.parametrize("name", find_names("data"))
def test_every_source_builds(name):
    required = {"local": {"path": "somewhere"}, "table": {"folder": "somewhere", "table": "images.csv"}}
    of_table = {"folder": "somewhere"} if name in ("nih", "rsna", "vindr_pcxr") else {}
    assert load_source(name, required.get(name, of_table)).title


@pytest.mark.parametrize("name", find_names("model"))
def test_every_recipe_builds(name):
    recipe = build(Recipe, load_group("model", name), name)
    assert recipe.phases


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *(ROOT / "conf/experiment").glob("*.yaml")], ids=lambda path: path.stem
)
def test_every_experiment_builds(path):
    params = load_params(path)
    assert load_source(params.source, params.data_overrides).title
    for combo, steps in params.combos.items():
        assert parse_combo(combo, steps, params.image_size_px)
    for model, overrides in params.models.items():
        assert build(Recipe, load_group("model", model, overrides), model).phases


# params.yaml


def test_params_are_read(params_path):
    params = load_params(params_path)
    assert (params.experiment, params.image_size_px, params.weights_dir) == ("demo", 64, "weights")
    assert params.task is Task.subtype
    assert params.threshold.method is ThresholdMethod.sensitivity
    assert params.split == Split(val_fraction=0.25, seed=3)
    assert params.combos == {"raw": [], "clahe": [{"clahe": {"clip_limit": 2}}]}
    assert (params.source, params.data_overrides) == ("phantom", {"n_train": 40})


def test_a_data_set_has_a_name_of_its_own(params_path):
    assert load_params(params_path).data_name == "phantom"
    params_path.write_text(params_path.read_text().replace("name: phantom", "name: other"))
    params = load_params(params_path)
    assert (params.source, params.data_name, params.data_overrides) == ("phantom", "other", {"n_train": 40})


def test_runs_stand_in_the_order_of_params(params_path):
    runs = load_params(params_path).runs
    assert [run.name for run in runs] == [
        f"{combo}/{model}/{seed}"
        for combo in ("raw", "clahe")
        for model in ("cnn", "dense")
        for seed in (7, 0)
    ]
    run = Run("demo", "clahe", "cnn", 7)
    assert run in runs
    assert run_dir(run) == Path("models/demo/clahe/cnn/7")
    assert run_report_dir(run) == Path("reports/demo/runs/clahe/cnn/7")


def test_exponents_without_a_point_are_numbers(params_path):
    overrides = load_params(params_path).models["cnn"]
    assert overrides["phases"]["fit"]["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"epochs": 3}, ["epochs"]),
        ({"combo": {"raw": []}}, ["combo:"]),
        ({"experiment": None}, ["experiment"]),
        ({"experiment": "a/b"}, ["experiment", "'a/b'"]),
        ({"experiment": "a\n"}, ["experiment"]),
        ({"experiment": "${nothing}"}, ["experiment", "nothing"]),
        ({"data": "phantom"}, ["data"]),
        ({"data": ["phantom"]}, ["data", "phantom"]),
        ({"data": {"n_train": 3}}, ["data", "source"]),
        ({"data": {"source": "phantom"}}, ["data", "name"]),
        ({"data": {"source": "../kaggle", "name": "kaggle"}}, ["data.source", "../kaggle"]),
        ({"data": {"source": "phantom", "name": "../raw"}}, ["data.name", "../raw"]),
        ({"data": {"source": "local", "name": "St. Mary"}}, ["data.name", "St. Mary"]),
        ({"split": {"val_fraction": 0.2}}, ["split.seed"]),
        ({"split": {"val_fraction": 0.2, "seed": 0, "folds": 5}}, ["split.folds"]),
        ({"split": {"val_fraction": 0, "seed": 0}}, ["split.val_fraction", "0.0"]),
        ({"split": {"val_fraction": 0.51, "seed": 0}}, ["split.val_fraction", "0.51"]),
        ({"split": {"val_fraction": float("nan"), "seed": 0}}, ["split.val_fraction"]),
        ({"split": {"val_fraction": 0.2, "seed": -1}}, ["split.seed", "-1"]),
        ({"image_size_px": 15}, ["image_size_px", "15"]),
        ({"image_size_px": 96.5}, ["image_size_px", "96.5"]),
        ({"image_size_px": "large"}, ["image_size_px", "large"]),
        ({"task": "three"}, ["task", "binary, subtype"]),
        ({"combos": {}}, ["combos"]),
        ({"combos": ["raw"]}, ["combos", "raw"]),
        ({"combos": {"a-b": []}}, ["combos", "a-b"]),
        ({"combos": {"1": []}}, ["combos", "'1'"]),
        ({"combos": {1: []}}, ["combos", "1"]),
        ({"combos": {"CLAHE": []}}, ["combos", "CLAHE"]),
        ({"combos": {"": []}}, ["combos", "''"]),
        ({"models": {}}, ["models"]),
        ({"models": ["cnn"]}, ["models", "cnn"]),
        ({"models": {"c.n": {}}}, ["models", "c.n"]),
        ({"models": {"cnn": 3}}, ["models.cnn", "3"]),
        ({"models": {"cnn": ["filters"]}}, ["models.cnn", "filters"]),
        ({"seeds": []}, ["seeds"]),
        ({"seeds": 3}, ["seeds"]),
        ({"seeds": [0, 1, 0]}, ["seeds", "[0, 1, 0]"]),
        ({"seeds": [0, -1]}, ["seeds", "-1"]),
        ({"seeds": [0, 0.5]}, ["seeds[1]", "0.5"]),
        ({"seeds": [True]}, ["seeds[0]", "True"]),
        ({"ensembles": {"a b": []}}, ["ensembles", "a b"]),
        ({"ensembles": {"both": ["raw/vgg"]}}, ["ensembles.both", "raw/vgg", "raw/"]),
        ({"ensembles": {"both": "raw"}}, ["ensembles.both"]),
        ({"threshold": {}}, ["threshold.method"]),
        ({"threshold": {"method": "best"}}, ["threshold.method", "youden, sensitivity"]),
        ({"threshold": {"method": "youden", "sensitivity": 0}}, ["threshold.sensitivity"]),
        ({"threshold": {"method": "youden", "sensitivity": 1.1}}, ["threshold.sensitivity", "1.1"]),
        ({"prevalence": 0}, ["prevalence", "0.0"]),
        ({"prevalence": 1}, ["prevalence", "1.0"]),
        ({"prevalence": None}, ["prevalence"]),
        ({"equivalence_margin": 0}, ["equivalence_margin", "0.0"]),
        ({"weights_dir": None}, ["weights_dir"]),
        ({"weights_dir": ""}, ["weights_dir"]),
    ],
    ids=str,
)
def test_a_wrong_key_type_or_value_is_named(params_path, change, parts):
    params_path.write_text(yaml.safe_dump(yaml.safe_load(EXPERIMENT) | change))
    with pytest.raises(PneumoError) as error:
        load_params(params_path)
    expect_one_line(error, str(params_path), *parts)


@pytest.mark.parametrize(
    ("change"),
    [
        {"split": {"val_fraction": 0.5, "seed": 0}},
        {"image_size_px": 16},
        {"threshold": {"method": "youden", "sensitivity": 1}},
        {"combos": {"a_1": []}},
        {"prevalence": 0.999},
    ],
    ids=str,
)
def test_values_at_the_edge_are_accepted(params_path, change):
    params_path.write_text(yaml.safe_dump(yaml.safe_load(EXPERIMENT) | change))
    load_params(params_path)


@pytest.mark.parametrize("key", [field.name for field in fields(Params)])
def test_a_missing_key_is_named(params_path, key):
    content = yaml.safe_load(EXPERIMENT)
    del content[key]
    params_path.write_text(yaml.safe_dump(content))
    with pytest.raises(PneumoError) as error:
        load_params(params_path)
    expect_one_line(error, f"missing {key}.")


@pytest.mark.parametrize("key", [field.name for field in fields(Params)])
def test_a_key_without_a_value_is_named(params_path, key):
    params_path.write_text(yaml.safe_dump(yaml.safe_load(EXPERIMENT) | {key: None}))
    with pytest.raises(PneumoError) as error:
        load_params(params_path)
    expect_one_line(error, f"{key}: Expected a value. Received: nothing")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"experiment: [demo", ["not valid YAML", "line 1"]),
        (b"\texperiment: demo", ["not valid YAML"]),
        (b"seeds: [0]\nseeds: [1]", ["not valid YAML", "duplicate key seeds"]),
        (b"experiment: d\xe9mo", ["not valid YAML", "utf-8"]),
        (b"- experiment", ["mapping"]),
        (b"", ["missing experiment, data"]),
        (EXPERIMENT.replace("raw:", "no:").encode(), ["combos", "False"]),
    ],
    ids=str,
)
def test_other_text_is_refused(params_path, content, parts):
    params_path.write_bytes(content)
    with pytest.raises(PneumoError) as error:
        load_params(params_path)
    expect_one_line(error, str(params_path), *parts)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PneumoError, match=r"params\.yaml in the current folder. Run pneumo from the project"):
        load_params(tmp_path / "params.yaml")


# Groups


def test_overrides_change_what_they_name_and_nothing_else():
    plain = load_group("model", "cnn")
    changed = load_group("model", "cnn", {"network": {"units": [8, 4]}})
    assert changed.network.units == [8, 4]
    changed.network.units = plain.network.units
    assert changed == plain == load_group("model", "cnn")


@pytest.mark.parametrize("overrides", [None, {}])
def test_no_overrides(overrides):
    assert load_group("model", "cnn", overrides) == load_group("model", "cnn")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"learning_rate": 1}, ["learning_rate"]),
        ({"phases": {"fit": {"lr": 1}}}, ["phases.fit.lr"]),
        ({"phases": {"tune": {"epochs": 1}}}, ["learning_rate"]),
        ({"network": 3}, ["network"]),
    ],
)
def test_an_override_of_an_unknown_key_is_named(overrides, parts):
    with pytest.raises(PneumoError) as error:
        build(Recipe, load_group("model", "cnn", overrides), "model cnn")
    expect_one_line(error, "model cnn", *parts)


def test_an_override_may_set_what_the_file_leaves_at_its_default():
    overrides = {"label_smoothing": 0.1, "phases": {"more": {"epochs": 1, "learning_rate": 1e-4}}}
    recipe = build(Recipe, load_group("model", "cnn", overrides), "model cnn")
    assert recipe.label_smoothing == 0.1
    assert list(recipe.phases) == ["fit", "more"]


def test_an_unknown_file_is_answered_with_those_there_are():
    with pytest.raises(PneumoError) as error:
        load_group("model", "vgg")
    expect_one_line(error, ", ".join(find_names("model")), "Received: vgg")


@pytest.mark.parametrize("content", [b"network: {name: cnn\nbatch_size: 3", b"\xff", b"defaults: [nothing]"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, content):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/model/mine.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PneumoError) as error:
        load_group("model", "mine")
    expect_one_line(error, "conf/model/mine.yaml")


def test_an_error_in_another_group_plays_no_part(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/tune/cnn.yaml").write_text("n_trials: [")
    monkeypatch.chdir(tmp_path)
    assert load_group("data", "phantom") == load_group("data", "phantom", {})
    with pytest.raises(PneumoError) as error:
        load_group("tune", "cnn")
    expect_one_line(error, "conf/tune/cnn.yaml: cannot be read")


# Recipes


@pytest.fixture(scope="module")
def recipes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CONF_PATH", ROOT / "conf")
        return {name: load_group("model", name) for name in ("cnn", "dense", "mobilenet_finetuned")}


def change_recipe(recipe, key, value):
    changed = recipe.copy()
    OmegaConf.update(changed, key, value, merge=False, force_add=True)
    return changed


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("cnn", "network.name", "vgg11"),
        ("cnn", "network.input_size_px", 15),
        ("cnn", "network.filters", []),
        ("cnn", "network.filters", [8, 0]),
        ("dense", "network.filters", [8]),
        ("mobilenet_finetuned", "network.filters", [8]),
        ("cnn", "network.stem", "resnet50"),
        ("dense", "network.stem", "vgg16"),
        ("cnn", "network.units", [0]),
        ("cnn", "network.dropout", 1.0),
        ("cnn", "network.dropout", -0.1),
        ("cnn", "network.weights", "noisy"),
        ("cnn", "network", None),
        ("cnn", "batch_size", 0),
        ("cnn", "batch_size", "many"),
        ("cnn", "balance_classes", "sometimes"),
        ("cnn", "label_smoothing", 1.0),
        ("cnn", "monitor", "auc"),
        ("cnn", "phases", {}),
        ("cnn", "phases.fit", 3),
        ("cnn", "phases.fit.epochs", 0),
        ("cnn", "phases.fit.learning_rate", 0),
        ("cnn", "phases.fit.learning_rate", float("nan")),
        ("cnn", "phases.fit.trainable", "head"),
        ("dense", "phases.fit.trainable", "last_2"),
        ("mobilenet_finetuned", "phases.finetune.trainable", "last_0"),
        ("mobilenet_finetuned", "phases.finetune.trainable", "tail"),
        ("mobilenet_finetuned", "phases.finetune.optimizer", "lion"),
        ("mobilenet_finetuned", "phases.finetune.schedule", "steps"),
        ("mobilenet_finetuned", "phases.finetune.weight_decay", -0.1),
        ("mobilenet_finetuned", "phases.head.patience", 0),
        ("mobilenet_finetuned", "augmentation.rotation_degrees", 181),
        ("mobilenet_finetuned", "augmentation.shift_fraction", 1.0),
        ("mobilenet_finetuned", "augmentation.zoom_fraction", -0.1),
        ("mobilenet_finetuned", "augmentation.brightness_fraction", 1.0),
        ("mobilenet_finetuned", "augmentation.contrast_fraction", 1.0),
        ("mobilenet_finetuned", "augmentation.flips", True),
    ],
)
def test_a_wrong_value_in_a_recipe_is_named(recipes, name, key, value):
    with pytest.raises(PneumoError) as error:
        build(Recipe, change_recipe(recipes[name], key, value), "model x")
    expect_one_line(error, "model x: ", key.rpartition(".")[2])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phases.finetune.trainable", "last_20"),
        ("phases.head.patience", None),
        ("network.weights", "random"),
        ("augmentation.rotation_degrees", 180),
    ],
)
def test_other_values_in_a_recipe_are_accepted(recipes, key, value):
    build(Recipe, change_recipe(recipes["mobilenet_finetuned"], key, value), "model x")


@pytest.mark.parametrize(
    ("trainable", "augment", "uses_features"),
    [("head", False, True), ("head", True, False), ("all", False, False), ("last_3", False, False)],
)
def test_only_a_head_without_augmentation_can_use_features(trainable, augment, uses_features):
    phase = Phase(epochs=1, learning_rate=0.1, trainable=trainable, augment=augment)
    assert phase.uses_features == uses_features


@pytest.mark.parametrize("monitor", Monitor)
def test_only_of_loss_less_is_better(monitor):
    assert monitor.mode == ("min" if monitor is Monitor.val_loss else "max")


@pytest.mark.parametrize("name", BACKBONES)
def test_weights_are_found_or_left_to_keras(tmp_path, name):
    assert find_weights(name, tmp_path) is None
    path = tmp_path / f"{name}_imagenet_notop.weights.h5"
    path.touch()
    assert find_weights(name, tmp_path) == path
