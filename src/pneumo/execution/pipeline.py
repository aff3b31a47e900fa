"""The stages of dvc.yaml: DVC is asked what is due, and told what was done.

The same steps as `dvc repro`'s, a stage at a time: has it changed; is it in the run cache; else it must run.
What differs: dependencies are recorded as they were when a stage began, and dvc.lock is written seldom and
whole. Until it is written, the run cache knows what was done, so that a killed sweep runs nothing twice.

Methods of DVC's stages that lock each file they touch are not used here: all outputs are locked from the
beginning to the end.
"""

import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from dvc.dependency import ParamsDependency
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro
from dvc.rwlock import RWLockFileCorruptedError, RWLockFileFormatError, rwlock
from dvc.stage.cache import RunCacheNotFoundError
from fsspec.implementations.memory import MemoryFileSystem

from pneumo.base.errors import PneumoError
from pneumo.execution.graph import Task

LOCK_INTERVAL_S = 30.0
# Writing dvc.lock may take this share of the time.
LOCK_SHARE = 0.05


class Pipeline:
    """The pipeline of the current folder. Within its `with` block no other DVC may change its outputs.

    Args:
        outputs: folders in which all outputs lie.
    """

    def __init__(self, outputs: tuple[str, ...]) -> None:
        logging.getLogger("dvc").setLevel(logging.ERROR)
        self._repo = Repo()
        self._hashes = _Hashes()
        self._remove_broken_rwlock()
        with self._asking():
            graph = self._repo.index.graph
        self._stages = {stage.addressing: stage for stage in plan_repro(graph)}
        self._needs = {
            name: frozenset(each.addressing for each in graph.successors(stage))
            for name, stage in self._stages.items()
        }
        self._outputs = [str(Path(self._repo.root_dir, name)) for name in outputs]
        for stage in self._stages.values():
            for dep in stage.deps:
                self._hashes.take_over(dep)
        self._made = {out.fs_path for stage in self._stages.values() for out in stage.outs}
        self._sources: dict[str, Any] = {}
        self._booked: set[str] = set()
        self._is_written = True
        self._lock_path = Path(self._repo.root_dir, "dvc.lock")
        self._old_lock = self._lock_path.read_bytes() if self._lock_path.is_file() else b""
        self._written_lock = self._old_lock
        self._next_write = time.monotonic() + LOCK_INTERVAL_S
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._exit.enter_context(self._claim(self._outputs))
        except DvcException as error:
            raise PneumoError(f"Expected no other run of the pipeline. Received: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.write_lock()
        finally:
            self._exit.close()

    @property
    def tasks(self) -> list[Task]:
        """Every stage, in the order in which `dvc repro` would run them."""
        return [Task(name, self._needs[name]) for name in self._stages]

    def get_command(self, name: str) -> str:
        """Return the command of a stage."""
        return str(self._stages[name].cmd)

    def list_dependencies(self, name: str) -> list[str]:
        """Return the files and folders that a stage reads, relative to the pipeline's folder."""
        deps = self._stages[name].deps
        return [self._shorten(dep) for dep in deps if not isinstance(dep, ParamsDependency)]

    def list_outputs(self, name: str) -> list[str]:
        """Return the files and folders that a stage writes, relative to the pipeline's folder."""
        return [self._shorten(out) for out in self._stages[name].outs]

    def _shorten(self, file: Any) -> str:
        return os.path.relpath(file.fs_path, self._repo.root_dir)

    def restore(self, name: str) -> bool:
        """Say whether a stage's outputs are there; take them from DVC's cache if they are in it.

        Args:
            name: of a stage whose dependencies are there.

        Returns:
            False where the stage must run. Then its old outputs are removed, and its dependencies recorded.

        Raises:
            PneumoError: a file that no stage writes has changed since the sweep began.
        """
        stage = self._stages[name]
        with self._asking(), self._locked():
            self._check_sources(stage)
            if not (stage.changed_stage() or _have_changed(stage.deps) or _have_changed(stage.outs)):
                return True
            for out in stage.outs:
                out.remove()
            try:
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                stage.save_deps()
                return False
            self._save(stage)
        return True

    def commit(self, name: str) -> None:
        """Record a stage that has run, and put its outputs into DVC's cache.

        Raises:
            PneumoError: an output is missing, or what the stage depends on changed while it ran.
        """
        stage = self._stages[name]
        with self._asking(), self._locked():
            if _have_changed(stage.deps):
                raise PneumoError("what it depends on changed while it ran; run the sweep again")
            self._save(stage)

    def write_lock(self) -> None:
        """Write dvc.lock, complete or not at all, with what was done since the sweep began."""
        if self._is_written:
            return
        start = time.monotonic()
        with self._locked():
            current = self._lock_path.read_bytes() if self._lock_path.is_file() else b""
            if current != self._written_lock:  # somebody else's change
                self._old_lock = current
            partial = Path(self._repo.tmp_dir, "dvc.lock")
            partial.write_bytes(self._old_lock)
            booked = [stage for name, stage in self._stages.items() if name in self._booked]
            Lockfile(self._repo, str(partial)).dump_stages(booked)
            self._written_lock = partial.read_bytes()
            shutil.copymode(self._lock_path if current else partial, partial)
            partial.replace(self._lock_path)
        self._is_written = True
        now = time.monotonic()
        self._next_write = now + max(LOCK_INTERVAL_S, (now - start) / LOCK_SHARE)

    def _save(self, stage: Any) -> None:
        stage.save_outs()
        stage.md5 = stage.compute_md5()
        # As in dvc.stage.Stage.run, whose run cache holds no stage with outputs that are not cached.
        if all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs):
            self._repo.stage_cache.save(stage)
        for out in stage.outs:
            out.commit()
        self._booked.add(stage.addressing)
        self._is_written = False
        if time.monotonic() > self._next_write:
            self.write_lock()

    def _check_sources(self, stage: Any) -> None:
        """Raise a PneumoError if a dependency that no stage writes is not as it was when first looked at."""
        for dep in stage.deps:
            if dep.fs_path in self._made or isinstance(dep, ParamsDependency) or not dep.exists:
                continue
            found = dep.get_hash()
            if self._sources.setdefault(dep.fs_path, found) != found:
                raise PneumoError(f"{dep} changed while the sweep ran; run it again")

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except DvcException as error:
            raise PneumoError(f"DVC: {error}") from error
        finally:
            # DVC keeps a copy of every folder's listing that it has made, and searches all of them each time.
            MemoryFileSystem.store.clear()
            MemoryFileSystem.pseudo_dirs[:] = [""]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._repo.lock.is_locked:
            yield
            return
        with self._repo.lock:
            yield

    def _claim(self, paths: list[str]) -> contextlib.AbstractContextManager[None]:
        """Tell other DVC processes that these paths are being written."""
        # DVC tells its own locks from others' by process and command, and names commands so.
        command = " ".join(sys.argv)
        hardlink = self._repo.config["core"].get("hardlink_lock", False)
        return rwlock(self._repo.tmp_dir, self._repo.fs, command, [], paths, hardlink)

    def _remove_broken_rwlock(self) -> None:
        """Remove DVC's list of running stages where a kill has cut it short."""
        path = Path(self._repo.tmp_dir, "rwlock")
        try:
            with self._repo.lock, self._claim([]):
                pass
        except (RWLockFileCorruptedError, RWLockFileFormatError):
            path.unlink(missing_ok=True)
        except DvcException as error:
            raise PneumoError(f"{error}") from error


