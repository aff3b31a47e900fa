"""Stressed validation: each change against naive code, the sample, and the scores."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.audit import stress
from pneumo.base.errors import PneumoError
from tiny_project import ROOT

CONF = ROOT / "conf/stress.yaml"
HEIGHT, WIDTH = 30, 44


def make_image(seed=0, height=HEIGHT, width=WIDTH):
    """Return an image with dark, middle and bright parts, 0 and 255 among them."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    image[0, :2] = 0, 255
    return image


def change_pixels(image, function):
    """Apply a function of one grey value to every pixel."""
    changed = [[min(max(round(function(int(value))), 0), 255) for value in row] for row in image]
    return np.array(changed, np.uint8)


def assert_rounded(found, expected):
    """Compare an image with grey values that were not rounded; float32 may round a half either way."""
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=0.5 + 1e-3)


def stretch_naively(image, height, width):
    """Interpolate linearly between the centres of pixels, one pixel after the other."""
    rows, columns = image.shape
    stretched = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
        x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
        top, left = math.floor(y), math.floor(x)
        for row, across in ((top, 1 - (y - top)), (min(top + 1, rows - 1), y - top)):
            for column, along in ((left, 1 - (x - left)), (min(left + 1, columns - 1), x - left)):
                stretched[i, j] += across * along * float(image[row, column])
    return stretched


def overlap(first, last, at):
    return min(last, at + 1) - max(first, at)


def shrink_naively(image, height, width):
    """Average over the area that each new pixel covers."""
    rows, columns = image.shape
    shrunk = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        y = i * rows / height, (i + 1) * rows / height
        x = j * columns / width, (j + 1) * columns / width
        for row in range(math.floor(y[0]), math.ceil(y[1])):
            for column in range(math.floor(x[0]), math.ceil(x[1])):
                shrunk[i, j] += overlap(*y, row) * overlap(*x, column) * float(image[row, column])
    return shrunk / (rows / height * columns / width)


def blur_naively(image, sigma):
    """Weigh the pixels around each by a Gaussian; beyond the border the image is mirrored."""
    radius = round(sigma * 4)
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)]
    padded = np.pad(image.astype(float), radius, mode="reflect")
    blurred = np.zeros(image.shape)
    for i, j in np.ndindex(image.shape):
        for di, across in enumerate(weights):
            for dj, along in enumerate(weights):
                blurred[i, j] += across * along * padded[i + di, j + dj]
    return blurred / sum(weights) ** 2


@pytest.mark.parametrize("factor", [0.65, 1.35])
def test_brightness_multiplies_and_stops_at_white(factor):
    image = make_image()
    expected = change_pixels(image, lambda value: value * factor)
    np.testing.assert_array_equal(stress.brightness(image, factor=factor), expected)
    assert (expected.max() == 255) == (factor > 1)


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_contrast_keeps_the_mean_grey(factor):
    image = make_image()
    mean = sum(image.ravel().tolist()) / image.size
    expected = change_pixels(image, lambda value: mean + factor * (value - mean))
    np.testing.assert_array_equal(stress.contrast(image, factor=factor), expected)
    assert not np.array_equal(expected, image)


@pytest.mark.parametrize("exponent", [0.6, 1.6])
def test_gamma_keeps_black_and_white(exponent):
    image = make_image()
    expected = change_pixels(image, lambda value: 255 * (value / 255) ** exponent)
    found = stress.gamma(image, exponent=exponent)
    np.testing.assert_array_equal(found, expected)
    assert found[0, :2].tolist() == [0, 255]
    assert (found.mean() > image.mean()) == (exponent < 1)


@pytest.mark.parametrize(
    ("parameters", "rows", "columns"),
    [
        ({"horizontal": 0.1, "vertical": 0.1}, 3, 4),
        ({"horizontal": 0.142857}, 0, 6),
        ({"vertical": 0.142857}, 4, 0),
        ({}, 0, 0),
    ],
)
def test_crop_cuts_both_ends_and_stretches_the_rest(parameters, rows, columns):
    image = make_image()
    inner = image[rows : HEIGHT - rows, columns : WIDTH - columns]
    assert_rounded(stress.crop(image, **parameters), stretch_naively(inner, HEIGHT, WIDTH))


