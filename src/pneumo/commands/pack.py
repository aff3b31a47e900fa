"""pack: what a report is made from -> reports/<experiment>/inputs.tar.xz, for `pneumo remake`.

It holds the predictions, records and histories of all runs and what the models look at, but no network and no
image beyond those that the page shows. The tables of the data set lie in reports/data-sets/, once for all
experiments that divide it in one way, in a file named by its content. The same inputs give the same bytes.

Predictions lie column by column: what the runs have in common then takes next to no space.
"""

import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo.base.artifacts import hash_file, write_file
from pneumo.base.config import PARAMS_PATH, Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, Task
from pneumo.base.paths import (
    REPORTS_DIR,
    audit_dir,
    explanations_dir,
    exploration_dir,
    external_dir,
    gallery_path,
    manifest_path,
    pack_path,
    report_dir,
    run_dir,
    samples_path,
)
from pneumo.base.privacy import has_private_data
from pneumo.report.inputs import VIEWS_NAME, choose_galleries, list_predicted

DATA_PACKS_DIR = REPORTS_DIR / "data-sets"  # a hyphen, which no experiment has
DATA_PACK_NAME = "data_pack.txt"  # in a pack: the name of the one with the tables of its data set
_NETWORK_NAME = "model.keras"
_TABLE_NAME = "predictions.csv"
_SUFFIX = ".columns"
_PREFIX = "p_"  # of the columns of probabilities
_FIRST, _SECOND = (f"{_PREFIX}{name}" for name in CLASSES[Task.binary])
_DIGITS = re.compile("[0-9a-f]{8}")
_FORMAT = "%.9g"  # of `tables.write_predictions`


