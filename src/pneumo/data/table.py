"""The table of a data set of one's own: columns and values, mapped to those of the manifest.

Nothing here opens an image. Rows that cannot be used are set aside with a reason, never dropped.
"""

import contextlib
import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from pneumo.base.errors import PneumoError
from pneumo.base.labels import SPLITS, Subtype
from pneumo.data.decoding import IMAGE_SUFFIXES

GROUP_COLUMNS = ("view", "age", "sex", "site")  # of the manifest, where they are known
ROW_COLUMNS = ("id", "file", "label", "subtype", "patient", "official_split", *GROUP_COLUMNS)
ASIDE_COLUMNS = ("path", "reason", "value")

_PARQUET_SUFFIXES = (".parquet", ".pq")
_TRUE = ("1", "true")
# What stands for no value in tables; pandas reads these as missing too.
_MISSING = ("", "na", "n/a", "#na", "#n/a", "#n/a n/a", "nan", "-nan", "null", "none", "<na>")
_PLACE = "{}"
_N_SHOWN = 8  # columns, in an error
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([DWMY]?)", re.IGNORECASE)
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0, "": 1.0}
_OLDEST = 120  # years; more is an error of the table, such as 414 in ChestX-ray14


@dataclass
class PathColumn:
    """Where the file of a row is.

    Attributes:
        column: holds a path, or what stands in it for `{}` of the pattern.
        pattern: path below the folder. `{}` is replaced by what stands in the column; folders before it may
            hold the wildcards `*`, `?`, `[]` and `**`.
    """

    column: str = "path"
    pattern: str = _PLACE

    def __post_init__(self) -> None:
        folder = self.pattern.partition(_PLACE)[0].rpartition("/")[0]
        rest = self.pattern.removeprefix(folder)
        if self.pattern.count(_PLACE) != 1 or any(char in rest for char in "*?["):
            raise PneumoError(
                "Expected path.pattern with {} once, and wildcards in folders before it only. "
                f"Received: {self.pattern}"
            )
        if not PurePosixPath(self.pattern).parts or _leads_out(self.pattern):
            raise PneumoError(f"Expected path.pattern below the folder. Received: {self.pattern}")


@dataclass
class LabelColumn:
    """What the image of a row shows.

    Attributes:
        column: holds one value, or several with `separator` between them.
        columns: in place of `column`, one column a finding, whose name is a value of the row where it holds 1
            or true.
        separator: between the values of a row; "" where it holds one.
        positive: a row with any of these values is pneumonia.
        negative: a row with nothing but these values is normal. Other rows are set aside.
    """

    column: str = "label"
    columns: list[str] = field(default_factory=list)
    separator: str = ""
    positive: list[str] = field(default_factory=lambda: ["pneumonia", "Pneumonia", "PNEUMONIA", "1"])
    negative: list[str] = field(default_factory=lambda: ["normal", "Normal", "NORMAL", "0"])

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            if not getattr(self, name):
                raise PneumoError(f"Expected at least one value in label.{name}. Received: none")
        if both := set(self.positive) & set(self.negative):
            raise PneumoError(
                f"Expected values of label that are positive or negative. Received: both of {sorted(both)[0]}"
            )


@dataclass
class SplitColumn:
    """Which set the image of a row belongs to.

    Attributes:
        column: holds one of the values below.
        train, val, test: values that mean this set.
        lists: set -> text file with a row's path a line, as it stands in its column; then there is no column.
    """

    column: str = "split"
    train: list[str] = field(default_factory=lambda: ["train"])
    val: list[str] = field(default_factory=lambda: ["val", "valid", "validation"])
    test: list[str] = field(default_factory=lambda: ["test"])
    lists: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_splits("split.lists", self.lists)


@dataclass
class SubtypeColumn:
    """What caused the pneumonia of a row; other values mean that it is not known.

    Attributes:
        column: holds one of the values below.
        bacterial, viral: values that mean this cause.
    """

    column: str = "subtype"
    bacterial: list[str] = field(default_factory=lambda: ["bacterial"])
    viral: list[str] = field(default_factory=lambda: ["viral"])


