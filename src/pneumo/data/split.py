"""Validation and test sets carved out, so that no patient and no file is on both sides."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pneumo.base.config import Split
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, Task
from pneumo.base.partition import carve_validation, divide_into_folds, draw_groups, require_fraction


def group_images(patients: pd.Series, hashes: pd.Series) -> npt.NDArray[np.int32]:
    """Number the groups of images that must stay together.

    Two images are in one group if they share a patient or a file's content, directly or through other images.

    Args:
        patients: str of length n.
        hashes: str of length n, e.g. SHA-256 of the files.

    Returns:
        int32 array of shape (n,), group numbers from 0.
    """
    n = len(patients)
    patient_codes = pd.factorize(patients)[0]
    hash_codes = pd.factorize(hashes)[0] + patient_codes.max(initial=-1) + 1
    rows = np.arange(n)
    # A graph of images, patients and hashes; each image is connected to its patient and its hash.
    first = np.concatenate([rows, rows])
    second = np.concatenate([patient_codes, hash_codes]) + n
    n_nodes = int(second.max(initial=-1)) + 1 if n else 0
    graph = coo_array((np.ones(2 * n, bool), (first, second)), shape=(n_nodes, n_nodes))
    return connected_components(graph, directed=False)[1][:n]


def find_leaks(groups: npt.NDArray[np.int32], official_split: pd.Series) -> npt.NDArray[np.bool_]:
    """Mark training images that share a patient or a file with the official test set.

    Args:
        groups: int32 array of shape (n,), as `group_images` returns it.
        official_split: str of length n: train, val or test.

    Returns:
        bool array of shape (n,), true for train and val images that must not be trained on.
    """
    is_test = (official_split == "test").to_numpy()
    return ~is_test & np.isin(groups, np.unique(groups[is_test]))


def assign_split(
    official_split: pd.Series,
    labels: pd.Series,
    subtypes: pd.Series,
    groups: npt.NDArray[np.int32],
    val_fraction: float,
    seed: int,
) -> npt.NDArray[np.str_]:
    """Keep the official test set and divide the rest into train and val by group, stratified by subtype.

    The official val images (16 on Kaggle) are too few to validate on, so they are divided like the rest.

    Args:
        official_split: str of length n: train, val or test.
        labels: str of length n: normal or pneumonia.
        subtypes: str of length n. Val gets the same fraction of the images of each.
        groups: int array of shape (n,); a group is never divided.
        val_fraction: fraction of the non-test images, in (0, 0.5]. Each subtype meets it to within one group
            of the smallest size.
        seed: of the draw.

    Returns:
        str array of shape (n,): train, val or test.

    Raises:
        PneumoError: a label has so few groups that its fraction would be less than half or more than one and
            a half times `val_fraction`.
    """
    split = np.where(official_split == "test", "test", "train").astype("<U5")
    return carve_validation(split, labels.to_numpy(str), subtypes.to_numpy(str), groups, val_fraction, seed)


def check_folds(images: pd.DataFrame, groups: npt.NDArray[np.int32], split: Split) -> None:
    """Check that images can be divided into folds.

    Args:
        images: n rows with `label` and `subtype`.
        groups: int array of shape (n,), what stays together.
        split: number of folds and share of validation.

    Raises:
        PneumoError: a label is missing or has too few groups.
    """
    for label in CLASSES[Task.binary]:
        if not (images["label"] == label).any():
            raise PneumoError(f"Expected {label} images to divide into folds. Received: none")
    divide_into_folds(images["label"].to_numpy(str), images["subtype"].to_numpy(str), groups, split, seed=0)


def carve_test(
    labels: pd.Series,
    subtypes: pd.Series,
    groups: npt.NDArray[np.int32],
    test_fraction: float,
    seed: int,
) -> pd.Series:
    """Divide a data set without a test set into train and test by group, stratified by subtype.

    Args:
        labels: str of length n: normal or pneumonia.
        subtypes: str of length n. The test set gets the same fraction of the images of each.
        groups: int array of shape (n,); a group is never divided.
        test_fraction: fraction of the images, in (0, 0.5].
        seed: of the draw.

    Returns:
        str of length n, train or test, with the index of `labels`: what `assign_split` takes.

    Raises:
        PneumoError: a label has so few groups that its fraction would be less than half or more than one and
            a half times `test_fraction`.
    """
    is_test = draw_groups(subtypes.to_numpy(str), groups, test_fraction, seed)
    require_fraction(
        labels.to_numpy(str),
        groups,
        is_test,
        test_fraction,
        "as the test set",
        "Change data.test_fraction, add patients, or state the split in a column of the table.",
    )
    return pd.Series(np.where(is_test, "test", "train"), index=labels.index)
