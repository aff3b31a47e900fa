"""Calls in processes of this machine.

Each call has a process of its own, forked from a server that has imported what calls need. It starts within
milliseconds, and no call sees anything that another one left behind: its bytes are those of a new process.
The server has one thread and has initialised no backend, so forking it is safe. Where the system cannot fork,
each process imports for itself.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from pneumo.execution import preload
from pneumo.execution.engine import Call, Engine, Outcome, call_target

_CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
_GPUS_DIR = Path("/proc/driver/nvidia/gpus")


@dataclass
class _Process:
    call: Call
    process: BaseProcess
    results: Connection
    gpus: list[str]
    start: float = field(default_factory=time.perf_counter)


class LocalEngine(Engine):
    """Processes of this machine.

    Args:
        n_cpus: cores to use in sum.
        logs_dir: each call writes what it prints to <name>.log there.
        modules: what calls import, loaded once.
        gpus: the devices, as CUDA_VISIBLE_DEVICES names them.
    """

    def __init__(
        self, n_cpus: int, logs_dir: Path, modules: Sequence[str] = (), gpus: Sequence[str] = ()
    ) -> None:
        self._n_cpus = n_cpus
        self._logs_dir = logs_dir
        self._free_gpus = dict.fromkeys(gpus, 1.0)
        self._waiting: list[Call] = []
        self._processes: dict[str, _Process] = {}
        if _CAN_FORK:
            self._context: Any = multiprocessing.get_context("forkserver")
            os.environ[preload.VARIABLE] = ",".join(modules)
            # The server starts with the first call. One that runs already has imported what it was told then.
            self._context.set_forkserver_preload([preload.__name__])
        else:
            self._context = multiprocessing.get_context("spawn")

    def submit(self, call: Call) -> None:
        """Queue a call."""
        self._waiting.append(call)
        self._waiting.sort(key=lambda each: -each.priority)  # stable: the first of equals stays the first
        self._start_waiting()

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Return outcomes; a process that died without one is an error that names the signal."""
        by_results = {each.results: each for each in self._processes.values()}
        ended = connection.wait(list(by_results), timeout_s)
        outcomes = [self._end(by_results[results]) for results in ended if isinstance(results, Connection)]
        self._start_waiting()
        return outcomes

    def running(self) -> list[str]:
        """Return the names of the calls that have a process."""
        return list(self._processes)

    def cancel(self) -> None:
        """Kill all processes; what they were writing is left as `.partial`."""
        self._waiting.clear()
        for each in self._processes.values():
            each.process.kill()
        for each in self._processes.values():
            each.process.join()
            each.results.close()
        self._processes.clear()

    def _start_waiting(self) -> None:
        while self._waiting and self._fits(self._waiting[0]):
            self._start(self._waiting.pop(0))

    def _fits(self, call: Call) -> bool:
        if call.resources.gpus and self._free_gpus and not self._choose_gpus(call):
            return False
        used = sum(each.call.resources.cpus for each in self._processes.values())
        return used == 0 or used + call.resources.cpus <= self._n_cpus

    def _choose_gpus(self, call: Call) -> list[str]:
        """Return the GPUs that a call gets, none where not enough are free; more than there are is all."""
        if not call.resources.gpus:
            return []
        n_gpus = min(max(1, int(call.resources.gpus)), len(self._free_gpus))
        share = min(call.resources.gpus, 1.0)
        free = [gpu for gpu, left in self._free_gpus.items() if left >= share]
        return free[:n_gpus] if len(free) >= n_gpus else []

    def _start(self, call: Call) -> None:
        share, gpus = min(call.resources.gpus, 1.0), self._choose_gpus(call)
        for gpu in gpus:
            self._free_gpus[gpu] -= share
        log = create_log(self._logs_dir, call.name)  # here, so that a call that runs has one
        results, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_serve_call,
            args=(sender, call, log.absolute(), describe_gpus(gpus, share)),
        )
        with _hide_main():
            process.start()
        sender.close()
        self._processes[call.name] = _Process(call, process, results, gpus)

    def _end(self, ended: _Process) -> Outcome:
        try:
            value, error = ended.results.recv()
            ended.process.join()
        except (EOFError, ConnectionResetError):
            ended.process.join()
            value, error = None, describe_exit(ended.process.exitcode)
        ended.results.close()
        del self._processes[ended.call.name]
        for gpu in ended.gpus:
            self._free_gpus[gpu] += min(ended.call.resources.gpus, 1.0)
        return Outcome(ended.call.name, value, error, time.perf_counter() - ended.start)


def find_log(logs_dir: Path, name: str) -> Path:
    """Return the log file of a call."""
    return logs_dir / f"{name.replace('/', '_')}.log"


def create_log(logs_dir: Path, name: str) -> Path:
    """Return the log file of a call that begins, empty."""
    path = find_log(logs_dir, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def count_cpus() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def list_gpus() -> list[str]:
    """Return the NVIDIA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name not in ("", "-1")]
    return [str(number) for number, _ in enumerate(_GPUS_DIR.iterdir())] if _GPUS_DIR.is_dir() else []


def describe_gpus(gpus: Sequence[str], share: float) -> dict[str, str]:
    """Return the environment of a call that has GPUs, or a share of one, to itself."""
    if not gpus:
        return {}
    # Without these, the first call on a device takes its whole memory.
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus), **(shared if share < 1 else {})}


def describe_exit(exit_code: int | None) -> str:
    """Say why a process ended that returned nothing."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        reason = "; the system does that when memory runs out" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{reason}"
    return f"its process ended with exit status {exit_code}"


@contextlib.contextmanager
def _hide_main() -> Iterator[None]:
    """Keep a new process from importing what this one was started with, which no call needs."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve_call(results: Connection, call: Call, log: Path, environment: dict[str, str]) -> None:
    # Ctrl-C reaches every process of a terminal; the engine decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    outcome = call_target(call.target, call.arguments)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    results.send(outcome)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
