"""The table of a data set: one row an image, from its file, its name and its folders."""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from tqdm import tqdm

from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS, SPLITS, Subtype
from pneumo.base.paths import REJECTED_NAME, TABLE_NAME
from pneumo.data.decoding import IMAGE_SUFFIXES, UnreadableImageError, decode_image, suspicious
from pneumo.data.table import GROUP_COLUMNS, ROW_COLUMNS, write_age

COLUMNS = (
    "id",
    "path",
    "label",
    "subtype",
    "patient",
    "official_split",
    "split",
    "width",
    "height",
    "bytes",
    "mode",
    "sha256",
)
NAME_COLUMNS = ("id", "label", "subtype", "patient", "official_split", "parsed")
QUARANTINE_COLUMNS = ("path", "reason")

_KAGGLE_PNEUMONIA = re.compile(r"^(person\d+_(bacteria|virus))_\d+")
_KAGGLE_NORMAL = re.compile(r"^((?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?")
_VERSION_3 = re.compile(r"^(NORMAL|BACTERIA|VIRUS)-(\d+)-(\d+)")
_SUBTYPES = {
    "normal": Subtype.NORMAL,
    "bacteria": Subtype.BACTERIAL,
    "virus": Subtype.VIRAL,
}
_KNOWN_FORMS = "person12_bacteria_34.jpeg, NORMAL2-IM-0115-0001.jpeg or VIRUS-1008087-0001.jpeg"
_N_EXAMPLES = 3


class Patients(StrEnum):
    """Where the patient of an image is read from.

    Attributes:
        from_name: from the file's name. Every name must have a known form.
        from_dicom: from the PatientID of DICOM files. Every file must have one.
        from_table: from a column of a table. Every row must have one.
        per_image: from nowhere. Every image counts as a patient of its own, whatever its name is.
    """

    from_name = "from_name"
    from_dicom = "from_dicom"
    from_table = "from_table"
    per_image = "per_image"


@dataclass(frozen=True)
class Name:
    """The content of a file's name."""

    patient: str
    subtype: Subtype


def parse_name(stem: str) -> Name | None:
    """Read patient and subtype from a file's name, in Kaggle's or version 3's form.

    On Kaggle, the class is part of the patient's key, as `person1_bacteria` and `person1_virus` are two
    children. In version 3 the number alone is the key.

    Args:
        stem: the name without folder and extension.

    Returns:
        The Name, or None where the name has another form.
    """
    if match := _KAGGLE_PNEUMONIA.match(stem):
        return Name(match[1], _SUBTYPES[match[2]])
    if match := _KAGGLE_NORMAL.match(stem):
        return Name(match[1], Subtype.NORMAL)
    if match := _VERSION_3.match(stem):
        return Name(match[2], _SUBTYPES[match[1].lower()])
    return None


def scan_folder(root: Path, patients: Patients = Patients.from_name) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and check every file below a folder in Kaggle layout.

    Args:
        root: folder of {train,val,test}/{NORMAL,PNEUMONIA}/, nested further or not.
        patients: where the patient of an image is read from.

    Returns:
        The images, one row each, sorted by id, with all of COLUMNS but `split`, and a bool `parsed` that is
        false where the name has no known form, a str `oddity` where the pixels look unusual, and the str
        `patient_id` and GROUP_COLUMNS of DICOM files, else ""; and the files that cannot be used, with
        QUARANTINE_COLUMNS.

    Raises:
        PneumoError: the patient of an image is not where `patients` says.
    """
    paths = [path for path in list_files(root) if path != root / REJECTED_NAME]
    names = tabulate_names([path.relative_to(root) for path in paths], patients)
    require_known_patients(names, patients)
    images, quarantine = _check_files(root, paths, lambda path: _read_path(path, patients))
    if patients is Patients.from_dicom:
        images["patient"] = _require_patient_ids(images)
    return images, _add_rejected(root, quarantine)


def scan_table(root: Path, patients: Patients) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and check every file that a table names.

    Args:
        root: folder of table.csv, with `table.ROW_COLUMNS`, which the source `table` writes.
        patients: where the patient of an image is read from.

    Returns:
        As `scan_folder`, in the order of ids. `official_split` is "" where the table states none. What the
        table does not say of GROUP_COLUMNS is taken from DICOM files.

    Raises:
        PneumoError: the patient of an image is not where `patients` says.
    """
    rows = read_rows(root / TABLE_NAME).sort_values("id", ignore_index=True)
    stated = choose_patients(rows, patients)
    found = [
        (str(row["id"]), Path(str(row["file"])), row)
        for row in rows.assign(patient=stated, parsed=True).to_dict("records")
    ]
    images, quarantine = _check_entries(
        [(name, path, functools.partial(_select, row)) for name, path, row in found]
    )
    if patients is Patients.from_dicom:
        images["patient"] = _require_patient_ids(images)
    return images, _add_rejected(root, quarantine)


