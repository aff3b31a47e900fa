"""The words of the data set: splits, class folders, subtypes, tasks."""

from enum import StrEnum

SPLITS = ("train", "val", "test")
FOLDS = "folds"  # in place of a split where images are cross-validated: each is in every split in its turn
CLASS_FOLDERS = ("NORMAL", "PNEUMONIA")


class Subtype(StrEnum):
    """What an image shows, read from its file's name and folder."""

    NORMAL = "normal"
    BACTERIAL = "bacterial"
    VIRAL = "viral"
    UNKNOWN = "unknown"


class Task(StrEnum):
    """Which classes a model tells apart."""

    binary = "binary"
    subtype = "subtype"


CLASSES: dict[Task, tuple[str, ...]] = {
    Task.binary: ("normal", "pneumonia"),
    Task.subtype: (Subtype.NORMAL, Subtype.BACTERIAL, Subtype.VIRAL),
}
