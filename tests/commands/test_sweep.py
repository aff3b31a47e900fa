"""pneumo sweep: the same bytes as `dvc repro`, and what is left for it afterwards."""

import re
import shutil
import signal
import time

import pytest

from pneumo.base.config import Run, build, load_group
from pneumo.commands.sweep import count_threads, share_features
from pneumo.execution.graph import Task
from pneumo.training.recipe import Recipe
from tiny_project import COMMAND_TIMEOUT_S, ROOT, TinyProject

STAGES = 16


def read_ended(output):
    """Return the names of the stages that ran, in the order in which they ended."""
    return re.findall(r"^\[\d+/\d+\] (\S+): [\d.]+ s$", output, re.MULTILINE)


def sweep(project):
    return read_ended(project.run("pneumo", "sweep", "--workers", "2").stdout)


def hash_timeless(project):
    """Return the hashes of all outputs but those that say how long training took."""
    hashes = project.hash_outputs()
    for name in ("index.html", "seconds.csv"):
        hashes.pop(f"reports/tiny/{name}")
    return hashes


def test_nothing_is_due_after_dvc_repro(project):
    result = project.run("pneumo", "sweep")
    assert read_ended(result.stdout) == []
    assert f"0 stages run, {STAGES} unchanged" in result.stdout


@pytest.mark.promise
def test_a_sweep_leaves_what_dvc_repro_leaves(tmp_path, finished_project):
    project = TinyProject.create(tmp_path / "project")
    ended = sweep(project)
    assert len(ended) == len(set(ended)) == STAGES
    assert ended[0] == "check"
    assert ended[-1] == "compare"
    assert hash_timeless(project) == hash_timeless(finished_project)
    assert project.find_partials() == []
    assert project.repro() == []
    assert project.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
    assert (project.root / "logs" / "train@raw-dense-0.log").read_text().count("Epoch") == 2


@pytest.mark.promise
def test_an_edit_runs_what_it_touches_and_its_reversal_comes_from_the_cache(project):
    first = hash_timeless(project)
    project.edit("clip_limit: 2.0, tiles: 4}}", "clip_limit: 2.0, tiles: 4}}, invert")
    stages = ["preprocess@clahe", "train@clahe-dense-0", "evaluate@clahe-dense-0", "explain@clahe"]
    assert sorted(sweep(project)) == sorted(["check", *stages, "external@clahe", "compare"])
    assert project.repro() == []
    project.run("git", "checkout", "params.yaml")
    assert sweep(project) == ["compare"]
    assert hash_timeless(project) == first


@pytest.mark.promise
def test_failures_are_named_with_their_logs_and_the_rest_is_done(project):
    project.edit("seeds:", "  mobilenet_frozen: {network: {input_size_px: 32, weights: random}}\nseeds:")
    project.edit("  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]\n", "")
    path = project.root / "src/pneumo/training/networks.py"
    path.write_text(path.read_text() + "\n\nbuild_backbone = None\n")
    result = project.run("pneumo", "sweep", check=False)
    assert result.returncode == 1
    assert "1 stages failed; 4 that need them did not run:" in result.stderr
    assert "train@raw-mobilenet_frozen-0: TypeError: 'NoneType' object is not callable" in result.stderr
    log = project.root / "logs/train@raw-mobilenet_frozen-0.log"
    assert str(log.relative_to(project.root)) in result.stderr
    assert "Traceback" in log.read_text()
    assert "train@raw-dense-0" in read_ended(result.stdout)
    assert "Traceback" not in result.stderr


# Kind of a stage, and how long after one of that kind has begun the sweep is stopped.
MOMENTS = [
    ("check", 0.0),
    ("download", 0.2),
    ("prepare", 0.1),
    ("preprocess", 0.0),
    ("train", 0.0),
    ("train", 0.5),
    ("evaluate", 0.0),
    ("explain", 0.3),
    ("explain", 1.5),
    ("compare", 0.05),
]
EXIT_STATUSES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}


