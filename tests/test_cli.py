import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import pneumo.stages
from import_graph import ROOT
from pneumo.base.config import Run, load_params
from pneumo.base.errors import PneumoError
from pneumo.cli import main
from pneumo.training.recipe import BACKBONES

PARAMS = """\
experiment: small
data: {source: phantom, n_train: 40}
split: {val_fraction: 0.2, seed: 0}
image_size_px: 32
task: binary
combos:
  raw: []
  trim_clahe: [trim, {clahe: {tiles: 4}}]
models:
  dense: {}
  mobilenet_frozen: {}
seeds: [0, 1, 2]
threshold: {method: youden}
weights_dir: null
external: {}
"""
EXPERIMENT_STAGES = ("download", "prepare", "audit", "compare")
COMBO_STAGES = ("preprocess", "explain", "external")
RUN_STAGES = ("train", "evaluate")
RUN = ["--combo", "trim_clahe", "--model", "dense", "--seed", "2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Put a stage of every name in place that only says how it was called."""
    received = []
    for name in (
        "download",
        "prepare",
        "preprocess",
        "train",
        "evaluate",
        "explain",
        "external",
        "audit",
        "compare",
    ):
        stage = SimpleNamespace(run=lambda *arguments, name=name: received.append((name, *arguments)))
        monkeypatch.setattr(pneumo.stages, name, stage, raising=False)
    return received


def replace_params(old, new):
    path = Path("params.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def expect_error(capsys, arguments, *parts):
    """Expect status 1, one plain line to stderr and nothing else."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pneumo: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


# pneumo check


def test_check_says_what_would_run(capsys):
    assert main(["check"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "data: Synthetic chest phantoms",
        "combo raw: resize",
        "combo trim_clahe: trim -> resize -> clahe",
        "model dense: dense, random weights",
        "model mobilenet_frozen: mobilenet075, ImageNet weights that Keras downloads",
        "12 runs, report in reports/small/",
    ]
    assert captured.err == ""


def test_check_looks_for_weights(capsys, folder):
    replace_params("weights_dir: null", "weights_dir: weights")
    assert main(["check"]) == 1
    assert "weights/mobilenet075_imagenet_notop.weights.h5" in capsys.readouterr().err
    (folder / "weights").mkdir()
    for name in BACKBONES:
        (folder / "weights" / f"{name}_imagenet_notop.weights.h5").touch()
    assert main(["check"]) == 0
    assert "mobilenet075, weights/mobilenet075_imagenet_notop.weights.h5\n" in capsys.readouterr().out


def test_check_looks_for_external_test_sets(capsys, folder):
    replace_params("external: {}", "external: {elsewhere: hospital}")
    expect_error(capsys, ["check"], "external.elsewhere: Expected a folder. Received: hospital")
    (folder / "hospital").mkdir()
    assert main(["check"]) == 0
    assert "external test set elsewhere: hospital" in capsys.readouterr().out


def test_check_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    main(["check"])
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("source: phantom", "source: photos", ["conf/data/", "kaggle", "photos"]),
        ("n_train: 40", "n_trian: 40", ["n_trian"]),
        ("n_train: 40", "n_train: many", ["n_train", "many"]),
        ("tiles: 4", "tile: 4", ["combos.trim_clahe[1].clahe", "'tile'"]),
        ("[trim,", "[trimm,", ["combos.trim_clahe[0]", "'trimm'"]),
        ("raw: []", "raw:", ["combos.raw", "None"]),
        ("dense: {}", "dens: {}", ["conf/model/", "dens"]),
        ("dense: {}", "dense: {batch: 3}", ["batch"]),
        ("dense: {}", "dense: {batch_size: 0}", ["dense", "batch_size"]),
        ("seeds: [0, 1, 2]", "seeds: []", ["params.yaml: seeds"]),
        ("experiment: small", "experiment: [", ["params.yaml", "not valid YAML"]),
    ],
)
def test_check_names_what_is_wrong(capsys, old, new, parts):
    replace_params(old, new)
    assert main(["check"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


def test_outside_of_a_project(capsys, tmp_path):
    (tmp_path / "params.yaml").unlink()
    expect_error(capsys, ["check"], "Expected params.yaml in the current folder")


# Stages


@pytest.mark.parametrize("name", EXPERIMENT_STAGES)
def test_stages_of_the_whole_experiment(calls, name):
    assert main([name]) == 0
    assert calls == [(name, load_params())]


@pytest.mark.parametrize("name", COMBO_STAGES)
def test_stages_of_a_combo(calls, name):
    assert main([name, "--combo", "raw"]) == 0
    assert calls == [(name, load_params(), "raw")]


@pytest.mark.parametrize("name", RUN_STAGES)
def test_stages_of_a_run(calls, name):
    assert main([name, *RUN]) == 0
    assert calls == [(name, load_params(), Run("small", "trim_clahe", "dense", 2))]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["preprocess", "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["explain", "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["external", "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["train", *RUN, "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["train", *RUN, "--model", "cnn"], ["--model", "dense, mobilenet_frozen", "cnn"]),
        (["evaluate", *RUN, "--seed", "3"], ["--seed", "0, 1, 2", "3"]),
    ],
)
def test_what_params_does_not_name_is_refused(capsys, calls, arguments, parts):
    expect_error(capsys, arguments, *parts)
    assert calls == []


def test_predict_prints_a_line_an_image(capsys, monkeypatch):
    class FakePredictor:
        def __init__(self, model):
            assert model == Path("model.keras")

        def predict(self, path):
            share = 0.25 if path == Path("a.jpeg") else 0.9996
            probabilities = {"normal": 1 - share, "pneumonia": share}
            return SimpleNamespace(
                label=max(probabilities, key=probabilities.get), probabilities=probabilities
            )

    fake = ModuleType("pneumo.prediction.predictor")
    fake.Predictor = FakePredictor
    monkeypatch.setitem(sys.modules, "pneumo.prediction.predictor", fake)
    assert main(["predict", "model.keras", "a.jpeg", "b.jpeg"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.jpeg: normal  (normal 0.750  pneumonia 0.250)",
        "b.jpeg: pneumonia  (normal 0.000  pneumonia 1.000)",
    ]


# Errors and exit status


def raise_in_download(monkeypatch, error):
    def run(_):
        raise error

    monkeypatch.setattr(pneumo.stages, "download", SimpleNamespace(run=run), raising=False)


def test_errors_for_people_are_shown_as_they_are(capsys, monkeypatch):
    raise_in_download(monkeypatch, PneumoError("no such data set. Correct the handle."))
    expect_error(capsys, ["download"])
    main(["download"])
    assert capsys.readouterr().err == "pneumo: no such data set. Correct the handle.\n"


def test_other_errors_are_one_line_too(capsys, monkeypatch):
    raise_in_download(monkeypatch, OSError("disk\n  is full"))
    expect_error(capsys, ["download"], "unexpected OSError: disk is full. Add --debug for the traceback.")


@pytest.mark.parametrize("arguments", [["--debug", "download"], ["download", "--debug"]])
@pytest.mark.parametrize("error", [PneumoError("mend it"), OSError("disk is full")], ids=repr)
def test_debug_lets_errors_through(monkeypatch, arguments, error):
    raise_in_download(monkeypatch, error)
    with pytest.raises(type(error), match=str(error)):
        main(arguments)


def test_interruption_has_a_status_of_its_own(capsys, monkeypatch):
    raise_in_download(monkeypatch, KeyboardInterrupt())
    assert main(["download"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments",
    [[], ["repro"], ["preprocess"], ["train", "--combo", "raw"], ["train", *RUN, "--seed", "one"]],
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as status:
        main(arguments)
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith("usage: pneumo")


@pytest.mark.parametrize(("options", "has_traceback"), [([], False), (["--debug"], True)])
def test_installed_command(folder, options, has_traceback):
    (folder / "params.yaml").unlink()
    command = [str(Path(sys.executable).with_name("pneumo")), "check", *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert ("Traceback" in process.stderr) == has_traceback
    assert "Expected params.yaml in the current folder" in process.stderr.splitlines()[-1]
