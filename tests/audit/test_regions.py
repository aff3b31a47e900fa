"""Thorax and markers: what is blanked, and what is left as it was."""

import cv2
import numpy as np
import pytest

from pneumo.audit import regions
from pneumo.data.phantom import CANVAS_PX, draw_thorax

SIZE_PX = 64


def make_image(seed=0):
    return np.random.default_rng(seed).integers(80, 120, (SIZE_PX, SIZE_PX), dtype=np.uint8)


@pytest.fixture
def marked():
    image = make_image() // 4
    letters = np.zeros_like(image)
    cv2.putText(letters, "R", (1, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1)
    image[letters > 0] = 250
    return image, letters > 0


def test_the_thorax_is_in_the_middle_and_takes_three_fifths():
    thorax = regions.find_thorax(SIZE_PX)
    assert thorax.mean() == pytest.approx(np.pi * 0.44**2, abs=0.01)
    assert thorax[32, 32]
    assert not thorax[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    np.testing.assert_array_equal(thorax, thorax[::-1, ::-1])


@pytest.mark.parametrize("seed", range(5))
def test_the_lungs_of_phantoms_lie_in_the_thorax(seed):
    lungs = draw_thorax(np.random.default_rng(seed)).lungs
    assert lungs[regions.find_thorax(CANVAS_PX)].sum() > 0.98 * lungs.sum()


def fill_naively(image, is_removed):
    height, width = image.shape
    places = [(row, column) for row in range(height) for column in range(width)]
    kept = [int(image[place]) for place in places if not is_removed[place]]
    filled = image.copy()
    for place in places:
        if is_removed[place]:
            filled[place] = round(sum(kept) / len(kept))
    return filled


@pytest.mark.parametrize(
    ("remove", "is_thorax_removed"), [(regions.blank_thorax, True), (regions.keep_thorax, False)]
)
class TestRemoval:
    def test_the_rest_stays_and_its_mean_fills_the_part(self, remove, is_thorax_removed):
        image = make_image()
        image[20:44, 20:44] += 100
        is_removed = regions.find_thorax(SIZE_PX) == is_thorax_removed
        np.testing.assert_array_equal(remove(image), fill_naively(image, is_removed))

    @pytest.mark.parametrize("grey", [0, 255])
    def test_nothing_depends_on_the_part_that_is_removed(self, remove, is_thorax_removed, grey):
        image = make_image()
        other = image.copy()
        other[regions.find_thorax(SIZE_PX) == is_thorax_removed] = grey
        np.testing.assert_array_equal(remove(other), remove(image))

    def test_the_image_itself_is_not_changed(self, remove, is_thorax_removed):
        image = make_image()
        before = image.copy()
        changed = remove(image) != image
        np.testing.assert_array_equal(image, before)
        assert not changed[regions.find_thorax(SIZE_PX) != is_thorax_removed].any()


def test_markers_are_found_and_painted_over(marked):
    image, letters = marked
    assert regions.find_markers(image)[letters].all()
    erased = regions.erase_markers(image)
    assert erased[letters].max() < 100
    assert (erased != image).mean() < 0.1


def test_an_image_without_markers_stays_as_it_is():
    image = make_image()
    assert regions.erase_markers(image) is image


def test_bright_strokes_inside_the_thorax_are_no_markers():
    image = make_image()
    image[30, 20:44] = 255
    assert not regions.find_markers(image).any()


def test_the_thorax_stays_as_it_is_where_a_marker_touches_it():
    image, thorax = make_image() // 4, regions.find_thorax(SIZE_PX)
    image[:14, 9:11] = 255  # a stroke from the border into the thorax
    assert regions.find_markers(image)[:8, 9:11].all()
    np.testing.assert_array_equal(regions.erase_markers(image)[thorax], image[thorax])


def test_attention_spread_evenly_lies_outside_by_area():
    assert regions.score_outside(np.ones((SIZE_PX, SIZE_PX))) == pytest.approx(1 - np.pi * 0.44**2, abs=0.01)


def test_attention_in_a_corner_lies_outside_and_in_the_middle_inside():
    attention = np.zeros((SIZE_PX, SIZE_PX))
    assert np.isnan(regions.score_outside(attention))
    attention[0, 0] = 3
    assert regions.score_outside(attention) == 1
    attention[32, 32] = 1
    assert regions.score_outside(attention) == 0.75
