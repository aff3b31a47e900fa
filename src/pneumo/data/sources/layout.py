"""Kaggle's layout, {train,val,test}/{NORMAL,PNEUMONIA}/*: finding it among files, and filling it."""

import csv
import functools
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS, SPLITS
from pneumo.base.paths import REJECTED_NAME
from pneumo.data.decoding import IMAGE_SUFFIXES

REJECTED_COLUMNS = ("path", "reason")

_LONGEST_NAME_BYTES = 255
_LONGEST_PATH_BYTES = 1024


class RejectedFileError(Exception):
    """One file cannot be copied; the message is the reason, and the others go on."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a folder or an archive.

    Attributes:
        name: path in the source, its parts divided by `/`; not checked yet, so it may be hostile.
        save: writes the content to a path that does not exist yet, or raises RejectedFileError before it
            writes.
    """

    name: str
    save: Callable[[Path], None]


PlacedFile = tuple[SourceFile, PurePosixPath]


def list_folder(folder: Path, save: Callable[[Path, Path], None]) -> list[SourceFile]:
    """List all files below a folder, in the order of their paths.

    Links to folders are listed but not followed, as they may form a loop.

    Args:
        folder: the folder.
        save: copies a file (first argument) to a path (second argument).
    """
    files = []
    for parent, folders, names in os.walk(folder, onerror=_raise_unlistable):
        folders.sort()
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(parent, name)
            files.append(SourceFile(path.relative_to(folder).as_posix(), functools.partial(save, path)))
    return files


def _raise_unlistable(error: OSError) -> None:
    raise PneumoError(f"Cannot list the folder {error.filename}: {error.strerror}.") from error


def find_places(files: list[SourceFile], origin: str) -> tuple[list[PlacedFile], list[tuple[str, str]]]:
    """Find the place of each file in Kaggle's layout, from its name alone.

    The data set is the shallowest folder that holds train and test, each with a class folder. Splits and
    classes are found without regard to case. Files in a split folder have a place, all others have none.

    Args:
        files: all files of the source.
        origin: what to call the source in errors.

    Returns:
        The files that have a place, in the order of `files`, and (name, reason) of those whose name cannot
        be used.

    Raises:
        PneumoError: there is no such folder in the source, or there are several.
    """
    faults = [_find_fault(file.name) for file in files]
    rejected = [(file.name, fault) for file, fault in zip(files, faults, strict=True) if fault]
    sound = [(file, PurePosixPath(file.name)) for file, fault in zip(files, faults, strict=True) if not fault]
    root = _find_root([path for _, path in sound], origin)
    places = ((file, _find_place(path, root)) for file, path in sound)
    return [(file, place) for file, place in places if place], rejected


def list_places(files: list[SourceFile], origin: str) -> list[PurePosixPath]:
    """Return the places of all files that have one, each once; errors are those of `find_places`."""
    placed, _ = find_places(files, origin)
    return list(dict.fromkeys(place for _, place in placed))


def arrange(files: list[SourceFile], target: Path, origin: str) -> None:
    """Copy the files of a data set to their places in Kaggle's layout.

    Files that cannot be copied are listed in rejected.csv.

    Args:
        files: all files of the source.
        target: existing empty folder.
        origin: what to call the source in errors.

    Raises:
        PneumoError: `find_places` finds no data set.
    """
    files_with_place, rejected = find_places(files, origin)
    taken: set[PurePosixPath] = set()
    for file, place in tqdm(files_with_place, desc="copy files", unit="file"):
        destination = target / place
        if destination.exists() or not taken.isdisjoint(place.parents):
            rejected.append((file.name, "its place is taken by another file"))
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.save(destination)
        except RejectedFileError as error:
            rejected.append((file.name, str(error)))
        else:
            taken.add(place)
    if rejected:
        _write_rejected(rejected, target / REJECTED_NAME)


def count_images(folder: Path) -> Counter[str]:
    """Count the files with an image's extension in Kaggle's layout, with keys such as `train/NORMAL`."""
    return Counter(
        "/".join(path.relative_to(folder).parts[:2])
        for path in folder.glob("*/*/**/*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _find_fault(name: str) -> str | None:
    """Return what is wrong with a file's path in its archive or folder, or None."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "name is not UTF-8"
    path = PurePosixPath(name)
    if "\0" in name:
        return "name holds a zero byte"
    if PureWindowsPath(name).anchor or ".." in path.parts:
        return "path leads out of the data set"
    longest_part = max((len(part.encode()) for part in path.parts), default=0)
    if len(encoded) > _LONGEST_PATH_BYTES or longest_part > _LONGEST_NAME_BYTES:
        return "name is too long"
    return None


def _find_root(paths: list[PurePosixPath], origin: str) -> PurePosixPath:
    splits: dict[PurePosixPath, set[str]] = defaultdict(set)
    for path in paths:
        for depth, (split, class_folder) in enumerate(itertools.pairwise(path.parts[:-1])):
            if split.lower() in SPLITS and class_folder.upper() in CLASS_FOLDERS:
                splits[PurePosixPath(*path.parts[:depth])].add(split.lower())
    roots = [root for root, found in splits.items() if found >= {"train", "test"}]
    shallowest = [root for root in roots if len(root.parts) == min(len(other.parts) for other in roots)]
    if len(shallowest) == 1:
        return shallowest[0]
    if shallowest:
        received = f"several such folders: {', '.join(sorted(map(str, shallowest)))}"
    elif splits:
        found = (f"{', '.join(sorted(names))} alone in {root}/" for root, names in sorted(splits.items()))
        received = "; ".join(found)
    else:
        received = f"{len(paths)} files elsewhere" + (f", such as {paths[0]}" if paths else "")
    raise PneumoError(
        f"Expected one folder with train/ and test/, each with {' and '.join(CLASS_FOLDERS)}, in {origin}. "
        f"Received: {received}."
    )


def _find_place(path: PurePosixPath, root: PurePosixPath) -> PurePosixPath | None:
    """Return a file's place in Kaggle's layout, or None where it is in no split folder."""
    if not path.is_relative_to(root):
        return None
    split, *rest = path.relative_to(root).parts
    if split.lower() not in SPLITS or not rest:
        return None
    if rest[0].upper() in CLASS_FOLDERS and len(rest) > 1:
        rest[0] = rest[0].upper()
    return PurePosixPath(split.lower(), *rest)


def _write_rejected(rejected: list[tuple[str, str]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(REJECTED_COLUMNS)
        writer.writerows((_make_printable(name), reason) for name, reason in rejected)


def _make_printable(name: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
