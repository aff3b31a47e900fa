"""The examples' own arithmetic; tests/test_presets.py runs the longer ones."""

import numpy as np
import pandas as pd
import pytest

import combos


def make_image():
    return np.random.default_rng(0).integers(0, 40, (24, 24), dtype=np.uint8)


def explain_naively(image, reference):
    """Return 1 less the variance that is left within the pixels of each grey value."""
    frame = pd.DataFrame({"value": image.ravel(), "wanted": reference.ravel().astype(float)})
    left = frame["wanted"] - frame.groupby("value")["wanted"].transform("mean")
    return 1 - left.var(ddof=0) / frame["wanted"].var(ddof=0)


@pytest.mark.parametrize(
    "change",
    [lambda x: x, lambda x: 255 - x, lambda x: x // 8, lambda x: (x > 20).astype(np.uint8), np.transpose],
    ids=["same", "inverted", "coarser", "two values", "moved"],
)
def test_what_is_kept_is_what_a_naive_computation_says(change):
    reference = make_image()
    image = np.ascontiguousarray(change(reference))
    kept = combos.explain_variance(image, reference)
    assert kept == pytest.approx(explain_naively(image, reference))


def test_what_keeps_the_order_of_grey_values_keeps_all_and_what_is_constant_nothing():
    reference = make_image()
    assert combos.explain_variance(255 - reference, reference) == pytest.approx(1)
    assert combos.explain_variance(np.zeros_like(reference), reference) == pytest.approx(0)
    assert combos.explain_variance(reference, np.zeros_like(reference)) == 1


def test_an_image_of_two_values():
    image = np.repeat(np.array([0, 9], np.uint8), [6, 2]).reshape(2, 4)
    measured = combos.measure(image, image)
    expected_bits = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert measured == {
        "grey_values": 2,
        "black": 0.75,
        "bits": pytest.approx(expected_bits),
        "kept": pytest.approx(1),
    }