def read_rows(path: Path) -> pd.DataFrame:
    """Read table.csv: `table.ROW_COLUMNS` as text, "" where nothing is known."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def choose_patients(rows: pd.DataFrame, patients: Patients) -> pd.Series:
    """Return the patient of each row of a table; with `from_dicom` or `per_image`, one of its own.

    Args:
        rows: with `id` and `patient`, "" where the table has no such column.
        patients: where the patient of an image is read from.

    Raises:
        PneumoError: the table is to say the patients and does not.
    """
    if patients is not Patients.from_table:
        return rows["id"]
    if (rows["patient"] == "").any():
        raise PneumoError(
            "Expected a column with the patient of every image. Received: none. Name it, as in patient: "
            "subject_id, under data in params.yaml. Or set there: patients: from_dicom, if DICOM files state "
            "them; patients: per_image, if they are not known: each image then counts as a patient of its "
            "own, and images of one patient may be in both training and test."
        )
    return rows["patient"]


def scan_class_folders(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and check every file below a folder that sorts images into NORMAL and PNEUMONIA, at any depth.

    Names may have any form: `count_unknown_patients` tells how many images have an unknown patient.

    Args:
        root: the folder; class folders are found without regard to case.

    Returns:
        As `scan_folder`; every image belongs to the test set.
    """
    return _check_files(root, list_files(root), _read_class_path)


def tabulate_names(paths: Iterable[PurePath], patients: Patients) -> pd.DataFrame:
    """Tabulate the images of a folder in Kaggle layout from their paths alone; no file is opened.

    With `from_dicom` the patients are in the files, and each image has a patient of its own here.

    Args:
        paths: relative to the folder. What is no image by its name or lies in no class folder is left out.
        patients: where the patient of an image is read from.

    Returns:
        Frame with NAME_COLUMNS, in the order of `paths`.
    """
    return _tabulate(paths, lambda path: _read_path(path, patients))


def tabulate_class_names(paths: Iterable[PurePath]) -> pd.DataFrame:
    """Tabulate the images of an external test set as `tabulate_names` does those of a data set."""
    return _tabulate(paths, _read_class_path)


def require_known_patients(names: pd.DataFrame, patients: Patients) -> None:
    """Raise a PneumoError where patients are read from names and a name has no known form.

    Args:
        names: as `tabulate_names` returns them.
        patients: where the patient of an image is read from.
    """
    other = names.loc[~names["parsed"], "id"]
    if patients is Patients.from_name and len(other):
        examples = ", ".join(map(ascii, other.head(_N_EXAMPLES)))
        raise PneumoError(
            f"Expected the patient in the name of every image, as in {_KNOWN_FORMS}. "
            f"Received: {len(other)} of {len(names)} names of another form, such as {examples}. "
            "Rename these files or remove them. Or set under data in params.yaml: patients: from_dicom, if "
            "DICOM files state them; patients: per_image, if they are not known: each image then counts as a "
            "patient of its own, and images of one patient may be in both training and test."
        )


def _require_patient_ids(images: pd.DataFrame) -> pd.Series:
    without = images.loc[images["patient_id"] == "", "id"]
    if len(without):
        examples = ", ".join(map(ascii, without.head(_N_EXAMPLES)))
        raise PneumoError(
            "Expected DICOM files with a PatientID, as patients: from_dicom is set. "
            f"Received: {len(without)} of {len(images)} images without one, such as {examples}. Remove these "
            "files, or set patients: per_image: each image then counts as a patient of its own."
        )
    return images["patient_id"]


def count_unknown_patients(images: pd.DataFrame) -> int:
    """Count the images that count as a patient of their own because their patient is not known.

    Args:
        images: with `id` and `patient`: a manifest, or what `scan_class_folders` returns.

    Returns:
        0 for a manifest with patients from names, the number of rows for one with a patient per image.
    """
    return int((images["patient"] == images["id"]).sum())


def find_oddities(images: pd.DataFrame) -> pd.DataFrame:
    """List images that are kept but look unusual: odd pixels, or the same file as another image.

    Args:
        images: as `scan_folder` returns them.

    Returns:
        Frame with the columns `id` and `reason`; an image may be listed twice.
    """
    odd = images.loc[images["oddity"].notna(), ["id", "oddity"]].rename(columns={"oddity": "reason"})
    copies = images[images.duplicated("sha256", keep=False)]
    first = copies.groupby("sha256")["id"].transform("first")
    n_labels = copies.groupby("sha256")["label"].transform("nunique")
    same: pd.Series = "same file as " + first + np.where(n_labels > 1, ", under another label", "")
    copies = copies.assign(reason=same).loc[copies["id"] != first, ["id", "reason"]]
    return pd.concat([odd, copies]).sort_values(["id", "reason"], ignore_index=True)