@dataclass
class Columns:
    """Which columns a table has. One that is named otherwise than here must be there.

    Attributes:
        path: where the file is.
        label: what it shows.
        split: which set it belongs to.
        subtype: what caused the pneumonia.
        patient: any text that is the same for all images of a patient.
        view: such as PA or AP.
        age: in years, or as in DICOM, 012M.
        sex: such as F or M.
        site: hospital or machine.
    """

    path: PathColumn = field(default_factory=PathColumn)
    label: LabelColumn = field(default_factory=LabelColumn)
    split: SplitColumn = field(default_factory=SplitColumn)
    subtype: SubtypeColumn = field(default_factory=SubtypeColumn)
    patient: str = "patient"
    view: str = "view"
    age: str = "age"
    sex: str = "sex"
    site: str = "site"


@dataclass(frozen=True)
class Rows:
    """A table, read.

    Attributes:
        images: one row an image, in the order of the table, with ROW_COLUMNS: `id`, its path below the
            folder; `file`, where it lies; `patient` and `official_split`, "" where the table does not say.
        set_aside: rows that cannot be used, with ASIDE_COLUMNS; `value` is the label, split or path that is
            the reason.
    """

    images: pd.DataFrame
    set_aside: pd.DataFrame


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file (divided by comma, semicolon or tab) or a Parquet file, every cell as text.

    Args:
        path: the file; `.parquet` and `.pq` are Parquet.

    Returns:
        Frame of str without surrounding space, "" where a cell is empty.

    Raises:
        PneumoError: it cannot be read, or it has no rows.
    """
    if not path.is_file():
        raise PneumoError(f"Expected a table. Received: {path}, which is no file. Correct data.table.")
    table = _read_parquet(path) if path.suffix.lower() in _PARQUET_SUFFIXES else _read_csv(path)
    if table.empty:
        raise PneumoError(f"Expected a table with a row an image. Received: {path} with 0 rows.")
    return table.rename(columns=str.strip)


def map_rows(table: pd.DataFrame, columns: Columns, folder: Path) -> Rows:
    """Map the columns and values of a table to those of the manifest, and find every file.

    Args:
        table: as `read_table` returns it.
        columns: which column is which.
        folder: the images are below.

    Returns:
        Rows that can be used and rows that cannot. Of equal rows of one file the first is used; where rows of
        one file disagree, none is.

    Raises:
        PneumoError: a column is missing.
    """
    names = _find_columns(table, columns)
    rows = pd.DataFrame(index=table.index)
    rows["path"] = table[columns.path.column]
    for name in ("patient", *GROUP_COLUMNS):
        cells = table[names[name]] if name in names else pd.Series("", index=table.index)
        rows[name] = cells.where(~cells.str.lower().isin(_MISSING), "")
    rows["age"] = rows["age"].map(write_age)
    values = _list_values(table, columns.label)
    rows["label"] = [_choose_label(of_row, columns.label) for of_row in values]
    rows["stated_label"] = ["|".join(sorted(of_row)) for of_row in values]
    cause = table[names["subtype"]] if "subtype" in names else pd.Series("", index=table.index)
    rows["subtype"] = [
        _choose_subtype(label, of_row, columns.subtype)
        for label, of_row in zip(rows["label"], cause, strict=True)
    ]
    rows["stated_split"], rows["official_split"] = _find_splits(table, columns, names, folder)
    rows["id"], rows["file"], rows["reason"] = _find_files(rows["path"], columns.path.pattern, folder)
    _judge(rows, has_split="split" in names or bool(columns.split.lists), has_patient="patient" in names)
    usable = rows["reason"] == ""
    aside = rows[~usable].copy()
    value = aside["path"].where(~aside["reason"].isin([_NO_LABEL, _NO_SPLIT]), aside["stated_label"])
    value = value.where(aside["reason"] != _NO_SPLIT, aside["stated_split"])
    unnamed = [f"row {number + 1}" for number in aside.index]
    aside = aside.assign(path=aside["path"].where(aside["path"] != "", unnamed), value=value)
    return Rows(
        rows.loc[usable, list(ROW_COLUMNS)].reset_index(drop=True),
        aside[list(ASIDE_COLUMNS)].reset_index(drop=True),
    )


def write_age(text: str) -> str:
    """Return an age in years with at most two digits after the point; "" where it is not known.

    Args:
        text: years, or a number and D, W, M or Y as in DICOM.
    """
    match = _AGE.fullmatch(text)
    if not match:
        return ""
    years = float(match[1]) / _PER_YEAR[match[2].upper()]
    return f"{years:.2f}".rstrip("0").rstrip(".") if years <= _OLDEST else ""


def require_splits(key: str, names: Iterable[str]) -> None:
    """Raise a PneumoError where a key is no name of a split."""
    if other := set(names) - set(SPLITS):
        raise PneumoError(f"{key}: Expected {', '.join(SPLITS)}. Received: {sorted(other)[0]}")


_NO_LABEL = "its label is neither positive nor negative"
_NO_SPLIT = "its split is none of train, val and test"


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        divider = next((char for char in (",", ";", "\t") if char in header), ",")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows longer than the header
            return pd.read_csv(
                path, sep=divider, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
            ).map(str.strip)
    except UnicodeDecodeError as error:
        raise PneumoError(f"Expected a table in UTF-8. Received: {path} in another encoding.") from error
    except pd.errors.EmptyDataError as error:
        raise PneumoError(
            f"Expected a table with a row an image. Received: {path}, an empty file."
        ) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, OSError, ValueError) as error:
        raise PneumoError(f"Cannot read the table {path}: {' '.join(str(error).split())}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        import polars
    except ImportError as error:
        raise PneumoError(
            f"Expected the package polars, which reads {path}. Received: none. "
            "Install pneumo's extra `parquet`, or use a CSV file."
        ) from error
    try:
        table = polars.read_parquet(path)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise PneumoError(f"Cannot read the table {path}: {' '.join(str(error).split())}") from error
    cells = {name: [_write_cell(value) for value in table[name].to_list()] for name in table.columns}
    return pd.DataFrame(cells, dtype=str)


def _write_cell(value: object) -> str:
    """Write a value as a CSV file would have it; a column of integers with gaps may hold them as 1.0."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _find_columns(table: pd.DataFrame, columns: Columns) -> dict[str, str]:
    """Return the columns that are there, by what they hold."""
    named = {"path": columns.path.column, "split": columns.split.column, "subtype": columns.subtype.column}
    named |= {name: getattr(columns, name) for name in ("patient", *GROUP_COLUMNS)}
    if columns.split.lists:
        del named["split"]
    required = {"path"} | {name for name in named if named[name] not in (name, "")}
    labels = columns.label.columns or [columns.label.column]
    missing = [name for name in labels if name not in table]
    missing += [named[name] for name in named if name in required and named[name] not in table]
    if missing:
        there = list(table.columns)
        more = f" and {len(there) - _N_SHOWN} more" if len(there) > _N_SHOWN else ""
        raise PneumoError(
            f"Expected a column {missing[0]!r} in the table. Received: {', '.join(there[:_N_SHOWN])}{more}. "
            "Name the columns of the table under data in params.yaml."
        )
    return {name: column for name, column in named.items() if column in table}