def test_nothing_of_what_was_cut_off_is_left():
    image = make_image()
    other = image.copy()
    other[:3] = other[-3:] = 0
    other[:, :4] = other[:, -4:] = 255
    cut = [stress.crop(each, horizontal=0.1, vertical=0.1) for each in (image, other)]
    np.testing.assert_array_equal(*cut)


@pytest.mark.parametrize("fraction", [0.1, 0.35])
def test_pad_adds_black_and_averages(fraction):
    image = make_image()
    rows, columns = round(fraction * HEIGHT), round(fraction * WIDTH)
    padded = np.zeros((HEIGHT + 2 * rows, WIDTH + 2 * columns), np.uint8)
    padded[rows : rows + HEIGHT, columns : columns + WIDTH] = image
    found = stress.pad(image, fraction=fraction)
    assert_rounded(found, shrink_naively(padded, HEIGHT, WIDTH))
    assert not found[:2].any()


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_blur_is_a_gaussian(sigma):
    image = make_image()
    assert_rounded(stress.blur(image, sigma_fraction=sigma / HEIGHT), blur_naively(image, sigma))


def test_sharpening_adds_what_blurring_takes():
    image = make_image() // 2 + 60
    expected = image + 0.7 * (image - blur_naively(image, 1.5))
    assert_rounded(stress.sharpen(image, sigma_fraction=1.5 / HEIGHT, amount=0.7), expected)


