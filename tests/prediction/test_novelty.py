"""Distances from training images: the formula, its unit, and what a network trained on phantoms notices."""

from unittest import mock

import cv2
import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from pneumo.base.labels import Subtype
from pneumo.data import phantom
from pneumo.prediction import novelty
from pneumo.prediction.keras_network import KerasNetwork

SIZE_PX = 64


def draw_features(n, n_features, seed):
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(n_features, n_features))
    scales = 0.95 ** np.arange(n_features)
    return (generator.normal(size=(n, n_features)) * scales @ mixing + 3).astype(np.float32)


def measure_naively(features, training, n_axes):
    """Invert the covariance in which all but the widest directions have the same variance."""
    features, training = (
        each / np.sqrt((each.astype(float) ** 2).sum(1))[:, None] for each in (features, training)
    )
    mean = training.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(training.T))
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    values[n_axes:] = values[n_axes:].mean()
    inverse = np.linalg.inv(vectors @ np.diag(values) @ vectors.T)
    return np.array([np.sqrt((each - mean) @ inverse @ (each - mean)) for each in features])


@pytest.mark.parametrize(("n_features", "n_axes"), [(5, 4), (80, 64)])
def test_the_distance_is_that_of_mahalanobis(n_features, n_axes):
    training, others = draw_features(400, n_features, 2), draw_features(50, n_features, 3) * 1.5
    description = novelty.fit_novelty(training)
    assert description.shape == (2 + n_axes, n_features)
    assert description.dtype == np.float32
    expected = measure_naively(others, training, n_axes)
    np.testing.assert_allclose(novelty.measure_distance(others, description), expected, rtol=2e-3)
    mean_square = (novelty.measure_distance(training, description) ** 2).mean()
    assert mean_square == pytest.approx(n_features, rel=0.01)


def test_features_that_never_vary_and_few_images_do_no_harm():
    training = draw_features(30, 6, 4)
    training[:, 2] = 0
    description = novelty.fit_novelty(training)
    assert np.isfinite(description).all()
    changed = training.copy()
    changed[:, 2] = training.std()
    assert (
        novelty.measure_distance(changed, description) > 10 * novelty.measure_distance(training, description)
    ).all()
    assert np.isfinite(novelty.fit_novelty(draw_features(2, 100, 5))).all()
    assert np.isfinite(novelty.fit_novelty(np.ones((9, 3), np.float32))).all()
    assert novelty.fit_novelty(draw_features(9, 1, 5)).shape == (2, 1)


@pytest.mark.parametrize("n_networks", [1, 3])
def test_one_of_a_hundred_validation_images_lies_beyond_one(n_networks):
    shapes = [5, 7, 9][:n_networks]
    training = [draw_features(300, n, seed=n) for n in shapes]
    validation = [draw_features(200, n, seed=20 + n) for n in shapes]
    descriptions = novelty.fit_ensemble(training, validation)
    distances = novelty.measure_ensemble(validation, descriptions)
    assert np.mean(distances > 1) == pytest.approx(0.01)
    alone = [novelty.measure_distance(*pair) for pair in zip(validation, descriptions, strict=True)]
    np.testing.assert_allclose(distances, np.mean(alone, axis=0))
    # Networks with many features do not outweigh those with few.
    assert max(each.mean() for each in alone) < 1.5 * min(each.mean() for each in alone)


def draw_phantoms(n, first_seed):
    # The exposures of one machine: those of the demo vary so much that few are unlike them.
    with mock.patch.multiple(phantom, _GAMMAS=(0.65, 1.5), _LEAST_CONTRAST=0.45):
        return _draw_phantoms(n, first_seed)


def _draw_phantoms(n, first_seed):
    images = []
    for seed in range(first_seed, first_seed + n):
        generator = np.random.default_rng(seed)
        thorax = phantom.draw_thorax(generator)
        subtypes = (None, Subtype.BACTERIAL, Subtype.VIRAL)
        subtype = subtypes[seed % 3]
        attenuation = thorax.attenuation
        if subtype:
            attenuation = phantom.add_pneumonia(thorax, subtype, generator)
        images.append(phantom.take_radiograph(attenuation, generator))
    return shrink(images), np.arange(first_seed, first_seed + n) % 3 > 0


def shrink(images):
    size = (SIZE_PX, SIZE_PX)
    return np.array([cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in images])[..., None]


@pytest.fixture(scope="module")
def network():
    """Train a small network on phantoms and return it with its description of them."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((SIZE_PX, SIZE_PX, 1), dtype="uint8"), keras.layers.Rescaling(1 / 127.5, offset=-1)]
    for n_filters in (16, 32, 64):
        layers += [
            keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
        ]
    layers += [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid", name="probability")]
    model = keras.Sequential(layers)
    model.compile("adam", "binary_crossentropy")
    (training, y_true), (validation, _) = draw_phantoms(240, 0), draw_phantoms(80, 1000)
    model.fit(training, y_true.astype(np.float32), epochs=2, batch_size=16, verbose=0)
    network = KerasNetwork(keras.Model(model.inputs[0], model.outputs[0]))
    descriptions = novelty.fit_ensemble([network.run(training)[1]], [network.run(validation)[1]])
    return lambda images: novelty.measure_ensemble([network.run(images)[1]], descriptions)


def crop_photos():
    generator = np.random.default_rng(0)
    photos = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in load_sample_images().images]
    corners = generator.integers(0, 180, (40, 2))
    return shrink([photos[i % 2][y : y + 240, x : x + 240] for i, (y, x) in enumerate(corners)])


def draw_noise():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (40, SIZE_PX, SIZE_PX, 1), dtype=np.uint8)


def test_phantoms_are_like_phantoms(network):
    images, _ = draw_phantoms(100, 2000)
    assert np.mean(network(images) > 1) <= 0.05


@pytest.mark.parametrize(
    "draw",
    [
        crop_photos,
        draw_noise,
        lambda: 255 - draw_phantoms(40, 3000)[0],
    ],
    ids=["photos", "noise", "inverted"],
)
def test_what_is_no_phantom_is_noticed(network, draw):
    assert np.mean(network(draw()) > 1) >= 0.95
