"""The table of a data set: one row an image, and what its file and its name say."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from pneumo.base.labels import CLASS_FOLDERS, SPLITS, Subtype
from pneumo.base.paths import REJECTED_NAME
from pneumo.data.decoding import IMAGE_SUFFIXES, UnreadableImageError, decode_image, suspicious

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
QUARANTINE_COLUMNS = ("path", "reason")

_KAGGLE_PNEUMONIA = re.compile(r"^(person\d+_(bacteria|virus))_\d+")
_KAGGLE_NORMAL = re.compile(r"^((?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?")
_VERSION_3 = re.compile(r"^(NORMAL|BACTERIA|VIRUS)-(\d+)-(\d+)")
_SUBTYPES = {
    "normal": Subtype.NORMAL,
    "bacteria": Subtype.BACTERIAL,
    "virus": Subtype.VIRAL,
}


@dataclass(frozen=True)
class Name:
    """What a file's name says."""

    patient: str
    subtype: Subtype


def parse_name(stem: str) -> Name | None:
    """Read patient and subtype from a file's name, in Kaggle's or version 3's form.

    The class is part of the patient's key on Kaggle: `person1_bacteria` and `person1_virus` are two children.
    In version 3 the number alone is the key.

    Args:
        stem: the name without folder and extension.

    Returns:
        The Name, or None where it has neither form.
    """
    if match := _KAGGLE_PNEUMONIA.match(stem):
        return Name(match[1], _SUBTYPES[match[2]])
    if match := _KAGGLE_NORMAL.match(stem):
        return Name(match[1], Subtype.NORMAL)
    if match := _VERSION_3.match(stem):
        return Name(match[2], _SUBTYPES[match[1].lower()])
    return None


def scan_folder(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and check every file below a folder in Kaggle layout.

    Args:
        root: folder of {train,val,test}/{NORMAL,PNEUMONIA}/, nested further or not.

    Returns:
        The images, one row each, sorted by id, with all of COLUMNS but `split`, and a bool `parsed` that is
        false where the name has no known form (the image is then its own patient), and a str `oddity` where
        the pixels deserve a look; and the files set aside, with QUARANTINE_COLUMNS.
    """
    paths = [path for path in _list_files(root) if path != root / REJECTED_NAME]
    images, quarantine = _check_files([(path.relative_to(root), path) for path in paths])
    if (root / REJECTED_NAME).is_file():
        quarantine = pd.concat([pd.read_csv(root / REJECTED_NAME), quarantine], ignore_index=True)
    return images, quarantine


def scan_class_folders(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read and check every file below a folder that sorts images into NORMAL and PNEUMONIA, at any depth.

    Args:
        root: the folder; class folders are found without regard to case.

    Returns:
        As `scan_folder`; every image counts as one of the test set.
    """
    places = []
    for path in _list_files(root):
        parts = path.relative_to(root).parts
        depths = [i for i, part in enumerate(parts[:-1]) if part.upper() in CLASS_FOLDERS]
        inside = (
            Path("test", parts[depths[0]].upper(), *parts[: depths[0]], *parts[depths[0] + 1 :])
            if depths
            else None
        )
        places.append((inside or Path(*parts), path))
    return _check_files(places)


def _list_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.is_dir() or path.is_symlink())


def _check_files(places: list[tuple[Path, Path]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    with ThreadPoolExecutor() as pool:
        checked = pool.map(lambda place: _check_file(*place), places)
        results = list(tqdm(checked, "check", len(places), unit="file"))
    images = pd.DataFrame(
        (result for result in results if "reason" not in result),
        columns=[*(column for column in COLUMNS if column != "split"), "parsed", "oddity"],
    )
    quarantine = pd.DataFrame(
        (result for result in results if "reason" in result), columns=QUARANTINE_COLUMNS
    )
    return images, quarantine


def _check_file(relative: Path, path: Path) -> dict[str, object]:
    try:
        return _describe_file(relative, path)
    except UnreadableImageError as error:
        return {"path": relative.as_posix(), "reason": str(error)}


def _describe_file(relative: Path, path: Path) -> dict[str, object]:
    if len(relative.parts) < 3 or relative.parts[0] not in SPLITS:
        raise UnreadableImageError("not in a split's class folder")
    official_split, class_folder = relative.parts[:2]
    if class_folder not in CLASS_FOLDERS:
        raise UnreadableImageError(f"unknown class folder {class_folder}")
    if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
        raise UnreadableImageError("not an image file by its name")
    if path.is_symlink() or not path.is_file():
        raise UnreadableImageError("not a regular file")
    data = path.read_bytes()
    decoded = decode_image(data)
    name = parse_name(path.stem)
    is_normal = class_folder == "NORMAL"
    if name and (name.subtype is Subtype.NORMAL) != is_normal:
        raise UnreadableImageError(f"its name says {name.subtype}, its folder {class_folder}")
    return {
        "id": relative.as_posix(),
        "path": path.as_posix(),
        "label": class_folder.lower(),
        "subtype": str(name.subtype if name else Subtype.NORMAL if is_normal else Subtype.UNKNOWN),
        "patient": name.patient if name else relative.as_posix(),
        "official_split": official_split,
        "width": decoded.width,
        "height": decoded.height,
        "bytes": len(data),
        "mode": decoded.mode,
        "sha256": hashlib.sha256(data).hexdigest(),
        "parsed": name is not None,
        "oddity": suspicious(decoded.pixels),
    }


def find_oddities(images: pd.DataFrame) -> pd.DataFrame:
    """List images that are kept but deserve a look: odd pixels, or content that another image has too.

    Args:
        images: as `scan_folder` returns them.

    Returns:
        Frame with the columns `id` and `reason`; an image may be there twice.
    """
    odd = images.loc[images["oddity"].notna(), ["id", "oddity"]].rename(columns={"oddity": "reason"})
    copies = images[images.duplicated("sha256", keep=False)]
    first = copies.groupby("sha256")["id"].transform("first")
    n_labels = copies.groupby("sha256")["label"].transform("nunique")
    same: pd.Series = "same file as " + first + np.where(n_labels > 1, ", under another label", "")
    copies = copies.assign(reason=same).loc[copies["id"] != first, ["id", "reason"]]
    return pd.concat([odd, copies]).sort_values(["id", "reason"], ignore_index=True)
