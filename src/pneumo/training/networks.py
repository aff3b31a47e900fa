"""Networks in plain Keras: raw uint8 images in, probabilities out."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumo.base.config import expect
from pneumo.base.errors import PneumoError
from pneumo.base.layers import HEAD, PROBABILITY, UNFLIPPED
from pneumo.training.augmentation import RandomView
from pneumo.training.recipe import (
    BACKBONES,
    STEMS,
    Network,
    Precision,
    Recipe,
    Scaling,
    Weights,
    find_weights,
    name_weights_file,
)

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_MEAN_BGR = np.array([103.939, 116.779, 123.68])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Classifier:
    """A network and its parts, which share their weights.

    Attributes:
        model: uint8 images of shape (n, height, width, 1) -> probabilities of shape (n, 1) for two classes
            (of the second), (n, n_classes) for more. It is what predicts and what is saved.
        unflipped: the same without the mirror images of `predict_flips`; for training only.
        augmented: the same as `unflipped`, with the recipe's augmentation before the first trained layer.
        backbone: the part from keras.applications, or None.
        extractor: the same images -> pooled backbone features of shape (n, n_features), or None.
        head: what stands on the features, features -> probabilities, or None.
    """

    model: keras.Model
    unflipped: keras.Model
    augmented: keras.Model
    backbone: keras.Model | None = None
    extractor: keras.Model | None = None
    head: keras.Model | None = None


def build_classifier(
    recipe: Recipe,
    image_shape: tuple[int, int, int],
    n_classes: int,
    seed: int,
    weights_dir: Path,
) -> Classifier:
    """Build a network with its first weights; the same seed gives the same weights.

    Args:
        recipe: its `network` and `augmentation` are used.
        image_shape: (height, width, 1) of the preprocessed images.
        n_classes: 2 or more.
        seed: of weights, dropout and augmentation; it becomes Keras's global seed.
        weights_dir: folder with ImageNet weights; Keras downloads what is not there.

    Raises:
        PneumoError: ImageNet weights cannot be had, or the backbone has no layer `ends_at`.
    """
    keras.utils.set_random_seed(seed)
    network = recipe.network
    inputs = keras.Input(image_shape, dtype="uint8", name="image")
    plain = keras.layers.Rescaling(1.0, name="to_float")(inputs)
    if image_shape[0] != network.input_size_px:
        plain = keras.layers.Resizing(network.input_size_px, network.input_size_px, antialias=True)(plain)
    augmented = RandomView(recipe.augmentation, seed)(plain)
    # What comes before the first trained layer is computed in float32, and so are probabilities.
    to_unit_range = None if network.has_backbone else keras.layers.Rescaling(1 / 127.5, offset=-1)
    with use_precision(recipe.precision):
        if to_unit_range is not None:
            return _build_from_scratch(
                recipe, n_classes, to_unit_range, inputs, plain, augmented, weights_dir
            )
        return _build_on_backbone(recipe, n_classes, inputs, plain, augmented, weights_dir)


@contextlib.contextmanager
def use_precision(precision: Precision) -> Iterator[None]:
    """Let layers that are built within the block compute in a precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision.value)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build_from_scratch(
    recipe: Recipe,
    n_classes: int,
    to_unit_range: keras.Layer,
    inputs: Any,
    plain: Any,
    augmented: Any,
    weights_dir: Path,
) -> Classifier:
    network = recipe.network
    layers = [to_unit_range]
    if network.stem is not None:
        plain, augmented = _to_rgb(plain), _to_rgb(augmented)
        layers = _build_stem(network.stem, network, weights_dir)
    layers += [*_build_convolutions(network.filters), *_build_output(recipe, n_classes)]
    unflipped = keras.Model(inputs, _chain(layers, plain), name=UNFLIPPED)
    model = _average_flips(unflipped) if recipe.predict_flips else unflipped
    return Classifier(model, unflipped, keras.Model(inputs, _chain(layers, augmented)))


def _build_on_backbone(
    recipe: Recipe, n_classes: int, inputs: Any, plain: Any, augmented: Any, weights_dir: Path
) -> Classifier:
    network = recipe.network
    scaling = build_scaling(BACKBONES[network.name].scaling)
    backbone = build_backbone(network, weights_dir)
    pooling = keras.layers.GlobalAveragePooling2D(name="features")

    def extract(x: Any) -> Any:
        return pooling(backbone(scaling(_to_rgb(x))))

    features = extract(plain)
    head_inputs = keras.Input(features.shape[1:])
    head = keras.Model(head_inputs, _chain(_build_output(recipe, n_classes), head_inputs), name=HEAD)
    unflipped = keras.Model(inputs, head(features), name=UNFLIPPED)
    return Classifier(
        _average_flips(unflipped) if recipe.predict_flips else unflipped,
        unflipped,
        keras.Model(inputs, head(extract(augmented))),
        backbone,
        keras.Model(inputs, features),
        head,
    )


