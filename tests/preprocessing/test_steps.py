import inspect
import math
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.preprocessing import steps
from pneumo.preprocessing.combo import (
    Step,
    apply_steps,
    find_equal_combos,
    find_ineffective_limits,
    parse_combo,
    step_names,
)

NEEDED = {"gamma": {"gamma": 1.5}, "resize": {"size_px": 24}}
GEOMETRIC = {"crop", "trim", "resize"}


def random_image(height=48, width=60, seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (height, width), dtype=np.uint8)


def average_blocks(image, block_height, block_width):
    height, width = image.shape
    blocks = image.reshape(height // block_height, block_height, width // block_width, block_width)
    return blocks.mean(axis=(1, 3))


def windows_around(image, size, mode):
    return np.lib.stride_tricks.sliding_window_view(np.pad(image, size // 2, mode=mode), (size, size))


def correlate(image, kernel):
    return (windows_around(image.astype(float), len(kernel), "reflect") * kernel).sum(axis=(2, 3))


def tabulate_clahe(image, clip_limit):
    """Table of grey values of CLAHE with one tile: what is clipped is spread evenly over all bins."""
    counts = np.bincount(image.ravel(), minlength=256).astype(float)
    limit = int(clip_limit * image.size / 256)
    counts = np.minimum(counts, limit) + np.maximum(counts - limit, 0).sum() / 256
    return counts.cumsum() * 255 / image.size


# Every step


@pytest.fixture(params=step_names())
def step(request):
    return Step(request.param, NEEDED.get(request.param, {}))


def test_geometric_steps_are_those_that_change_the_shape(step):
    image = np.full((48, 60), 200, np.uint8)
    image[:2] = 0
    assert (step(image).shape != image.shape) == (step.name in GEOMETRIC)


def test_steps_return_grey_images(step):
    result = step(random_image())
    assert result.dtype == np.uint8
    assert result.ndim == 2


def test_steps_leave_their_input_alone_and_repeat_themselves(step):
    image = random_image()
    before = image.copy()
    first = step(image).copy()
    np.testing.assert_array_equal(step(image), first)
    np.testing.assert_array_equal(image, before)
    image.flags.writeable = False
    np.testing.assert_array_equal(step(image), first)


def test_steps_take_views_that_are_not_contiguous(step):
    view = random_image(96, 120)[::2, ::2]
    np.testing.assert_array_equal(step(view), step(view.copy()))


def test_steps_see_an_image_and_their_own_parameters_only(step):
    image, *parameters = inspect.signature(getattr(steps, step.name)).parameters.values()
    assert (image.name, image.annotation) == ("image", steps.Image)
    assert image.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {parameter.kind for parameter in parameters} <= {inspect.Parameter.KEYWORD_ONLY}
    assert list(inspect.signature(Step.__call__).parameters) == ["self", "image"]


@pytest.mark.parametrize("level", [0, 90, 255])
def test_steps_take_constant_images(step, level):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.ptp(step(np.full((48, 60), level, np.uint8))) == 0


# Geometry


@pytest.mark.parametrize(
    ("parameters", "rows", "columns"),
    [
        ({}, slice(4, 46), slice(8, 92)),
        ({"margin": 0.0}, slice(0, 50), slice(0, 100)),
        ({"margin": 0.1}, slice(5, 45), slice(10, 90)),
        ({"margin": 0.1, "top": 0.0}, slice(0, 45), slice(10, 90)),
        ({"margin": 0.0, "bottom": 0.5}, slice(0, 25), slice(0, 100)),
        ({"margin": 0.0, "left": 0.25}, slice(0, 50), slice(25, 100)),
        ({"top": 0.5, "bottom": 0.25, "left": 0.0, "right": 0.75}, slice(25, 38), slice(0, 25)),
        ({"top": 0.6, "bottom": 0.39}, slice(30, 31), slice(8, 92)),
    ],
)
def test_crop(parameters, rows, columns):
    image = random_image(50, 100)
    np.testing.assert_array_equal(steps.crop(image, **parameters), image[rows, columns])


def test_crop_leaves_a_pixel():
    assert steps.crop(random_image(1, 1), margin=0.49).shape == (1, 1)


@pytest.mark.parametrize(
    "borders", [(0, 0, 0, 0), (7, 0, 0, 0), (0, 5, 0, 0), (0, 0, 9, 0), (0, 0, 0, 3), (4, 10, 6, 12)]
)
@pytest.mark.parametrize("darkest", [0, 20])
def test_trim_removes_dark_borders_to_the_pixel(borders, darkest):
    top, bottom, left, right = borders
    inside = random_image(60, 80, low=100)
    image = random_image(60 + top + bottom, 80 + left + right, seed=1, low=darkest, high=darkest + 10)
    image[top : top + 60, left : left + 80] = inside
    np.testing.assert_array_equal(steps.trim(image), inside)


def test_trim_stops_at_the_greatest_fraction():
    image = np.full((100, 100), 200, np.uint8)
    image[:20] = image[-5:] = 0
    assert steps.trim(image, max_fraction=0.1).shape == (85, 100)


def test_trim_goes_by_darkness():
    image = np.full((60, 60), 200, np.uint8)
    image[:8] = 60
    assert steps.trim(image, darkness=0.25).shape == (60, 60)
    assert steps.trim(image, darkness=0.35).shape == (52, 60)


def test_trim_keeps_dark_lines_inside():
    image = np.full((60, 60), 200, np.uint8)
    image[30] = image[:, 10] = 0
    np.testing.assert_array_equal(steps.trim(image), image)


def test_squash_averages_areas():
    image = random_image(64, 96)
    np.testing.assert_allclose(
        steps.resize(image, size_px=32), average_blocks(image, 2, 3), atol=0.51, rtol=0
    )


def test_squash_of_the_final_size_changes_nothing():
    image = random_image(32, 32)
    np.testing.assert_array_equal(steps.resize(image, size_px=32), image)


def test_enlarging_interpolates_between_pixel_centres():
    image = random_image(16, 20)
    rows, columns = ((np.arange(48) + 0.5) * n / 48 - 0.5 for n in image.shape)
    across = np.array([np.interp(columns, np.arange(20), row) for row in image])
    expected = np.array([np.interp(rows, np.arange(16), column) for column in across.T]).T
    np.testing.assert_allclose(steps.resize(image, size_px=48), expected, atol=1, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (64, 96, slice(5, 26), slice(0, 32)),
        (96, 48, slice(0, 32), slice(8, 24)),
        (48, 48, slice(32), slice(32)),
    ],
)
def test_letterbox_keeps_the_aspect_ratio_and_pads_with_black(height, width, rows, columns):
    image = np.full((height, width), 200, np.uint8)
    expected = np.zeros((32, 32), np.uint8)
    expected[rows, columns] = 200
    np.testing.assert_array_equal(steps.resize(image, size_px=32, mode="letterbox"), expected)


def test_letterbox_averages_areas():
    image = random_image(32, 64)
    result = steps.resize(image, size_px=32, mode="letterbox")
    np.testing.assert_allclose(result[8:24], average_blocks(image, 2, 2), atol=0.51, rtol=0)


def test_letterbox_keeps_a_pixel_of_a_ribbon():
    image = np.full((1, 1000), 200, np.uint8)
    assert steps.resize(image, size_px=32, mode="letterbox").any(axis=1).sum() == 1


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(64, 96, slice(0, 64), slice(16, 80)), (96, 64, slice(16, 80), slice(0, 64))],
)
def test_center_crop_cuts_what_does_not_fit(height, width, rows, columns):
    image = random_image(height, width)
    result = steps.resize(image, size_px=32, mode="center_crop")
    np.testing.assert_allclose(result, average_blocks(image[rows, columns], 2, 2), atol=0.51, rtol=0)


