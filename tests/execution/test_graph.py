"""Tasks in the order of their dependencies, on engines that need no time."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from engines import MockEngine
from pneumo.base.errors import PneumoError
from pneumo.execution.engine import Call
from pneumo.execution.graph import Task, run_graph


def make_tasks(needs, after=()):
    return [
        Task(name, frozenset(others), frozenset(dict(after).get(name, ()))) for name, others in needs.items()
    ]


def begin(task, priority):
    return Call(task.name, "nothing:nothing", priority=priority)


def run(tasks, engine, begin=begin, finish=lambda _: None):
    return run_graph(tasks, engine, begin, finish)


DIAMOND = {"a": "", "b": "a", "c": "a", "d": "bc"}


def test_a_task_begins_after_all_that_it_needs():
    needs = {str(i): [str(j) for j in random.Random(i).sample(range(i), min(i, 3))] for i in range(60)}
    ended, seconds = set(), random.Random(0)

    def check(task, priority):
        assert task.needs <= ended
        return begin(task, priority)

    engine = MockEngine(7, lambda _: seconds.random())
    progress = run(make_tasks(needs), engine, check, lambda outcome: ended.add(outcome.name))
    assert progress.done.keys() == needs.keys()
    assert 1 < engine.most_running <= 7


def test_as_many_run_at_a_time_as_there_are_workers():
    engine = MockEngine(4, lambda _: 1.0)
    run(make_tasks(dict.fromkeys("abcdefghij", "")), engine)
    assert engine.most_running == 4
    assert engine.now == 3


def test_the_longest_chain_goes_first():
    chain = {"x": "", "y": "", "z": "", "a": "", "b": "a", "c": "b"}
    engine = MockEngine(1, lambda _: 1.0)
    run(make_tasks(chain), engine)
    # All are submitted as soon as they may run, so that only a's place among the first four tells.
    assert engine.order[0] in ("a", "x")
    assert engine.order.index("a") < engine.order.index("y")


def test_what_needs_a_failed_task_is_skipped_and_the_rest_goes_on():
    needs = DIAMOND | {"e": "d", "f": "c"}
    measure = {"b": ValueError("no")}
    progress = run(make_tasks(needs), MockEngine(2, lambda name: measure.get(name, 1.0)))
    assert progress.failed == {"b": "no"}
    assert progress.skipped == {"d": "b", "e": "b"}
    assert progress.done.keys() == {"a", "c", "f"}
    assert progress.n_ended == progress.n_tasks == 6


def test_after_waits_but_does_not_need():
    tasks = make_tasks({"a": "", "b": ""}, after={"b": "a"})
    engine = MockEngine(2, lambda name: ValueError("no") if name == "a" else 1.0)
    progress = run(tasks, engine)
    assert engine.most_running == 1
    assert (progress.failed, list(progress.done)) == ({"a": "no"}, ["b"])


def test_what_has_nothing_to_run_is_not_submitted():
    engine = MockEngine(2, lambda _: 1.0)
    progress = run(make_tasks(DIAMOND), engine, lambda task, p: None if task.name == "a" else begin(task, p))
    assert progress.unchanged == ["a"]
    assert sorted(engine.order) == ["b", "c", "d"]


@pytest.mark.parametrize("which", ["begin", "finish"])
def test_errors_of_bookkeeping_are_failures_of_the_task(which):
    def fail(named, *rest):
        if named.name == "b":
            raise PneumoError("disk full")
        return begin(named, *rest) if rest else None

    progress = run(make_tasks(DIAMOND), MockEngine(2, lambda _: 1.0), **{which: fail})
    assert progress.failed == {"b": "disk full"}
    assert progress.skipped == {"d": "b"}


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="cycles"):
        run(make_tasks({"a": "b", "b": "a"}), MockEngine(1, lambda _: 1.0))


def test_ten_thousand_runs_on_a_thousand_workers():
    script = """
import random, sys, time
from execution.test_graph import make_sweep, run
from engines import MockEngine
tasks = make_sweep(10_000)
seconds = random.Random(0)
engine = MockEngine(1_000, lambda _: seconds.uniform(50, 100))
start = time.process_time()
progress = run(tasks, engine)
assert len(progress.done) == len(tasks) > 20_000
assert engine.most_running == 1_000
# Of this process alone; the maximum of getrusage is inherited from the one that started it.
status = dict(line.split(":") for line in open("/proc/self/status"))
print(time.process_time() - start, engine.now, status["VmHWM"].split()[0])
"""
    folder = Path(__file__).parents[1]
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, check=True
    )
    cpu_s, simulated_s, memory_kb = map(float, process.stdout.split())
    assert cpu_s < 0.1 * simulated_s
    assert memory_kb < 1e6


def make_sweep(n_runs):
    """Return the tasks of an experiment of 10 combos, each with n_runs / 10 runs."""
    tasks = [Task("prepare")]
    for combo in map(str, range(10)):
        tasks.append(Task(f"preprocess@{combo}", frozenset({"prepare"})))
        trains = [f"train@{combo}-{number}" for number in range(n_runs // 10)]
        for name in trains:
            tasks.append(Task(name, frozenset({f"preprocess@{combo}"})))
            tasks.append(Task(name.replace("train", "evaluate"), frozenset({name})))
        tasks.append(Task(f"explain@{combo}", frozenset(trains)))
    tasks.append(Task("compare", frozenset(task.name for task in tasks)))
    return tasks
