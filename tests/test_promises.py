"""Promises of the README that take minutes to prove; CI runs them, `make test` does not."""

import os
import signal
import time

import pytest

from tiny_project import COMMAND_TIMEOUT_S, TinyProject

pytestmark = pytest.mark.promise


def test_two_runs_from_scratch_give_the_same_bytes(tmp_path, finished_project):
    second = TinyProject.create(tmp_path / "deeper" / "second")
    second.take_seconds(finished_project)
    second.repro()
    hashes = finished_project.hash_outputs()
    assert second.hash_outputs() == hashes
    names = {path.rpartition("/")[2] for path in hashes}
    assert names >= {
        "manifest.csv",
        "images.npy",
        "model.keras",
        "history.csv",
        "predictions.csv",
        "run.json",
    }
    assert names >= {"metrics.json", "summary.json", "leaderboard.csv", "index.html", "model_card.md"}


def test_a_killed_run_continues_to_the_same_bytes(tmp_path, finished_project):
    project = TinyProject.create(tmp_path / "project")
    project.take_seconds(finished_project)
    log = tmp_path / "log"
    process = project.start("dvc", "repro", log=log)
    deadline = time.monotonic() + COMMAND_TIMEOUT_S
    while "Epoch 1/2" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.root / "models/tiny/raw/dense/0").exists()
    project.repro()
    assert project.find_partials() == []
    assert project.hash_outputs() == finished_project.hash_outputs()


def test_switching_to_another_experiment_and_back_trains_nothing_twice(project):
    first = project.hash_outputs()
    project.edit("experiment: tiny", "experiment: other")
    ran = project.repro()
    # The data are not looked at again.
    assert not {stage.partition("@")[0] for stage in ran} & {"download", "prepare", "audit", "preprocess"}
    assert (project.root / "reports/other/index.html").is_file()
    project.edit("experiment: other", "experiment: tiny")
    assert project.repro() == ["compare"]
    outputs = project.hash_outputs()
    assert {path: outputs[path] for path in first} == first


def test_the_same_run_again_leaves_no_change_to_commit(project):
    project.run("dvc", "repro", "--force", "train@raw-dense-0")
    project.repro()
    assert project.run("git", "status", "--porcelain").stdout == ""