# Contrast and brightness


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.2, 3.0])
def test_gamma(gamma):
    image = random_image()
    expected = np.floor(255 * (image / 255.0) ** gamma + 0.5)
    np.testing.assert_array_equal(steps.gamma(image, gamma=gamma), expected)


@pytest.mark.parametrize(
    ("factor", "offset"), [(1.0, 0.0), (1.0, -70.0), (1.0, 30.0), (1.3, -20.2), (0.0, 12.0), (1.0, -300.0)]
)
def test_brightness(factor, offset):
    image = random_image()
    expected = [[min(255, max(0, round(int(v) * factor + offset))) for v in row] for row in image]
    np.testing.assert_array_equal(steps.brightness(image, factor=factor, offset=offset), expected)


def test_invert():
    image = random_image()
    np.testing.assert_array_equal(steps.invert(image).astype(int) + image, 255)


@pytest.mark.parametrize(("low", "high"), [(0, 100), (1, 99), (10, 50)])
def test_stretch(low, high):
    image = random_image(21, 101, low=40, high=200)
    ordered = np.sort(image.ravel()).astype(float)
    at = np.array([low, high]) / 100 * (ordered.size - 1)
    black, white = np.interp(at, np.arange(ordered.size), ordered)
    expected = np.clip((image - black) / (white - black), 0, 1) * 255
    stretched = steps.stretch(image, low_percentile=low, high_percentile=high)
    np.testing.assert_allclose(stretched, expected, atol=0.51, rtol=0)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_equalize_spreads_the_cumulative_histogram():
    image = random_image(low=60, high=120)
    counts = np.bincount(image.ravel(), minlength=256)
    darkest = counts[image.min()]
    expected = (counts.cumsum() - darkest)[image] * 255 / (image.size - darkest)
    np.testing.assert_allclose(steps.equalize(image), expected, atol=0.51, rtol=0)


