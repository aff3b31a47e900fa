"""What speaks for a class, from a network in ONNX and from the same network in Keras."""

import keras
import numpy as np
import pytest

from pneumo.audit import attribution, scorers
from pneumo.base.errors import PneumoError
from pneumo.prediction.bundle import KERAS, ONNX, Bundle, Card, write_bundle
from pneumo.prediction.explainer import Explainer, can_explain
from pneumo.prediction.keras_network import KerasNetwork, convert_to_onnx
from pneumo.prediction.predictor import Predictor
from pneumo.preprocessing.combo import parse_combo

CLASSES = {2: ["normal", "pneumonia"], 3: ["normal", "bacterial", "viral"]}
SIZE_PX = 32


def build_network(n_classes, flips=False, units=0, seed=0):
    """Build what `training.networks` builds around a backbone, around one convolution."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE_PX, SIZE_PX, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Conv2D(6, 5, strides=4, activation="relu", bias_initializer="random_normal")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    head_inputs = keras.Input(x.shape[1:])
    y = keras.layers.Dense(units, activation="relu")(head_inputs) if units else head_inputs
    y = keras.layers.Dropout(0.2)(y)
    outputs, activation = (1, "sigmoid") if n_classes == 2 else (n_classes, "softmax")
    y = keras.layers.Dense(outputs, activation, name="probability", bias_initializer="random_normal")(y)
    head = keras.Model(head_inputs, y, name="head")
    unflipped = keras.Model(inputs, head(x), name="unflipped")
    if not flips:
        return unflipped
    images = keras.Input((SIZE_PX, SIZE_PX, 1), dtype="uint8")
    pair = [unflipped(images), unflipped(keras.ops.flip(images, axis=2))]
    return keras.Model(images, keras.layers.Average()(pair))


def write_model(path, models, n_classes, formats=(ONNX,)):
    """Write networks as a bundle and return it with its predictor."""
    card = Card(
        classes=CLASSES[n_classes],
        steps=parse_combo("raw", [], SIZE_PX),
        threshold=0.5 if n_classes == 2 else None,
        temperature=1.0,
        trained_on="noise",
        runs=[f"a/b/c/{seed}" for seed in range(len(models))],
    )
    files = {}
    if ONNX in formats:
        files[ONNX] = [convert_to_onnx(KerasNetwork(each)) for each in models]
    if KERAS in formats:
        files[KERAS] = []
        for each in models:
            each.save(path.with_suffix(".keras"))
            files[KERAS].append(path.with_suffix(".keras").read_bytes())
    write_bundle(path, card, files)
    bundle = Bundle(path)
    return bundle, Predictor(bundle)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (SIZE_PX, SIZE_PX), dtype=np.uint8)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_class_activation_maps_are_grad_cam(tmp_path, image, n_classes, flips):
    models = [build_network(n_classes, flips, seed=seed) for seed in range(2)]
    explainer = Explainer(*write_model(tmp_path / "m.pneumo", models, n_classes))
    opened = [scorers.open_classifier(each) for each in models]
    for number, label in enumerate(CLASSES[n_classes]):
        drawn = [
            attribution.map_gradients(each, image[None, ..., None], np.array([number]))[0] for each in opened
        ]
        expected = np.mean(drawn, axis=0)
        np.testing.assert_allclose(
            explainer.draw_map(image, label), expected / max(expected.max(), 1e-12), atol=2e-3
        )


def test_the_classes_of_one_network_are_explained_apart(tmp_path, image):
    explainer = Explainer(*write_model(tmp_path / "m.pneumo", [build_network(2)], 2))
    maps = [explainer.draw_map(image, label) for label in CLASSES[2]]
    assert all(each.shape == image.shape and each.min() >= 0 and each.max() in (0, 1) for each in maps)
    assert not np.allclose(*maps, atol=0.1)


def test_a_head_with_units_of_its_own_needs_keras(tmp_path, image):
    models = [build_network(2, units=4)]
    bundle, predictor = write_model(tmp_path / "onnx.pneumo", models, 2)
    assert not can_explain(bundle, predictor)
    with pytest.raises(
        PneumoError, match=r"Expected networks in Keras, or in ONNX with class activation maps"
    ):
        Explainer(bundle, predictor)
    bundle, predictor = write_model(tmp_path / "both.pneumo", models, 2, (ONNX, KERAS))
    assert can_explain(bundle, predictor)
    drawn = Explainer(bundle, predictor).draw_map(image, "pneumonia")
    (expected,) = attribution.map_gradients(
        scorers.open_classifier(models[0]), image[None, ..., None], np.array([1])
    )
    np.testing.assert_allclose(drawn, expected / max(expected.max(), 1e-12), atol=1e-5)
