import numpy as np
import pandas as pd
import pytest

from pneumo.base.errors import PneumoError
from pneumo.data.split import assign_split, find_leaks, group_images

LABELS = {"normal": "normal", "bacterial": "pneumonia", "viral": "pneumonia", "unknown": "pneumonia"}


def draw_images(n, seed=0):
    """Draw images of which many share a patient and some a file's content, also across patients."""
    generator = np.random.default_rng(seed)
    subtype = generator.choice(["normal", "bacterial", "viral"], n, p=[0.3, 0.45, 0.25])
    number = generator.integers(0, n // 2, n)
    sha256 = np.arange(n)
    copies = generator.choice(n, n // 20, replace=False)
    sha256[copies] = generator.choice(n, n // 20)
    return pd.DataFrame(
        {
            "official_split": generator.choice(["train", "val", "test"], n, p=[0.8, 0.05, 0.15]),
            "label": [LABELS[each] for each in subtype],
            "subtype": subtype,
            "patient": [f"{each}_{i}" for each, i in zip(subtype, number, strict=True)],
            "sha256": sha256.astype(str),
        }
    )


def list_images(**n_by_subtype):
    """List training images, each of a patient of its own."""
    subtype = pd.Series([subtype for subtype, n in n_by_subtype.items() for _ in range(n)], dtype=str)
    return pd.DataFrame(
        {
            "official_split": "train",
            "label": subtype.map(LABELS),
            "subtype": subtype,
            "patient": [f"patient {i}" for i in range(len(subtype))],
            "sha256": [str(i) for i in range(len(subtype))],
        }
    )


def group(images):
    return group_images(images["patient"], images["sha256"])


def split_images(images, val_fraction=0.2, seed=0):
    columns = (images[name] for name in ("official_split", "label", "subtype"))
    return images.assign(split=assign_split(*columns, group(images), val_fraction, seed))


def find_groups_naively(images):
    """Return for each image the first image that it must stay with."""
    leader = list(range(len(images)))
    changed = True
    while changed:
        changed = False
        for column in ("patient", "sha256"):
            for rows in images.groupby(column).indices.values():
                first = min(leader[row] for row in rows)
                changed |= any(leader[row] != first for row in rows)
                for row in rows:
                    leader[row] = first
    return np.array(leader)


@pytest.mark.parametrize("seed", range(5))
def test_groups_equal_those_found_naively(seed):
    images = draw_images(200, seed)
    groups, leaders = group(images), find_groups_naively(images)
    assert 1 < len(np.unique(groups)) < images["patient"].nunique()
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], leaders[:, None] == leaders[None, :])


def test_groups_are_transitive():
    images = pd.DataFrame({"patient": list("AABBCDE"), "sha256": list("1223345")})
    groups = group(images)
    assert len(set(groups[:6])) == 2
    assert len(set(groups[:5])) == 1
    assert groups[5] != groups[6]


def test_a_patient_and_a_hash_of_the_same_name_are_two_things():
    assert len(set(group(pd.DataFrame({"patient": ["a", "b"], "sha256": ["b", "c"]})))) == 2


def test_leaks_are_found_also_through_other_images():
    images = pd.DataFrame(
        {
            "patient": ["A", "A", "B", "C", "D", "E"],
            "sha256": ["1", "2", "2", "3", "4", "5"],
            "official_split": ["test", "train", "val", "train", "train", "test"],
        }
    )
    leaks = find_leaks(group(images), images["official_split"])
    assert leaks.tolist() == [False, True, True, False, False, False]


def test_without_leaks_none_are_found():
    images = draw_images(300)
    leaks = find_leaks(group(images), images["official_split"])
    assert leaks.any()
    kept = images[~leaks].reset_index(drop=True)
    assert not find_leaks(group(kept), kept["official_split"]).any()
    assert (kept["official_split"] == "test").sum() == (images["official_split"] == "test").sum()


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_and_no_file_is_on_both_sides(seed):
    images = draw_images(600, seed)
    split = split_images(images[~find_leaks(group(images), images["official_split"])].reset_index(drop=True))
    for column in ("patient", "sha256"):
        assert split.groupby(column)["split"].nunique().max() == 1


def test_test_is_kept_and_the_rest_is_divided():
    images = draw_images(600)
    split = split_images(images)["split"]
    was_test = images["official_split"] == "test"
    assert (split[was_test] == "test").all()
    assert set(split[~was_test]) == {"train", "val"}
    assert set(split[images["official_split"] == "val"]) == {"train", "val"}


@pytest.mark.parametrize(("val_fraction", "expected"), [(0.1, 0.1), (0.2, 0.2), (0.35, 1 / 3), (0.5, 0.5)])
def test_every_subtype_has_its_share_of_validation(val_fraction, expected):
    split = split_images(draw_images(1000), val_fraction)
    rest = split[split["split"] != "test"]
    shares = (rest["split"] == "val").groupby(rest["subtype"]).mean()
    assert shares.index.tolist() == ["bacterial", "normal", "viral"]
    np.testing.assert_allclose(shares, expected, atol=0.03)


def test_the_seed_decides():
    images = draw_images(600)
    first, again, other = (split_images(images, seed=seed)["split"] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("n_by_subtype", "message"),
    [
        ({"normal": 4, "bacterial": 50}, "Expected at least 5 normal patients .* Received: 4"),
        ({"normal": 50, "bacterial": 2, "viral": 2}, "Expected at least 5 pneumonia patients .* Received: 4"),
    ],
)
def test_too_few_patients_are_refused(n_by_subtype, message):
    with pytest.raises(PneumoError, match=message):
        split_images(list_images(**n_by_subtype))


def test_images_of_one_patient_count_once():
    images = list_images(normal=20, bacterial=20)
    images.loc[:19, "patient"] = "one child"
    with pytest.raises(PneumoError, match=r"normal patients .* Received: 1"):
        split_images(images)


@pytest.mark.parametrize(
    "n_by_subtype",
    [
        {"normal": 5, "bacterial": 5},
        {"normal": 50, "bacterial": 40, "unknown": 1},
        {"normal": 50, "bacterial": 1, "viral": 40},
        {"normal": 50, "bacterial": 2, "viral": 3},
    ],
    ids=str,
)
def test_a_rare_subtype_is_counted_with_the_commonest_of_its_label(n_by_subtype):
    split = split_images(list_images(**n_by_subtype))
    n_val = (split["split"] == "val").groupby(split["label"]).sum()
    n_patients = split["label"].value_counts()
    for label in ("normal", "pneumonia"):
        assert abs(n_val[label] - n_patients[label] / 5) < 1


def test_rows_may_have_any_index():
    images = draw_images(600)
    shuffled_index = images.set_index(np.random.default_rng(0).permutation(len(images)) + 7)
    assert split_images(shuffled_index)["split"].tolist() == split_images(images)["split"].tolist()
