"""Searches: what is drawn, and that each trial runs once whatever happens to its workers."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from pneumo.base.errors import PneumoError
from pneumo.commands.tune import score_history
from pneumo.training import search
from pneumo.training.recipe import Monitor
from pneumo.training.search import Range, Search

N_TRIALS = 6
RANGES = {
    "network.units": Range(choices=[[], [8], [8, 4]]),
    "network.dropout": Range(low=0.0, high=0.5),
    "phases.fit.epochs": Range(low=1, high=9),
    "phases.fit.learning_rate": Range(low=1e-4, high=1e-2, log=True),
}
TIMEOUT_S = 120  # a guard against hanging

# Appends a line when it begins and one when it ends; the first trial of a worker told so is never done.
WORKER = """
import sys, time
from pathlib import Path
from pneumo.training import search

url, log, hangs = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "hangs"
ranges = {"x": search.Range(low=0.0, high=1.0)}

def objective(trial):
    x = search.draw_values(trial, ranges)["x"]
    with log.open("a") as file:
        file.write(f"begin {x:.6f}\\n")
    time.sleep(600 if hangs else 0.2)
    with log.open("a") as file:
        file.write(f"end {x:.6f}\\n")
    return x

study = search.open_study("s", url, "max", search.Search(6, ranges), seed=0, heartbeat_s=1)
search.run_trials(study, objective)
"""


def open_study(url, seed=0, **changes):
    settings = Search(N_TRIALS, RANGES, **changes)
    return search.open_study("study", url, "max", settings, seed, heartbeat_s=1)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"low": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": "a", "high": "b"},
        {"choices": [1], "low": 1, "high": 2},
    ],
)
def test_a_range_that_cannot_be_is_refused(wrong):
    with pytest.raises(PneumoError, match="Expected"):
        Range(**wrong)


def test_values_are_of_the_kind_that_the_range_has(url):
    seen = []

    def objective(trial):
        seen.append(search.draw_values(trial, RANGES))
        return 1.0

    study = open_study(url)
    search.run_trials(study, objective)
    assert len(seen) == N_TRIALS
    for values in seen:
        assert values["network.units"] in ([], [8], [8, 4])
        assert 0 <= values["network.dropout"] <= 0.5
        assert values["phases.fit.epochs"] in range(1, 10)
        assert 1e-4 <= values["phases.fit.learning_rate"] <= 1e-2
    assert [search.read_values(trial, RANGES) for trial in search.list_finished(study)] == seen


def draw_all(url, seed, stops_after=None):
    """Run a study, in two sittings where it stops, and return what was drawn."""

    def objective(trial):
        if stops_after is not None and trial.number >= stops_after and not continues:
            raise KeyboardInterrupt
        return search.draw_values(trial, RANGES)["network.dropout"]

    continues = False
    study = open_study(url, seed)
    try:
        search.run_trials(study, objective)
    except KeyboardInterrupt:
        continues = True
        study = open_study(url, seed)
        search.run_trials(study, objective)
    return [trial.params for trial in search.list_finished(study)]


def test_the_same_seed_draws_the_same_another_seed_others(tmp_path):
    urls = iter(f"sqlite:///{tmp_path}/{i}.db" for i in range(3))
    first = draw_all(next(urls), seed=0)
    assert draw_all(next(urls), seed=0) == first
    assert draw_all(next(urls), seed=1) != first


def test_a_bad_trial_is_pruned(url):
    def objective(trial):
        is_bad = trial.number == N_TRIALS - 1
        for epoch in range(3):
            trial.report(0.1 if is_bad else 0.9, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 0.9

    study = open_study(url, n_startup_trials=2, n_warmup_epochs=1)
    n_finished = []
    search.run_trials(study, objective, lambda: n_finished.append(len(search.list_finished(study))))
    assert n_finished == [1, 2, 3, 4, 5, 6]
    table = search.tabulate_trials(study)
    assert table["state"].tolist() == ["complete"] * 5 + ["pruned"]
    assert search.rank_parameters(study) == {}


@pytest.mark.parametrize(("mode", "best"), [("max", [0.5, 0.9, 0.9]), ("min", [0.5, 0.5, 0.1])])
def test_the_best_value_so_far_leaves_out_what_was_pruned(url, mode, best):
    values = [0.5, 0.9, 0.1]

    def objective(trial):
        if trial.number == 3:
            trial.report(2.0 if mode == "max" else 0.0, 0)
            raise optuna.TrialPruned
        return values[trial.number]

    study = search.open_study("study", url, mode, Search(4, RANGES), 0, heartbeat_s=1)
    search.run_trials(study, objective)
    trials = search.list_finished(study)
    assert [search.find_best_value(study, trials[: n + 1]) for n in range(4)] == [*best, best[-1]]
    assert search.find_best_value(study, trials[3:]) is None


def test_the_parameter_that_matters_ranks_first(url):
    study = open_study(url)
    search.run_trials(study, lambda trial: search.draw_values(trial, RANGES)["network.dropout"])
    importance = search.rank_parameters(study)
    assert next(iter(importance)) == "network.dropout"
    assert sum(importance.values()) == pytest.approx(1)


def test_an_error_of_the_objective_is_shown_and_the_trial_comes_again(url):
    def fail(_):
        raise PneumoError("no such thing")

    study = open_study(url)
    with pytest.raises(PneumoError, match="no such thing"):
        search.run_trials(study, fail)
    study = open_study(url)
    search.run_trials(study, lambda _: 1.0)
    assert len(search.list_finished(study)) == N_TRIALS


def test_a_database_that_is_not_there_is_named():
    with pytest.raises(PneumoError, match=r"--storage: Expected a database at sqlite:////nowhere/study\.db"):
        open_study("sqlite:////nowhere/study.db")


@pytest.mark.parametrize(
    ("monitor", "keep_best", "expected"),
    [("val_auc", True, 0.8), ("val_auc", False, 0.7), ("val_loss", True, 0.2), ("val_loss", False, 0.3)],
)
def test_a_trial_is_scored_by_the_weights_that_training_keeps(monitor, keep_best, expected):
    history = pd.DataFrame(
        {
            "phase": ["head", "all", "all", "all"],
            "val_auc": [0.9, 0.6, 0.8, 0.7],
            "val_loss": [0.1, 0.4, 0.2, 0.3],
        }
    )
    recipe = SimpleNamespace(monitor=Monitor(monitor), keep_best=keep_best)
    assert score_history(history, recipe) == expected


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # ask by itself gives no sign of life
def test_no_two_workers_take_the_same_trial(url):
    def take(study):
        barrier.wait()
        return [study.ask().number for _ in range(n_trials // n_workers)]

    n_trials, n_workers = 20, 4
    barrier = threading.Barrier(n_workers)
    search_settings = Search(n_trials, RANGES)
    studies = [search.open_study("study", url, "max", search_settings, 0) for _ in range(n_workers)]
    with ThreadPoolExecutor(n_workers) as pool:
        taken = [number for numbers in pool.map(take, studies) for number in numbers]
    assert sorted(taken) == list(range(n_trials))


def test_a_place_filled_twice_is_run_once(url):
    study = open_study(url)
    study.enqueue_trial({}, user_attrs={"place": 0})  # as two workers do that open a study at the same moment
    ran = []
    search.run_trials(study, lambda trial: ran.append(trial.number) or 1.0)
    assert ran == list(range(N_TRIALS))
    assert len(search.list_finished(study)) == N_TRIALS


@pytest.fixture
def postgresql():
    """Start PostgreSQL on loopback; return the URL of an empty database."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("needs PostgreSQL; `make postgresql` installs Debian's")
    tools = folders[-1]
    root = Path(tempfile.mkdtemp(prefix="pneumo-postgresql-"))
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user:
        shutil.chown(root, user)
    data, port = root / "data", "54329"

    def run(tool, *arguments):
        subprocess.run([tools / tool, *arguments], user=user, cwd=root, check=True, capture_output=True)

    run("initdb", "--auth=trust", "--username=pneumo", f"--pgdata={data}")
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={root} -p {port}"
    run("pg_ctl", f"--pgdata={data}", "--wait", f"--log={root}/log", f"--options={options}", "start")
    try:
        yield f"postgresql+psycopg://pneumo@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", f"--pgdata={data}", "--mode=immediate", "stop")
        shutil.rmtree(root)