@pytest.mark.parametrize("clip_limit", [1.5, 2.0, 4.0, 256.0])
def test_clahe_with_one_tile_equalizes_the_clipped_histogram(clip_limit):
    normal = np.random.default_rng(0).normal(120, 15, (64, 64))
    image = np.clip(normal, 0, 255).astype(np.uint8)
    result = steps.clahe(image, clip_limit=clip_limit, tiles=1)
    np.testing.assert_allclose(result, tabulate_clahe(image, clip_limit)[image], atol=3, rtol=0)


def test_clahe_works_tile_by_tile():
    image = np.hstack([random_image(64, 64, low=20, high=60), random_image(64, 64, low=180, high=220)])
    result = steps.clahe(image, clip_limit=256.0, tiles=2)
    # Between an image's corner and the centre of its tile no other tile is mixed in.
    for corner, tile in ((np.s_[:16, :32], np.s_[:32, :64]), (np.s_[:16, -32:], np.s_[:32, -64:])):
        expected = tabulate_clahe(image[tile], 256.0)[image[corner]]
        np.testing.assert_allclose(result[corner], expected, atol=2, rtol=0)


def draw_structured_image(size_px, seed=0):
    """Draw smooth shapes with a little noise, so that the histograms of tiles have peaks."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(120, 25, (12, 12)).clip(0, 255).astype(np.uint8)
    smooth = cv2.resize(coarse, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return (smooth + generator.normal(0, 1.5, (size_px, size_px))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size_px", [31, 32, 64, 65, 100, 224])  # with and without padding to whole tiles
@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 5, 7, 8, 16])
def test_limits_that_are_rounded_to_the_same_number_give_the_same_bytes(size_px, tiles):
    image = draw_structured_image(size_px)
    images = {}
    for limit in (0.01, 0.5, 0.99, 1, 1.5, 2, 2.5, 3, 3.9, 4, 5, 6, 7.9, 8, 9, 15, 16, 32, 256):
        result = steps.clahe(image, clip_limit=limit, tiles=tiles).tobytes()
        images.setdefault(steps.find_clip_px(limit, tiles, size_px), set()).add(result)
    assert all(len(results) == 1 for results in images.values())
    assert len(images) > 1


@pytest.mark.parametrize(("size_px", "tiles"), [(64, 8), (65, 8), (64, 7), (32, 4), (224, 20)])
def test_limits_that_are_rounded_to_different_numbers_give_different_bytes(size_px, tiles):
    image = draw_structured_image(size_px)
    side_px = -(-size_px // tiles)
    unit = 256 / side_px**2
    results = [
        steps.clahe(image, clip_limit=factor * unit, tiles=tiles).tobytes()
        for factor in (0.3, 1.999, 2.001, 3.001)
    ]
    assert results[0] == results[1]
    assert len(set(results)) == 3


# Noise, sharpness and edges


@pytest.mark.parametrize("size_px", [3, 5, 9])
def test_median(size_px):
    image = random_image()
    expected = np.median(windows_around(image, size_px, "edge"), axis=(2, 3))
    np.testing.assert_array_equal(steps.median(image, size_px=size_px), expected)


@pytest.mark.parametrize("sigma_px", [0.7, 1.0, 2.5])
def test_gaussian(sigma_px):
    image = random_image()
    at = np.arange(-10, 11)
    weights = np.exp(-(at**2) / (2 * sigma_px**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    blurred = steps.gaussian(image, sigma_px=sigma_px)
    np.testing.assert_allclose(blurred, correlate(image, kernel), atol=2, rtol=0)


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.5])
def test_unsharp_adds_the_difference_from_the_blurred_image(amount):
    image = random_image(low=50, high=200)
    difference = image - steps.gaussian(image, sigma_px=2.0).astype(float)
    sharpened = steps.unsharp(image, sigma_px=2.0, amount=amount)
    np.testing.assert_allclose(sharpened, np.clip(image + amount * difference, 0, 255), atol=0.51, rtol=0)


def test_sobel_marks_a_step():
    image = np.full((20, 30), 40, np.uint8)
    image[:, 15:] = 140
    expected = np.zeros((20, 30))
    expected[:, 14:16] = 100
    np.testing.assert_array_equal(steps.sobel(image), expected)
    np.testing.assert_array_equal(steps.sobel(image.T), expected.T)


def test_sobel_is_the_magnitude_of_the_gradient():
    image = random_image()
    kernel = np.outer([1, 2, 1], [-1, 0, 1])
    magnitude = np.hypot(correlate(image, kernel), correlate(image, kernel.T)) / 4
    np.testing.assert_allclose(steps.sobel(image), np.minimum(magnitude, 255), atol=1, rtol=0)


def test_canny_draws_a_thin_line_along_a_step():
    image = np.full((20, 30), 40, np.uint8)
    image[:, 15:] = 140
    edges = steps.canny(image, low=40, high=80)
    assert set(np.unique(edges)) == {0, 255}
    columns = np.flatnonzero(edges.any(axis=0))
    assert len(columns) == 1
    assert columns[0] in (14, 15)
    assert edges[:, columns[0]].all()
    assert not steps.canny(image, low=40, high=500).any()


# Combos


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ([], ["resize"]),
        ({}, ["resize"]),
        (["clahe"], ["resize", "clahe"]),
        (["crop", "clahe"], ["crop", "resize", "clahe"]),
        (["trim", "crop", "invert", "equalize"], ["trim", "crop", "resize", "invert", "equalize"]),
        (["crop"], ["crop", "resize"]),
        (["clahe", "resize"], ["clahe", "resize"]),
        (["crop", "median", "resize", "clahe"], ["crop", "median", "resize", "clahe"]),
    ],
)
def test_resize_follows_the_leading_geometric_steps_unless_named(steps, names):
    assert [step.name for step in parse_combo("x", steps, 32)] == names


@pytest.mark.parametrize(
    ("resize", "parameters"),
    [
        ("resize", {"size_px": 32}),
        ({"resize": None}, {"size_px": 32}),
        ({"resize": {"mode": "letterbox"}}, {"size_px": 32, "mode": "letterbox"}),
        ({"resize": {"size_px": 32}}, {"size_px": 32}),
    ],
)
def test_resize_takes_the_size_of_params(resize, parameters):
    assert parse_combo("x", [resize], 32) == [Step("resize", parameters)]


def test_parameters_reach_their_step():
    parsed = parse_combo(
        "x", [{"crop": {"margin": 0.25, "top": None}}, {"gamma": {"gamma": 2}}, "invert"], 32
    )
    assert parsed == [
        Step("crop", {"margin": 0.25, "top": None}),
        Step("resize", {"size_px": 32}),
        Step("gamma", {"gamma": 2.0}),
        Step("invert", {}),
    ]
    image = random_image(64, 64)
    expected = 255 - steps.gamma(steps.resize(image[16:48, 16:48], size_px=32), gamma=2.0)
    np.testing.assert_array_equal(apply_steps(image, parsed), expected)


def test_steps_are_applied_in_order():
    image = random_image(32, 32)
    darken = {"brightness": {"offset": -30}}
    first = apply_steps(image, parse_combo("x", ["invert", darken], 32))
    second = apply_steps(image, parse_combo("x", [darken, "invert"], 32))
    np.testing.assert_array_equal(first, np.maximum(255 - image.astype(int) - 30, 0))
    np.testing.assert_array_equal(second, 255 - np.maximum(image.astype(int) - 30, 0))


# What a combo does at its size


def clahe(**parameters):
    return {"clahe": parameters}


@pytest.mark.parametrize(
    ("size_px", "combo", "expected"),
    [
        (64, [clahe(tiles=8)], ["limit of 2 ", "8 x 8 px", "limit to 8 or more or tiles to 4 or less."]),
        (64, ["trim", "clahe"], ["limit of 2 ", "8 x 8 px", "limit to 8 or more or tiles to 4 or less."]),
        (64, ["median", clahe(clip_limit=7.9)], ["limit of 7.9 ", "to 8 or more or tiles to 7 or less."]),
        (65, ["clahe"], ["px 65 and tiles 8, a tile has 9 x 9 px", "6.321 or more or tiles to 4 or less."]),
        (88, ["clahe"], ["11 x 11 px", "4.232 or more or tiles to 5 or less."]),
        (32, [clahe(clip_limit=0.1, tiles=1)], ["limit of 0.1 ", "Set clip_limit to 0.5 or more."]),
    ],
)
def test_limits_without_effect_are_named(size_px, combo, expected):
    [found] = find_ineffective_limits("x", parse_combo("x", combo, size_px))
    assert found.startswith("combos.x: the clip_limit ")
    for part in expected:
        assert part in found


@pytest.mark.parametrize(
    ("size_px", "combo"),
    [
        (64, []),
        (64, [clahe(clip_limit=8)]),
        (64, [clahe(tiles=4)]),
        (65, [clahe(clip_limit=6.33)]),
        (224, ["clahe"]),
        (64, ["clahe", "resize"]),  # works on originals, whose size is not known here
    ],
)
def test_limits_with_an_effect_are_not_named(size_px, combo):
    assert find_ineffective_limits("x", parse_combo("x", combo, size_px)) == []


@pytest.mark.parametrize("size_px", [64, 65, 88])
def test_what_is_said_of_limits_is_true(size_px):
    tiles = 8
    image = draw_structured_image(size_px)
    [found] = find_ineffective_limits("x", parse_combo("x", [clahe(clip_limit=2.0, tiles=tiles)], size_px))
    lowest, fewer_tiles = re.search(
        r"clip_limit to ([\d.]+) or more or tiles to (\d+) or less", found
    ).groups()

    def count_limits(n_tiles, limits):
        return len({steps.clahe(image, clip_limit=limit, tiles=n_tiles).tobytes() for limit in limits})

    assert count_limits(tiles, (0.1, 2.0, float(lowest) - 0.01)) == 1
    assert count_limits(tiles, (2.0, float(lowest))) == 2
    assert count_limits(int(fewer_tiles), (0.1, 2.0)) == 2
    assert count_limits(int(fewer_tiles) + 1, (0.1, 2.0)) == 1


def test_combos_of_equal_effect_are_found():
    combos = {
        "raw": [],
        "clahe": ["clahe"],
        "plain": {},
        "same_clahe": [{"resize": {"mode": "squash"}}, clahe(tiles=8, clip_limit=2)],
        "rounded": [clahe(clip_limit=5.0)],
        "stronger": [clahe(clip_limit=9.0)],
        "letterbox": [{"resize": {"mode": "letterbox"}}],
        "first": ["clahe", "resize"],
        "first_stronger": [clahe(clip_limit=5.0), "resize"],
        "swapped": ["invert", "clahe"],
        "in_order": ["clahe", "invert"],
    }
    parsed = {name: parse_combo(name, entries, 64) for name, entries in combos.items()}
    assert find_equal_combos(parsed) == [["raw", "plain"], ["clahe", "same_clahe", "rounded"]]


def test_combos_of_equal_effect_give_equal_images():
    image = draw_structured_image(100)
    combos = {
        f"limit_{limit}_{tiles}": parse_combo("x", [clahe(clip_limit=limit, tiles=tiles)], 64)
        for limit in (0.5, 2.0, 3.0, 5.0, 8.0, 9.0)
        for tiles in (3, 4, 8)
    }
    images = {name: apply_steps(image, parsed).tobytes() for name, parsed in combos.items()}
    by_image = {}
    for name, content in images.items():
        by_image.setdefault(content, []).append(name)
    assert find_equal_combos(combos) == [names for names in by_image.values() if len(names) > 1]
    assert len(find_equal_combos(combos)) > 1


@pytest.mark.parametrize("steps", [[], ["resize"], ["resize", "crop"]])
def test_result_is_contiguous(steps):
    parsed = [Step(name, {"size_px": 32} if name == "resize" else {}) for name in steps]
    result = apply_steps(random_image(64, 64)[::2, ::2], parsed)
    assert result.flags.c_contiguous
    assert result.dtype == np.uint8


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        (None, ["combos.x:", "list", "None"]),
        ("clahe", ["combos.x:", "list", "'clahe'"]),
        ({"clahe": {"clip_limit": 4.0}}, ["combos.x:", "list", "clip_limit"]),
        ([3], ["combos.x[0]", "3"]),
        ([None], ["combos.x[0]", "None"]),
        (["invert", "clahee"], ["combos.x[1]", "clahe,", "'clahee'"]),
        ([{"invert": {}, "clahe": {}}], ["combos.x[0]", "one step"]),
        ([{"clahe": [2.0]}], ["combos.x[0].clahe", "[2.0]"]),
        ([{"clahe": {"clip": 2.0}}], ["combos.x[0].clahe", "clip_limit, tiles", "'clip'"]),
        ([{"invert": {"amount": 1}}], ["combos.x[0].invert", "no parameter", "'amount'"]),
        ([{"crop": {"image": 1}}], ["combos.x[0].crop", "'image'"]),
        (["gamma"], ["combos.x[0].gamma", "a value for gamma"]),
        ([{"clahe": {"tiles": 8.0}}], ["combos.x[0].clahe.tiles", "int", "8.0"]),
        ([{"clahe": {"tiles": True}}], ["combos.x[0].clahe.tiles", "int", "True"]),
        ([{"clahe": {"clip_limit": "high"}}], ["combos.x[0].clahe.clip_limit", "float", "'high'"]),
        ([{"clahe": {"clip_limit": None}}], ["combos.x[0].clahe.clip_limit", "float", "None"]),
        ([{"crop": {"top": "a"}}], ["combos.x[0].crop.top", "float or null", "'a'"]),
        ([{"gamma": {"gamma": float("nan")}}], ["combos.x[0].gamma.gamma", "finite", "nan"]),
        ([{"brightness": {"offset": float("inf")}}], ["combos.x[0].brightness.offset", "finite", "inf"]),
        ([{"resize": {"mode": "fit"}}], ["combos.x[0].resize.mode", "letterbox", "'fit'"]),
        ([{"resize": {"size_px": 15}}], ["combos.x[0].resize", "32", "15"]),
        ([{"crop": {"margin": 0.5}}], ["combos.x[0].crop", "0.5"]),
        ([{"crop": {"left": 0.6, "right": 0.4}}], ["combos.x[0].crop", "0.6"]),
        ([{"crop": {"top": -0.1}}], ["combos.x[0].crop", "-0.1"]),
        ([{"trim": {"darkness": 1.1}}], ["combos.x[0].trim", "darkness"]),
        ([{"trim": {"max_fraction": 0.5}}], ["combos.x[0].trim", "max_fraction"]),
        ([{"resize": {"size_px": 48}}], ["combos.x[0].resize.size_px", "image_size_px, 32,", "48"]),
        (["trim", {"resize": {"size_px": 16, "mode": "letterbox"}}], ["combos.x[1].resize.size_px", "16"]),
        ([{"clahe": {"clip_limit": 0}}], ["combos.x[0].clahe", "clip_limit above 0", "0.0"]),
        ([{"clahe": {"clip_limit": 1e300}}], ["combos.x[0].clahe", "up to 256", "1e+300"]),
        ([{"clahe": {"tiles": 0}}], ["combos.x[0].clahe", "tiles from 1 to 64", "0"]),
        ([{"clahe": {"tiles": 10000}}], ["combos.x[0].clahe", "tiles from 1 to 64", "10000"]),
        ([{"gamma": {"gamma": 0}}], ["combos.x[0].gamma", "gamma > 0"]),
        ([{"brightness": {"factor": -1}}], ["combos.x[0].brightness", "factor"]),
        ([{"stretch": {"low_percentile": 60, "high_percentile": 60}}], ["combos.x[0].stretch", "60.0"]),
        ([{"stretch": {"high_percentile": 101}}], ["combos.x[0].stretch", "101"]),
        ([{"median": {"size_px": 4}}], ["combos.x[0].median", "odd", "4"]),
        ([{"median": {"size_px": 1}}], ["combos.x[0].median", "odd", "1"]),
        ([{"median": {"size_px": 1001}}], ["combos.x[0].median", "255", "1001"]),
        ([{"gaussian": {"sigma_px": 10000}}], ["combos.x[0].gaussian", "up to 100", "10000"]),
        ([{"gaussian": {"sigma_px": 0}}], ["combos.x[0].gaussian", "sigma_px above 0"]),
        ([{"unsharp": {"sigma_px": 0}}], ["combos.x[0].unsharp", "sigma_px above 0"]),
        ([{"unsharp": {"amount": -1}}], ["combos.x[0].unsharp", "amount of 0 or more"]),
        ([{"canny": {"low": 90, "high": 80}}], ["combos.x[0].canny", "90.0"]),
        (["resize", "crop"], ["combos.x:", "crop after resize"]),
        (["clahe", "trim"], ["combos.x:", "trim after resize"]),
        (["resize", "invert", "resize"], ["combos.x:", "resize after resize"]),
    ],
    ids=str,
)
def test_a_combo_that_cannot_work_is_refused(steps, parts):
    with pytest.raises(PneumoError) as error:
        parse_combo("x", steps, 32)
    for part in parts:
        assert part in str(error.value)


def test_sobel_is_the_magnitude_of_the_gradient_to_the_last_level():
    # Along the edges of blocks the magnitude is a whole number of levels, which an approximate root misses.
    image = np.kron(random_image(30, 40), np.ones((4, 4), np.uint8))
    padded = np.pad(image.astype(int), 1, mode="reflect")
    rows, columns = image.shape

    def shift(down, right):
        return padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]

    across = sum(weight * (shift(down, 1) - shift(down, -1)) for down, weight in ((-1, 1), (0, 2), (1, 1)))
    along = sum(weight * (shift(1, right) - shift(-1, right)) for right, weight in ((-1, 1), (0, 2), (1, 1)))
    squares = (across**2 + along**2).ravel().tolist()
    expected = [min(math.isqrt(square) // 4, 255) for square in squares]
    np.testing.assert_array_equal(steps.sobel(image).ravel(), expected)


@pytest.mark.parametrize("name", sorted(steps.FUNCTIONS))
def test_a_step_gives_the_same_image_in_every_thread(name):
    """`preprocess` runs steps in threads; OpenCV's own functions need not give the same in each."""
    images = [np.kron(random_image(50 + n, 60 + n, seed=n), np.ones((4, 4), np.uint8)) for n in range(32)]

    def run(image):
        return steps.FUNCTIONS[name](image, **NEEDED.get(name, {})).tobytes()

    expected = [run(image) for image in images]
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(run, images)) == expected
