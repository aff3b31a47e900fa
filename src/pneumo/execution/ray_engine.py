"""Calls on the nodes of a Ray cluster, which share no disk with this machine.

Code and configuration travel as Ray's working directory, files through its object store, once a node.
Results come back as bytes and are put in place here. A node runs each call in a process of its own, as the
local engine does, so that the bytes are the same.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pneumo
from pneumo.base.artifacts import hash_file, write_file, write_folder
from pneumo.base.errors import PneumoError
from pneumo.execution.engine import Call, Engine, Files, Outcome
from pneumo.execution.local import LocalEngine, create_log, find_log
from pneumo.execution.ray_node import Input, Returned, clear_node, list_files, run_call

LOCAL_ADDRESS = "local"
MAX_TRIES = 3
POLL_S = 0.05
CLEAR_TIMEOUT_S = 30
# What runs read beside what DVC lists: the configuration, and the lock file whose hash run.json holds.
SHIPPED = ("conf", "params.yaml", "requirements.lock")
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without a GPU a call sees the devices that it would see without Ray: none of them is used.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass
class _Try:
    call: Call
    number: int = 1
    start: float = field(default_factory=time.perf_counter)


class RayEngine(Engine):
    """Calls with files on a cluster, others on this machine.

    Args:
        address: of a running cluster, `auto` or `ray://host:port`; `local` starts Ray on this machine.
        here: runs the calls that have no files.
        logs_dir: what a call prints is written to <name>.log there when it has ended.
        modules: what calls import, loaded once by each of Ray's workers.

    Attributes:
        n_cpus: cores of the cluster when it was joined.
        n_gpus: its GPUs.

    Raises:
        PneumoError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, here: LocalEngine, logs_dir: Path, modules: Sequence[str] = ()) -> None:
        os.environ.update(_SETTINGS)
        self._ray = _import_ray()
        self._here = here
        self._logs_dir = logs_dir
        self._modules = tuple(modules)
        self._tries: dict[Any, _Try] = {}
        self._contents: dict[tuple[str, int, int, int], tuple[str, Any]] = {}
        with tempfile.TemporaryDirectory() as folder:
            pack_project(Path(folder))
            self._connect(address, folder)
        resources = self._ray.cluster_resources()
        self.n_cpus = int(resources.get("CPU", 0))
        self.n_gpus = int(resources.get("GPU", 0))

    def submit(self, call: Call) -> None:
        """Queue a call, on the cluster if it has files."""
        if call.files is None:
            self._here.submit(call)
        else:
            self._submit(_Try(call))

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Return outcomes; a call whose node was lost is tried again before it has one."""
        deadline = time.monotonic() + timeout_s
        while True:
            outcomes = self._here.wait(0) + self._collect()
            left_s = deadline - time.monotonic()
            if outcomes or left_s <= 0:
                return outcomes
            if self._tries:
                self._ray.wait(list(self._tries), timeout=min(POLL_S, left_s), fetch_local=False)
            else:
                return self._here.wait(left_s)

    def running(self) -> list[str]:
        """Return the names of the calls that have a core; of the cluster's, as many as it has cores for."""
        there = [each.call.name for each in self._tries.values()]
        return self._here.running() + there[: self.n_cpus]

    def cancel(self) -> None:
        """Stop all calls and leave the cluster, which goes on without this program."""
        self._here.cancel()
        for reference in self._tries:
            self._ray.cancel(reference, force=True)
        self._tries.clear()
        self._clear_nodes()
        self._ray.shutdown()

    def _clear_nodes(self) -> None:
        """Remove what the calls have left on nodes; Ray keeps working directories for later programs."""
        on = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        clear = self._ray.remote(clear_node)
        names = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        cleared = [
            clear.options(num_cpus=0, max_retries=0, scheduling_strategy=on(name, soft=False)).remote()
            for name in names
        ]
        if cleared:
            self._ray.wait(cleared, num_returns=len(cleared), timeout=CLEAR_TIMEOUT_S)

    def _connect(self, address: str, folder: str) -> None:
        starts = {"include_dashboard": False} if address == LOCAL_ADDRESS else {}
        try:
            self._ray.init(
                address,
                runtime_env={"working_dir": folder},
                log_to_driver=False,
                logging_level="error",
                **starts,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise PneumoError(
                f"--address: Expected a running Ray cluster at {address}. Received: {text}"
            ) from error
        self._run_call = self._ray.remote(run_call)

    def _submit(self, attempt: _Try) -> None:
        call, files = attempt.call, attempt.call.files
        if attempt.number == 1:
            create_log(self._logs_dir, call.name)
        assert files is not None  # noqa: S101, others run here
        paths = list_files(map(Path, (*files.inputs, *files.caches)))
        inputs = [Input(str(path), *self._put(path)) for path in paths]
        # Ray would try again as often for a node that has too little memory as it takes.
        remote = self._run_call.options(
            num_cpus=call.resources.cpus, num_gpus=call.resources.gpus, max_retries=0, name=call.name
        )
        self._tries[remote.remote(call, inputs, self._modules)] = attempt

    def _put(self, path: Path) -> tuple[str, Any]:
        """Return a file's SHA-256 and Ray's reference to its content; the same file is put once."""
        status = path.stat()
        key = (str(path), status.st_mtime_ns, status.st_size, status.st_ino)
        if key not in self._contents:
            self._contents[key] = (hash_file(path), self._ray.put(np.fromfile(path, np.uint8)))
        return self._contents[key]

    def _collect(self) -> list[Outcome]:
        if not self._tries:
            return []
        waiting = list(self._tries)
        ended, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        outcomes = [self._end(reference) for reference in ended]
        return [outcome for outcome in outcomes if outcome is not None]

    def _end(self, reference: Any) -> Outcome | None:
        attempt = self._tries.pop(reference)
        name = attempt.call.name
        errors = self._ray.exceptions
        try:
            returned: Returned = self._ray.get(reference)
        except errors.OutOfMemoryError:
            return self._try_again(attempt, "its node had too little memory, and Ray stopped the run")
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.ObjectLostError,
        ):
            return self._try_again(attempt, "its node was lost, or its process was killed there")
        except errors.RayError as error:
            self._write_log(name, str(error).encode())
            text = str(error).strip().splitlines()[-1]
            return Outcome(
                name, error=f"{type(error).__name__}: {text}", seconds=time.perf_counter() - attempt.start
            )
        self._write_log(name, returned.log)
        assert attempt.call.files is not None  # noqa: S101, others run here
        place_outputs(attempt.call.files, returned.files)
        return returned.outcome

    def _try_again(self, attempt: _Try, reason: str) -> Outcome | None:
        if attempt.number < MAX_TRIES:
            self._write_log(attempt.call.name, f"Tried again: {reason}.\n".encode())
            self._submit(_Try(attempt.call, attempt.number + 1, attempt.start))
            return None
        seconds = time.perf_counter() - attempt.start
        return Outcome(attempt.call.name, error=f"{reason}; tried {MAX_TRIES} times", seconds=seconds)

    def _write_log(self, name: str, log: bytes) -> None:
        with find_log(self._logs_dir, name).open("ab") as file:
            file.write(log)