def build_scaling(scaling: Scaling) -> keras.Layer:
    """Build the layer that does what a backbone's preprocess_input does to grey images.

    Returns:
        Layer from and to float images of shape (n, height, width, 3), values 0 to 255 before.
    """
    if scaling is Scaling.INSIDE:
        return keras.layers.Rescaling(1.0, dtype="float32")
    if scaling is Scaling.TO_UNIT_RANGE:
        return keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")
    if scaling is Scaling.BY_IMAGENET_MEAN:  # in grey images, blue before red is a matter of the means alone
        return keras.layers.Rescaling(1.0, offset=(-IMAGENET_MEAN_BGR).tolist(), dtype="float32")
    scale = 1 / (255 * IMAGENET_STD)
    offset = -IMAGENET_MEAN / IMAGENET_STD
    return keras.layers.Rescaling(scale.tolist(), offset=offset.tolist(), dtype="float32")


def build_backbone(network: Network, weights_dir: Path) -> keras.Model:
    """Build a network of keras.applications without its top, or its layers up to the one at which it ends.

    Args:
        network: names the backbone, its input size, its last layer and what it starts from.
        weights_dir: see `find_weights`; Keras downloads what is not there.

    Raises:
        PneumoError: the weights are neither in the folder nor can they be downloaded, or there is no layer
            `ends_at`.
    """
    path = None
    if network.weights is Weights.imagenet:
        path = find_weights(network.name, weights_dir, network.ends_at)
    is_download = network.weights is Weights.imagenet and path is None
    whole = _download(network, weights_dir) if is_download else _build_whole(network, None)
    backbone = _cut(whole, network)
    if path is not None:
        is_whole = path.name == name_weights_file(network.name)
        (whole if is_whole else backbone).load_weights(path)
    return backbone


def set_trainable(classifier: Classifier, trainable: str, freeze_batch_norm: bool) -> None:
    """Choose what the next compile trains; the head always is.

    Args:
        classifier: its backbone's layers are changed; nothing happens where it has none.
        trainable: `all`, `head` or `last_<n>`.
        freeze_batch_norm: batch normalisation keeps its statistics and weights.
    """
    if classifier.backbone is None:
        return
    layers = classifier.backbone.layers
    n_trained = {"all": len(layers), "head": 0}.get(trainable)
    if n_trained is None:
        n_trained = int(trainable.removeprefix("last_"))
    classifier.backbone.trainable = True
    for i, layer in enumerate(layers):
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = i >= len(layers) - n_trained and not (freeze_batch_norm and is_batch_norm)


def _build_whole(network: Network, weights: str | None) -> keras.Model:
    spec = BACKBONES[network.name]
    shape = (network.input_size_px, network.input_size_px, 3)
    build = getattr(keras.applications, spec.builder)
    return build(include_top=False, input_shape=shape, name=network.name, weights=weights, **spec.arguments)


def _download(network: Network, weights_dir: Path) -> keras.Model:
    try:
        return _build_whole(network, "imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails
        path = weights_dir / name_weights_file(network.name, network.ends_at)
        raise PneumoError(
            f"The ImageNet weights of {network.name} could not be downloaded: {error}. Connect to the "
            f"network, or put them into weights_dir (params.yaml): {path}."
        ) from error


def _cut(whole: keras.Model, network: Network) -> keras.Model:
    if network.ends_at is None:
        return whole
    names = [layer.name for layer in whole.layers]
    expect(network.ends_at in names, "network.ends_at", f"one of {', '.join(names)}", network.ends_at)
    return keras.Model(whole.input, whole.get_layer(network.ends_at).output, name=network.name)


def _average_flips(unflipped: keras.Model) -> keras.Model:
    images = keras.Input(unflipped.input.shape[1:], dtype="uint8", name="image")
    mirrored = keras.ops.flip(images, axis=2)
    return keras.Model(
        images, keras.layers.Average(dtype="float32")([unflipped(images), unflipped(mirrored)])
    )


def _build_stem(name: str, network: Network, weights_dir: Path) -> list[keras.Layer]:
    until = Network(name, network.input_size_px, weights=network.weights, ends_at=STEMS[name])
    layers = build_backbone(until, weights_dir).layers
    inner = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
    return [build_scaling(BACKBONES[name].scaling), *inner]


def _build_convolutions(filters: list[int]) -> list[keras.Layer]:
    layers = []
    for n_filters in filters:
        layers.append(keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu"))
        layers.append(keras.layers.MaxPooling2D())
    return [*layers, keras.layers.Flatten()]


def _build_output(recipe: Recipe, n_classes: int) -> list[keras.Layer]:
    network = recipe.network
    layers = [keras.layers.Dense(n_units, activation="relu") for n_units in network.units]
    if network.dropout:
        layers.append(keras.layers.Dropout(network.dropout))
    if n_classes == 2:
        return [*layers, keras.layers.Dense(1, activation="sigmoid", name=PROBABILITY, dtype="float32")]
    return [*layers, keras.layers.Dense(n_classes, activation="softmax", name=PROBABILITY, dtype="float32")]


def _to_rgb(x: Any) -> Any:
    return keras.layers.Concatenate(dtype="float32")([x, x, x])


def _chain(layers: list[keras.Layer], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
