"""The pipeline through DVC: what runs when, and what is there afterwards."""

import importlib.util
import json
import sys
import time

import pytest
import yaml

CLAHE = "  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]\n"
RAW = "  raw: []\n"
ALL_STAGES = [
    "download",
    "prepare",
    "preprocess@raw",
    "preprocess@clahe",
    "train@raw-dense-0",
    "train@clahe-dense-0",
    "evaluate@raw-dense-0",
    "evaluate@clahe-dense-0",
    "compare",
]
TRAINS, EVALUATES = ALL_STAGES[4:6], ALL_STAGES[6:8]


def test_first_run_makes_all_that_is_declared(finished_project):
    stages = yaml.safe_load((finished_project.root / "dvc.lock").read_text())["stages"]
    assert sorted(stages) == sorted(ALL_STAGES)
    outs = [out["path"] for stage in stages.values() for out in stage["outs"]]
    assert "reports/tiny/index.html" in outs
    assert [path for path in outs if not (finished_project.root / path).exists()] == []
    assert finished_project.find_partials() == []


def test_second_run_runs_nothing(project):
    start = time.monotonic()
    assert project.repro() == []
    assert time.monotonic() - start < 60  # 3 s on an idle machine


# The stages that an edit touches; those that depend on what these write follow when they have run.
DIRECTLY_DUE = {
    "a combo's parameter": (
        [("clip_limit: 2.0", "clip_limit: 3.0")],
        ["preprocess@clahe", "train@clahe-dense-0", "compare"],
    ),
    "a new combo": (
        [(RAW, RAW + "  invert: [invert]\n")],
        ["preprocess@invert", "train@invert-dense-0", "evaluate@invert-dense-0", "compare"],
    ),
    "a combo removed": ([(CLAHE, "")], ["compare"]),
    "another seed": (
        [("seeds: [0]", "seeds: [0, 1]")],
        [stage.replace("-0", "-1") for stage in TRAINS + EVALUATES] + ["compare"],
    ),
    "a model's parameter": ([("epochs: 2", "epochs: 3")], [*TRAINS, "compare"]),
    "the split": ([("val_fraction: 0.25", "val_fraction: 0.3")], ["prepare", "compare"]),
    "the threshold": ([("youden", "sensitivity")], [*TRAINS, *EVALUATES, "compare"]),
    "comments, order of keys, 2 for 2.0": (
        [
            ("experiment: tiny\n", "# The experiment\nexperiment: tiny  # its name\n"),
            ("{clip_limit: 2.0, tiles: 4}", "{tiles: 4.0, clip_limit: 2}"),
            ("image_size_px: 32\ntask: binary\n", "task: binary\nimage_size_px: 32.0\n"),
            ("{val_fraction: 0.25, seed: 0}", "\n  seed: 0\n  val_fraction: 0.250"),
        ],
        [],
    ),
}


@pytest.mark.parametrize(("edits", "due"), DIRECTLY_DUE.values(), ids=DIRECTLY_DUE)
def test_edit_touches_only(project, edits, due):
    for old, new in edits:
        project.edit(old, new)
    assert list(json.loads(project.run("dvc", "status", "--json").stdout)) == due


def test_edited_combo_runs_alone_and_shows_in_diffs(project):
    project.edit("clip_limit: 2.0, tiles: 4}}", "clip_limit: 2.0, tiles: 4}}, invert")
    assert project.repro() == ["preprocess@clahe", "train@clahe-dense-0", "evaluate@clahe-dense-0", "compare"]

    changes = json.loads(project.run("dvc", "metrics", "diff", "--json").stdout)
    assert list(changes) == ["reports/tiny/summary.json"]
    metrics = changes["reports/tiny/summary.json"]
    assert metrics["phantom.clahe.dense.roc_auc"]["diff"] != 0
    assert all(name.startswith("phantom.clahe.dense.") for name in metrics)
    assert "phantom.clahe.dense.roc_auc" in project.run("dvc", "metrics", "diff").stdout

    project.run("dvc", "plots", "diff", "--out", "plots_diff")
    page = (project.root / "plots_diff" / "index.html").read_text()
    for name in ("dense_clahe.csv", "dense_raw.csv", "dense / clahe", "workspace", "HEAD"):
        assert name in page

    # What ran before comes back from DVC's cache.
    project.run("git", "checkout", "params.yaml")
    assert project.repro() == ["compare"]
    assert project.run("dvc", "metrics", "diff", "--json").stdout.strip() == "{}"


def test_new_combo_runs_alone(project):
    project.edit(RAW, RAW + "  invert: [invert]\n")
    assert project.repro() == [
        "preprocess@invert",
        "train@invert-dense-0",
        "evaluate@invert-dense-0",
        "compare",
    ]
    assert "invert" in (project.root / "reports/tiny/leaderboard.csv").read_text()
    # The lock file keeps a removed combo, the report does not.
    project.edit("  invert: [invert]\n", "")
    assert project.repro() == ["compare"]
    assert "invert" not in (project.root / "reports/tiny/leaderboard.csv").read_text()


def test_stage_fails_in_one_line(project):
    train = ["pneumo", "train", "--combo", "nosuch", "--model", "dense", "--seed", "0"]
    plain = project.run(*train, check=False)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == ("pneumo: --combo: Expected one of params.yaml's: raw, clahe. Received: nosuch\n")
    debugged = project.run(*train, "--debug", check=False)
    assert debugged.returncode == 1
    assert "Traceback (most recent call last)" in debugged.stderr


def test_failed_stage_stops_the_pipeline_and_says_why(project):
    project.edit("clip_limit: 2.0", "clip_limit: -2.0")
    result = project.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert "combos.clahe" in result.stderr
    assert "Traceback" not in result.stderr
    assert "failed to reproduce 'preprocess@clahe'" in result.stderr
    assert "Running stage 'compare'" not in result.stdout
    assert project.find_partials() == []


PREDICT_WITHOUT_TENSORFLOW = """
import json, sys
from pathlib import Path

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ImportError("TensorFlow is not to be imported")

sys.meta_path.insert(0, NoTensorFlow())
import pneumo.stages.train
from pneumo.domain.predictor import Predictor

predictor = Predictor(Path("models/tiny/clahe/dense/0/model.keras"))
print(json.dumps(predictor.predict(Path(sys.argv[1])).probabilities))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="other backends of Keras need jax")
@pytest.mark.parametrize("backend", ["jax", "numpy"])
def test_model_trained_with_tensorflow_predicts_without(project, monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    first = project.read_csv("models/tiny/clahe/dense/0/predictions.csv").iloc[0]
    image = f"data/raw/phantom/{first['id']}"
    output = project.run(sys.executable, "-c", PREDICT_WITHOUT_TENSORFLOW, image).stdout
    probabilities = json.loads(output.splitlines()[-1])
    assert probabilities["pneumonia"] == pytest.approx(first["p_pneumonia"], abs=1e-4)