def test_blur_means_the_same_at_every_size():
    """An edge spreads over the same share of the side."""
    spreads = []
    for size_px in (112, 448):
        image = np.zeros((size_px, size_px), np.uint8)
        image[:, size_px // 2 :] = 255
        row = stress.blur(image, sigma_fraction=0.05)[size_px // 2].astype(float)
        spreads.append(((row > 25) & (row < 230)).mean())
    assert spreads[0] == pytest.approx(spreads[1], abs=0.01)


class TestNoise:
    def test_it_has_the_stated_spread_and_no_bias(self):
        image = np.full((200, 200), 128, np.uint8)
        added = stress.noise(image, standard_deviation=8, seed=0).astype(float) - 128
        assert added.std() == pytest.approx(8, rel=0.02)
        assert added.mean() == pytest.approx(0, abs=0.15)
        neighbours = np.corrcoef(added[:, :-1].ravel(), added[:, 1:].ravel())[0, 1]
        assert neighbours == pytest.approx(0, abs=0.02)

    def test_it_is_the_same_every_time_and_different_for_each_image_and_seed(self):
        image = make_image() // 2 + 60
        other = image.copy()
        other[3, 3] += 1
        added = [
            stress.noise(each, standard_deviation=8, seed=seed).astype(float) - each
            for each, seed in ((image, 0), (image, 0), (image, 1), (other, 0))
        ]
        np.testing.assert_array_equal(added[0], added[1])
        for another in added[2:]:
            assert abs(np.corrcoef(added[0].ravel(), another.ravel())[0, 1]) < 0.1


def test_the_list_holds_the_changes_that_were_agreed_on():
    changes = stress.load_changes(CONF)
    assert {name: (each.func.__name__, each.keywords) for name, each in changes.items()} == {
        "darker": ("brightness", {"factor": 0.65}),
        "brighter": ("brightness", {"factor": 1.35}),
        "less_contrast": ("contrast", {"factor": 0.6}),
        "more_contrast": ("contrast", {"factor": 1.5}),
        "gamma_low": ("gamma", {"exponent": 0.6}),
        "gamma_high": ("gamma", {"exponent": 1.6}),
        "tighter": ("crop", {"horizontal": 0.1, "vertical": 0.1}),
        "wider": ("pad", {"fraction": 0.1}),
        "stretched_x": ("crop", {"horizontal": 0.142857}),
        "stretched_y": ("crop", {"vertical": 0.142857}),
        "blurred": ("blur", {"sigma_fraction": 0.0067}),
        "sharpened": ("sharpen", {"sigma_fraction": 0.0067, "amount": 1.0}),
        "noisy": ("noise", {"standard_deviation": 8, "seed": 0}),
    }


@pytest.mark.parametrize("size_px", [64, 224])
@pytest.mark.parametrize("name", stress.load_changes(CONF))
def test_every_change_of_the_list_changes_an_image_and_keeps_its_form(name, size_px):
    change = stress.load_changes(CONF)[name]
    image = make_image(1, size_px, size_px)
    before = image.copy()
    changed = change(image)
    assert (changed.dtype, changed.shape) == (np.uint8, image.shape)
    assert (changed != image).mean() > 0.3
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(change(image), changed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected {name:"),
        ("- darker", "Expected {name:"),
        ("darker: 3", r"darker: Expected one {function"),
        ("darker: {brightness: 0.5}", r"darker: Expected one {function"),
        ("darker: {brightness: {factor: 1}, gamma: {exponent: 1}}", r"darker: Expected one {function"),
        ("darker: {bright: {factor: 1}}", r"darker: Expected one of brightness, .*\. Received: bright"),
        ("darker: {brightness: {}}", r"darker: brightness: .*factor"),
        ("darker: {brightness: {factor: 1, strength: 2}}", r"darker: brightness: .*strength"),
        ("darker: {brightness: {factor: -1}}", r"factor of 0 or more\. Received: -1"),
        ("darker: {brightness: {factor: much}}", "darker: brightness: "),
        ("worst: {brightness: {factor: 1}}", "worst: Expected a name other than"),
        ("cut: {crop: {vertical: 0.5}}", r"fraction of 0 to 0\.4\. Received: 0\.5"),
        ("wide: {pad: {fraction: .inf}}", "fraction of 0 to 1"),
        ("soft: {blur: {sigma_fraction: 0}}", "above 0"),
        ("loud: {noise: {standard_deviation: 8, seed: -1}}", "loud: noise: "),
        ("darker: {", "cannot be read"),
        ("darker: ${", "cannot be read"),
    ],
)
def test_a_list_that_cannot_work_is_refused(text, message, tmp_path):
    path = tmp_path / "stress.yaml"
    path.write_text(text)
    with pytest.raises(PneumoError, match=message) as error:
        stress.load_changes(path)
    assert str(error.value).startswith(str(path))


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(PneumoError, match=r"nowhere\.yaml: cannot be read"):
        stress.load_changes(tmp_path / "nowhere.yaml")


def make_table(n=900, seed=0):
    """Return predictions of val and test images, 3 images a patient, 2 of 3 patients with pneumonia."""
    return pd.DataFrame(
        {
            "id": [f"i{i:04}" for i in range(n)],
            "split": np.where(np.arange(n) // 3 % 5 == 0, "test", "val"),
            "patient": [f"p{i // 3}" for i in range(n)],
            "y_true": (np.arange(n) // 3 % 3 > 0).astype(int),
        }
    ).sample(frac=1, random_state=seed, ignore_index=True)


class TestSample:
    def test_it_is_of_validation_alone_one_image_a_patient_and_half_of_each_class(self):
        table = make_table()
        chosen = table.iloc[stress.sample_validation(table, 100, seed=0)]
        assert set(chosen["split"]) == {"val"}
        assert chosen["patient"].is_unique
        assert chosen["y_true"].value_counts().to_dict() == {0: 50, 1: 50}

    def test_a_class_with_too_few_patients_gives_all_it_has(self):
        table = make_table()
        chosen = table.iloc[stress.sample_validation(table, 300, seed=0)]
        assert chosen["y_true"].value_counts().to_dict() == {0: 80, 1: 150}

    def test_the_order_of_rows_does_not_matter(self):
        chosen = [
            set(table.iloc[stress.sample_validation(table, 100, seed=0)]["id"])
            for table in (make_table(seed=0), make_table(seed=1))
        ]
        assert chosen[0] == chosen[1]

    def test_test_images_have_no_part_in_the_choice(self):
        table = make_table()
        chosen = set(table.iloc[stress.sample_validation(table, 100, seed=0)]["id"])
        others = table[table["split"] == "val"].reset_index(drop=True)
        assert set(others.iloc[stress.sample_validation(others, 100, seed=0)]["id"]) == chosen

    def test_another_seed_gives_another_sample(self):
        table = make_table()
        first, second = (stress.sample_validation(table, 100, seed).tolist() for seed in (0, 1))
        assert first != second

    def test_every_patient_and_every_image_can_be_chosen(self):
        table = make_table(90)
        chosen = {row for seed in range(200) for row in stress.sample_validation(table, 10, seed).tolist()}
        assert chosen == set(np.flatnonzero(table["split"] == "val"))

    def test_without_validation_images_it_is_empty(self):
        assert len(stress.sample_validation(make_table().assign(split="test"), 100, seed=0)) == 0


def predict_by_mean(images):
    """Call an image pneumonia the more, the brighter it is."""
    positive = 1 / (1 + np.exp(-(images.mean(axis=(1, 2, 3)) - 128) / 40))
    return np.stack([1 - positive, positive], axis=1)


class TestScores:
    y_true = np.arange(60) % 2

    def make_images(self):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (60, 16, 16, 1)).astype(float) * 0.2
        images += (100 + 12 * self.y_true + generator.normal(scale=8, size=60))[:, None, None, None]
        return images.round().astype(np.uint8)

    def test_scores_are_those_of_changed_images_at_the_threshold(self):
        images = self.make_images()
        changes = {
            "darker": lambda image: stress.brightness(image, factor=0.9),
            "upside_down": lambda image: 255 - image,
        }
        threshold = 0.5
        table = stress.score_stress(predict_by_mean, images, self.y_true, threshold, changes)
        assert table["change"].tolist() == ["none", "darker", "upside_down", "mean", "worst"]
        table = table.set_index("change")
        for name, change in {"none": lambda image: image, **changes}.items():
            scores = [predict_by_mean(change(image[..., 0])[None, ..., None])[0, 1] for image in images]
            called = [score >= threshold for score in scores]
            right = [call == bool(y) for call, y in zip(called, self.y_true, strict=True)]
            sensitivity = sum(ok for ok, y in zip(right, self.y_true, strict=True) if y) / 30
            specificity = sum(ok for ok, y in zip(right, self.y_true, strict=True) if not y) / 30
            expected = [roc_auc_score(self.y_true, scores), sensitivity, specificity]
            expected.append((sensitivity + specificity) / 2)
            assert table.loc[name].tolist() == pytest.approx(expected)
        assert 0.6 < table.loc["none", "balanced_accuracy"] < 1
        assert table.loc["darker", "sensitivity"] < table.loc["none", "sensitivity"]
        assert table.loc["mean"].tolist() == pytest.approx(
            ((table.loc["darker"] + table.loc["upside_down"]) / 2).tolist()
        )
        assert table.loc["worst"].tolist() == [
            min(table.loc["darker", metric], table.loc["upside_down", metric]) for metric in stress.METRICS
        ]

    def test_the_network_sees_uint8_images_of_the_same_shape(self):
        images = self.make_images()
        seen = []

        def predict(changed):
            seen.append((changed.dtype, changed.shape))
            return predict_by_mean(changed)

        stress.score_stress(predict, images, self.y_true, 0.5, stress.load_changes(CONF))
        assert set(seen) == {(np.dtype(np.uint8), images.shape)}
        assert len(seen) == 14

    def test_three_classes_are_averaged(self):
        y_true = np.arange(60) % 3
        images = np.zeros((60, 16, 16, 1), np.uint8)
        images[:, 0, 0, 0] = y_true
        images[0, 0, 0, 0] = 1

        def predict(changed):
            return np.eye(3)[changed[:, 0, 0, 0] % 3] * 0.7 + 0.1

        table = stress.score_stress(
            predict, images, y_true, None, {"next": lambda image: (image + 1).astype(np.uint8)}
        ).set_index("change")
        assert table.loc["none", "sensitivity"] == pytest.approx((19 / 20 + 1 + 1) / 3)
        assert table.loc["none", "balanced_accuracy"] == pytest.approx((19 / 20 + 1 + 1) / 3)
        assert table.loc["none", "specificity"] == pytest.approx((1 + 39 / 40 + 1) / 3)
        assert table.loc["next", "sensitivity"] == 0

    def test_what_is_undefined_is_not_averaged_away(self):
        images = self.make_images()
        table = stress.score_stress(
            predict_by_mean, images, np.ones(60, int), 0.5, stress.load_changes(CONF)
        ).set_index("change")
        assert table[["roc_auc", "specificity", "balanced_accuracy"]].isna().all(axis=None)
        assert table["sensitivity"].notna().all()
