"""The pipeline through DVC where it takes minutes: same bytes twice, kills, hostile data, three classes."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from hostile import PROCESSED, QUARANTINED, write_hostile_zip
from tiny_project import COMMAND_TIMEOUT_S, PARAMS, TinyProject

pytestmark = pytest.mark.slow

DENSE = "  dense: {network: {input_size_px: 32, units: [8]}, phases: {fit: {epochs: 2}}}\n"
BACKBONES = """\
  mobilenet_frozen: {network: {weights: random, input_size_px: 32}, phases: {head: {epochs: 2}}}
  mobilenet_finetuned:
    network: {weights: random, input_size_px: 32}
    phases: {head: {epochs: 1}, finetune: {epochs: 2}}
"""
RAW = "  raw: []\n"
CLAHE = "  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]\n"
PHANTOM = "{source: phantom, name: phantom, n_train: 40, n_val: 8, n_test: 16}"


def edit(params, old, new):
    assert params.count(old) == 1
    return params.replace(old, new)


def test_two_runs_from_scratch_give_the_same_bytes(tmp_path):
    params = edit(edit(PARAMS, DENSE, BACKBONES), RAW, "")
    first = TinyProject.create(tmp_path / "first", params)
    second = TinyProject.create(tmp_path / "deeper" / "second", params)
    first.repro()
    second.take_seconds(first)
    second.repro()
    hashes = first.hash_outputs()
    assert second.hash_outputs() == hashes
    names = {Path(path).name for path in hashes}
    assert names >= {"manifest.csv", "images.npy", "model.keras", "history.csv", "predictions.csv"}
    assert names >= {"metrics.json", "summary.json", "leaderboard.csv", "model_card.md", "checklist.md"}
    # Both recipes have the same backbone with the same random weights, so they share its features.
    assert len([path for path in hashes if path.startswith("data/.features/")]) == 1


@dataclass(frozen=True)
class Kill:
    """A point of the run, and who is killed there.

    Attributes:
        text: what the output says before the kill; empty for nothing in particular.
        partial: pattern of a half-written file that is there before the kill; empty for none in particular.
        longest_delay_s: the kill comes at random up to this long after.
        alone: kill DVC and leave the stage running.
    """

    text: str = ""
    partial: str = ""
    longest_delay_s: float = 0
    alone: bool = False


# Written in place by DVC.
LOCKS = ("dvc.lock", ".dvc/tmp/rwlock")
# In the order of the pipeline, so that each is reached by what goes on after the one before.
KILLS = [
    Kill("Running stage 'download'", longest_delay_s=1),
    Kill(partial="data/raw/.phantom.*.partial/*/*/*.jpeg"),
    Kill(partial="data/phantom/.exploration.*.partial/*.png"),
    Kill("Running stage 'preprocess@clahe'", longest_delay_s=2),
    Kill("Running stage 'train@raw-dense-0'", longest_delay_s=5),
    Kill("Epoch 1/2"),
    Kill("Epoch 1/2", alone=True),
    Kill("Running stage 'train@clahe-dense-0'", longest_delay_s=5),
    Kill(partial="reports/tiny/runs/raw/dense/.0.*.partial/*.png"),
    Kill("Running stage 'evaluate@clahe-dense-0'", longest_delay_s=3),
    Kill(partial="reports/tiny/.plots.*.partial/*.csv"),
    Kill("Running stage 'compare'", longest_delay_s=3),
]


def test_killed_runs_go_on_to_the_same_bytes(tmp_path, finished_project):
    project = TinyProject.create(tmp_path / "project")
    project.take_seconds(finished_project)
    delays = random.Random(0)
    log = tmp_path / "log"
    groups = []
    try:
        for kill in KILLS:
            process = project.start("dvc", "repro", log=log)
            groups.append(process.pid)
            wait_for(kill, project, process, log)
            time.sleep(delays.uniform(0, kill.longest_delay_s))
            if kill.alone:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            remove_broken_locks(project)
        project.repro()
    finally:
        for group in groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
    assert project.find_partials() == []
    assert project.hash_outputs() == finished_project.hash_outputs()
    assert project.repro() == []


def wait_for(kill, project, process, log):
    """Wait until a run has come to a point."""
    deadline = time.monotonic() + COMMAND_TIMEOUT_S
    while kill.text not in log.read_text() or (kill.partial and not any(project.root.glob(kill.partial))):
        assert process.poll() is None, f"{kill} was not reached:\n{log.read_text()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def remove_broken_locks(project):
    """Remove the file of DVC's own that a kill has cut short, if any, as the README tells users to."""
    status = project.run("dvc", "status", check=False)
    if status.returncode != 0:
        broken = [name for name in LOCKS if Path(name).name in status.stderr]
        assert len(broken) == 1, status.stderr
        (project.root / broken[0]).unlink()