class _Hashes:
    """Hashes of dependencies, computed again when a file's time, size or place on the disk has changed.

    DVC does the same for single files; here it is done for folders, which it would list ten times a stage.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Any, Any]] = {}

    def take_over(self, dep: Any) -> None:
        """Let a dependency take its hash from here."""
        if isinstance(dep, ParamsDependency):
            return

        def save() -> None:
            if not dep.exists:
                raise dep.DoesNotExistError(dep)
            _, dep.meta, dep.hash_info = self._find(dep)

        dep.get_hash = lambda: self._find(dep)[2]
        dep.save = save

    def _find(self, dep: Any) -> tuple[object, Any, Any]:
        signature = sign_path(Path(dep.fs_path))
        known = self._known.get(dep.fs_path)
        if known is None or known[0] != signature:
            known = (signature, dep.get_meta(), type(dep).get_hash(dep))
            self._known[dep.fs_path] = known
        return known


def sign_path(path: Path) -> list[tuple[str, int, int, int]]:
    """Return name, time of change, size and number of a file, or of each file in a folder."""
    if not path.is_dir():
        return [_sign_file(str(path), path.stat())]
    signature = []
    todo = [str(path)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    todo.append(entry.path)
                else:
                    signature.append(_sign_file(entry.path, entry.stat()))
    return sorted(signature)


def _sign_file(name: str, status: os.stat_result) -> tuple[str, int, int, int]:
    return name, status.st_mtime_ns, status.st_size, status.st_ino


def _have_changed(files: Iterable[Any]) -> bool:
    return any(file.status() for file in files)
