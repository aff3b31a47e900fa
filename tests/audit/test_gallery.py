"""The gallery: which images it shows, what it says of them, and how it is stored."""

import numpy as np
import pytest

from pneumo.audit import gallery
from pneumo.evaluation.predictions import Scores


class TestGallery:
    y_true = np.array([0, 0, 1, 1, 1, 0])
    y_pred = np.array([0, 1, 1, 0, 1, 0])
    margins = np.array([5.0, 4.0, 3.0, 0.1, 0.5, 6.0])

    def select(self, patients, n_each=2):
        groups = gallery.select_gallery(
            self.y_true, self.y_pred, self.margins, np.array(patients, object), n_each
        )
        return {group: rows.tolist() for group, rows in groups.items()}

    def test_the_most_certain_and_the_least(self):
        assert self.select(list("abcdef")) == {
            "certain and right": [5, 0],
            "certain and wrong": [1, 3],
            "undecided": [3, 4],
        }

    def test_one_image_of_a_patient(self):
        assert self.select(list("abcdea"))["certain and right"] == [5, 2]

    def test_there_may_be_fewer(self):
        assert self.select(list("abcdef"), n_each=4)["certain and wrong"] == [1, 3]


def test_margins_of_two_classes_are_from_the_threshold():
    probabilities = np.array([[0.5, 0.5], [0.2, 0.8], [0.8, 0.2]])
    margins = gallery.find_margins(probabilities, 0.8)
    np.testing.assert_allclose(margins, [np.log(4), 0, 2 * np.log(4)], atol=1e-12)


def test_margins_of_more_classes_are_from_the_second():
    margins = gallery.find_margins(np.array([[0.5, 0.25, 0.25], [0.1, 0.45, 0.45]]), None)
    np.testing.assert_allclose(margins, [np.log(2), 0], atol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_margins_from_a_threshold_at_the_end_are_finite(threshold):
    assert np.isfinite(gallery.find_margins(np.array([[0.0, 1.0], [1.0, 0.0]]), threshold)).all()


def test_the_table_says_what_was_decided():
    scores = Scores(
        ("normal", "bacterial", "viral"),
        np.array([0, 1, 2, 1]),
        np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]),
        np.array(list("abcd"), object),
    )
    groups = {
        "certain and right": np.array([2, 0]),
        "certain and wrong": np.array([1]),
        "undecided": np.array([1]),
    }
    attention = np.zeros((4, 64, 64))
    attention[:, 32, 32] = 1
    attention[1:3, 0, 0] = 1, 3
    table = gallery.tabulate_gallery(
        np.array(["i0", "i1", "i2", "i3"], object), scores, np.array([0, 2, 2, 1]), groups, attention
    )
    assert table.to_numpy().tolist() == [
        ["certain and right", "i2", "viral", "viral", 0.8, 0.0],
        ["certain and right", "i0", "normal", "normal", 0.7, 0.5],
        ["certain and wrong", "i1", "bacterial", "viral", 0.6, 0.75],
        ["undecided", "i1", "bacterial", "viral", 0.6, 0.0],
    ]


def test_stored_maps_are_scaled_one_by_one(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (3, 8, 8), dtype=np.uint8)
    maps = {"Grad-CAM": generator.random((3, 8, 8)) * 1e-6, "occlusion": generator.random((3, 8, 8)) * 40}
    maps["occlusion"][1] = 0
    gallery.save_gallery(images, maps, tmp_path / "cnn_0.npz")
    with np.load(tmp_path / "cnn_0.npz") as stored:
        np.testing.assert_array_equal(stored["images"], images)
        assert stored["names"].tolist() == list(maps)
        assert (stored["maps"].dtype, stored["maps"].shape) == (np.uint8, (2, 3, 8, 8))
        for number, name in enumerate(maps):
            for own, found in zip(maps[name], stored["maps"][number], strict=True):
                peak = max(own.ravel().tolist())
                expected = [[round(255 * value / peak) if peak else 0 for value in row] for row in own]
                np.testing.assert_array_equal(found, expected)


def test_large_pictures_are_stored_as_small_as_they_are_shown(tmp_path):
    images = np.zeros((1, 2 * gallery.SIZE_PX, 2 * gallery.SIZE_PX), np.uint8)
    images[0, : gallery.SIZE_PX] = 200
    gallery.save_gallery(images, {"Grad-CAM": images / 1.0}, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as stored:
        assert stored["images"].shape == (1, gallery.SIZE_PX, gallery.SIZE_PX)
        assert stored["maps"].shape == (1, 1, gallery.SIZE_PX, gallery.SIZE_PX)
        half = gallery.SIZE_PX // 2
        assert (stored["images"][0, :half] == 200).all()
        assert not stored["images"][0, half:].any()
        assert (stored["maps"][0, 0, :half] == 255).all()
