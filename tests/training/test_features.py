"""The cache of features: when it is used, and what its key follows."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from pneumo.base.artifacts import hash_file
from pneumo.training import features
from pneumo.training.features import feature_key, load_or_extract_features
from small_networks import build_small, make_images, make_recipe


def extract(extractor, path, cache_dir):
    return load_or_extract_features(extractor, path, hash_file(path), cache_dir)


class TestFeatureCache:
    @pytest.fixture
    def extractor(self):
        return build_small(make_recipe("mobilenet075")).extractor

    @pytest.fixture
    def path(self, tmp_path):
        np.save(tmp_path / "images.npy", make_images(40))
        return tmp_path / "images.npy"

    def test_gives_the_same_from_the_cache_without_the_backbone(self, extractor, path, tmp_path, monkeypatch):
        first = np.array(extract(extractor, path, tmp_path / "cache"))
        assert first.shape == (40, extractor.output_shape[1])
        monkeypatch.setattr(keras.Model, "predict", lambda *_, **__: pytest.fail("computed again"))
        np.testing.assert_array_equal(extract(extractor, path, tmp_path / "cache"), first)

    def test_key_follows_images_and_weights(self, extractor, path):
        key = feature_key(extractor, hash_file(path))
        assert key == feature_key(extractor, hash_file(path))
        other_weights = build_small(make_recipe("mobilenet075"), seed=1).extractor
        assert feature_key(other_weights, hash_file(path)) != key
        np.save(path, make_images(40)[::-1])
        assert feature_key(extractor, hash_file(path)) != key

    def test_key_is_the_same_for_the_same_network_built_again_in_one_process(self, path):
        keys = {
            feature_key(build_small(make_recipe("mobilenet075")).extractor, hash_file(path)) for _ in range(2)
        }
        assert len(keys) == 1

    @pytest.mark.parametrize(
        ("place", "name", "value"),
        [
            (features, "version", lambda _: "0.0"),
            (keras, "__version__", "0.0"),
            (keras.distribution, "list_devices", lambda: ["gpu:0"]),
            (keras.backend, "backend", lambda: "jax"),
        ],
        ids=["version of the backend", "version of Keras", "device", "backend"],
    )
    def test_key_follows_what_computes(self, extractor, path, monkeypatch, place, name, value):
        key = feature_key(extractor, hash_file(path))
        monkeypatch.setattr(place, name, value)
        assert feature_key(extractor, hash_file(path)) != key

    def test_key_does_not_follow_the_number_of_devices(self, extractor, path, monkeypatch):
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
        key = feature_key(extractor, hash_file(path))
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
        assert feature_key(extractor, hash_file(path)) == key

    def test_key_follows_the_size_that_the_network_works_at(self, path):
        # Weights, and the shapes of what goes in and comes out, are the same for both.
        keys = set()
        for size_px in (40, 48):
            keras.utils.clear_session()  # as in processes of their own, where layers have the same names
            recipe = make_recipe("mobilenet075")
            recipe = replace(recipe, network=replace(recipe.network, input_size_px=size_px))
            keys.add(feature_key(build_small(recipe).extractor, hash_file(path)))
        assert len(keys) == 2
