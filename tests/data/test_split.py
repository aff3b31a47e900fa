import numpy as np
import pandas as pd
import pytest

from pneumo.base.errors import PneumoError
from pneumo.data.split import assign_split, carve_test, find_leaks, group_images

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


FRACTIONS = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 1 / 3, 0.35, 0.37, 0.4, 0.45, 0.5]


def share_by(split, column):
    rest = split[split["split"] != "test"]
    return (rest["split"] == "val").groupby(rest[column]).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("val_fraction", FRACTIONS)
def test_validation_is_the_fraction_asked_for(val_fraction, seed):
    split = split_images(draw_images(2000, seed), val_fraction, seed)
    for column in ("subtype", "label"):
        np.testing.assert_allclose(share_by(split, column), val_fraction, atol=0.005)
    rest = split[split["split"] != "test"]
    assert (rest["split"] == "val").mean() == pytest.approx(val_fraction, abs=0.005)
    # The balance of classes is the same on both sides.
    is_positive = (rest["label"] == "pneumonia").groupby(rest["split"]).mean()
    assert is_positive["val"] == pytest.approx(is_positive["train"], abs=0.1 if val_fraction < 0.05 else 0.02)


@pytest.mark.parametrize("val_fraction", FRACTIONS)
@pytest.mark.parametrize("n", [7, 16, 40, 200])
def test_images_of_as_many_patients_are_divided_to_the_nearest_number(n, val_fraction):
    n_val = {n_images: round(val_fraction * n_images) for n_images in (n, 2 * n)}
    if abs(n_val[n] / n - val_fraction) > val_fraction / 2 or (2 * val_fraction * n) % 1 == 0.5:
        return
    split = split_images(list_images(normal=n, bacterial=2 * n), val_fraction)
    counts = (split["split"] == "val").groupby(split["label"]).sum()
    assert counts.to_dict() == {
        "normal": pytest.approx(val_fraction * n, abs=0.5 + 1e-9),
        "pneumonia": pytest.approx(val_fraction * 2 * n, abs=0.5 + 1e-9),
    }


@pytest.mark.parametrize("n_largest", [10, 30, 100])
@pytest.mark.parametrize("val_fraction", [0.1, 0.2, 0.4, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_patients_with_many_images_do_not_spoil_the_fraction(n_largest, val_fraction, seed):
    images = list_images(normal=300, bacterial=300, viral=300)
    for first in (0, 300, 600):  # one patient of each subtype, and one with half as many images
        images.loc[first : first + n_largest - 1, "patient"] = f"large {first}"
        images.loc[first + n_largest : first + 3 * n_largest // 2 - 1, "patient"] = f"medium {first}"
    split = split_images(images, val_fraction, seed)
    np.testing.assert_allclose(share_by(split, "subtype"), val_fraction, atol=0.005)


def test_every_patient_is_drawn_with_the_same_probability():
    images = list_images(normal=60, bacterial=60, viral=60)
    images.loc[:29, "patient"] = [f"two images {i // 2}" for i in range(30)]
    n_draws = 400
    is_val = sum((split_images(images, 0.2, seed)["split"] == "val").astype(int) for seed in range(n_draws))
    # Six standard errors of a share of 0.2.
    np.testing.assert_allclose(is_val / n_draws, 0.2, atol=6 * np.sqrt(0.2 * 0.8 / n_draws))


def test_the_seed_decides():
    images = draw_images(600)
    first, again, other = (split_images(images, seed=seed)["split"] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("n_by_subtype", "val_fraction", "message"),
    [
        (
            {"normal": 1, "bacterial": 50},
            0.5,
            "enough normal patients .* 0.5 .* Received: 1, .* fraction is 0",
        ),
        (
            {"normal": 2, "bacterial": 50},
            0.2,
            "enough normal patients .* 0.2 .* Received: 2, .* fraction is 0",
        ),
        ({"normal": 50, "bacterial": 1, "viral": 2}, 0.1, "enough pneumonia patients .* Received: 3"),
        ({"normal": 30, "bacterial": 30}, 0.01, "enough normal patients .* 0.01 .* Received: 30"),
    ],
)
def test_too_few_patients_are_refused(n_by_subtype, val_fraction, message):
    with pytest.raises(PneumoError, match=message):
        split_images(list_images(**n_by_subtype), val_fraction)


def test_images_of_one_patient_count_once():
    images = list_images(normal=20, bacterial=20)
    images.loc[:19, "patient"] = "one child"
    with pytest.raises(PneumoError, match=r"normal patients .* Received: 1, and the nearest fraction is 0\."):
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
def test_a_rare_subtype_does_not_change_the_share_of_its_label(n_by_subtype):
    split = split_images(list_images(**n_by_subtype))
    n_val = (split["split"] == "val").groupby(split["label"]).sum()
    n_patients = split["label"].value_counts()
    for label in ("normal", "pneumonia"):
        assert abs(n_val[label] - n_patients[label] / 5) <= 1


def test_groups_with_images_of_both_labels_are_kept_together():
    images = draw_images(600)
    images["patient"] = images["patient"].str.split("_").str[1]  # the number alone, as in version 3
    split = split_images(images, 0.3)
    rest = split[split["split"] != "test"]
    assert rest.groupby(group(images)[rest.index])["split"].nunique().max() == 1
    assert (rest.groupby("patient")["label"].nunique() == 2).any()
    np.testing.assert_allclose(share_by(split, "subtype"), 0.3, atol=0.02)


def test_rows_may_have_any_index():
    images = draw_images(600)
    shuffled_index = images.set_index(np.random.default_rng(0).permutation(len(images)) + 7)
    assert split_images(shuffled_index)["split"].tolist() == split_images(images)["split"].tolist()


class TestCarveTest:
    def make(self, n_patients=200, seed=0):
        generator = np.random.default_rng(seed)
        patients = np.repeat(np.arange(n_patients), generator.integers(1, 6, n_patients))
        subtypes = pd.Series(np.array(["normal", "bacterial", "viral"])[patients % 3], index=patients + 1000)
        labels = subtypes.where(subtypes == "normal", "pneumonia")
        return labels, subtypes, patients.astype(np.int32)

    @pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
    def test_every_subtype_meets_the_fraction_and_no_group_is_divided(self, fraction):
        labels, subtypes, groups = self.make()
        split = carve_test(labels, subtypes, groups, fraction, seed=3)
        assert set(split) == {"train", "test"}
        assert (split.index == labels.index).all()
        for subtype in set(subtypes):
            rows = (subtypes == subtype).to_numpy()
            n_test = (split[rows] == "test").sum()
            assert abs(n_test - fraction * rows.sum()) <= 1
        assert (
            not pd.DataFrame({"group": groups, "split": split.to_numpy()})
            .drop_duplicates()["group"]
            .duplicated()
            .any()
        )

    def test_the_seed_decides(self):
        data = self.make()
        first, again, other = (carve_test(*data, 0.2, seed) for seed in (0, 0, 1))
        assert (first == again).all()
        assert (first != other).any()

    def test_too_few_patients(self):
        labels = pd.Series(["normal"] * 10 + ["pneumonia"] * 10)
        groups = np.array([*range(10), *[10] * 10], np.int32)
        with pytest.raises(
            PneumoError, match=r"enough pneumonia patients .* Received: 1, .*data\.test_fraction"
        ):
            carve_test(labels, labels, groups, 0.2, seed=0)
