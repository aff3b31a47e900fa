"""Engines for tests: one that calls at once in this process, one whose time is simulated."""

import heapq

from pneumo.execution.engine import Engine, Outcome, call_target


class InlineEngine(Engine):
    """Runs a call when its outcome is waited for; remembers the order."""

    def __init__(self):
        self.calls = []
        self._waiting = []

    def submit(self, call):
        self.calls.append(call)
        self._waiting.append(call)

    def wait(self, timeout_s):  # noqa: ARG002
        calls, self._waiting = self._waiting, []
        return [Outcome(call.name, *call_target(call.target, call.arguments)) for call in calls]

    def running(self):
        return [call.name for call in self._waiting]

    def cancel(self):
        self._waiting.clear()


class MockEngine(Engine):
    """Runs nothing: a call takes as long as it is told to, on a clock that only counts.

    Args:
        n_workers: calls at a time.
        measure: name of a call -> its simulated seconds, or an exception to fail with.
    """

    def __init__(self, n_workers, measure):
        self.now = 0.0
        self.most_running = 0
        self.order = []
        self._n_workers = n_workers
        self._measure = measure
        self._waiting = []
        self._running = []

    def submit(self, call):
        heapq.heappush(self._waiting, (-call.priority, len(self.order) + len(self._waiting), call.name))
        self._start()

    def wait(self, timeout_s):
        if not self._running or timeout_s == 0:
            return []
        self.now, name, error = heapq.heappop(self._running)
        outcomes = [Outcome(name, 0, error, 1.0)]
        while self._running and self._running[0][0] == self.now:
            _, name, error = heapq.heappop(self._running)
            outcomes.append(Outcome(name, 0, error, 1.0))
        self._start()
        return outcomes

    def running(self):
        return [name for _, name, _ in self._running]

    def cancel(self):
        self._waiting.clear()
        self._running.clear()

    def _start(self):
        while self._waiting and len(self._running) < self._n_workers:
            name = heapq.heappop(self._waiting)[2]
            measured = self._measure(name)
            error = str(measured) if isinstance(measured, Exception) else None
            seconds = 1.0 if error else measured
            self.order.append(name)
            heapq.heappush(self._running, (self.now + seconds, name, error))
        self.most_running = max(self.most_running, len(self._running))
