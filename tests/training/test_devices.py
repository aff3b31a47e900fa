"""Precision, XLA and several devices: what a recipe says is what computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.training.batches import ImageBatches
from pneumo.training.devices import count_devices, describe_determinism, find_device, use_devices
from pneumo.training.fit import fit_classifier
from pneumo.training.network_file import load_network, save_network
from pneumo.training.recipe import Augmentation, Phase, Precision
from small_networks import NO_FEATURES, build_small, make_data, make_images, make_recipe

TESTS_DIR = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["cnn", "mobilenet"])
@pytest.mark.parametrize("precision", [Precision.mixed_bfloat16, Precision.mixed_float16])
def test_mixed_precision_is_in_the_network_and_not_in_its_probabilities(name, precision, tmp_path):
    recipe = make_recipe(name, precision=precision, predict_flips=True)
    classifier = build_small(recipe)
    trained = classifier.backbone if name == "mobilenet" else classifier.unflipped
    convolution = next(layer for layer in trained.layers if isinstance(layer, keras.layers.Conv2D))
    assert convolution.compute_dtype == precision.value.removeprefix("mixed_")
    assert convolution.variable_dtype == "float32"
    # Grey values and views of them keep their precision, and so do probabilities.
    for model in (classifier.unflipped, classifier.augmented):
        for layer in model.layers:
            if isinstance(layer, keras.layers.Rescaling | keras.layers.Concatenate):
                assert layer.compute_dtype == "float32"
    assert classifier.unflipped.output.dtype == classifier.model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # for what is built afterwards
    images = make_images(8)
    save_network(classifier.model, tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    outputs = loaded.predict(images, verbose=0)
    np.testing.assert_array_equal(outputs, classifier.model.predict(images, verbose=0))
    whole = build_small(make_recipe(name, predict_flips=True)).model.predict(images, verbose=0)
    if name == "cnn":  # an untrained MobileNet gives 0.5 for everything
        assert (outputs != whole).any()
    np.testing.assert_allclose(outputs, whole, atol=0.05)


def test_mixed_float16_trains_with_a_scaled_loss():
    recipe = make_recipe("cnn", precision=Precision.mixed_float16)
    classifier = build_small(recipe)
    history = fit_classifier(classifier, recipe, make_data(make_images()), 0, NO_FEATURES)
    assert isinstance(classifier.unflipped.optimizer, keras.optimizers.LossScaleOptimizer)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(("n_devices", "batch_size"), [(0, 8), (3, 8)])
def test_batches_must_be_divisible(n_devices, batch_size):
    with pytest.raises(PneumoError, match="devices: Expected 1 or more, by which batch_size, 8"):
        make_recipe("dense", devices=n_devices, batch_size=batch_size)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
def test_several_devices_need_jax():
    use_devices(1)
    assert count_devices() == 1
    with pytest.raises(PneumoError, match=r"devices: Expected 1 with tensorflow.*Received: 2"):
        use_devices(2)


def test_a_processor_repeats_its_bytes():
    assert find_device() == "cpu:0"
    assert describe_determinism().startswith("the same bytes")


def test_one_device_gives_each_image_once():
    batches = ImageBatches(make_images(7), np.arange(7), batch_size=4, shuffle_seed=0)
    assert [len(batches[i][0]) for i in range(len(batches))] == [4, 3]


def train_on(n_devices, n_images):
    """Train in a process with four virtual devices; return what `main` prints."""
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, __file__, str(n_devices), str(n_images)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.promise
def test_batches_divided_among_devices_train_the_same_network():
    # 24 training images and 8 of validation: each batch of 8 can be divided.
    one, four = train_on(1, 32), train_on(4, 32)
    assert (one["n_shards"], four["n_shards"]) == (1, 4)
    assert np.std(one["probabilities"]) > 0.001  # of a network that tells images apart
    np.testing.assert_allclose(four["probabilities"], one["probabilities"], atol=1e-4)
    np.testing.assert_allclose(four["losses"], one["losses"], atol=1e-4)
    assert train_on(4, 32) == four  # to the last bit


@pytest.mark.promise
def test_images_that_cannot_be_divided_among_devices():
    trained = train_on(4, 27)
    assert len(trained["probabilities"]) == 27
    assert np.isfinite(trained["losses"]).all()
    assert trained["last_batch"] == [16, 17, 18, 0]  # 19 training images, the first again


def main(n_devices, n_images):
    """Train a network on devices and print its losses and probabilities as JSON."""
    from pneumo.training.fit import predict_probabilities

    recipe = make_recipe(
        "cnn",
        devices=n_devices,
        phases={"fit": Phase(epochs=2, learning_rate=1e-3, augment=True)},
        augmentation=Augmentation(flip=True),
    )
    use_devices(n_devices)
    images = make_images(n_images)
    images[::2] //= 4  # class 0 is dark
    classifier = build_small(recipe)
    history = fit_classifier(classifier, recipe, make_data(images), 0, NO_FEATURES)
    probabilities = predict_probabilities(classifier.model, images, np.arange(n_images))
    kernel = classifier.model.trainable_variables[0].value
    ordered = ImageBatches(np.arange(n_images), np.arange(n_images - 8), batch_size=8)
    found = {
        "losses": [*history["loss"], *history["val_loss"]],
        "probabilities": probabilities.tolist(),
        "n_shards": len(kernel.sharding.device_set),
        "last_batch": ordered[len(ordered) - 1][0].tolist(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