def start_worker(url, log, *, hangs=False):
    return subprocess.Popen([sys.executable, "-c", WORKER, url, log, "hangs" if hangs else "works"])


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_workers_of_which_one_is_killed_run_every_trial_once(database, tmp_path, request):
    url = f"sqlite:///{tmp_path}/s.db" if database == "sqlite" else request.getfixturevalue("postgresql")
    log = tmp_path / "log"
    log.touch()
    doomed = start_worker(url, log, hangs=True)
    deadline = time.monotonic() + TIMEOUT_S
    while "begin" not in log.read_text():
        assert doomed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker = start_worker(url, log)
    time.sleep(0.5)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert worker.wait(TIMEOUT_S) == 0
    lines = log.read_text().split()
    begun, ended = (
        [x for word, x in zip(lines[::2], lines[1::2], strict=True) if word == kind]
        for kind in ("begin", "end")
    )
    assert len(ended) == len(set(ended)) == 6
    # The one that was killed came again with the same values, no other did.
    assert sorted(begun) == sorted([*ended, begun[0]])
    storage = optuna.storages.RDBStorage(url)
    states = [trial.state for trial in optuna.load_study(study_name="s", storage=storage).trials]
    storage.remove_session()
    storage.engine.dispose()
    assert states.count(TrialState.COMPLETE) == 6
    assert states.count(TrialState.RUNNING) == states.count(TrialState.WAITING) == 0