def pack_project(folder: Path) -> None:
    """Copy the code that runs here, and the configuration of the current folder, into a folder."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(pneumo.__file__).parent, folder / "pneumo", ignore=ignore)
    for name in SHIPPED:
        if Path(name).is_dir():
            shutil.copytree(name, folder / name, ignore=ignore)
        elif Path(name).is_file():
            shutil.copyfile(name, folder / name)


def place_outputs(files: Files, contents: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Write what a call has left, each output complete or not at all.

    Args:
        files: of the call.
        contents: path -> bytes, of all files at and below its outputs and caches.
    """
    single = [path for path in contents if path in files.outputs or is_below(path, files.caches)]
    for path in single:
        with write_file(Path(path)) as partial:
            contents[path].tofile(partial)
    for output in files.outputs:
        below = [path for path in contents if is_below(path, [output])]
        if not below:
            continue
        with write_folder(Path(output)) as folder:
            for path in below:
                target = folder / Path(path).relative_to(output)
                target.parent.mkdir(parents=True, exist_ok=True)
                contents[path].tofile(target)


def is_below(path: str, folders: Iterable[str]) -> bool:
    """Say whether a path is in one of some folders, or in a folder there."""
    return any(Path(folder) in Path(path).parents for folder in folders)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise PneumoError(
            "Expected the package ray for --engine ray. Received: none. Install it: pip install 'pneumo[ray]'"
        ) from error
    return ray
