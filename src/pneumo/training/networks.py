"""Networks in plain Keras: raw uint8 images in, probabilities out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumo.base.errors import PneumoError
from pneumo.training.augmentation import RandomView
from pneumo.training.recipe import (
    BACKBONES,
    STEMS,
    Network,
    Recipe,
    Scaling,
    Weights,
    find_weights,
)

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_MEAN_BGR = np.array([103.939, 116.779, 123.68])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Classifier:
    """A network and its parts, which share their weights.

    Attributes:
        model: uint8 images of shape (n, height, width, 1) -> probabilities of shape (n, 1) for two classes
            (of the second), (n, n_classes) for more.
        augmented: the same, with the recipe's augmentation before the first trained layer; for training only.
        backbone: the part from keras.applications, or None.
        extractor: the same images -> pooled backbone features of shape (n, n_features), or None.
        head: what stands on the features, features -> probabilities, or None.
    """

    model: keras.Model
    augmented: keras.Model
    backbone: keras.Model | None = None
    extractor: keras.Model | None = None
    head: keras.Model | None = None


def build_classifier(
    recipe: Recipe,
    image_shape: tuple[int, int, int],
    n_classes: int,
    seed: int,
    weights_dir: Path | None,
) -> Classifier:
    """Build a network with its first weights; the same seed gives the same weights.

    Args:
        recipe: its `network` and `augmentation` are used.
        image_shape: (height, width, 1) of the preprocessed images.
        n_classes: 2 or more.
        seed: of weights, dropout and augmentation; it becomes Keras's global seed.
        weights_dir: folder with ImageNet weights, or None to let Keras download them.

    Raises:
        PneumoError: ImageNet weights are called for and cannot be had.
    """
    keras.utils.set_random_seed(seed)
    network = recipe.network
    inputs = keras.Input(image_shape, dtype="uint8", name="image")
    plain = keras.layers.Rescaling(1.0, name="to_float")(inputs)
    if image_shape[0] != network.input_size_px:
        plain = keras.layers.Resizing(network.input_size_px, network.input_size_px, antialias=True)(plain)
    augmented = RandomView(recipe.augmentation, seed)(plain)
    if not network.has_backbone:
        layers = [keras.layers.Rescaling(1 / 127.5, offset=-1)]
        if network.stem is not None:
            plain, augmented = _to_rgb(plain), _to_rgb(augmented)
            layers = _build_stem(network.stem, network, weights_dir)
        layers += [*_build_convolutions(network.filters), *_build_output(network, n_classes)]
        return Classifier(*(keras.Model(inputs, _chain(layers, x)) for x in (plain, augmented)))
    scaling = build_scaling(BACKBONES[network.name].scaling)
    backbone = build_backbone(network, weights_dir)
    pooling = keras.layers.GlobalAveragePooling2D(name="features")

    def extract(x: Any) -> Any:
        return pooling(backbone(scaling(_to_rgb(x))))

    features = extract(plain)
    head_inputs = keras.Input(features.shape[1:])
    head = keras.Model(head_inputs, _chain(_build_output(network, n_classes), head_inputs), name="head")
    return Classifier(
        keras.Model(inputs, head(features)),
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
        return keras.layers.Rescaling(1.0)
    if scaling is Scaling.TO_UNIT_RANGE:
        return keras.layers.Rescaling(1 / 127.5, offset=-1)
    if scaling is Scaling.BY_IMAGENET_MEAN:  # in grey images, blue before red is a matter of the means alone
        return keras.layers.Rescaling(1.0, offset=(-IMAGENET_MEAN_BGR).tolist())
    scale = 1 / (255 * IMAGENET_STD)
    return keras.layers.Rescaling(scale.tolist(), offset=(-IMAGENET_MEAN / IMAGENET_STD).tolist())


def build_backbone(network: Network, weights_dir: Path | None) -> keras.Model:
    """Build a network of keras.applications without its top.

    Args:
        network: names the backbone, its input size and what it starts from.
        weights_dir: see `find_weights`; None lets Keras download ImageNet weights.

    Raises:
        PneumoError: the weights are not in the folder, or cannot be downloaded.
    """
    spec = BACKBONES[network.name]
    build = getattr(keras.applications, spec.builder)
    shape = (network.input_size_px, network.input_size_px, 3)
    arguments = {"include_top": False, "input_shape": shape, "name": network.name, **spec.arguments}
    if network.weights is Weights.random:
        return build(weights=None, **arguments)
    if weights_dir is not None:
        backbone = build(weights=None, **arguments)
        backbone.load_weights(find_weights(network.name, weights_dir))
        return backbone
    try:
        return build(weights="imagenet", **arguments)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise PneumoError(
            f"The ImageNet weights of {network.name} could not be downloaded: {error}. Connect to the "
            "network, or set weights_dir in params.yaml to a folder that holds "
            f"{network.name}_imagenet_notop.weights.h5."
        ) from error


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


def _build_stem(name: str, network: Network, weights_dir: Path | None) -> list[keras.Layer]:
    backbone = build_backbone(Network(name, network.input_size_px, weights=network.weights), weights_dir)
    layers = [layer for layer in backbone.layers if not isinstance(layer, keras.layers.InputLayer)]
    last = [layer.name for layer in layers].index(STEMS[name])
    return [build_scaling(BACKBONES[name].scaling), *layers[: last + 1]]


def _build_convolutions(filters: list[int]) -> list[keras.Layer]:
    layers = []
    for n_filters in filters:
        layers.append(keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu"))
        layers.append(keras.layers.MaxPooling2D())
    return [*layers, keras.layers.Flatten()]


def _build_output(network: Network, n_classes: int) -> list[keras.Layer]:
    layers = [keras.layers.Dense(n_units, activation="relu") for n_units in network.units]
    if network.dropout:
        layers.append(keras.layers.Dropout(network.dropout))
    if n_classes == 2:
        return [*layers, keras.layers.Dense(1, activation="sigmoid", name="probability")]
    return [*layers, keras.layers.Dense(n_classes, activation="softmax", name="probability")]


def _to_rgb(x: Any) -> Any:
    return keras.layers.Concatenate()([x, x, x])


def _chain(layers: list[keras.Layer], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
