"""Calls in processes of this machine: where they run, what they leave behind, how they end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pneumo.execution.engine import Call, Resources
from pneumo.execution.local import LocalEngine, count_cpus, describe_exit, describe_gpus, list_gpus

TIMEOUT_S = 120


@pytest.fixture
def engine(tmp_path):
    with LocalEngine(2, tmp_path / "logs") as engine:
        yield engine


def submit(engine, name, function, *arguments, **settings):
    engine.submit(Call(name, f"jobs:{function}", arguments, **settings))


def collect(engine, n):
    """Return the first n outcomes by name."""
    outcomes, deadline = {}, time.monotonic() + TIMEOUT_S
    while len(outcomes) < n:
        assert time.monotonic() < deadline
        outcomes |= {outcome.name: outcome for outcome in engine.wait(0.2)}
    return outcomes


def test_values_come_back_from_processes_that_share_nothing(engine):
    for number in range(5):
        submit(engine, str(number), "describe", number)
    outcomes = collect(engine, 5)
    values, pids, counts, _ = zip(*(outcomes[str(number)].value for number in range(5)), strict=True)
    assert values == (0, 1, 2, 3, 4)
    assert counts == (1, 1, 1, 1, 1)  # each finds the module as it was imported
    assert os.getpid() not in pids
    assert all(outcome.error is None and outcome.seconds > 0 for outcome in outcomes.values())
    assert engine.running() == []


def test_no_more_run_at_a_time_than_there_are_cores(engine, tmp_path):
    for number in range(4):
        submit(engine, str(number), "sleep", 0.5, str(tmp_path / str(number)))
    submit(engine, "wide", "sleep", 0.5, str(tmp_path / "wide"), resources=Resources(cpus=8))
    collect(engine, 5)
    spans = [
        tuple(map(float, (tmp_path / name).read_text().split())) for name in ["0", "1", "2", "3", "wide"]
    ]
    n_beside = [sum(start < end_ and start_ < end for start_, end_ in spans) - 1 for start, end in spans]
    assert max(n_beside[:4]) == 1
    assert n_beside[4] == 0  # needs more cores than there are, so it has all of them


def test_the_greatest_priority_starts_first(tmp_path):
    with LocalEngine(1, tmp_path) as engine:
        for name, priority in {"first": 0, "low": 1, "high": 2, "high too": 2}.items():
            submit(engine, name, "describe", name, priority=priority)
        ended = [name for _ in range(4) for name in collect(engine, 1)]
    assert ended == ["first", "high", "high too", "low"]


def test_each_call_has_a_log(engine, tmp_path):
    submit(engine, "a/b", "say", "one")
    collect(engine, 1)
    log = (tmp_path / "logs" / "a_b.log").read_text()
    assert sorted(log.splitlines()) == ["from a child process", "one to stderr", "one to stdout"]
    submit(engine, "a/b", "say", "two")
    collect(engine, 1)
    assert "one" not in (tmp_path / "logs" / "a_b.log").read_text()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("expected", "Expected one. Received: two"),
        ("other", "ValueError: two lines"),
        ("exit", "SystemExit: 3"),
        ("killed", "its process was killed by SIGKILL; the system does that when memory runs out"),
        ("vanished", "its process ended with exit status 4"),
    ],
)
def test_failures_are_named_and_others_go_on(engine, tmp_path, kind, error):
    submit(engine, "bad", "fail", kind)
    submit(engine, "good", "describe", 1)
    outcomes = collect(engine, 2)
    assert outcomes["bad"].error == error
    assert outcomes["good"].error is None
    log = (tmp_path / "logs" / "bad.log").read_text()
    assert ("Traceback" in log) == (kind in ("other", "exit"))


def test_cancelled_calls_are_dead(engine, tmp_path):
    for name in ("a", "b", "waiting"):
        submit(engine, name, "beat", str(tmp_path / name))
    wait_for(lambda: (tmp_path / "a").is_file() and (tmp_path / "b").is_file())
    engine.cancel()
    assert_still(tmp_path / "a")
    assert not (tmp_path / "waiting").exists()
    assert engine.wait(0) == []


DRIVER = """
import signal
import sys
from pathlib import Path
from pneumo.execution.engine import Call
from pneumo.execution.local import LocalEngine
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    with LocalEngine(2, Path("logs")) as engine:
        engine.submit(Call("a", "jobs:beat", ("beats",)))
        while True:
            engine.wait(1)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_driver(tmp_path, sent):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: (tmp_path / "beats").is_file())
    process.send_signal(sent)
    process.wait()
    assert_still(tmp_path / "beats")


def test_shares_of_a_gpu_are_given_out(tmp_path):
    with LocalEngine(8, tmp_path, gpus=["3", "5"]) as engine:
        for number in range(3):
            submit(engine, str(number), "sleep", 0.3, resources=Resources(gpus=1))
        assert sorted(engine.running()) == ["0", "1"]
        collect(engine, 3)
        for number in range(4):
            submit(engine, str(number), "describe", number, resources=Resources(gpus=0.5))
        devices = [outcome.value[3] for outcome in collect(engine, 4).values()]
    assert sorted(devices) == ["3", "3", "5", "5"]


def test_a_run_on_several_gpus_waits_for_them_and_has_them_to_itself(tmp_path):
    with LocalEngine(8, tmp_path, gpus=["3", "5"]) as engine:
        submit(engine, "half", "sleep", 0.3, resources=Resources(gpus=0.5))
        submit(engine, "both", "describe", 0, resources=Resources(gpus=2))
        submit(engine, "more", "describe", 0, resources=Resources(gpus=4))
        assert engine.running() == ["half"]
        outcomes = collect(engine, 3)
    assert outcomes["both"].value[3] == outcomes["more"].value[3] == "3,5"


def test_gpus_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8f")
    assert list_gpus() == ["2", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert list_gpus() == []


def test_only_a_shared_gpu_limits_memory():
    assert describe_gpus([], 1) == {}
    assert describe_gpus(["1"], 1) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert describe_gpus(["1"], 0.5)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_exit_statuses_have_words():
    assert describe_exit(-signal.SIGSEGV) == "its process was killed by SIGSEGV"
    assert count_cpus() >= 1


def wait_for(holds):
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_still(path: Path):
    """Assert that a file stops growing within a second."""
    time.sleep(1)
    size = path.stat().st_size
    time.sleep(0.5)
    assert path.stat().st_size == size
