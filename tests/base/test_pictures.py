import cv2
import numpy as np
import pytest

from pneumo.base.pictures import encode_sheet


def decode(content):
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)


@pytest.mark.parametrize(("size_px", "expected_px"), [(16, 16), (32, 32), (64, 32)])
def test_pictures_lie_in_their_rows_and_are_shrunk_but_not_enlarged(size_px, expected_px):
    greys = np.array([[40, 200, 90], [250, 10, 140]], np.uint8)
    rows = [[np.full((32, 32), grey, np.uint8) for grey in row] for row in greys]
    sheet = decode(encode_sheet(rows, size_px, 90))
    assert sheet.shape == (2 * expected_px, 3 * expected_px)
    centres = sheet[expected_px // 2 :: expected_px, expected_px // 2 :: expected_px]
    np.testing.assert_allclose(centres, greys, atol=4)


def test_shrinking_averages():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    np.testing.assert_allclose(decode(encode_sheet([[stripes]], 32, 90)), 100, atol=4)


def test_a_lower_quality_takes_less_space():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    assert len(encode_sheet([[noise]], 64, 30)) < len(encode_sheet([[noise]], 64, 90))
