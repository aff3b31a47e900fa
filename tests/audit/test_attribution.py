"""Maps of what speaks for a decision, on networks whose answer is known."""

import keras
import numpy as np
import pytest

from pneumo.audit import attribution, scorers
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
    scores = attribution.score_images(scorers.open_classifier(model), images)
    assert scores.shape == (3, n_classes)
    found = attribution.find_probabilities(scores)
    np.testing.assert_allclose(found[:, 1:] if n_classes == 2 else found, probabilities, atol=1e-5)


def find_peaks(maps):
    return [np.unravel_index(each.argmax(), each.shape) for each in maps]


@pytest.mark.parametrize("method", ["Grad-CAM", "occlusion"])
def test_maps_point_at_what_raises_the_score(method):
    images, places = make_spots()
    scorer = scorers.open_classifier(build_spot_finder())
    maps = attribution.draw_maps(scorer, images, np.ones(3, np.int64))[method]
    assert maps.shape == (3, SIZE_PX, SIZE_PX)
    for peak, place in zip(find_peaks(maps), places, strict=True):
        assert (np.subtract(peak, place) >= 0).all()
        assert (np.subtract(peak, place) < 8).all()


@pytest.mark.parametrize("method", ["Grad-CAM", "occlusion"])
def test_what_speaks_against_a_class_is_not_shown_for_it(method):
    images, places = make_spots()
    scorer = scorers.open_classifier(build_spot_finder())
    maps = attribution.draw_maps(scorer, images, np.zeros(3, np.int64))[method]
    for each, (row, column) in zip(maps, places, strict=True):
        assert not each[row + 3 : row + 5, column + 3 : column + 5].any()


def cover_naively(image, row, column):
    """Return an image with one of 8 x 8 patches filled with the mean of the rest, and the patch's pixels."""
    size_px = len(image)
    edges = [round(k * size_px / 8) for k in range(9)]
    rows, columns = range(edges[row], edges[row + 1]), range(edges[column], edges[column + 1])
    patch = [(i, j) for i in rows for j in columns]
    rest = [int(image[i, j]) for i in range(size_px) for j in range(size_px) if (i, j) not in set(patch)]
    covered = image.copy()
    for place in patch:
        covered[place] = round(sum(rest) / len(rest))
    return covered, patch


@pytest.mark.parametrize("size_px", [32, 30])
def test_patches_lie_side_by_side(size_px):
    patches = attribution.find_patches(size_px)
    assert patches.shape == (64, size_px, size_px)
    assert (patches.sum(axis=0) == 1).all()
    image = make_images(1, size_px)[0, ..., 0]
    for number in (0, 1, 8, 37, 63):
        _, expected = cover_naively(image, *divmod(number, 8))
        assert {(int(i), int(j)) for i, j in np.argwhere(patches[number])} == set(expected)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_occlusion_is_the_fall_of_the_score_patch_by_patch(n_classes):
    scorer = scorers.open_classifier(build("cnn", n_classes, **NETWORKS["cnn"]))
    images, classes = make_images(2), np.array([1, 0])
    found = attribution.map_occlusion(scorer, images, classes)
    for image, k, each in zip(images, classes, found, strict=True):
        as_is = attribution.score_images(scorer, image[None])[0, k]
        covered = np.array([cover_naively(image[..., 0], *place)[0] for place in np.ndindex(8, 8)])
        falls = as_is - attribution.score_images(scorer, covered[..., None])[:, k].reshape(1, 8, 8)
        expected = attribution._enlarge(np.maximum(falls, 0), SIZE_PX)[0]
        assert expected.any()
        np.testing.assert_allclose(each, expected, atol=1e-5)


