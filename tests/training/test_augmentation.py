"""The random view: its draws in compiled training, and its arithmetic against naive implementations."""

import json
import os
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest

from pneumo.training.augmentation import (
    N_VIEWS,
    RandomView,
    add_noise,
    change_contrast,
    change_gamma,
    change_sharpness,
    draw_sheet,
    draw_views,
    warp,
)
from pneumo.training.recipe import Augmentation, Phase
from small_networks import SIZE_PX, make_recipe

EVERYTHING = {
    "flip": True,
    "rotation_degrees": 10.0,
    "shift_fraction": 0.1,
    "zoom_fraction": 0.25,
    "area_fraction": [0.2, 1.0],
    "aspect_ratio": [0.75, 4 / 3],
    "brightness_fraction": 0.3,
    "contrast_fraction": 0.4,
    "gamma": 0.35,
    "sharpness": 1.2,
    "noise_levels": 8.0,
}
N_IMAGES, N_EPOCHS = 2000, 2
RANGES = {  # low, high, mean
    "flip": (-1, 1, 0),
    "angle": (-np.pi / 18, np.pi / 18, 0),
    "area": (0.2, 1, 0.6),
    "aspect": (3 / 4, 4 / 3, (4 / 3 - 3 / 4) / np.log(16 / 9)),
    "place_y": (-0.5, 0.5, 0),
    "place_x": (-0.5, 0.5, 0),
    "shift_y": (-0.1, 0.1, 0),
    "shift_x": (-0.1, 0.1, 0),
    "zoom_y": (0.75, 1.25, 1),
    "zoom_x": (0.75, 1.25, 1),
    "brightness": (-0.3, 0.3, 0),
    "contrast": (0.6, 1.4, 1),
    "gamma": (np.exp(-0.35), np.exp(0.35), np.sinh(0.35) / 0.35),
    "sharpness": (-1.2, 1.2, 0),
    "noise": (0, 8, 8 / 3),
}

