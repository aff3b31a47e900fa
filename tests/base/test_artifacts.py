import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from import_graph import ROOT
from pneumo.base import artifacts
from pneumo.base.artifacts import (
    hash_file,
    read_json,
    remove,
    write_array,
    write_file,
    write_folder,
    write_json,
)

NEVER_A_PID = 2**22 + 1  # Linux counts to 2**22


@dataclass(frozen=True)
class Kind:
    """What differs between files and folders: how to write one, and where in it the text stands."""

    name: str
    inside: str = ""

    @property
    def write(self):
        return getattr(artifacts, self.name)

    def fill(self, path, text):
        (path / self.inside).write_text(text)

    def read(self, path):
        return (path / self.inside).read_text()


@pytest.fixture(params=[Kind("write_file"), Kind("write_folder", "inside.txt")], ids=lambda kind: kind.name)
def kind(request):
    return request.param


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "target"


def names_beside(target):
    return sorted(path.name for path in target.parent.iterdir())


def write(kind, target, text):
    with kind.write(target) as partial:
        kind.fill(partial, text)


def test_target_appears_when_the_block_ends(kind, target):
    with kind.write(target) as partial:
        kind.fill(partial, "new")
        assert not target.exists()
        assert partial.parent == target.parent
    assert kind.read(target) == "new"
    assert names_beside(target) == ["target"]


def test_target_is_replaced_as_a_whole(kind, target):
    write(kind, target, "old")
    with kind.write(target) as partial:
        kind.fill(partial, "new")
        assert kind.read(target) == "old"
    assert kind.read(target) == "new"
    assert names_beside(target) == ["target"]


def test_replaced_folder_keeps_nothing_of_the_old(target):
    with write_folder(target) as partial:
        (partial / "old.txt").touch()
    with write_folder(target) as partial:
        (partial / "new.txt").touch()
    assert [path.name for path in target.iterdir()] == ["new.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existed", [True, False])
def test_failing_block_changes_nothing(kind, target, existed, error):
    if existed:
        write(kind, target, "old")

    def fail():
        with kind.write(target) as partial:
            kind.fill(partial, "half")
            raise error

    with pytest.raises(error):
        fail()
    assert names_beside(target) == (["target"] if existed else [])
    if existed:
        assert kind.read(target) == "old"


def test_killed_process_leaves_the_old_and_the_next_write_sweeps_up(kind, target):
    write(kind, target, "old")
    script = f"""
import os, signal
from pathlib import Path
from pneumo.base.artifacts import {kind.name}
with {kind.name}(Path({str(target)!r})) as partial:
    (partial / {kind.inside!r}).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names_beside(target)) == 2
    assert kind.read(target) == "old"
    write(kind, target, "new")
    assert kind.read(target) == "new"
    assert names_beside(target) == ["target"]


@pytest.mark.parametrize("leftover_is_folder", [True, False])
@pytest.mark.parametrize(
    ("owner", "is_swept"),
    [(NEVER_A_PID, True), (os.getppid(), False), (os.getpid(), True), ("nobody", True)],
    ids=["dead", "living", "own", "no number"],
)
def test_leftovers_are_swept_unless_their_process_lives(kind, target, owner, is_swept, leftover_is_folder):
    leftover = target.with_name(f".target.{owner}.partial")
    leftover.parent.mkdir()
    if leftover_is_folder:
        leftover.mkdir()
        (leftover / "half.txt").touch()
    else:
        leftover.touch()
    write(kind, target, "new")
    assert names_beside(target) == (["target"] if is_swept else [leftover.name, "target"])


def test_leftovers_of_a_process_of_someone_else_are_not_swept(kind, target, monkeypatch):
    leftover = target.with_name(f".target.{NEVER_A_PID}.partial")
    leftover.parent.mkdir()
    leftover.touch()

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    write(kind, target, "new")
    assert leftover.exists()


def test_leftovers_of_another_target_are_left_alone(kind, target):
    other = target.with_name(f".other.{NEVER_A_PID}.partial")
    other.parent.mkdir()
    other.touch()
    write(kind, target, "new")
    assert other.exists()


@pytest.mark.parametrize("name", [".gitignore", ".dvcignore"])
def test_partial_names_are_ignored_by_git_and_dvc(name):
    assert f"*{artifacts.PARTIAL_SUFFIX}" in (ROOT / name).read_text().split()


def test_json_comes_back(target):
    value = {"umlaut": "Röntgen", "list": [1, 2.5, None, True]}
    write_json(target, value)
    assert read_json(target) == value
    assert target.read_text().endswith("}\n")
    assert json.loads(target.read_bytes()) == value


def test_json_refuses_what_is_no_number(target):
    write_json(target, {"roc_auc": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"roc_auc": float("nan")})
    assert read_json(target) == {"roc_auc": 0.5}


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_hash_of_a_file_is_that_of_its_content(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert hash_file(path) == hashlib.sha256(content).hexdigest()


def test_remove(tmp_path):
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.touch()
    (folder / "deep").mkdir(parents=True)
    link.symlink_to(folder)
    remove(link)
    assert folder.exists()
    for path in (file, folder, tmp_path / "nothing"):
        remove(path)
    assert list(tmp_path.iterdir()) == []


def test_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with write_file(Path("target")) as partial:
        partial.write_text("new")
    assert Path("target").read_text() == "new"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
        np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0).reshape(3, 4)[::2, 1:3],
        np.zeros((0, 5), np.int64),
        np.array([True, False]),
    ],
    ids=["images", "features", "transposed", "sliced", "empty", "truth values"],
)
def test_an_array_is_written_as_numpy_does(target, tmp_path, array):
    write_array(target, array)
    np.save(tmp_path / "by_numpy.npy", np.ascontiguousarray(array))
    assert target.read_bytes() == (tmp_path / "by_numpy.npy").read_bytes()
    assert names_beside(target) == ["target"]


def test_an_array_that_does_not_fit_says_why_and_leaves_nothing(target):
    """The limit on a file's size stands for a disk that is full while the file grows."""
    array = np.ones(10_000)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write_array(target, array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert error.value.errno == errno.EFBIG
    assert names_beside(target) == []