def test_what_is_covered_leaves_no_trace_in_the_image_that_is_scored(monkeypatch):
    images = make_images(1)
    images[0, :4, :4] = 255
    covered = []
    scorer = scorers.open_classifier(build_spot_finder())
    score = attribution.score_images

    def keep(scorer, pixels):
        covered.append(pixels)
        return score(scorer, pixels)

    monkeypatch.setattr(attribution, "score_images", keep)
    for grey in (255, 0):
        images[0, :4, :4] = grey
        attribution.map_occlusion(scorer, images, np.ones(1, np.int64))
    np.testing.assert_array_equal(covered[1][0], covered[3][0])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["cnn", "mobilenet075"])
def test_gradients_agree_with_the_backend_s(name, n_classes):
    import tensorflow as tf

    size_px = 96  # of 32 px, the last feature maps of a MobileNet have one pixel
    scorer = scorers.open_classifier(build(name, n_classes, size_px, **NETWORKS[name]))
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
    scorer = scorers.open_classifier(build("dense", **NETWORKS["dense"]))
    assert list(attribution.draw_maps(scorer, make_images(), np.zeros(3, np.int64))) == ["occlusion"]


def test_maps_change_when_the_weights_are_shuffled():
    images, _ = make_spots()
    scorer = scorers.open_classifier(build("cnn", **NETWORKS["cnn"]))
    classes = np.ones(3, np.int64)
    before = attribution.draw_maps(scorer, images, classes)
    again = attribution.draw_maps(scorer, images, classes)
    values = [np.sort(weights, axis=None) for weights in scorer.model.get_weights()]
    scorers.shuffle_weights(scorer, seed=1)
    after = attribution.draw_maps(scorer, images, classes)
    for name, maps in before.items():
        assert attribution.correlate_maps(maps, again[name]) == pytest.approx(np.ones(3))
        assert np.nanmean(attribution.correlate_maps(maps, after[name])) < 0.9
    for old, new in zip(values, scorer.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, np.sort(new, axis=None))


@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_the_first_map_is_the_first_of_all(name):
    scorer = scorers.open_classifier(build(name, **NETWORKS[name]))
    images, classes = make_images(), np.zeros(3, np.int64)
    first = next(iter(attribution.draw_maps(scorer, images, classes).values()))
    np.testing.assert_array_equal(attribution.draw_first_map(scorer, images, classes), first)


