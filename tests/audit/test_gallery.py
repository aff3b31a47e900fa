"""The gallery: which images it shows, what it says of them, and how it is drawn."""

import cv2
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
        np.array(["i0", "i1", "i2", "i3"], object),
        scores,
        np.array([0, 2, 2, 1]),
        groups,
        {"Grad-CAM": attention, "x": 0 * attention},
    )
    assert table.to_numpy().tolist() == [
        ["certain and right", "i2", "viral", "viral", 0.8, 0.0, "Grad-CAM, x"],
        ["certain and right", "i0", "normal", "normal", 0.7, 0.5, "Grad-CAM, x"],
        ["certain and wrong", "i1", "bacterial", "viral", 0.6, 0.75, "Grad-CAM, x"],
        ["undecided", "i1", "bacterial", "viral", 0.6, 0.0, "Grad-CAM, x"],
    ]


def read_sheet(content, n_images, n_maps):
    """Return uint8 array of shape (n_images, 1 + n_maps, size_px, size_px)."""
    sheet = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    size_px = len(sheet) // n_images
    assert sheet.shape == (n_images * size_px, (1 + n_maps) * size_px)
    return sheet.reshape(n_images, size_px, 1 + n_maps, size_px).swapaxes(1, 2)


def test_a_sheet_has_each_image_and_its_maps_scaled_one_by_one():
    slope = np.linspace(0, 1, 64)[:, None] * np.ones(64)
    images = np.rint(np.stack([255 * slope, 200 * slope.T, 100 + 50 * slope])).astype(np.uint8)
    maps = {
        "Grad-CAM": np.stack([slope.T, 1e-6 * slope, 7 * slope[::-1]]),
        "occlusion": np.stack([40 * slope[::-1], 0 * slope, slope.T]),
    }
    pictures = read_sheet(gallery.draw_sheet(images, maps), 3, 2).astype(float)
    expected = [
        [255 * slope, 255 * slope.T, 255 * slope[::-1]],
        [200 * slope.T, 255 * slope, 0 * slope],
        [100 + 50 * slope, 255 * slope[::-1], 255 * slope.T],
    ]
    np.testing.assert_allclose(pictures, np.array(expected), atol=16)  # WebP blurs the seams
    inner = np.s_[..., 8:-8, 8:-8]
    assert np.abs(pictures - np.array(expected))[inner].mean() < 2


def test_large_pictures_are_drawn_as_small_as_they_are_shown():
    images = np.zeros((1, 2 * gallery.SIZE_PX, 2 * gallery.SIZE_PX), np.uint8)
    images[0, : gallery.SIZE_PX] = 200
    ((image, attention),) = read_sheet(gallery.draw_sheet(images, {"Grad-CAM": images / 1.0}), 1, 1)
    assert image.shape == (gallery.SIZE_PX, gallery.SIZE_PX)
    half = gallery.SIZE_PX // 2
    for picture, bright in ((image, 200), (attention, 255)):
        assert abs(picture[: half - 8, 8:-8].mean() - bright) < 4
        assert picture[half + 8 :, 8:-8].mean() < 4
