"""Calls on a Ray cluster: files there and back, lost nodes, the same bytes as on this machine."""

import re
import time

import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.execution.engine import Call, Files
from pneumo.execution.local import LocalEngine
from pneumo.execution.ray_engine import MAX_TRIES, RayEngine, pack_project, place_outputs
from ray_cluster import TIMEOUT_S, start_cluster
from tiny_project import PARAMS, TinyProject

# Of Ray's own modules.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)


def hash_timeless(project):
    """Return the hashes of all outputs but those that say how long training took."""
    hashes = project.hash_outputs()
    for name in ("index.html", "seconds.csv"):
        hashes.pop(f"reports/tiny/{name}")
    return hashes


def check_kill(tmp_path, params, n_before, expected):
    """Sweep on two nodes, kill one when so many runs are trained, and compare with a local sweep."""
    project = TinyProject.create(tmp_path / "project", params)
    log = tmp_path / "log"
    with start_cluster() as cluster:
        command = ("pneumo", "sweep", "--engine", "ray", "--address", cluster.address, "--workers", "1")
        process = project.start(*command, log=log)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while len(re.findall(r"\] train@.* s$", log.read_text(), re.MULTILINE)) < n_before:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            cluster.kill_at_work(1)
            assert process.wait(TIMEOUT_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
        assert cluster.find_files(0, ".store") == cluster.find_files(0, ".runs") == []
    logs = [path.read_text() for path in (project.root / "logs").glob("*.log")]
    assert any("Tried again: its node was lost" in text for text in logs)
    assert project.find_partials() == []
    assert hash_timeless(project) == expected
    assert project.repro() == []
    return project


@pytest.mark.promise
def test_a_lost_node_costs_no_run_and_no_byte(tmp_path, finished_project):
    check_kill(tmp_path, PARAMS, 0, hash_timeless(finished_project))


@pytest.mark.slow
def test_twenty_four_runs_survive_the_loss_of_one_of_two_nodes(tmp_path):
    params = PARAMS.replace("seeds: [0]", f"seeds: {list(range(12))}")
    local = TinyProject.create(tmp_path / "local", params)
    local.run("pneumo", "sweep")
    project = check_kill(tmp_path, params, 12, hash_timeless(local))
    assert len(list((project.root / "models/tiny").glob("*/dense/*/model.keras"))) == 24


@pytest.fixture
def work_here(tmp_path, monkeypatch):
    """Work in a folder with something to read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text").write_text("read")
    (tmp_path / "params.yaml").write_text("experiment: tiny\n")


def submit(engine, name, target, *arguments, inputs=("in",), outputs=(), caches=()):
    engine.submit(Call(name, target, arguments, files=Files(inputs, outputs, caches)))


def collect(engine, n):
    """Return the first n outcomes by name."""
    outcomes, deadline = {}, time.monotonic() + TIMEOUT_S
    while len(outcomes) < n:
        assert time.monotonic() < deadline
        outcomes |= {outcome.name: outcome for outcome in engine.wait(0.5)}
    return outcomes


@pytest.mark.promise
@pytest.mark.usefixtures("work_here")
def test_calls_on_a_cluster(tmp_path):
    logs = tmp_path / "logs"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "old").write_text("old")
    with (
        start_cluster(1) as cluster,
        LocalEngine(1, logs) as here,
        RayEngine(cluster.address, here, logs) as engine,
    ):
        assert (engine.n_cpus, engine.n_gpus) == (1, 0)
        submit(engine, "code", "importlib.util:find_spec", "pneumo")
        submit(
            engine,
            "files",
            "jobs:copy",
            "in/text",
            "out/a/text",
            "cache/new",
            outputs=("out",),
            caches=("cache",),
        )
        submit(engine, "says", "jobs:say", "said")
        submit(engine, "expected", "jobs:fail", "expected")
        submit(engine, "killed", "jobs:fail", "killed")
        engine.submit(Call("here", "jobs:describe", (1,)))
        assert set(engine.running()) >= {"code", "here"}
        outcomes = collect(engine, 6)
        # The code that runs there is that of this program, not what else may be installed.
        assert "working_dir_files" in outcomes["code"].value.origin
        assert (tmp_path / "out/a/text").read_text() == "read"
        assert {path.name: path.read_text() for path in (tmp_path / "cache").iterdir()} == {
            "old": "old",
            "new": "read",
        }
        assert "said to stdout\n" in (logs / "says.log").read_text()
        assert outcomes["expected"].error == "Expected one. Received: two"
        assert "killed by SIGKILL; the system does that when memory runs out" in outcomes["killed"].error
        assert outcomes["here"].value[0] == 1
        assert engine.wait(0) == []
        # What Ray itself kills is tried again, and named in the end.
        submit(engine, "worker", "jobs:kill_parent")
        assert collect(engine, 1)["worker"].error == (
            f"its node was lost, or its process was killed there; tried {MAX_TRIES} times"
        )
        assert (logs / "worker.log").read_text().count("Tried again") == MAX_TRIES - 1


@pytest.mark.usefixtures("work_here")
def test_no_cluster_at_the_address_is_named(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")

    def fail(*_, **__):
        raise ConnectionError("ray client\nconnection timeout")

    monkeypatch.setattr("ray.init", fail)  # which takes half a minute to give up
    expected = (
        "--address: Expected a running Ray cluster at ray://gone:1. Received: ray client connection timeout"
    )
    with LocalEngine(1, tmp_path) as here, pytest.raises(PneumoError) as error:
        RayEngine("ray://gone:1", here, tmp_path)
    assert str(error.value) == expected


@pytest.mark.usefixtures("work_here")
def test_a_missing_ray_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with LocalEngine(1, tmp_path) as here, pytest.raises(PneumoError, match=r"pip install 'pneumo\[ray\]'"):
        RayEngine("auto", here, tmp_path)


def test_outputs_are_replaced_and_caches_added_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("out/old", "cache/old", "outer/left"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("old")
    contents = {name: np.frombuffer(name.encode(), np.uint8) for name in ("out/sub/new", "cache/new", "file")}
    place_outputs(Files((), ("out", "file", "absent"), ("cache",)), contents)
    found = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    }
    new = {name: name for name in contents}
    assert found == {"cache/old": "old", "outer/left": "old"} | new


@pytest.mark.usefixtures("work_here")
def test_what_travels_is_code_and_configuration(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "stress.yaml").write_text("a: 1\n")
    target = tmp_path / "packed"
    target.mkdir()
    pack_project(target)
    assert sorted(path.name for path in target.iterdir()) == ["conf", "params.yaml", "pneumo"]
    assert (target / "pneumo/execution/ray_node.py").is_file()
    assert not list(target.rglob("__pycache__"))