def _list_values(table: pd.DataFrame, label: LabelColumn) -> list[set[str]]:
    if label.columns:
        held = table[label.columns].map(lambda cell: _is_true(cell)).to_numpy()
        return [{name for name, is_held in zip(label.columns, row, strict=True) if is_held} for row in held]
    if label.separator:
        return [{part.strip() for part in cell.split(label.separator)} for cell in table[label.column]]
    return [{cell} for cell in table[label.column]]


def _is_true(cell: str) -> bool:
    if cell.lower() in _TRUE:
        return True
    with contextlib.suppress(ValueError):
        return float(cell) == 1
    return False


def _choose_label(values: set[str], label: LabelColumn) -> str:
    if values & set(label.positive):
        return "pneumonia"
    return "normal" if values and values <= set(label.negative) else ""


def _choose_subtype(label: str, cause: str, subtype: SubtypeColumn) -> str:
    if label == "normal":
        return str(Subtype.NORMAL)
    if cause in subtype.bacterial:
        return str(Subtype.BACTERIAL)
    return str(Subtype.VIRAL if cause in subtype.viral else Subtype.UNKNOWN)


def _find_splits(
    table: pd.DataFrame, columns: Columns, names: dict[str, str], folder: Path
) -> tuple[pd.Series, pd.Series]:
    """Return what the table states, and train, val, test or ""."""
    if columns.split.lists:
        stated = pd.Series("", index=table.index)
        for split, name in columns.split.lists.items():
            stated[table[columns.path.column].isin(_read_list(folder / name))] = split
        return stated, stated
    if "split" not in names:
        return pd.Series("", index=table.index), pd.Series("", index=table.index)
    meaning = {value: split for split in SPLITS for value in getattr(columns.split, split)}
    stated = table[names["split"]]
    return stated, stated.map(lambda value: meaning.get(value, ""))


