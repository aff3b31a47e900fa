"""Outputs that appear under their name only when they are complete.

Everything is written beside its target under a name ending in `.partial` and renamed when done, so a killed
process leaves either the old output or none. `.partial` names are ignored by git and DVC; the next write of
the same target sweeps up what a killed one left.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PARTIAL_SUFFIX = ".partial"


def _partial_path(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*{PARTIAL_SUFFIX}"):
        if not _is_running(leftover):
            remove(leftover)
    return target.parent / f".{target.name}.{os.getpid()}{PARTIAL_SUFFIX}"


def _is_running(partial: Path) -> bool:
    pid = partial.name.removesuffix(PARTIAL_SUFFIX).rpartition(".")[2]
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def write_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `target` when the block ends without an error.

    Args:
        target: the file's final path; its folder is made.

    Yields:
        Path of a file that does not exist yet, in the same folder.
    """
    partial = _partial_path(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces `target` when the block ends without an error."""
    partial = _partial_path(target)
    partial.mkdir()
    try:
        yield partial
        remove(target)
        partial.rename(target)
    finally:
        remove(partial)


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file, complete or not at all."""
    with write_file(target) as partial:
        partial.write_text(text, encoding="utf-8")


def write_array(target: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy file as `numpy.save` does, complete or not at all.

    `numpy.save` does not say why the system refuses to write, such as that the disk is full.

    Args:
        target: the file.
        array: of any shape, numbers or truth values.
    """
    array = np.ascontiguousarray(array)
    with write_file(target) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)


def write_json(target: Path, value: Any) -> None:
    """Write indented JSON, complete or not at all.

    Args:
        target: the file.
        value: of JSON's types; an Enum is written as its value. Not-a-number is refused.
    """
    write_text(target, json.dumps(value, indent=2, allow_nan=False, default=_encode_enum) + "\n")


def _encode_enum(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"Expected a type of JSON's. Received: {type(value).__name__}")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
