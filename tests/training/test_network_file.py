import json
import zipfile

import keras
import numpy as np
import pytest

from pneumo.training.network_file import load_network, save_network
from pneumo.training.recipe import Augmentation
from small_networks import build_small, make_images, make_recipe


def save(path, seed=0):
    keras.utils.clear_session()  # layers are numbered through a process
    augmentation = Augmentation(flip=True, rotation_degrees=5)
    recipe = make_recipe("mobilenet075", augmentation=augmentation)
    model = build_small(recipe, seed=seed).model
    model.compile("adam", "binary_crossentropy")
    save_network(model, path)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with a network saved twice, and one with other weights."""
    folder = tmp_path_factory.mktemp("networks")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save(folder / f"{name}.keras", seed)
    return folder


def test_a_network_comes_back(tmp_path):
    model = save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    images = make_images(4)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_same_weights_same_bytes(saved):
    a, b, c = ((saved / f"{name}.keras").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_neither_dates_nor_the_optimizer_are_kept(saved):
    with zipfile.ZipFile(saved / "a.keras") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert list(json.loads(archive.read("metadata.json"))) == ["keras_version"]
    assert not load_network(saved / "a.keras").compiled


@pytest.mark.parametrize(
    ("trained", "flips"), [(["head"], False), (["head", "augmented"], True), (["head", "unflipped"], True)]
)
def test_what_was_trained_leaves_its_optimizer_behind(tmp_path, trained, flips):
    """A recipe for features compiles the head alone, which is a part of a part of what is saved."""
    keras.utils.clear_session()
    classifier = build_small(make_recipe("mobilenet075", predict_flips=flips))
    for name in trained:
        network = getattr(classifier, name)
        network.compile("adam", "binary_crossentropy")
        inputs = np.ones((4, 768), np.float32) if name == "head" else make_images(4)
        network.fit(inputs, np.ones((4, 1)), verbose=0)
    save_network(classifier.model, tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    assert loaded.input.shape == classifier.model.input.shape  # and not a list of one
    expected = classifier.model.predict(make_images(4), verbose=0)
    np.testing.assert_array_equal(loaded.predict(make_images(4), verbose=0), expected)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert b'"optimizer"' not in archive.read("config.json")
        assert b"optimizer" not in archive.read("model.weights.h5")
    assert classifier.head.compiled  # it can be trained on
