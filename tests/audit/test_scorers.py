"""Opening networks one after the other: each gives its own scores, and nothing is built or computed twice."""

import keras
import numpy as np
import pytest

from pneumo.audit import attribution, scorers
from pneumo.audit.scorers import ScorerLoader
from pneumo.base.errors import PneumoError
from pneumo.training.network_file import save_network
from pneumo.training.networks import build_classifier
from pneumo.training.recipe import Monitor, Network, Phase, Recipe, Weights

SIZE_PX = 32
NETWORKS = {
    "dense": {"units": [8]},
    "cnn": {"filters": [4, 8], "units": [8], "dropout": 0.2},
    "mobilenet075": {"dropout": 0.2},
}


def make_images(n=3):
    return np.random.default_rng(0).integers(0, 255, (n, SIZE_PX, SIZE_PX, 1), dtype=np.uint8)


def build(name, seed=0, **network):
    """Build a network with the names of layers that it has in a process of its own, as in training."""
    keras.utils.clear_session()
    recipe = Recipe(
        Network(name, SIZE_PX, weights=Weights.random, **network),
        8,
        True,
        Monitor.val_auc,
        {"fit": Phase(1, 1e-3)},
    )
    return build_classifier(recipe, (SIZE_PX, SIZE_PX, 1), 2, seed=seed, weights_dir=None).model


def save_seeds(folder, n_seeds=2):
    """Save networks with one backbone and heads of their own; return their paths."""
    paths = []
    for seed in range(n_seeds):
        model = build("mobilenet075", **NETWORKS["mobilenet075"])
        head = model.get_layer("head")
        generator = np.random.default_rng(seed)
        head.set_weights([generator.normal(size=each.shape) for each in head.get_weights()])
        paths.append(folder / f"{seed}.keras")
        save_network(model, paths[-1])
    return paths


def score_alone(path, images):
    """Score images with a network that Keras has loaded, without anything remembered."""
    model = keras.models.load_model(path, compile=False)
    return attribution.score_images(scorers.open_classifier(model), images)


@pytest.fixture
def n_built(monkeypatch):
    """Count the networks that Keras builds from a file."""
    counts = []
    load = keras.models.load_model
    monkeypatch.setattr(
        scorers.keras.models,
        "load_model",
        lambda *args, **options: counts.append(1) or load(*args, **options),
    )
    return counts


@pytest.fixture
def n_extracted(monkeypatch):
    """Count the images of which vectors are computed."""
    counts = []
    open_file = scorers._open

    def spy(path, config):
        opened = open_file(path, config)
        compute = opened.extractor.predict_on_batch
        opened.extractor.predict_on_batch = lambda batch: counts.append(len(batch)) or compute(batch)
        return opened

    monkeypatch.setattr(scorers, "_open", spy)
    return counts


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_network_gives_the_same_scores(name, tmp_path):
    model = build(name, **NETWORKS[name])
    save_network(model, tmp_path / "model.keras")
    scores = attribution.score_images(ScorerLoader().load(tmp_path / "model.keras"), make_images())
    expected = attribution.score_images(scorers.open_classifier(model), make_images())
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_seeds_of_a_recipe_are_built_once_and_give_each_its_own_scores(name, tmp_path, n_built):
    paths, expected = [], []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.keras")
        save_network(build(name, seed, **NETWORKS[name]), paths[-1])
        # By a loader that has nothing else: the very same numbers, not only nearly.
        expected.append(attribution.score_images(ScorerLoader().load(paths[-1]), make_images()))
    assert (expected[0] != expected[1]).all()
    n_built.clear()
    loader = ScorerLoader()
    for seed in (0, 1, 2, 1, 0):
        scores = attribution.score_images(loader.load(paths[seed]), make_images())
        np.testing.assert_array_equal(scores, expected[seed])
    assert len(n_built) == 1


