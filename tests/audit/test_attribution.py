"""Maps of what speaks for a decision, on networks whose answer is known."""

import keras
import numpy as np
import pytest

from pneumo.audit import attribution
from pneumo.training.networks import build_classifier
from pneumo.training.recipe import Monitor, Network, Phase, Recipe, Weights

SIZE_PX = 32


def make_images(n=3, size_px=SIZE_PX):
    return np.random.default_rng(0).integers(0, 255, (n, size_px, size_px, 1), dtype=np.uint8)


def make_spots():
    """Return dark images, each with a bright spot elsewhere, and the spots' rows and columns."""
    images = np.full((3, SIZE_PX, SIZE_PX, 1), 20, np.uint8)
    places = [(4, 4), (12, 24), (20, 8)]  # on the edges of the patches that are covered
    for image, (row, column) in zip(images, places, strict=True):
        image[row : row + 8, column : column + 8] = 255
    return images, places


def build_spot_finder():
    """Build a network whose logit is the mean grey value, less a constant."""
    inputs = keras.Input((SIZE_PX, SIZE_PX, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(2, 1, name="maps")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="probability")(x))
    model.set_weights(
        [np.array([[[[1.0, 0.0]]]]), np.zeros(2), np.array([[5.0], [3.0]]), np.array([-1.0])],
    )
    return model


def build(name, n_classes=2, size_px=SIZE_PX, **network):
    recipe = Recipe(
        Network(name, size_px, weights=Weights.random, **network),
        8,
        True,
        Monitor.val_auc,
        {"fit": Phase(1, 1e-3)},
    )
    return build_classifier(recipe, (size_px, size_px, 1), n_classes, seed=0, weights_dir=None).model


NETWORKS = {
    "dense": {"units": [8]},
    "cnn": {"filters": [4, 8], "units": [8], "dropout": 0.2},
    "mobilenet075": {"dropout": 0.2},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_are_what_probabilities_are_made_of(name, n_classes):
    model = build(name, n_classes, **NETWORKS[name])
    images = make_images()
    probabilities = model.predict(images, verbose=0)
    scores = attribution.score_images(attribution.open_classifier(model), images)
    assert scores.shape == (3, n_classes)
    found = attribution.find_probabilities(scores)
    np.testing.assert_allclose(found[:, 1:] if n_classes == 2 else found, probabilities, atol=1e-5)


def find_peaks(maps):
    return [np.unravel_index(each.argmax(), each.shape) for each in maps]


@pytest.mark.parametrize("method", ["Grad-CAM", "occlusion"])
def test_maps_point_at_what_raises_the_score(method):
    images, places = make_spots()
    scorer = attribution.open_classifier(build_spot_finder())
    maps = attribution.draw_maps(scorer, images, np.ones(3, np.int64))[method]
    assert maps.shape == (3, SIZE_PX, SIZE_PX)
    for peak, place in zip(find_peaks(maps), places, strict=True):
        assert (np.subtract(peak, place) >= 0).all()
        assert (np.subtract(peak, place) < 8).all()


@pytest.mark.parametrize("method", ["Grad-CAM", "occlusion"])
def test_what_speaks_against_a_class_is_not_shown_for_it(method):
    images, places = make_spots()
    scorer = attribution.open_classifier(build_spot_finder())
    maps = attribution.draw_maps(scorer, images, np.zeros(3, np.int64))[method]
    for each, (row, column) in zip(maps, places, strict=True):
        assert not each[row + 3 : row + 5, column + 3 : column + 5].any()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["cnn", "mobilenet075"])
def test_gradients_agree_with_the_backend_s(name, n_classes):
    import tensorflow as tf

    size_px = 96  # of 32 px, the last feature maps of a MobileNet have one pixel
    scorer = attribution.open_classifier(build(name, n_classes, size_px, **NETWORKS[name]))
    images = make_images(2, size_px)
    classes = np.array([1, 0])
    rest = keras.Model(scorer.collapse.input, scorer.model.output)
    maps = tf.convert_to_tensor(scorer.maps(images))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        outputs = rest(maps)
        scores = tf.concat([-outputs, outputs], 1) if n_classes == 2 else outputs
        chosen = tf.gather(scores, classes, batch_dims=1)
    weights = tape.gradient(chosen, maps).numpy().mean(axis=(1, 2))
    expected = np.maximum(np.einsum("nhwc,nc->nhw", maps.numpy(), weights), 0)
    found = attribution.map_gradients(scorer, images, classes)
    expected = attribution._enlarge(expected, size_px)
    assert found.any()
    # The scale of a map means nothing, and the quotient may step over a bend of the hidden layer's ReLU.
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=0.02)


def test_a_network_without_convolutions_has_no_feature_maps():
    scorer = attribution.open_classifier(build("dense", **NETWORKS["dense"]))
    assert list(attribution.draw_maps(scorer, make_images(), np.zeros(3, np.int64))) == ["occlusion"]


def test_maps_change_when_the_weights_are_shuffled():
    images, _ = make_spots()
    scorer = attribution.open_classifier(build("cnn", **NETWORKS["cnn"]))
    classes = np.ones(3, np.int64)
    before = attribution.draw_maps(scorer, images, classes)
    again = attribution.draw_maps(scorer, images, classes)
    values = [np.sort(weights, axis=None) for weights in scorer.model.get_weights()]
    attribution.shuffle_weights(scorer, seed=1)
    after = attribution.draw_maps(scorer, images, classes)
    for name, maps in before.items():
        assert attribution.correlate_maps(maps, again[name]) == pytest.approx(1)
        assert attribution.correlate_maps(maps, after[name]) < 0.9
    for old, new in zip(values, scorer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, np.sort(new, axis=None))


@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_the_first_map_is_the_first_of_all(name):
    scorer = attribution.open_classifier(build(name, **NETWORKS[name]))
    images, classes = make_images(), np.zeros(3, np.int64)
    first = next(iter(attribution.draw_maps(scorer, images, classes).values()))
    np.testing.assert_array_equal(attribution.draw_first_map(scorer, images, classes), first)


def test_correlation_of_maps():
    maps = np.random.default_rng(0).random((2, 8, 8))
    assert attribution.correlate_maps(maps, 3 * maps + 1) == pytest.approx(1)
    assert attribution.correlate_maps(maps, -maps) == pytest.approx(-1)
    assert attribution.correlate_maps(maps, np.zeros_like(maps)) == 0


def test_views_are_scored_each_on_its_own():
    images, _ = make_spots()
    scorer = attribution.open_classifier(build_spot_finder())
    as_is, views = attribution.score_views(
        scorer, images, {"same": lambda image: image, "dark": lambda image: image * 0}
    )
    np.testing.assert_array_equal(views["same"], as_is)
    np.testing.assert_allclose(views["dark"][:, 1], 1 / (1 + np.e), rtol=1e-6)