# Trains a network for some epochs and keeps every parameter that its view draws inside the compiled step.
RECORDER = """
import json, os, sys

import keras
import numpy as np
from keras import ops

from pneumo.base.reproducibility import make_deterministic
from pneumo.training.augmentation import RandomView
from pneumo.training.recipe import Augmentation

make_deterministic()
path, seed, n_images, n_epochs, settings = sys.argv[1], *map(json.loads, sys.argv[2:])
BATCH_SIZE = 50


class RecordingView(RandomView):
    def __init__(self, augmentation, seed):
        super().__init__(augmentation, seed)
        n_steps = n_epochs * n_images // BATCH_SIZE
        self.drawn = self.add_weight(shape=(n_steps, BATCH_SIZE, 15), initializer="zeros", trainable=False)
        self.step = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def draw_parameters(self, n):
        parameters = super().draw_parameters(n)
        now = ops.one_hot(self.step, self.drawn.shape[0])[:, None, None]
        self.drawn.assign(self.drawn + now * ops.stack(list(parameters.values()), axis=1))
        self.step.assign_add(1)
        return parameters


view = RecordingView(Augmentation(**settings), seed)
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((16, 16, 1)), view, keras.layers.Flatten(), keras.layers.Dense(1)])
model.compile("sgd", "mse")
images = np.random.default_rng(0).uniform(0, 255, (n_images, 16, 16, 1)).astype(np.float32)
model.fit(images, np.zeros(n_images), BATCH_SIZE, n_epochs, verbose=0)
assert not model.run_eagerly
drawn = np.array(view.drawn).reshape(n_epochs, n_images, 15)
np.savez(path, backend=keras.backend.backend(), names=list(view.draw_parameters(1)), drawn=drawn)
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    def record(backend, seed):
        path = tmp_path_factory.mktemp("drawn") / "drawn.npz"
        options = [path, *map(json.dumps, (seed, N_IMAGES, N_EPOCHS, EVERYTHING))]
        subprocess.run(
            [sys.executable, "-c", RECORDER, *options],
            env=os.environ | {"KERAS_BACKEND": backend},
            check=True,
        )
        with np.load(path) as file:
            assert file["backend"] == backend
            return dict(zip(file["names"].tolist(), np.moveaxis(file["drawn"], 2, 0), strict=True))

    return record


@pytest.fixture(scope="module", params=["tensorflow", pytest.param("jax", marks=pytest.mark.promise)])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def drawn(record, backend):
    return record(backend, 0)


def test_no_two_parameters_are_drawn_together(drawn):
    r = np.corrcoef([values.ravel() for values in drawn.values()])  # 4,000 views: 0.08 is five sigmas
    assert np.abs(r - np.eye(len(drawn))).max() < 0.08


def test_parameters_fill_their_ranges(drawn):
    assert list(drawn) == list(RANGES)
    for name, (low, high, mean) in RANGES.items():
        values, span = drawn[name], high - low
        assert low - 1e-6 <= values.min() < low + 0.01 * span, name
        assert high - 0.01 * span < values.max() <= high + 1e-6, name
        assert values.mean() == pytest.approx(mean, abs=0.03 * span), name
    assert set(np.unique(drawn["flip"])) == {-1, 1}
    assert np.median(drawn["noise"]) == pytest.approx(2, abs=0.2)
    assert np.log(drawn["aspect"]).mean() == pytest.approx(0, abs=0.01)


def test_every_image_of_every_epoch_is_drawn_anew(drawn):
    assert len(np.unique(drawn["angle"])) > 0.995 * N_IMAGES * N_EPOCHS  # float32 has some twice
    assert abs(np.corrcoef(drawn["angle"][0], drawn["angle"][1])[0, 1]) < 0.08


def test_a_seed_gives_the_same_draws_in_another_process_and_another_seed_others(drawn, record, backend):
    again, other = record(backend, 0), record(backend, 1)
    for name, values in drawn.items():
        np.testing.assert_array_equal(values, again[name])
        assert abs(np.corrcoef(values[0], other[name][0])[0, 1]) < 0.08


def test_what_is_seen_varies_independently():
    """Flip, brightness and contrast are read off the pixels of a slope."""
    slope = np.linspace(108, 148, 32, dtype=np.float32)
    images = np.broadcast_to(slope[None, None, :, None], (N_IMAGES, 8, 32, 1))
    augmentation = Augmentation(flip=True, brightness_fraction=0.2, contrast_fraction=0.3)
    views = np.array(RandomView(augmentation, seed=0)(images, training=True))
    rise = (views[:, 0, -1, 0] - views[:, 0, 0, 0]) / 40
    brightness = views.mean(axis=(1, 2, 3)) - 128
    seen = [rise < 0, brightness, np.abs(rise)]
    assert np.abs(np.corrcoef(seen) - np.eye(3)).max() < 0.08
    assert np.mean(rise < 0) == pytest.approx(0.5, abs=0.04)
    assert (brightness.min(), brightness.max()) == pytest.approx((-51, 51), abs=0.5)
    assert (np.abs(rise).min(), np.abs(rise).max()) == pytest.approx((0.7, 1.3), abs=0.01)


def parameters(n=1, **changes):
    """Return the parameters of n views that change nothing, and what is changed of them."""
    neutral = dict.fromkeys(("flip", "area", "aspect", "zoom_y", "zoom_x", "contrast", "gamma"), 1.0)
    zeros = ("angle", "place_y", "place_x", "shift_y", "shift_x", "brightness", "sharpness", "noise")
    chosen = neutral | dict.fromkeys(zeros, 0.0) | changes
    return {name: np.full(n, value, np.float32) for name, value in chosen.items()}


def make_images(n=1, height=14, width=18):
    return np.random.default_rng(0).uniform(0, 255, (n, height, width, 1)).astype(np.float32)


def warp_naively(image, flip, angle, area, aspect, place_y, place_x, shift_y, shift_x, zoom_y, zoom_x, **_):
    """Sample one image pixel by pixel: from the view's pixels back to the image's."""
    height, width = image.shape

    def read(y, x):
        return image[y, x] if 0 <= y < height and 0 <= x < width else 0.0

    crop_height = min(1, (area / aspect) ** 0.5) * height
    crop_width = min(1, (area * aspect) ** 0.5) * width
    # Places are measured from the upper left corner of the upper left pixel.
    middle_y = height / 2 + place_y * (height - crop_height) + shift_y * height
    middle_x = width / 2 + place_x * (width - crop_width) + shift_x * width
    view = np.zeros_like(image, dtype=float)
    for row in range(height):
        for column in range(width):
            down = ((row + 0.5) / height - 0.5) * crop_height * zoom_y
            right = ((column + 0.5) / width - 0.5) * crop_width * zoom_x * flip
            y = middle_y + np.sin(angle) * right + np.cos(angle) * down - 0.5
            x = middle_x + np.cos(angle) * right - np.sin(angle) * down - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            b, r = y - top, x - left
            upper = (1 - r) * read(top, left) + r * read(top, left + 1)
            lower = (1 - r) * read(top + 1, left) + r * read(top + 1, left + 1)
            view[row, column] = (1 - b) * upper + b * lower
    return view


VIEWS = {
    "flip": {"flip": -1},
    "angle": {"angle": 0.3},
    "shift": {"shift_y": 0.13, "shift_x": -0.06},
    "zoom out": {"zoom_y": 1.3, "zoom_x": 1.1},
    "crop": {"area": 0.3, "aspect": 1.3, "place_y": -0.4, "place_x": 0.2},
    "crop with a side cut to the image's": {"area": 0.9, "aspect": 0.75, "place_y": 0.5, "place_x": 0.5},
    "all": {
        "flip": -1,
        "angle": -0.4,
        "area": 0.5,
        "aspect": 0.8,
        "place_y": 0.3,
        "place_x": -0.5,
        "shift_y": -0.1,
        "shift_x": 0.05,
        "zoom_y": 0.8,
        "zoom_x": 1.25,
    },
}


@pytest.mark.parametrize("changes", VIEWS.values(), ids=VIEWS)
def test_geometry_is_that_of_a_naive_implementation(changes):
    image = make_images()
    chosen = parameters(**changes)
    expected = warp_naively(image[0, :, :, 0], **{name: values[0] for name, values in chosen.items()})
    view = np.array(warp(image, chosen))[0, :, :, 0]
    np.testing.assert_allclose(view, expected, atol=0.02)
    assert np.abs(view - image[0, :, :, 0]).max() > 10


def test_every_image_of_a_batch_has_its_own_view():
    images = make_images(3)
    chosen = [parameters(**changes) for changes in (VIEWS["flip"], VIEWS["crop"], VIEWS["all"])]
    together = {name: np.concatenate([each[name] for each in chosen]) for name in chosen[0]}
    views = np.array(warp(images, together))
    for i, each in enumerate(chosen):
        np.testing.assert_allclose(views[i], np.array(warp(images[i : i + 1], each))[0], atol=1e-3)


def test_a_quarter_in_a_corner_is_that_quarter_enlarged():
    image = make_images(1, 16, 16)
    quarter = np.array(warp(image, parameters(area=0.25, place_y=-0.5, place_x=0.5)))[0, :, :, 0]
    between = quarter.reshape(8, 2, 8, 2).mean(axis=(1, 3))[1:-1, 1:-1]  # of both sides of each pixel
    kernel = np.outer([1, 6, 1], [1, 6, 1]) / 64
    corner = image[0, :8, 8:, 0]
    expected = [[(kernel * corner[y : y + 3, x : x + 3]).sum() for x in range(6)] for y in range(6)]
    np.testing.assert_allclose(between, expected, atol=0.01)


def test_neutral_parameters_give_the_image_back_exactly():
    images = make_images(4)
    nothing = parameters(4)
    for changed in (
        warp(images, nothing),
        change_contrast(images, nothing),
        change_sharpness(images, nothing),
        add_noise(images, nothing, np.ones_like(images)),
    ):
        np.testing.assert_array_equal(np.array(changed), images)
    np.testing.assert_allclose(np.array(change_gamma(images, nothing)), images, atol=1e-4)


@pytest.mark.parametrize(("contrast", "brightness"), [(1.4, 0.0), (0.6, 0.0), (1.0, 0.3), (1.4, -0.3)])
def test_contrast_is_about_each_images_own_mean(contrast, brightness):
    images = make_images(2) * np.array([1, 0.5], np.float32)[:, None, None, None]
    found = np.array(change_contrast(images, parameters(2, contrast=contrast, brightness=brightness)))
    for image, each in zip(images, found, strict=True):
        expected = image.mean() + contrast * (image - image.mean()) + 255 * brightness
        np.testing.assert_allclose(each, np.clip(expected, 0, 255), atol=1e-3)


def test_gamma_is_a_power_of_fractions_of_white():
    images = np.array([0.0, 51.0, 255.0], np.float32).reshape(1, 1, 3, 1)
    found = np.array(change_gamma(images, parameters(gamma=2.0))).ravel()
    np.testing.assert_allclose(found, [0, 255 * 0.2**2, 255], rtol=1e-5)


@pytest.mark.parametrize("sharpness", [-1.0, -0.5, 1.2])
def test_sharpness_adds_the_difference_from_the_mean_of_the_pixels_about(sharpness):
    image = make_images()
    found = np.array(change_sharpness(image, parameters(sharpness=sharpness)))[0, :, :, 0]
    pixels = image[0, :, :, 0].astype(float)
    for y, x in np.ndindex(pixels.shape):
        mean = pixels[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean()
        expected = np.clip(pixels[y, x] + sharpness * (pixels[y, x] - mean), 0, 255)
        assert found[y, x] == pytest.approx(expected, abs=1e-2)
    assert (found.std() > pixels.std()) == (sharpness > 0)


def test_noise_has_the_level_of_its_image():
    images = np.full((2, 100, 100, 1), 128, np.float32)
    noise = np.random.default_rng(0).standard_normal(images.shape).astype(np.float32)
    chosen = parameters(2) | {"noise": np.array([8, 2], np.float32)}
    found = np.array(add_noise(images, chosen, noise))
    np.testing.assert_allclose(found, images + noise * np.array([8, 2])[:, None, None, None], rtol=1e-5)


def test_noise_is_drawn_anew_for_every_pixel():
    images = np.full((64, 32, 32, 1), 128, np.float32)
    view = RandomView(Augmentation(noise_levels=8.0), seed=0)
    first, second = (np.array(view(images, training=True)) - 128 for _ in range(2))
    assert first.std(axis=(1, 2, 3)).max() == pytest.approx(8, abs=0.6)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("key", EVERYTHING)
def test_every_key_of_a_recipe_has_an_effect_of_its_own(key):
    images = make_images(16)
    views = np.array(RandomView(Augmentation(**{key: EVERYTHING[key]}), seed=0)(images, training=True))
    changed = np.abs(views - images).max(axis=(1, 2, 3)) > 0.5
    assert np.mean(changed) > 0.3


def test_predictions_are_left_alone_and_values_stay_within_range():
    images = make_images(32)
    view = RandomView(Augmentation(**EVERYTHING), seed=0)
    np.testing.assert_array_equal(np.array(view(images)), images)
    views = np.array(view(images, training=True))
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 255
    assert not np.array_equal(views, np.array(view(images, training=True)))


def test_without_ranges_nothing_changes():
    images = make_images(4)
    np.testing.assert_array_equal(np.array(RandomView(Augmentation(), seed=0)(images, training=True)), images)


def test_a_view_is_computed_in_float32_under_mixed_precision():
    images = np.full((4, 16, 16, 1), 200.5, np.float32)
    augmentation = Augmentation(brightness_fraction=0.1)
    expected = np.array(RandomView(augmentation, seed=0)(images, training=True))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        view = RandomView(augmentation, seed=0)
        model = keras.Sequential(
            [keras.Input((16, 16, 1)), view, keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        found = view(images, training=True)
        model.compile("sgd", "mse")
        model.fit(images, np.zeros(4), verbose=0)
        assert model.layers[-1].compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_array_equal(np.array(found), expected)


def test_drawn_views_are_those_of_training():
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
    augmentation = Augmentation(**EVERYTHING)
    views = draw_views(images, augmentation, seed=3)
    assert (views.dtype, views.shape) == (np.uint8, images.shape)
    expected = np.array(RandomView(augmentation, seed=3)(images.astype(np.float32), training=True))
    assert np.abs(views - expected).max() <= 0.5
    assert (views != draw_views(images, augmentation, seed=4)).any()


def test_a_sheet_shows_each_image_and_then_its_views():
    images = np.stack([np.full((SIZE_PX, SIZE_PX, 1), grey, np.uint8) for grey in (60, 180)])
    recipe = make_recipe(
        augmentation=Augmentation(brightness_fraction=0.2),
        phases={"fit": Phase(epochs=1, learning_rate=1e-3, augment=True)},
    )
    sheet = draw_sheet(images, recipe, seed=0)
    pixels = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels.shape == (2 * SIZE_PX, (1 + N_VIEWS) * SIZE_PX)
    means = pixels.reshape(2, SIZE_PX, 1 + N_VIEWS, SIZE_PX).mean(axis=(1, 3))
    assert means[:, 0] == pytest.approx([60, 180], abs=3)
    assert np.abs(means[:, 1:] - means[:, :1]).max() < 0.2 * 255 + 4
    assert (means[:, 1:].std(axis=1) > 5).all()
    assert draw_sheet(images, recipe, seed=0) == sheet
    assert draw_sheet(images, recipe, seed=1) != sheet


def test_there_is_no_sheet_where_no_phase_varies_images():
    recipe = make_recipe(augmentation=Augmentation(brightness_fraction=0.2))
    assert draw_sheet(np.zeros((2, SIZE_PX, SIZE_PX, 1), np.uint8), recipe, seed=0) is None