def test_a_network_is_whole_again_after_its_weights_were_shuffled(tmp_path, n_built):
    """All of them, those of batch normalisation too, which no seed of a frozen backbone changes."""
    path, other = save_seeds(tmp_path)
    expected, before = score_alone(other, make_images()), keras.models.load_model(other).get_weights()
    n_built.clear()
    loader = ScorerLoader()
    scorers.shuffle_weights(loader.load(path), seed=0)
    scorer = loader.load(other)
    for found, weights in zip(scorer.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, weights)
    np.testing.assert_allclose(attribution.score_images(scorer, make_images()), expected, rtol=1e-5)
    assert len(n_built) == 1


def test_a_network_with_other_layers_is_built_anew(tmp_path):
    """Its weights may have the same shapes, or be the same, where the scale of grey values differs."""
    paths = []
    for scale in (1.0, 0.5):
        keras.utils.clear_session()
        inputs = keras.Input((SIZE_PX, SIZE_PX, 1), dtype="uint8")
        x = keras.layers.Flatten()(keras.layers.Rescaling(scale / 255)(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="probability")(x))
        model.set_weights([np.ones((SIZE_PX**2, 1)), np.zeros(1)])
        paths.append(tmp_path / f"{scale}.keras")
        save_network(model, paths[-1])
    loader = ScorerLoader()
    whole, half = (attribution.score_images(loader.load(path), make_images()) for path in paths)
    np.testing.assert_allclose(half, whole / 2, rtol=1e-5)


def test_images_pass_the_backbone_of_all_seeds_once(tmp_path, n_extracted):
    images, others = make_images(), make_images(4)[1:] + 1
    loader = ScorerLoader()
    for path in save_seeds(tmp_path):
        scorer = loader.load(path)
        for each in (images, others, images):
            np.testing.assert_allclose(
                attribution.score_images(scorer, each), score_alone(path, each), rtol=1e-5
            )
    assert n_extracted == [3, 3]


def test_vectors_of_another_backbone_are_not_taken(tmp_path, n_extracted):
    path, other_path = save_seeds(tmp_path)
    model = keras.models.load_model(other_path)
    convolution = next(layer for layer in model.get_layer("mobilenet075").layers if layer.get_weights())
    convolution.set_weights([2 * each for each in convolution.get_weights()])
    save_network(model, other_path)
    loader, images = ScorerLoader(), make_images()
    for each in (path, other_path, path):
        scores = attribution.score_images(loader.load(each), images)
        np.testing.assert_allclose(scores, score_alone(each, images), rtol=1e-5)
    assert n_extracted == [3, 3, 3]


def test_no_more_vectors_are_kept_than_memory_allows(tmp_path, n_extracted, monkeypatch):
    monkeypatch.setattr(scorers, "MAX_CACHE_BYTES", 4 * 768 * 3)
    (path,), images = save_seeds(tmp_path, 1), make_images(4)
    scorer = ScorerLoader().load(path)
    for batch in (images[:3], images[3:], images[:3], images[3:]):
        np.testing.assert_allclose(
            attribution.score_images(scorer, batch), score_alone(path, batch), rtol=1e-5
        )
    assert n_extracted == [3, 1, 1]


def test_vectors_of_before_the_weights_were_shuffled_are_not_taken(tmp_path):
    scorer = ScorerLoader().load(save_seeds(tmp_path, 1)[0])
    images = make_images()
    attribution.score_images(scorer, images)
    shuffled = scorers.shuffle_weights(scorer, seed=0)
    logits = shuffled.model.predict(images, verbose=0)
    np.testing.assert_allclose(attribution.score_images(shuffled, images)[:, 1:], logits, rtol=1e-5)


@pytest.mark.parametrize("name", ["dense", "cnn"])
def test_a_network_without_a_backbone_is_asked_as_a_whole(name, tmp_path):
    save_network(build(name, **NETWORKS[name]), tmp_path / "model.keras")
    assert ScorerLoader().load(tmp_path / "model.keras").extract is None


@pytest.mark.parametrize("content", [None, b"", b"no network"])
def test_a_file_that_is_no_network_is_named(content, tmp_path):
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        PneumoError, match=r"Expected a network that pneumo has trained\. Received: .*model\.keras"
    ):
        ScorerLoader().load(path)
