"""What a data set or an external test set holds, from names of files or a table; no image is opened."""

from pathlib import Path

import pandas as pd

from pneumo.base.config import Split
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASS_FOLDERS, CLASSES, SPLITS, Task
from pneumo.data.manifest import (
    Patients,
    choose_patients,
    count_unknown_patients,
    list_files,
    require_known_patients,
    tabulate_class_names,
    tabulate_names,
)
from pneumo.data.sources import Source, list_places, table
from pneumo.data.split import assign_split, carve_test, check_folds, find_leaks, group_images
from pneumo.data.table import GROUP_COLUMNS


def describe_source(source: Source, split: Split) -> list[str]:
    """Return lines on the images of a source, after checking that they can be used.

    Args:
        source: as `load_source` returns it.
        split: how images are divided.

    Raises:
        PneumoError: a patient is not known, a class is missing, or there are too few patients to divide.
    """
    if source.kind == "table":
        return _describe_table(source, split)
    places = list_places(source)
    if places is None:
        return [f"data: {source.title}, to be downloaded"]
    names = tabulate_names(places, source.patients)
    require_known_patients(names, source.patients)
    lines = [f"data: {source.title}, {_describe_patients(names, source.patients)}"]
    for name in () if split.has_folds else SPLITS:
        rows = names[names["official_split"] == name]
        lines.append(f"data: {name}: {_describe_labels(rows)}")
        if name != "val":
            _require_classes(rows, "data", f"{name}/")
    if n_others := len(places) - len(names):
        lines.append(f"data: {n_others} other files")
    return lines + (_describe_folds if split.has_folds else _describe_split)(names, split)


def _describe_table(source: Source, split: Split) -> list[str]:
    rows = table.read_rows(source.settings)
    images = rows.images.assign(patient=choose_patients(rows.images, source.patients), parsed=False)
    lines = [f"data: {source.title}, {_describe_patients(images, source.patients)}"]
    lines += [f"data: set aside: {text}" for text in table.count_reasons(rows.set_aside)]
    n_labels = images.groupby("patient")["label"].nunique()
    if n_both := int((n_labels > 1).sum()):
        lines.append(f"data: {n_both} patients have normal images and images of pneumonia")
    known = [name for name in GROUP_COLUMNS if (images[name] != "").any()]
    lines.append(f"data: in the table for subgroups: {', '.join(known) or 'nothing'}")
    if split.has_folds:
        return lines + _describe_folds(images, split)
    if (images["official_split"] == "").all():
        groups = group_images(images["patient"], images["id"])
        images["official_split"] = carve_test(
            images["label"], images["subtype"], groups, source.settings.test_fraction, split.seed
        )
        lines.append(
            "data: the table states no split; the test set is carved out by patient, about as follows"
        )
    for name in SPLITS:
        of_split = images[images["official_split"] == name]
        if len(of_split):
            lines.append(f"data: {name}: {_describe_labels(of_split)}")
    require_classes(images, "data")
    return lines + _describe_split(images, split)


def require_classes(images: pd.DataFrame, where: str) -> None:
    """Raise a PneumoError unless both classes are in the training and the test set.

    Args:
        images: with `label` and `official_split`.
        where: what to name in the error.
    """
    for name in ("train", "test"):
        of_split = images[images["official_split"] == name]
        for label in CLASSES[Task.binary]:
            if not (of_split["label"] == label).any():
                raise PneumoError(f"{where}: Expected {label} images in the {name} set. Received: none")


def describe_external(name: str, folder: Path) -> str:
    """Return the number of images of an external test set.

    Args:
        name: of the set, for errors.
        folder: with NORMAL and PNEUMONIA, at any depth.

    Raises:
        PneumoError: the folder does not exist, or a class is missing.
    """
    if not folder.is_dir():
        raise PneumoError(f"external.{name}: Expected a folder. Received: {folder}")
    names = tabulate_class_names([path.relative_to(folder) for path in list_files(folder)])
    _require_classes(names, f"external.{name}", f"{folder}/**/")
    n_unknown = count_unknown_patients(names)
    unknown = f"; the patients of {n_unknown} are not known" if n_unknown else ""
    return f"{_describe_labels(names)}, in {folder}{unknown}"


def _describe_patients(names: pd.DataFrame, patients: Patients) -> str:
    if patients in (Patients.from_name, Patients.from_table):
        return f"{len(names)} images of {names['patient'].nunique()} patients"
    if patients is Patients.from_dicom:
        return f"{len(names)} images, patients to be read from DICOM headers"
    n_parsed = int(names["parsed"].sum())
    text = f"{len(names)} images, each counted as a patient of its own (patients: per_image)"
    return text + (f"; the patients of {n_parsed} are in their names" if n_parsed else "")


def _describe_split(names: pd.DataFrame, split: Split) -> list[str]:
    """Return a line on images that would be set aside, after checking that validation can be carved out."""
    groups = group_images(names["patient"], names["id"])
    leaks = find_leaks(groups, names["official_split"])
    kept = names[~leaks]
    assign_split(
        kept["official_split"], kept["label"], kept["subtype"], groups[~leaks], split.val_fraction, split.seed
    )
    if not leaks.any():
        return []
    return [f"warning: {leaks.sum()} training images are of patients of the test set and will not be used"]


def _describe_folds(names: pd.DataFrame, split: Split) -> list[str]:
    check_folds(names, group_images(names["patient"], names["id"]), split)
    stated = " the split that the data state is not used;" if (names["official_split"] != "").any() else ""
    return [
        f"data: {_describe_labels(names)}",
        f"data: cross-validation over {split.n_folds} folds by patient;{stated} each seed draws its own",
    ]


def _describe_labels(names: pd.DataFrame) -> str:
    return ", ".join(f"{(names['label'] == name.lower()).sum()} {name.lower()}" for name in CLASS_FOLDERS)


def _require_classes(names: pd.DataFrame, where: str, folder: str) -> None:
    for name in CLASS_FOLDERS:
        if not (names["label"] == name.lower()).any():
            raise PneumoError(f"{where}: Expected images in {folder}{name}. Received: none")