def test_correlation_of_maps_is_that_of_their_pixels():
    generator = np.random.default_rng(0)
    maps, others = generator.random((3, 8, 8)), generator.random((3, 8, 8))
    others[1] += maps[1]
    expected = [
        np.corrcoef(each.ravel(), other.ravel())[0, 1] for each, other in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(attribution.correlate_maps(maps, others), expected)


def test_a_constant_map_has_no_correlation():
    maps = np.random.default_rng(0).random((2, 8, 8))
    others = maps.copy()
    others[1] = 0.1
    found = attribution.correlate_maps(maps, others)
    assert found[0] == pytest.approx(1)
    assert np.isnan(found[1])


def average_flips(network):
    """Build the classifier that averages a network's probabilities over an image and its mirror image."""
    network.name = "unflipped"
    images = keras.Input(network.input.shape[1:], dtype="uint8")
    both = [network(images), network(keras.ops.flip(images, axis=2))]
    return keras.Model(images, keras.layers.Average()(both))


@pytest.mark.parametrize(
    ("name", "n_classes"),
    [("cnn", 2), ("cnn", 3), pytest.param("mobilenet075", 2, marks=pytest.mark.promise)],
)
def test_probabilities_over_flips_are_those_of_the_classifier(name, n_classes, tmp_path):
    model = average_flips(build(name, n_classes, **NETWORKS[name]))
    images = make_images()
    probabilities = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    scorer = scorers.ScorerLoader().load(tmp_path / "model.keras")
    found = attribution.predict_probabilities(scorer, images)
    np.testing.assert_allclose(found[:, 1:] if n_classes == 2 else found, probabilities, atol=1e-5)
    np.testing.assert_allclose(
        attribution.predict_probabilities(scorer, images[:, :, ::-1]), found, atol=1e-6
    )
    unflipped = attribution.find_probabilities(attribution._predict_scores(scorer, images))
    if name == "cnn":  # random weights make a deep network's answers all alike
        assert np.abs(unflipped - found).max() > 1e-4


def test_scores_over_flips_are_exact_where_probabilities_are_saturated():
    scores = np.array([[-800.0, 800.0], [0.0, 0.0]])
    others = np.array([[-790.0, 790.0], [-2.0, 2.0]])
    found = attribution._average_scores(scores, others)
    assert found[0, 1] == pytest.approx(
        790 + np.log(2), abs=1e-4
    )  # 1 - p is the mean of exp(-800), exp(-790)
    mean = (0.5 + 1 / (1 + np.exp(-2))) / 2
    assert found[1].tolist() == pytest.approx([-np.log(mean / (1 - mean)), np.log(mean / (1 - mean))])


@pytest.mark.parametrize("method", ["Grad-CAM", "occlusion"])
def test_maps_over_flips_are_those_of_both_sides(method):
    images, places = make_spots()
    plain = attribution.draw_maps(scorers.open_classifier(build_spot_finder()), images, np.ones(3, np.int64))[
        method
    ]
    scorer = scorers.open_classifier(average_flips(build_spot_finder()))
    maps = attribution.draw_maps(scorer, images, np.ones(3, np.int64))[method]
    np.testing.assert_allclose(
        maps, plain, rtol=0.02, atol=1e-3
    )  # this network does not know left from right
    for peak, place in zip(find_peaks(maps), places, strict=True):
        assert ((np.subtract(peak, place) >= 0) & (np.subtract(peak, place) < 8)).all()


@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_a_map_does_not_depend_on_the_other_images(name):
    scorer = scorers.open_classifier(build(name, **NETWORKS[name]))
    images, classes = make_images(), np.ones(3, np.int64)
    images[0] //= 20
    together = attribution.draw_maps(scorer, images, classes)
    for method, maps in together.items():
        alone = attribution.draw_maps(scorer, images[:1], classes[:1])[method]
        assert alone.any()
        np.testing.assert_allclose(maps[:1], alone, atol=1e-3 * alone.max())


def test_views_are_scored_each_on_its_own():
    images, _ = make_spots()
    scorer = scorers.open_classifier(build_spot_finder())
    rows = np.arange(len(images))
    changes = {"same": lambda image: image, "dark": lambda image: image * 0}
    as_is, views = attribution.score_views(scorer, images, rows, changes)
    np.testing.assert_array_equal(views["same"], as_is)
    np.testing.assert_allclose(views["dark"][:, 1], 1 / (1 + np.e), rtol=1e-6)


class CountedImages:
    """Images of a file, which count how many of them are in memory after an access."""

    def __init__(self, images):
        self.images, self.most = images, 0
        self.shape = images.shape

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        taken = self.images[key]
        self.most = max(self.most, len(taken))
        return taken


@pytest.mark.parametrize("flips", [False, True])
def test_views_of_many_images_are_those_of_all_at_once_and_take_the_memory_of_a_batch(flips):
    n_all, rows = 300, np.random.default_rng(1).permutation(300)[: 2 * attribution.BATCH_SIZE + 5]
    images = make_images(n_all)
    network = build("cnn", filters=[4], units=[4])
    scorer = scorers.open_classifier(average_flips(network) if flips else network)
    counted = CountedImages(images)
    changes = {"dark": lambda image: image // 2, "mirrored": lambda image: image[:, ::-1]}
    as_is, views = attribution.score_views(scorer, counted, rows, changes)
    assert 0 < counted.most <= attribution.BATCH_SIZE
    expected = {"as_is": images[rows], "dark": images[rows] // 2, "mirrored": images[rows][:, :, ::-1]}
    for name, found in {"as_is": as_is, **views}.items():
        at_once = attribution.predict_probabilities(scorer, expected[name])
        np.testing.assert_array_equal(found, at_once)
