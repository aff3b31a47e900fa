"""The pipeline through DVC: what runs when, and what is there afterwards."""

import json
import re
import sys
import time

import pytest
import yaml

from pneumo.base.decision import scale_temperature

pytestmark = pytest.mark.promise

CLAHE = "  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]\n"
RAW = "  raw: []\n"
ALL_STAGES = [
    "check",
    "download",
    "prepare",
    "audit",
    "preprocess@raw",
    "preprocess@clahe",
    "weights@dense",
    "train@raw-dense-0",
    "train@clahe-dense-0",
    "evaluate@raw-dense-0",
    "evaluate@clahe-dense-0",
    "explain@raw",
    "explain@clahe",
    "external@raw",
    "external@clahe",
    "compare",
]
TRAINS, EVALUATES, EXPLAINS, EXTERNALS = (ALL_STAGES[i : i + 2] for i in (7, 9, 11, 13))


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
        ["check", "preprocess@clahe", "external@clahe", "compare"],
    ),
    "an external test set": (
        [("external: {}", "external: {elsewhere: folder}")],
        ["check", *EXTERNALS, "compare"],
    ),
    "a new combo": (
        [(RAW, RAW + "  invert: [invert]\n")],
        [
            "check",
            "preprocess@invert",
            "train@invert-dense-0",
            "evaluate@invert-dense-0",
            "explain@invert",
            "external@invert",
            "compare",
        ],
    ),
    "a combo removed": ([(CLAHE, "")], ["check", "compare"]),
    "another seed": (
        [("seeds: [0]", "seeds: [0, 1]")],
        [
            "check",
            *(stage.replace("-0", "-1") for stage in TRAINS + EVALUATES),
            *EXPLAINS,
            *EXTERNALS,
            "compare",
        ],
    ),
    "a model's parameter": (
        [("epochs: 2", "epochs: 3")],
        ["check", "weights@dense", *TRAINS, *EXPLAINS, *EXTERNALS, "compare"],
    ),
    "the split": (
        [("val_fraction: 0.25", "val_fraction: 0.3")],
        ["check", "prepare", *TRAINS, "compare"],  # training draws the folds of cross-validation
    ),
    "the threshold": ([("youden", "sensitivity")], ["check", *EVALUATES, *EXPLAINS, "compare"]),
    "the prevalence": ([("prevalence: 0.2", "prevalence: 0.1")], ["check", *EVALUATES, "compare"]),
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


def append(path, text):
    with path.open("a") as file:
        file.write(text)


DOCSTRING = '\n\n"""Another sentence."""\n'
# What trains nothing again, and what runs all the same.
WITHOUT_TRAINING = {
    "threshold": lambda project: project.edit("{method: youden}", "{method: sensitivity, sensitivity: 0.9}"),
    "title": lambda project: project.edit(
        "{source: phantom, name: phantom,", "{source: phantom, name: phantom, title: Other phantoms,"
    ),
    "report": lambda project: append(project.root / "src/pneumo/report/figures.py", DOCSTRING),
    "evaluation": lambda project: append(project.root / "src/pneumo/evaluation/metrics.py", DOCSTRING),
    "sources": lambda project: append(project.root / "src/pneumo/data/sources/local.py", DOCSTRING),
    "commands": lambda project: append(project.root / "src/pneumo/commands/tune.py", DOCSTRING),
}


@pytest.mark.parametrize("edit", WITHOUT_TRAINING.values(), ids=WITHOUT_TRAINING)
def test_training_depends_on_nothing_it_does_not_need(project, edit):
    edit(project)
    result = project.run("dvc", "repro", "--dry").stdout
    assert "Running stage 'train" not in result


def test_another_title_and_path_of_the_same_images_train_nothing(project):
    # All edits at once, as each run takes its time: what precedes training runs, with the same outcome.
    project.edit(
        "{source: phantom, name: phantom,", "{source: phantom, name: phantom, title: Other phantoms,"
    )
    append(project.root / "src/pneumo/data/sources/local.py", DOCSTRING)
    append(project.root / "src/pneumo/preprocessing/steps.py", DOCSTRING)
    ran = project.repro()
    assert ran == [
        "check",
        "download",
        "prepare",
        "audit",
        "preprocess@raw",
        "preprocess@clahe",
        *EXTERNALS,
        "compare",
    ]
    assert "Other phantoms" in (project.root / "reports/tiny/index.html").read_text()


