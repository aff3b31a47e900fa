"""Tasks in the order of their dependencies, as many at a time as an engine runs."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pneumo.base.errors import PneumoError
from pneumo.execution.engine import Call, Engine, Outcome

POLL_S = 0.5


@dataclass(frozen=True)
class Task:
    """A node of the graph.

    Attributes:
        name: unique.
        needs: names of the tasks that must have succeeded before.
        after: names of tasks that must have ended before, however they did.
    """

    name: str
    needs: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()


@dataclass
class Progress:
    """Where a graph stands; a graph's `report` is given it after each change.

    Attributes:
        n_tasks: of the graph.
        unchanged: names of the tasks for which there was nothing to run.
        done: name -> seconds, of the tasks that ran.
        failed: name -> error, of those that failed.
        skipped: name -> the failed task because of which it did not run.
        running: names of the tasks that run.
    """

    n_tasks: int
    unchanged: list[str] = field(default_factory=list)
    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)

    @property
    def n_ended(self) -> int:
        """Number of tasks that nothing more happens to."""
        return len(self.unchanged) + len(self.done) + len(self.failed) + len(self.skipped)


def run_graph(
    tasks: Iterable[Task],
    engine: Engine,
    begin: Callable[[Task, int], Call | None],
    finish: Callable[[Outcome], None],
    report: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Run tasks; where one fails, those that need it are skipped and all others go on.

    Args:
        tasks: without cycles; names in `needs` and `after` that are no task's are ignored.
        engine: runs the calls.
        begin: given a task whose turn it is, and its priority, returns its call, or None if there is nothing
            to run. Raises PneumoError if it cannot run.
        finish: given the outcome of a call that succeeded, before any task that needs it begins. Raises
            PneumoError if the task has failed all the same.
        report: called after each change, and at least every POLL_S seconds.

    Returns:
        How all tasks ended.
    """
    by_name = {task.name: task for task in tasks}
    waits_for = {name: (task.needs | task.after) & by_name.keys() for name, task in by_name.items()}
    unmet = {name: len(others) for name, others in waits_for.items()}
    waiters: dict[str, list[str]] = {name: [] for name in by_name}
    for name, others in waits_for.items():
        for other in others:
            waiters[other].append(name)
    heights = _measure_heights(waits_for, waiters)
    places = {name: place for place, name in enumerate(by_name)}
    ready = [(-heights[name], places[name], name) for name, n in unmet.items() if n == 0]
    heapq.heapify(ready)
    progress = Progress(len(by_name))
    running: set[str] = set()

    def end(name: str) -> None:
        ended = [name]
        while ended:
            for waiter in waiters[ended.pop()]:
                unmet[waiter] -= 1
                if unmet[waiter]:
                    continue
                blocked = by_name[waiter].needs & (progress.failed.keys() | progress.skipped.keys())
                if blocked:
                    cause = min(blocked)
                    progress.skipped[waiter] = progress.skipped.get(cause, cause)
                    ended.append(waiter)
                else:
                    heapq.heappush(ready, (-heights[waiter], places[waiter], waiter))

    def start(name: str) -> None:
        try:
            call = begin(by_name[name], heights[name])
        except PneumoError as error:
            progress.failed[name] = str(error)
            end(name)
            return
        if call is None:
            progress.unchanged.append(name)
            end(name)
        else:
            engine.submit(call)
            running.add(name)

    def book(outcome: Outcome) -> None:
        running.discard(outcome.name)
        error = outcome.error
        if error is None:
            try:
                finish(outcome)
            except PneumoError as raised:
                error = str(raised)
        if error is None:
            progress.done[outcome.name] = outcome.seconds
        else:
            progress.failed[outcome.name] = error
        end(outcome.name)

    while ready or running:
        # One at a time: while all that is ready is asked about, an engine may have free workers.
        if ready:
            start(heapq.heappop(ready)[2])
        for outcome in engine.wait(0 if ready else POLL_S):
            book(outcome)
        progress.running = engine.running()
        report(progress)
    return progress


def _measure_heights(
    waits_for: Mapping[str, Iterable[str]], waiters: Mapping[str, list[str]]
) -> dict[str, int]:
    """Return the length of the longest chain of tasks that wait for each task, and for one another.

    Raises:
        ValueError: tasks wait for one another in a circle.
    """
    n_waiters = {name: len(others) for name, others in waiters.items()}
    heights = dict.fromkeys(n_waiters, 0)
    todo = [name for name, n in n_waiters.items() if n == 0]
    n_seen = 0
    while todo:
        name = todo.pop()
        n_seen += 1
        for other in waits_for[name]:
            heights[other] = max(heights[other], heights[name] + 1)
            n_waiters[other] -= 1
            if n_waiters[other] == 0:
                todo.append(other)
    if n_seen < len(heights):
        raise ValueError("Expected tasks without cycles.")
    return heights
