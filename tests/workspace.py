"""A folder with conf/ and params.yaml in which stages run one by one, and what `train` would leave there."""

import json
import shutil
from pathlib import Path

import pandas as pd

from pneumo.base.artifacts import write_json
from pneumo.base.paths import run_dir, run_report_dir, run_seconds_path
from tiny_project import PARAMS, ROOT

# Chosen on validation, 0.4 is the best threshold; on the test set it errs on one image of each class.
VAL = {0: [0.1, 0.2, 0.3], 1: [0.4, 0.6, 0.8]}
TEST = {0: [0.05, 0.2, 0.3, 0.45], 1: [0.35, 0.42, 0.9]}
# Better than TEST in every way, after a worse validation.
WORSE_VAL = {0: [0.1, 0.2, 0.7], 1: [0.4, 0.6, 0.8]}
PERFECT_TEST = {0: [0.01, 0.02, 0.03, 0.04], 1: [0.96, 0.97, 0.98]}

RECORD = {
    "versions": {"python": "3.11.0", "keras": "3.0.0"},
    "backend": "tensorflow",
    "device": "cpu:0",
    "processor": "a processor",
    "weights": {"pretrained": None, "file": None, "sha256": None},
    "hashes": {"requirements.lock": None, "manifest.csv": "m", "images.npy": "i"},
    "recipe": {"test_seen": 0, "phases": {"fit": {"augment": False}}},
}


def make_workspace(root):
    """Fill a folder with conf/ and params.yaml."""
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / "params.yaml").write_text(PARAMS)


def edit_params(workspace, old, new):
    path = workspace / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def use_local(workspace, path):
    old = "{source: phantom, name: phantom, n_train: 40, n_val: 8, n_test: 16}"
    edit_params(workspace, old, f"{{source: local, name: local, path: {path}, patients: per_image}}")


def find_partials(folder):
    return [path.name for path in folder.rglob("*.partial")]


def tabulate(val, test):
    """Build the content of predictions.csv from class number -> scores of the second class."""
    rows = [
        {
            "id": f"{split}{y_true}-{i}.jpeg",
            "split": split,
            "patient": f"{split}{i}",
            "y_true": y_true,
            "score": score,
        }
        for split, scores in (("val", val), ("test", test))
        for y_true, of_class in scores.items()
        for i, score in enumerate(of_class)
    ]
    table = pd.DataFrame(rows)
    score = table.pop("score")
    return table.assign(p_normal=1 - score, p_pneumonia=score)


def write_run(run, predictions, record=RECORD, seconds=7.0):
    """Write what `train` leaves of a run, but for the network itself."""
    run_dir(run).mkdir(parents=True)
    predictions.to_csv(run_dir(run) / "predictions.csv", index=False)
    write_json(run_dir(run) / "run.json", record)
    write_json(run_seconds_path(run), {"train_s": seconds})
    history = {"phase": ["fit"], "epoch": [1], "loss": [0.7], "accuracy": [0.5], "auc": [0.5]}
    history |= {f"val_{name}": history[name] for name in ("loss", "accuracy", "auc")}
    pd.DataFrame(history).to_csv(run_dir(run) / "history.csv", index=False)


def read_metrics(run):
    return json.loads((run_report_dir(run) / "metrics.json").read_text())


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_manifest(edit):
    path = Path("data/phantom/manifest.csv")
    edit(pd.read_csv(path)).to_csv(path, index=False)


def swap_test_labels(manifest):
    other = manifest["label"].map({"normal": "pneumonia", "pneumonia": "normal"})
    return manifest.assign(label=manifest["label"].where(manifest["split"] != "test", other))
