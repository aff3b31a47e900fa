"""Validation carved out of the training set, so that no patient and no file is on both sides."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from pneumo.base.errors import PneumoError


def group_images(patients: pd.Series, hashes: pd.Series) -> npt.NDArray[np.int32]:
    """Number the groups of images that must stay together.

    Two images are in one group if they share a patient or a file's content, directly or through others.

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
    # A graph of images, patients and hashes; each image is tied to its patient and its hash.
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

    The official val images (16 on Kaggle) are too few to validate on and join the rest.

    Args:
        official_split: str of length n: train, val or test.
        labels: str of length n: normal or pneumonia.
        subtypes: str of length n, held by val in the same shares as by train; a subtype with too few
            patients is counted with the commonest of its label.
        groups: int array of shape (n,); a group is never divided.
        val_fraction: share of the non-test images, in (0, 0.5]; met to the nearest 1/k for a whole k.
        seed: of the shuffle.

    Returns:
        str array of shape (n,): train, val or test.

    Raises:
        PneumoError: a label has too few groups to be in both train and val.
    """
    split = np.where(official_split == "test", "test", "train").astype("<U5")
    rest = np.flatnonzero(split == "train")
    n_folds = max(2, round(1 / val_fraction))
    frame = pd.DataFrame({"label": labels, "subtype": subtypes, "group": groups}).iloc[rest]
    strata = frame["subtype"].copy()
    for label, rows in frame.groupby("label"):
        if rows["group"].nunique() < n_folds:
            raise PneumoError(
                f"Expected at least {n_folds} {label} patients in the training set, to carve validation out "
                f"of it. Received: {rows['group'].nunique()}"
            )
        n_patients = rows.groupby("subtype")["group"].nunique()
        rare = n_patients.index[n_patients < n_folds]
        strata.loc[rows.index[rows["subtype"].isin(rare)]] = n_patients.idxmax()
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    _, val = next(folds.split(rest, strata, groups[rest]))
    split[rest[val]] = "val"
    return split