def run(params: Params) -> None:
    """Pack what `compare` has read.

    Raises:
        PneumoError: the data set is private, or `compare` has not run.
    """
    if has_private_data(params):
        raise PneumoError(
            f"Expected a data set that is not private. Received: {params.data_name}. A pack holds names and "
            "images."
        )
    files = list_inputs(params)
    tables = [path for path in files if _is_data_table(path, params)]
    own = sorted(set(files) - set(tables))
    data_pack = DATA_PACKS_DIR / _name_data_pack(params.data_name, tables)
    pack = pack_path(params.experiment)
    write_pack(tables, data_pack)
    write_pack(own, pack, {DATA_PACK_NAME: data_pack.name})
    for path in (pack, data_pack):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def write_pack(files: Iterable[Path], target: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write files into a pack under their paths, after texts under their names."""
    named = ((name, text.encode()) for name, text in (texts or {}).items())
    with write_file(target) as partial, tarfile.open(partial, "w:xz") as archive:
        for name, content in chain(named, map(_read_entry, files)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _read_entry(path: Path) -> tuple[str, bytes]:
    """Return the name and the content of a file in a pack."""
    content = path.read_bytes()
    if path.name == _TABLE_NAME and (columns := divide_columns(content)):
        return f"{path.as_posix()}{_SUFFIX}", columns
    return path.as_posix(), content


def read_inputs(pack: Path, folder: Path) -> None:
    """Extract what `run` packed: an experiment's pack and that of its data set, which lies in ../data-sets/.

    Raises:
        PneumoError: one of them is damaged or hostile, or that of the data set is not there or has
            other content than its name says.
    """
    read_pack(pack, folder)
    pointer = folder / DATA_PACK_NAME
    if not pointer.is_file():
        raise PneumoError(
            f"Expected {DATA_PACK_NAME} in {pack}. Received: none. `pneumo pack` packs it again."
        )
    data_pack = (
        pack.parent.parent
        / DATA_PACKS_DIR.name
        / Path(pointer.read_text(encoding="utf-8", errors="replace")).name
    )
    pointer.unlink()
    if not data_pack.is_file():
        raise PneumoError(f"Expected {data_pack}, which {pack} is of. Received: no such file.")
    tables = read_pack(data_pack, folder)
    if data_pack.name != (name := _name_data_pack(data_pack.name.rpartition("-")[0], tables, folder)):
        raise PneumoError(f"Expected the content that {data_pack} is named by. Received: that of {name}.")


def read_pack(pack: Path, folder: Path) -> list[Path]:
    """Extract a pack and return the files in it, relative to the folder; nothing is written outside of it.

    Raises:
        PneumoError: it is damaged or hostile.
    """
    try:
        with tarfile.open(pack, "r:xz") as archive:
            entries = archive.getmembers()
            if strange := [
                each.name for each in entries if not each.isfile() or Path(each.name).is_absolute()
            ]:
                raise ValueError(f"{strange[0]} in it is no file under a relative path")
            archive.extractall(folder, filter="data")
        for path in sorted(folder.rglob(f"*{_SUFFIX}")):
            path.with_suffix("").write_bytes(join_columns(path.read_bytes()))
            path.unlink()
    except (tarfile.TarError, csv.Error, EOFError, IndexError, OSError, ValueError) as error:
        raise PneumoError(f"Expected a file that `pneumo pack` wrote. Received: {pack} ({error})") from error
    return [Path(each.name.removesuffix(_SUFFIX)) for each in entries]


def divide_columns(table: bytes) -> bytes | None:
    """Return predictions.csv column by column, without what follows from the rest.

    Args:
        table: content of the file.

    Returns:
        One line a column, probabilities as the 8 hexadecimal digits of a float32, which take less space than
        its 9 decimal ones; None where `join_columns` would not give the same bytes back.
    """
    columns = list(zip(*_read_csv(table), strict=False))
    try:
        first = _complete(columns)
        lines = [_encode(column) for column in columns if column != first]
    except ValueError:  # text where a probability is expected
        return None
    divided = _write_csv(lines)
    return divided if join_columns(divided) == table else None


def join_columns(columns: bytes) -> bytes:
    """Return the content of predictions.csv from what `divide_columns` made of it."""
    lines = [_decode(tuple(line)) for line in _read_csv(columns)]
    if (first := _complete(lines)) and all(line[0] != first[0] for line in lines):
        at = next(i for i, line in enumerate(lines) if line[0] == _SECOND)
        lines.insert(at, first)
    return _write_csv(zip(*lines, strict=True))


def _complete(columns: list[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the probabilities of the first of two classes, which are 1 less those of the second."""
    second = next((column for column in columns if column[0] == _SECOND), None)
    if second is None:
        return None
    rest = 1 - np.array(second[1:], np.float32)
    return (_FIRST, *(_FORMAT % value for value in rest))


def _encode(column: tuple[str, ...]) -> tuple[str, ...]:
    name, *values = column
    if not name.startswith(_PREFIX):
        return column
    return (name, *(f"{bits:08x}" for bits in np.array(values, np.float32).view(np.uint32)))


def _decode(line: tuple[str, ...]) -> tuple[str, ...]:
    name, *digits = line
    if not name.startswith(_PREFIX):
        return line
    if not all(map(_DIGITS.fullmatch, digits)):
        raise ValueError(f"Expected 8 hexadecimal digits each for {name}. Received: others")
    bits = np.array([int(each, 16) for each in digits], np.uint32)
    return (name, *(_FORMAT % value for value in bits.view(np.float32)))


def _read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def _write_csv(lines: Iterable[Iterable[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue().encode()


def list_inputs(params: Params) -> list[Path]:
    """Return the files that `compare` reads, sorted; of the galleries those that are on the page.

    Raises:
        PneumoError: `compare` has not run.
    """
    leaderboard_path = report_dir(params.experiment) / "leaderboard.csv"
    if not leaderboard_path.is_file():
        raise PneumoError(f"Expected {leaderboard_path}. Received: no such file. Run `dvc repro`.")
    runs = list_predicted(params)
    shown = choose_galleries(pd.read_csv(leaderboard_path), [run.key for run in runs])
    folders = [audit_dir(params.data_name), exploration_dir(params.data_name), *map(run_dir, runs)]
    for combo in params.combos:
        folders += [explanations_dir(params.experiment, combo), external_dir(params.experiment, combo)]
    files = {PARAMS_PATH, manifest_path(params.data_name)}
    files |= {samples_path(params.data_name, combo) for combo in params.combos}
    files |= {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    unseen = [run for run in runs if run.key not in shown]
    files -= {path for run in unseen for path in (gallery_path(run), run_dir(run) / VIEWS_NAME)}
    return sorted(path for path in files if path.name != _NETWORK_NAME)


def _is_data_table(path: Path, params: Params) -> bool:
    """Say whether a file is the same for all experiments on a data set that is divided in the same way."""
    folders = (audit_dir(params.data_name), exploration_dir(params.data_name))
    return path == manifest_path(params.data_name) or any(path.is_relative_to(each) for each in folders)


def _name_data_pack(data_name: str, tables: Iterable[Path], folder: Path = Path()) -> str:
    lines = "".join(f"{path} {hash_file(folder / path)}\n" for path in sorted(tables))
    return f"{data_name}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}.tar.xz"
