"""The `table` source: a CSV or Parquet file with a row an image; the images stay where they are.

`fetch` writes the table with mapped columns and a SHA-256 of every file, and no image. A file whose size and
time are those of the last time is not read again.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from pneumo.base.artifacts import hash_file, write_file, write_text
from pneumo.base.errors import PneumoError
from pneumo.base.paths import FINGERPRINTS_PATH, ORIGINALS_DIR, REJECTED_NAME, TABLE_NAME
from pneumo.data.table import Columns, Rows, SplitColumn, map_rows, read_table, require_splits

_SPLIT = "the table it is in"
_STATE_COLUMNS = ("file", "bytes", "mtime_ns", "sha256")


@dataclass
class Settings(Columns):
    """Where the table and the images are, and which columns the table has.

    Attributes:
        folder: the images are in it or below. It is only read.
        table: CSV or Parquet file; a path below `folder`, or of another place.
        tables: in place of `table`, split -> file, for data sets with a table a split.
        test_fraction: where the table has no split, share of the images in the test set, in (0, 0.5].
    """

    folder: str = ""
    table: str = ""
    tables: dict[str, str] = field(default_factory=dict)
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        if not self.folder:
            raise PneumoError("Expected data.folder, the folder with the images. Received: none. " + _EXAMPLE)
        if bool(self.table) == bool(self.tables):
            received = "both" if self.table else "none"
            raise PneumoError(f"Expected data.table or data.tables. Received: {received}. {_EXAMPLE}")
        if not 0 < self.test_fraction <= 0.5:
            raise PneumoError(f"Expected test_fraction in (0, 0.5]. Received: {self.test_fraction}.")
        require_splits("tables", self.tables)
        if self.tables and self.split.lists:
            raise PneumoError("Expected tables or split.lists. Received: both.")


_EXAMPLE = (
    "Set data: {source: table, name: hospital, folder: originals/hospital, table: images.csv} in params.yaml."
)


def fetch(settings: Settings, target: Path) -> None:
    """Write table.csv, with `table.ROW_COLUMNS` and `sha256`, and rejected.csv into an existing folder."""
    rows = read_rows(settings)
    rows.set_aside[["path", "reason"]].to_csv(target / REJECTED_NAME, index=False)
    files = rows.images["file"].tolist()
    rows.images.assign(sha256=fingerprint_files(files)).to_csv(target / TABLE_NAME, index=False)


def read_rows(settings: Settings) -> Rows:
    """Read the table and find the files; no image is opened.

    Raises:
        PneumoError: folder or table cannot be read, a column is missing, or no row can be used.
    """
    folder = Path(settings.folder).expanduser()
    if not folder.is_dir():
        raise PneumoError(f"Expected data.folder to be a folder. Received: {folder}. Correct params.yaml.")
    columns: Columns
    if settings.table:
        table, columns = read_table(folder / Path(settings.table).expanduser()), settings
    else:
        table, columns = _join_tables(settings, folder)
    rows = map_rows(table, columns, folder)
    if rows.images.empty:
        raise PneumoError(
            f"Expected rows that can be used. Received: {len(table)} rows, all set aside: "
            f"{'; '.join(count_reasons(rows.set_aside))}."
        )
    return rows


def count_reasons(set_aside: pd.DataFrame, n_values: int = 3) -> list[str]:
    """Say how many rows were set aside for each reason, the most frequent first, with examples.

    Args:
        set_aside: with `table.ASIDE_COLUMNS`.
        n_values: examples of each reason.
    """
    lines = []
    for reason in set_aside["reason"].value_counts().index:
        values = set_aside.loc[set_aside["reason"] == reason, "value"]
        examples = ", ".join(map(ascii, values.value_counts().index[:n_values]))
        more = ", ..." if values.nunique() > n_values else ""
        lines.append(f"{len(values)} {reason} ({examples}{more})")
    return lines


def fingerprint_files(files: list[str]) -> list[str]:
    """Return the SHA-256 of each file; one of the same size and time as when it was last read is not read.

    Args:
        files: paths of regular files.
    """
    known: dict[str, tuple[str, int, int, str]] = {}
    if FINGERPRINTS_PATH.is_file():
        state = pd.read_csv(FINGERPRINTS_PATH, dtype={"file": str, "sha256": str}, keep_default_na=False)
        known = {row[0]: row for row in state[list(_STATE_COLUMNS)].itertuples(index=False, name=None)}

    def fingerprint(file: str) -> tuple[str, int, int, str]:
        path = Path(file).absolute()
        stat = path.stat()
        key = str(path), stat.st_size, stat.st_mtime_ns
        before = known.get(key[0])
        return before if before and before[:3] == key else (*key, hash_file(path))

    with ThreadPoolExecutor() as pool:
        found = list(tqdm(pool.map(fingerprint, files), "fingerprint files", len(files), unit="file"))
    state = pd.DataFrame((known | {row[0]: row for row in found}).values(), columns=list(_STATE_COLUMNS))
    with write_file(FINGERPRINTS_PATH) as partial:
        state.to_csv(partial, index=False)
    return [row[-1] for row in found]


def note_changes(settings: Settings, name: str) -> bool:
    """Write what changes outside `originals/` into a file there, for DVC: a hash of rows, sizes and times.

    Args:
        settings: of the source.
        name: of the data set.

    Returns:
        Whether images or tables are outside: DVC then learns of changes from this call alone.
    """
    folder = Path(settings.folder).expanduser()
    tables = [settings.table] if settings.table else settings.tables.values()
    places = [
        folder,
        *(folder / Path(name).expanduser() for name in [*tables, *settings.split.lists.values()]),
    ]
    if all(place.resolve().is_relative_to(ORIGINALS_DIR.resolve()) for place in places):
        return False
    rows = read_rows(settings)
    content = hashlib.sha256(pd.concat([rows.images, rows.set_aside]).to_csv(index=False).encode())
    for file in rows.images["file"]:
        stat = Path(file).stat()
        content.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    write_text(ORIGINALS_DIR / f".{name}.fingerprint", content.hexdigest() + "\n")
    return True


def _join_tables(settings: Settings, folder: Path) -> tuple[pd.DataFrame, Columns]:
    """Join a table a split, with a column that says which, and return columns that name it."""
    tables = [
        read_table(folder / Path(name).expanduser()).assign(**{_SPLIT: split})
        for split, name in settings.tables.items()
    ]
    joined = pd.concat(tables, ignore_index=True).fillna("")
    return joined, replace(settings, split=SplitColumn(_SPLIT))