def list_files(root: Path) -> list[Path]:
    """List all files below a folder, sorted by path; links to folders are listed but not followed."""
    return sorted(path for path in root.rglob("*") if not path.is_dir() or path.is_symlink())


def _tabulate(paths: Iterable[PurePath], read: Callable[[PurePath], dict[str, object]]) -> pd.DataFrame:
    rows = []
    for path in paths:
        with contextlib.suppress(UnreadableImageError):
            rows.append(read(path))
    return pd.DataFrame(rows, columns=NAME_COLUMNS).astype({"parsed": bool})


def _add_rejected(root: Path, quarantine: pd.DataFrame) -> pd.DataFrame:
    if not (root / REJECTED_NAME).is_file():
        return quarantine
    rejected = pd.read_csv(root / REJECTED_NAME, dtype=str, keep_default_na=False)
    return pd.concat([rejected, quarantine], ignore_index=True)


def _check_files(
    root: Path, paths: list[Path], read: Callable[[PurePath], dict[str, object]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    relatives = [path.relative_to(root) for path in paths]
    return _check_entries(
        [
            (relative.as_posix(), path, functools.partial(read, relative))
            for relative, path in zip(relatives, paths, strict=True)
        ]
    )


Entry = tuple[str, Path, Callable[[], dict[str, object]]]  # name in lists, file, its row so far


def _check_entries(entries: list[Entry]) -> tuple[pd.DataFrame, pd.DataFrame]:
    def check(entry: Entry) -> dict[str, object]:
        name, path, read = entry
        try:
            row = read()
            decoded = _read_file(path)
        except UnreadableImageError as error:
            return {"path": name, "reason": str(error)}
        return decoded | {key: value for key, value in row.items() if value != ""}

    with ThreadPoolExecutor() as pool:
        results = list(tqdm(pool.map(check, entries), "check files", len(entries), unit="file"))
    images = pd.DataFrame(
        (result for result in results if "reason" not in result),
        columns=[
            *(column for column in COLUMNS if column != "split"),
            "parsed",
            "oddity",
            "patient_id",
            *GROUP_COLUMNS,
        ],
    ).fillna(dict.fromkeys(GROUP_COLUMNS, ""))
    quarantine = pd.DataFrame(
        (result for result in results if "reason" in result), columns=QUARANTINE_COLUMNS
    )
    return images, quarantine


def _select(row: dict[Hashable, object]) -> dict[str, object]:
    return {key: row[key] for key in (*ROW_COLUMNS, "parsed") if key != "file"}


def _read_path(relative: PurePath, patients: Patients) -> dict[str, object]:
    if len(relative.parts) < 3 or relative.parts[0] not in SPLITS:
        raise UnreadableImageError("not in a split's class folder")
    official_split, class_folder = relative.parts[:2]
    if class_folder not in CLASS_FOLDERS:
        raise UnreadableImageError(f"unknown class folder {class_folder}")
    return _read_name(relative, official_split, class_folder, patients)


def _read_class_path(relative: PurePath) -> dict[str, object]:
    folders = {part.upper() for part in relative.parts[:-1]} & set(CLASS_FOLDERS)
    if len(folders) != 1:
        which = "folders of both classes" if folders else "no folder " + " or ".join(CLASS_FOLDERS)
        raise UnreadableImageError(f"in {which}")
    return _read_name(relative, "test", folders.pop(), Patients.from_name)


def _read_name(
    relative: PurePath, official_split: str, class_folder: str, patients: Patients
) -> dict[str, object]:
    if relative.name.startswith(".") or relative.suffix.lower() not in IMAGE_SUFFIXES:
        raise UnreadableImageError("not an image file by its name")
    name = parse_name(relative.stem)
    is_normal = class_folder == "NORMAL"
    if name and (name.subtype is Subtype.NORMAL) != is_normal:
        raise UnreadableImageError(f"its name says {name.subtype}, its folder {class_folder}")
    id_ = relative.as_posix()
    return {
        "id": id_,
        "label": class_folder.lower(),
        "subtype": str(name.subtype if name else Subtype.NORMAL if is_normal else Subtype.UNKNOWN),
        "patient": name.patient if name and patients is Patients.from_name else id_,
        "official_split": official_split,
        "parsed": name is not None,
    }


def _read_file(path: Path) -> dict[str, object]:
    if path.is_symlink() or not path.is_file():
        raise UnreadableImageError("not a regular file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read: {error.strerror}") from error
    decoded = decode_image(data)
    return {
        "path": path.as_posix(),
        "width": decoded.width,
        "height": decoded.height,
        "bytes": len(data),
        "mode": decoded.mode,
        "sha256": hashlib.sha256(data).hexdigest(),
        "oddity": suspicious(decoded.pixels),
        "patient_id": decoded.patient,
        "view": decoded.view,
        "age": write_age(decoded.age),
        "sex": decoded.sex,
        "site": "",
        "official_split": "",
    }
