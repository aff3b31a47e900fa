"""Images divided by group, never within one: validation carved out, and folds of cross-validation."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pneumo.base.config import Split
from pneumo.base.errors import PneumoError

IntArray = npt.NDArray[np.integer]
TextArray = npt.NDArray[np.str_]
Seed = int | Sequence[int]


def divide_into_folds(
    labels: TextArray, subtypes: TextArray, groups: IntArray, split: Split, seed: int
) -> list[TextArray]:
    """Divide images into training, validation and test sets, once for each fold.

    Each group is in the test set of one fold. Every fold has about the same share of the images of each
    label and subtype.

    Args:
        labels: str array of shape (n,).
        subtypes: str array of shape (n,).
        groups: int array of shape (n,); a group is never divided.
        split: number of folds, share of validation in what is left, and seed.
        seed: of a run. Another one gives other folds.

    Returns:
        For each fold a str array of shape (n,): train, val or test.

    Raises:
        PneumoError: a label has too few groups.
    """
    strata = np.char.add(np.char.add(labels.astype(str), " "), subtypes.astype(str))
    left, folds = np.ones(len(labels), bool), []
    for fold in range(split.n_folds):
        is_test = left.copy()
        if fold < split.n_folds - 1:
            fraction = 1 / (split.n_folds - fold)
            is_test[left] = draw_groups(strata[left], groups[left], fraction, (split.seed, seed, fold, 0))
        left &= ~is_test
        require_fraction(
            labels,
            groups,
            is_test,
            1 / split.n_folds,
            "as the test set of a fold",
            "Lower split.n_folds or add patients.",
        )
        parts = np.where(is_test, "test", "train")
        folds.append(
            carve_validation(parts, labels, strata, groups, split.val_fraction, (split.seed, seed, fold, 1))
        )
    return folds


def carve_validation(
    split: TextArray,
    labels: TextArray,
    strata: TextArray,
    groups: IntArray,
    val_fraction: float,
    seed: Seed,
) -> TextArray:
    """Carve validation out of training by group, stratified.

    Args:
        split: str array of shape (n,), train or test.
        labels: str array of shape (n,).
        strata: str array of shape (n,). Validation gets the same fraction of the images of each.
        groups: int array of shape (n,); a group is never divided.
        val_fraction: fraction of the training images, in (0, 0.5].
        seed: of the draw.

    Returns:
        str array of shape (n,): train, val or test.

    Raises:
        PneumoError: a label has too few groups.
    """
    rest, is_val = split == "train", np.zeros(len(split), bool)
    is_val[rest] = draw_groups(strata[rest], groups[rest], val_fraction, seed)
    require_fraction(
        labels[rest],
        groups[rest],
        is_val[rest],
        val_fraction,
        "for validation",
        "Change split.val_fraction or add patients.",
        " in the training set",
    )
    return np.where(is_val, "val", split)


def require_fraction(
    labels: TextArray,
    groups: IntArray,
    is_drawn: npt.NDArray[np.bool_],
    fraction: float,
    use: str,
    remedy: str,
    where: str = "",
) -> None:
    """Raise a PneumoError where a label is far from a fraction: below half of it, above one and a half.

    Args:
        labels: str array of shape (n,).
        groups: int array of shape (n,).
        is_drawn: bool array of shape (n,).
        fraction: the share of the images of each label that should have been drawn.
        use: what they were drawn for, in the message.
        remedy: what the user can do, likewise.
        where: which patients were drawn from, likewise.
    """
    for label in np.unique(labels):
        rows = labels == label
        nearest = is_drawn[rows].mean()
        if abs(nearest - fraction) > fraction / 2:
            raise PneumoError(
                f"Expected enough {label} patients{where} to use {fraction:.3g} of their images {use}. "
                f"Received: {len(np.unique(groups[rows]))}, and the nearest fraction is {nearest:.3g}. "
                f"{remedy}"
            )


def draw_groups(strata: TextArray, groups: IntArray, fraction: float, seed: Seed) -> npt.NDArray[np.bool_]:
    """Draw groups at random that together hold a fraction of the images of each stratum.

    Groups are taken one after another. A group is drawn if that brings the fractions of the groups taken so
    far nearer to `fraction`. Large groups come first, so that small ones can even out the
    rest; the order of groups of about the same size is random.

    Args:
        strata: str array of shape (n,).
        groups: int array of shape (n,).
        fraction: in (0, 1).
        seed: of the draw.

    Returns:
        bool array of shape (n,), true for images of the groups that were drawn.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    kinds, stratum_of = np.unique(strata, return_inverse=True)
    counts = np.zeros((len(names), len(kinds)), np.int64)
    np.add.at(counts, (group_of, stratum_of), 1)
    n_images = counts.sum(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-np.log2(n_images[shuffled]).astype(int), kind="stable")]
    is_drawn = np.zeros(len(counts), bool)
    taken, drawn = np.zeros((2, counts.shape[1]))
    for group in order:
        taken += counts[group]
        deficit = fraction * taken - drawn
        if np.abs(deficit - counts[group]).sum() < np.abs(deficit).sum():
            is_drawn[group] = True
            drawn += counts[group]
    return is_drawn[group_of]
