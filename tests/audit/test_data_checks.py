"""Every check of the audit, both ways: it fires where there is something, else it is silent."""

import numpy as np
import pandas as pd
import pytest

from pneumo.audit import data_checks

N = 300
SIZE_PX = 32


def make_manifest(n=N, seed=0):
    generator = np.random.default_rng(seed)
    is_pneumonia = np.arange(n) % 3 > 0
    width = generator.integers(900, 1800, n)
    height = generator.integers(900, 1500, n)
    return pd.DataFrame(
        {
            "id": [f"train/{i}.jpeg" for i in range(n)],
            "label": np.where(is_pneumonia, "pneumonia", "normal"),
            "patient": [f"p{i // 6}-{i % 3 > 0}" for i in range(n)],
            "split": np.where(np.arange(n) // 6 % 4 == 0, "test", "train"),
            "width": width,
            "height": height,
            "bytes": width * height // 10,
            "mode": "L",
            "sha256": [f"{i:064x}" for i in range(n)],
        }
    )


def make_images(n=N, seed=0):
    return np.random.default_rng(seed).integers(60, 200, (n, SIZE_PX, SIZE_PX), dtype=np.uint8)


def is_pneumonia(manifest):
    return (manifest["label"] == "pneumonia").to_numpy()


def find_rows(manifest, split):
    return np.flatnonzero(manifest["split"] == split)


@pytest.mark.parametrize(
    "check",
    [
        lambda manifest, _: data_checks.check_metadata(manifest),
        data_checks.check_border,
        data_checks.check_brightness,
        data_checks.check_thumbnail,
        lambda manifest, images: data_checks.check_shift(manifest, images, "pneumonia"),
    ],
)
def test_classifiers_find_nothing_in_noise(check):
    finding = check(make_manifest(), make_images())
    assert not finding.is_problem
    assert finding.low < finding.value < finding.high
    assert finding.low < 0.6


def test_the_shape_of_files_is_found():
    manifest = make_manifest()
    manifest.loc[is_pneumonia(manifest), "width"] += 900
    finding = data_checks.check_metadata(manifest)
    assert finding.is_problem
    assert finding.value > 0.8
    assert "aspect ratio" in finding.text


def test_the_colour_mode_is_found():
    manifest = make_manifest()
    manifest.loc[is_pneumonia(manifest), "mode"] = "RGB"
    assert data_checks.check_metadata(manifest).value > 0.95


def test_a_mark_at_the_border_is_found_and_one_in_the_middle_is_not():
    manifest, images = make_manifest(), make_images()
    images[is_pneumonia(manifest), 12:20, 12:20] = 255
    assert not data_checks.check_border(manifest, images).is_problem
    images[is_pneumonia(manifest), :2, 20:26] = 255
    assert data_checks.check_border(manifest, images).is_problem


def test_brightness_that_goes_with_the_class_is_found():
    manifest, images = make_manifest(), make_images()
    images[is_pneumonia(manifest)] += 30
    for finding in (
        data_checks.check_brightness(manifest, images),
        data_checks.check_thumbnail(manifest, images),
    ):
        assert finding.is_problem
        assert finding.value > 0.95


def test_a_difference_between_training_and_test_images_is_found_in_its_class():
    manifest, images = make_manifest(), make_images()
    images[~is_pneumonia(manifest) & (manifest["split"] == "test").to_numpy(), :8] += 40
    assert data_checks.check_shift(manifest, images, "normal").is_problem
    assert not data_checks.check_shift(manifest, images, "pneumonia").is_problem


class TestCopies:
    def test_none(self):
        manifest = make_manifest()
        copies = data_checks.find_copies(manifest, make_images())
        assert len(copies) == 0
        finding = data_checks.judge_copies(manifest, copies)
        assert (finding.value, finding.is_problem) == (0, False)

    def test_a_nearly_identical_picture_on_the_other_side(self):
        manifest, images = make_manifest(), make_images()
        test, train = find_rows(manifest, "test")[3], find_rows(manifest, "train")[7]
        images[test] = np.clip(images[train] * 0.9 + 7, 0, 255)
        copies = data_checks.find_copies(manifest, images)
        assert copies[["test_id", "other_id"]].to_numpy().tolist() == [
            [f"train/{test}.jpeg", f"train/{train}.jpeg"]
        ]
        assert data_checks.judge_copies(manifest, copies).is_problem

    def test_the_same_picture_twice_on_one_side_is_no_matter(self):
        manifest, images = make_manifest(), make_images()
        first, second = find_rows(manifest, "test")[:2]
        images[first] = images[second]
        assert len(data_checks.find_copies(manifest, images)) == 0

    @pytest.mark.parametrize("key", ["patient", "sha256"])
    def test_a_patient_or_file_on_both_sides(self, key):
        manifest = make_manifest()
        test, train = find_rows(manifest, "test")[0], find_rows(manifest, "train")[0]
        manifest.loc[test, key] = manifest.loc[train, key]
        finding = data_checks.judge_copies(manifest, data_checks.find_copies(manifest, make_images()))
        assert (finding.value, finding.is_problem) == (1, True)


def test_too_few_patients_are_not_judged():
    manifest, images = make_manifest(48), make_images(48)
    images[is_pneumonia(manifest), :2] = 255
    finding = data_checks.check_border(manifest, images)
    assert np.isnan(finding.value)
    assert not finding.is_problem
    assert finding.text.startswith("Not known")
    assert len(data_checks.find_doubtful_labels(manifest, images)) == 0


def test_labels_that_were_swapped_are_found():
    n = 1200
    manifest, images = make_manifest(n), make_images(n) // 2
    images[is_pneumonia(manifest), 8:24, 8:24] += 100
    assert not data_checks.judge_labels(n, data_checks.find_doubtful_labels(manifest, images)).is_problem
    swapped = [30, 31, 100, 201, 500, 700, 800, 900]
    others = {"normal": "pneumonia", "pneumonia": "normal"}
    manifest.loc[swapped, "label"] = manifest.loc[swapped, "label"].map(others)
    doubtful = data_checks.find_doubtful_labels(manifest, images)
    assert {f"train/{i}.jpeg" for i in swapped} >= set(doubtful["id"])
    assert len(doubtful) >= 7
    assert data_checks.judge_labels(n, doubtful).is_problem
