"""What a node of a Ray cluster does with a call: place its files in a folder, run it, return its outputs."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.base.errors import PneumoError
from pneumo.execution.engine import Call, Outcome, call_target
from pneumo.execution.local import LocalEngine, list_gpus

STORE_DIR = ".store"  # in Ray's working directory, once a node; files are named by their SHA-256
RUNS_DIR = ".runs"
TARGET = f"{__name__}:call_in"


@dataclass(frozen=True)
class Input:
    """A file of a call.

    Attributes:
        path: where the call looks for it, relative to its folder.
        sha256: of its content.
        content: Ray's reference to a uint8 array of its bytes.
    """

    path: str
    sha256: str
    content: Any


@dataclass(frozen=True)
class Returned:
    """What a node sends back.

    Attributes:
        outcome: of the call.
        log: what it printed.
        files: path -> uint8 array of the bytes, of the outputs that it left.
    """

    outcome: Outcome
    log: bytes
    files: dict[str, npt.NDArray[np.uint8]]


def run_call(call: Call, inputs: list[Input], modules: tuple[str, ...]) -> Returned:
    """Run a call in a folder of its own, in a process forked from a server that has imported its modules.

    Args:
        call: with `files`.
        inputs: the content of all its input files.
        modules: what calls import, see `LocalEngine`.
    """
    import ray

    shipped = Path.cwd()
    Path(RUNS_DIR).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RUNS_DIR) as scratch:
        folder = Path(scratch).absolute()
        for entry in shipped.iterdir():
            if entry.name not in (STORE_DIR, RUNS_DIR):
                (folder / entry.name).symlink_to(entry)
        for each in inputs:
            stored = shipped / STORE_DIR / each.sha256
            if not stored.is_file():
                store_file(ray.get(each.content), stored)
            place_file(stored, folder / each.path)
        gpus = list_gpus() if call.resources.gpus else []
        logs_dir = folder / "logs"
        with LocalEngine(call.resources.cpus, logs_dir, modules, gpus) as engine:
            # Ray's own threads keep this process's folder; only the call's process may change into another.
            arguments = (str(folder), call.target, call.arguments)
            engine.submit(Call("call", TARGET, arguments, call.resources))
            outcomes: list[Outcome] = []
            while not outcomes:
                outcomes = engine.wait(60)
        files = read_outputs(folder, call, {each.path for each in inputs}) if not outcomes[0].error else {}
        ended = outcomes[0]
        outcome = Outcome(call.name, ended.value, ended.error, ended.seconds)
        return Returned(outcome, (logs_dir / "call.log").read_bytes(), files)


def call_in(folder: str, target: str, arguments: tuple[Any, ...]) -> Any:
    """Call a function in a folder; what it raises is the outcome's error."""
    os.chdir(folder)
    value, error = call_target(target, arguments)
    if error is not None:
        raise PneumoError(error)
    return value


def clear_node() -> None:
    """Remove what calls have left in Ray's working directory of this node, a hospital's images among it."""
    for name in (STORE_DIR, RUNS_DIR):
        shutil.rmtree(name, ignore_errors=True)


def store_file(content: npt.NDArray[np.uint8], path: Path) -> None:
    """Write a file that other processes may be writing too; it is complete or not there."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    content.tofile(partial)
    partial.replace(path)


def place_file(stored: Path, path: Path) -> None:
    """Let a path lead to a stored file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(stored)


def read_outputs(folder: Path, call: Call, inputs: set[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the content of the files that a call has left of its outputs."""
    assert call.files is not None  # noqa: S101, the engine keeps calls without files to itself
    written = [folder / name for name in (*call.files.outputs, *call.files.caches)]
    paths = [str(path.relative_to(folder)) for path in list_files(written)]
    return {path: np.fromfile(folder / path, np.uint8) for path in paths if path not in inputs}


def list_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files at and below some paths; those that are not there are left out."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file())
        elif path.is_file():
            found.append(path)
    return found