def test_a_changed_weights_file_trains_what_starts_from_it(project):
    (project.root / "weights" / "mobilenet_imagenet_notop.weights.h5").write_bytes(b"weights")
    # dense starts from random weights: its record is written again, with the same content.
    assert project.repro() == ["weights@dense"]


def test_edited_combo_runs_alone_and_shows_in_diffs(project):
    project.edit("clip_limit: 2.0, tiles: 4}}", "clip_limit: 2.0, tiles: 4}}, invert")
    assert project.repro() == [
        "check",
        "preprocess@clahe",
        "train@clahe-dense-0",
        "evaluate@clahe-dense-0",
        "explain@clahe",
        "external@clahe",
        "compare",
    ]

    changes = json.loads(project.run("dvc", "metrics", "diff", "--json").stdout)
    assert list(changes) == ["reports/tiny/summary.json"]
    metrics = changes["reports/tiny/summary.json"]
    assert metrics["roc_auc.clahe.dense"]["diff"] != 0
    assert "roc_auc.raw.dense" not in metrics
    assert "roc_auc.clahe.dense" in project.run("dvc", "metrics", "diff").stdout

    project.run("dvc", "plots", "diff", "--out", "plots_diff")
    page = (project.root / "plots_diff" / "index.html").read_text()
    for name in ("plots_roc_csv", "plots_confusion_csv", '"combo": "clahe"', "workspace", "HEAD"):
        assert name in page

    # What ran before comes back from DVC's cache.
    project.run("git", "checkout", "params.yaml")
    assert project.repro() == ["compare"]
    assert project.run("dvc", "metrics", "diff", "--json").stdout.strip() == "{}"


def test_stage_fails_in_one_line(project):
    train = ["pneumo", "train", "--combo", "nosuch", "--model", "dense", "--seed", "0"]
    plain = project.run(*train, check=False)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == ("pneumo: --combo: Expected one of params.yaml's: raw, clahe. Received: nosuch\n")
    debugged = project.run(*train, "--debug", check=False)
    assert debugged.returncode == 1
    assert "Traceback (most recent call last)" in debugged.stderr


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("clip_limit: 2.0", "clip_limit: -2.0", "combos.clahe"),
        (
            "  raw: []\n  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]\n",
            "  {}\n",
            "combos: Expected at least one",
        ),
        ("seeds: [0]", "seeds: []", "seeds: Expected at least one"),
        ("  dense: {network", "  densee: {network", "conf/model/"),
    ],
)
def test_wrong_params_stop_the_pipeline_before_anything_is_removed(project, old, new, part):
    before = project.hash_outputs()
    del before["data/.checked"]  # the only output of the stage that fails
    project.edit(old, new)
    result = project.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert part in result.stderr
    assert "Traceback" not in result.stderr
    assert re.findall("Running stage '(.+?)'", result.stdout) == ["check"]
    assert project.hash_outputs() == before
    assert project.find_partials() == []


WITHOUT_TENSORFLOW = """
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ImportError("TensorFlow is not to be imported")

sys.meta_path.insert(0, NoTensorFlow())
from pneumo.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_jax_trains_and_predicts_where_tensorflow_cannot_be_imported(project, monkeypatch):
    trained_with_tensorflow = project.read_csv("models/tiny/clahe/dense/0/predictions.csv")
    image = f"data/raw/phantom/{trained_with_tensorflow['id'][0]}"
    model = "clahe.pneumo"
    project.run("pneumo", "export", model, "--run", "clahe/dense/0")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pneumo = [sys.executable, "-c", WITHOUT_TENSORFLOW]
    predicted = project.run(*pneumo, "predict", image, "--model", model).stdout.splitlines()[-1]
    metrics = json.loads((project.root / "reports/tiny/runs/clahe/dense/0/metrics.json").read_text())
    raw = trained_with_tensorflow[["p_normal", "p_pneumonia"]].to_numpy()[:1]
    assert f"pneumonia {scale_temperature(raw, metrics['temperature'])[0, 1]:.3f}, threshold" in predicted

    project.run(*pneumo, "train", "--combo", "clahe", "--model", "dense", "--seed", "0")
    trained_with_jax = project.read_csv("models/tiny/clahe/dense/0/predictions.csv")
    assert list(trained_with_jax["id"]) == list(trained_with_tensorflow["id"])
    assert not trained_with_jax["p_pneumonia"].equals(trained_with_tensorflow["p_pneumonia"])

    project.run(*pneumo, "explain", "--combo", "clahe")
    assert set(project.read_csv("reports/tiny/explanations/clahe/probes.csv")["model"]) == {"dense"}