def _read_list(path: Path) -> set[str]:
    try:
        return {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()}
    except (OSError, UnicodeError) as error:
        raise PneumoError(f"split.lists: Expected a text file in UTF-8. Received: {path}: {error}") from error


def _find_files(paths: pd.Series, pattern: str, folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return for each row the path below the folder, the file and "", or "", "" and why there is none."""
    before, after = pattern.split(_PLACE)
    parent, _, prefix = before.rpartition("/")
    folders = sorted(path for path in folder.glob(parent) if path.is_dir()) if parent else [folder]
    root = folder.resolve()
    found = [_find_file(path, prefix, after, folders, folder, root) for path in paths]
    ids, files, reasons = zip(*found, strict=True)
    return list(ids), list(files), list(reasons)


def _find_file(
    path: str, prefix: str, suffix: str, folders: list[Path], folder: Path, root: Path
) -> tuple[str, str, str]:
    if not path:
        return "", "", "no path"
    if _leads_out(path) or "\0" in path:
        return "", "", "its path leads out of the folder"
    name = f"{prefix}{path}{suffix}"
    if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        return "", "", "not an image file by its name"
    # A table and a file system may compose accents differently.
    spellings = dict.fromkeys([name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)])
    files: list[Path] = []
    for spelling in spellings:
        with contextlib.suppress(OSError):  # a name that is too long
            files = [parent / spelling for parent in folders if (parent / spelling).is_file()]
        if files:
            break
    if not files:
        return "", "", "no such file"
    if len(files) > 1:
        return "", "", "several files of this name"
    if not files[0].resolve().is_relative_to(root):
        return "", "", "a link out of the folder"
    return files[0].relative_to(folder).as_posix(), files[0].as_posix(), ""


def _leads_out(path: str) -> bool:
    return bool(
        PurePosixPath(path).anchor or PureWindowsPath(path).anchor or ".." in PurePosixPath(path).parts
    )


def _judge(rows: pd.DataFrame, has_split: bool, has_patient: bool) -> None:
    """Complete `reason`: rows without label, split or patient, equal rows, and rows that disagree."""

    def set_aside(where: pd.Series, reason: str) -> None:
        rows.loc[where & (rows["reason"] == ""), "reason"] = reason

    set_aside(rows["label"] == "", _NO_LABEL)
    if has_split:
        set_aside(rows["official_split"] == "", _NO_SPLIT)
    if has_patient:
        set_aside(rows["patient"] == "", "no patient")
    for name in ("label", "patient", "official_split"):
        usable = rows[rows["reason"] == ""]
        disagree = usable.groupby("id")[name].transform("nunique") > 1
        what = name.removeprefix("official_")
        set_aside(disagree.reindex(rows.index, fill_value=False), f"rows of this file differ in {what}")
    usable = rows[rows["reason"] == ""]
    again = usable.duplicated("id").reindex(rows.index, fill_value=False)
    set_aside(again, "another row of the same file")
