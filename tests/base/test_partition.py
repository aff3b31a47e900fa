import numpy as np
import pandas as pd
import pytest

from pneumo.base.config import Protocol, Split
from pneumo.base.errors import PneumoError
from pneumo.base.partition import divide_into_folds, draw_groups

N = 1200


def make_split(**changes):
    return Split(**{"val_fraction": 0.2, "seed": 0, "protocol": Protocol.folds, "n_folds": 5} | changes)


@pytest.fixture(scope="module")
def images():
    """Return images of which many share a group, and groups of two labels."""
    generator = np.random.default_rng(0)
    subtype = generator.choice(["normal", "bacterial", "viral", "unknown"], N, p=[0.3, 0.4, 0.25, 0.05])
    label = np.where(subtype == "normal", "normal", "pneumonia")
    group = generator.zipf(1.8, N).clip(max=30).cumsum() % 400
    return label, subtype, group


def count_roles(groups, parts):
    """Return how many pairs of a group and a part there are."""
    return len(set(zip(groups.tolist(), parts.tolist(), strict=True)))


def divide(images, seed=0, **changes):
    return divide_into_folds(*images, make_split(**changes), seed)


@pytest.mark.parametrize("n_folds", [2, 3, 5, 10])
def test_each_image_is_tested_once_and_a_group_has_one_role_in_a_fold(images, n_folds):
    folds = divide(images, n_folds=n_folds)
    assert len(folds) == n_folds
    assert (np.sum([parts == "test" for parts in folds], axis=0) == 1).all()
    for parts in folds:
        assert set(parts) == {"train", "val", "test"}
        assert count_roles(images[2], parts) == len(np.unique(images[2]))


def test_folds_and_validation_have_the_same_share_of_each_label_and_subtype(images):
    label, subtype, _ = images
    for parts in divide(images):
        for kind in np.unique(subtype):
            of_kind = parts[subtype == kind]
            assert (of_kind == "test").mean() == pytest.approx(0.2, abs=0.06)
            assert (of_kind == "val").mean() == pytest.approx(0.16, abs=0.06)
        assert (parts[label == "normal"] == "test").mean() == pytest.approx(0.2, abs=0.02)


def test_labels_are_spread_evenly_where_subtypes_are_not_known():
    label = np.repeat(["normal", "pneumonia"], [30, 300])
    for parts in divide((label, np.full(330, "unknown"), np.arange(330))):
        assert (parts[:30] == "test").sum() == 6
        assert (parts[30:] == "test").sum() == 60


def test_the_same_seed_gives_the_same_folds_and_another_one_others(images):
    first = divide(images)
    assert all((a == b).all() for a, b in zip(first, divide(images), strict=True))
    for others in (divide(images, seed=1), divide_into_folds(*images, make_split(seed=1), 0)):
        for a, b in zip(first, others, strict=True):
            shared = ((a == "test") & (b == "test")).sum() / (a == "test").sum()
            assert 0.1 < shared < 0.4  # by chance, one in five


def test_validation_of_folds_is_drawn_for_each(images):
    folds = divide(images)
    is_val = np.array([parts == "val" for parts in folds])
    assert 0.5 * N < is_val.any(axis=0).sum() < 0.85 * N  # by chance, 1 - 0.8 ** 4 = 0.59 of the images


def test_too_few_patients_for_the_folds_are_named():
    label = np.repeat(["normal", "pneumonia"], [3, 300])
    with pytest.raises(PneumoError, match=r"enough normal patients to use 0.2 .* Lower split.n_folds"):
        divide((label, label, np.arange(303)))


def test_too_few_patients_for_validation_are_named():
    label = np.repeat(["normal", "pneumonia"], [6, 300])
    with pytest.raises(
        PneumoError, match=r"enough normal patients in the training set .* split.val_fraction"
    ):
        divide((label, label, np.arange(306)), val_fraction=0.05)


@pytest.mark.parametrize("n_folds", [1, 0, -5])
def test_one_fold_is_none(n_folds):
    with pytest.raises(PneumoError, match=r"split\.n_folds: Expected 2 or more"):
        make_split(n_folds=n_folds)


def test_groups_are_drawn_whole_and_near_the_fraction(images):
    _, subtype, group = images
    drawn = draw_groups(subtype, group, 0.3, seed=4)
    assert count_roles(group, drawn) == len(np.unique(group))
    assert pd.Series(drawn).groupby(subtype).mean().to_list() == pytest.approx([0.3] * 4, abs=0.05)