@pytest.mark.parametrize(("name", "n_bytes"), [(".dvc/tmp/rwlock", 0), ("dvc.lock", 0), ("dvc.lock", 8192)])
def test_lock_that_a_kill_cut_short_can_be_removed(project, finished_project, name, n_bytes):
    lock = project.root / name
    lock.write_bytes(lock.read_bytes()[:n_bytes])
    remove_broken_locks(project)
    assert project.repro() in ([], ["compare"])  # all but the report comes from DVC's cache
    assert project.hash_outputs() == finished_project.hash_outputs()


def test_new_combo_runs_alone(project):
    project.edit(RAW, RAW + "  invert: [invert]\n")
    assert project.repro() == [
        "preprocess@invert",
        "train@invert-dense-0",
        "evaluate@invert-dense-0",
        "explain@invert",
        "external@invert",
        "compare",
    ]
    assert "invert" in (project.root / "reports/tiny/leaderboard.csv").read_text()
    # The lock file keeps a removed combo, the report does not.
    project.edit("  invert: [invert]\n", "")
    assert project.repro() == ["compare"]
    assert "invert" not in (project.root / "reports/tiny/leaderboard.csv").read_text()


def test_split_and_threshold_run_what_depends_on_them(project):
    project.edit(CLAHE, "")
    project.edit("val_fraction: 0.25", "val_fraction: 0.34")
    run = ["train@raw-dense-0", "evaluate@raw-dense-0", "explain@raw", "external@raw"]
    assert project.repro() == ["prepare", "preprocess@raw", *run, "audit", "compare"]
    runs, predictions = project.read_csv("reports/tiny/runs.csv"), read_predictions(project)

    project.edit("{method: youden}", "{method: sensitivity, sensitivity: 1.0}")
    assert project.repro() == [*run, "compare"]
    new_runs = project.read_csv("reports/tiny/runs.csv")
    assert (new_runs["threshold"] != runs["threshold"]).all()
    assert (new_runs["roc_auc"] == runs["roc_auc"]).all()
    assert read_predictions(project) == predictions


def read_predictions(project):
    return (project.root / "models/tiny/raw/dense/0/predictions.csv").read_bytes()


def test_hostile_zip_runs_through(tmp_path):
    archive = tmp_path / "hostile.zip"
    fates = write_hostile_zip(archive)
    source = f"{{source: local, name: local, path: {archive}, patients: per_image}}"
    params = edit(edit(PARAMS, PHANTOM, source), RAW, "")
    project = TinyProject.create(tmp_path / "project", params)
    project.repro()
    assert project.repro() == []
    manifest = project.read_csv("data/local/manifest.csv")
    assert set(manifest["id"]) == {name for name, fate in fates.items() if fate == PROCESSED}
    quarantine = project.read_csv("data/local/exploration/quarantine.csv")
    assert set(quarantine["path"]) == {name for name, fate in fates.items() if fate == QUARANTINED}
    assert quarantine["reason"].notna().all()
    page = (project.root / "reports/tiny/index.html").read_text()
    assert f"{len(quarantine)} files were set aside" in page
    hidden = project.read_csv("reports/tiny/data/quarantine.csv")["path"]
    assert hidden.str.fullmatch("[0-9a-f]{16}").all()
    assert len(hidden) == len(quarantine)
    predictions = project.read_csv("models/tiny/clahe/dense/0/predictions.csv")
    assert set(predictions["id"]) == set(manifest.loc[manifest["split"] != "train", "id"])


def test_three_classes_run_through(tmp_path):
    params = edit(edit(PARAMS, "task: binary", "task: subtype"), RAW, "")
    project = TinyProject.create(tmp_path / "project", params)
    project.repro()
    predictions = project.read_csv("models/tiny/clahe/dense/0/predictions.csv")
    probabilities = predictions[["p_normal", "p_bacterial", "p_viral"]]
    pd.testing.assert_series_equal(
        probabilities.sum(axis="columns"), pd.Series(1.0, predictions.index), atol=1e-5
    )
    assert set(predictions["y_true"]) == {0, 1, 2}
    metrics = json.loads((project.root / "reports/tiny/runs/clahe/dense/0/metrics.json").read_text())
    assert metrics["threshold"] is None
    assert list(metrics["test"]["per_class"]) == ["normal", "bacterial", "viral"]
    summary = json.loads((project.root / "reports/tiny/summary.json").read_text())
    assert summary["roc_auc"]["clahe"]["dense"] == round(metrics["test"]["roc_auc"], 4)
    assert "tell normal, bacterial and viral apart?" in (project.root / "reports/tiny/index.html").read_text()

    image = f"data/raw/phantom/{predictions['id'].iloc[0]}"
    output = project.run("pneumo", "predict", "models/tiny/clahe/dense/0/model.keras", image).stdout
    label = probabilities.iloc[0].idxmax().removeprefix("p_")
    assert output.startswith(f"{image}: {label}  (normal {probabilities.iloc[0, 0]:.3f}  bacterial ")