def check_stops(project, expected, moments, sent, log):
    """Stop a sweep at moments, let it finish, and compare with what an undisturbed one leaves."""
    n_ran = 0
    for kind, delay_s in moments:
        shutil.rmtree(project.root / "logs", ignore_errors=True)
        process = project.start("pneumo", "sweep", "--workers", "2", log=log)
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while not any((project.root / "logs").glob(f"{kind}*")):
            assert process.poll() is None, f"{kind} was not reached:\n{log.read_text()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay_s)
        process.send_signal(sent)
        assert process.wait() == EXIT_STATUSES[sent], f"{kind}, {delay_s} s:\n{log.read_text()}"
        n_ran += len(read_ended(log.read_text()))
    n_ran += len(sweep(project))
    assert n_ran <= STAGES  # none that had ended has run again
    assert project.find_partials() == []
    assert hash_timeless(project) == expected
    assert project.repro() == []


@pytest.mark.promise
def test_a_killed_sweep_goes_on_to_the_same_bytes(tmp_path, finished_project):
    project = TinyProject.create(tmp_path / "project")
    moments = [("train", 0.3), ("explain", 0.3)]
    check_stops(project, hash_timeless(finished_project), moments, signal.SIGKILL, tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize("sent", EXIT_STATUSES)
def test_stopped_sweeps_go_on_to_the_same_bytes(tmp_path, finished_project, sent):
    project = TinyProject.create(tmp_path / "project")
    assert len(MOMENTS) == 10
    check_stops(project, hash_timeless(finished_project), MOMENTS, sent, tmp_path / "log")


def test_one_run_computes_the_features_that_others_use(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = ("mobilenet_frozen", "mobilenet_finetuned", "densenet121_frozen", "cnn")
    recipes = {name: build(Recipe, load_group("model", name), name) for name in names}
    runs = {
        f"train@{combo}-{model}-{seed}": Run("tiny", combo, model, seed)
        for combo in ("raw", "clahe")
        for model in names
        for seed in (0, 1)
    }
    tasks = share_features([Task("prepare"), *map(Task, runs)], runs, recipes)
    assert [task.name for task in tasks] == ["prepare", *runs]
    after = {task.name: set(task.after) for task in tasks}
    for combo in ("raw", "clahe"):
        first = f"train@{combo}-mobilenet_frozen-0"
        assert after[first] == set()
        for other in ("mobilenet_frozen-1", "mobilenet_finetuned-0", "mobilenet_finetuned-1"):
            assert after[f"train@{combo}-{other}"] == {first}
        assert after[f"train@{combo}-densenet121_frozen-1"] == {f"train@{combo}-densenet121_frozen-0"}
        assert after[f"train@{combo}-cnn-1"] == set()


def test_a_head_on_features_that_are_there_takes_one_core():
    """The first computes them, in as many threads as its recipe says; fine-tuning goes on to do that."""
    names = ("mobilenet_frozen", "mobilenet_finetuned", "cnn")
    recipes = {name: build(Recipe, load_group("model", name), name) for name in names}
    runs = {f"{model}-{seed}": Run("tiny", "raw", model, seed) for model in names for seed in (0, 1)}
    found = {
        task.name: count_threads(task, recipes[runs[task.name].model])
        for task in share_features([Task(name) for name in runs], runs, recipes)
    }
    assert recipes["mobilenet_frozen"].threads == recipes["mobilenet_finetuned"].threads == 4
    assert found == {
        "mobilenet_frozen-0": 4,
        "mobilenet_frozen-1": 1,
        "mobilenet_finetuned-0": 4,
        "mobilenet_finetuned-1": 4,
        "cnn-0": recipes["cnn"].threads,
        "cnn-1": recipes["cnn"].threads,
    }
    assert count_threads(Task("explain@raw"), None) == 1
