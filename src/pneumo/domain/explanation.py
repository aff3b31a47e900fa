"""What in an image speaks for a network's decision: Grad-CAM and occlusion, and whether to believe them.

A score here is a logit, the network's output before its last activation: probabilities near 0 and 1 no longer
move when the image changes. For two classes the score of the second is the logit, that of the first its
negative.
"""

from collections.abc import Callable, Mapping

import cv2
import keras
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Images = npt.NDArray[np.uint8]

N_PATCHES = 8  # along each side
BATCH_SIZE = 64
_STEP_FRACTION = 0.01  # of the features' standard deviation


def remove_activation(model: keras.Model) -> keras.Model:
    """Return a classifier that gives logits instead of probabilities; it shares its weights.

    Args:
        model: of `networks.build_classifier`; its own last layer is changed, so that it gives logits too.
    """
    owner = model.get_layer("head") if any(layer.name == "head" for layer in model.layers) else model
    owner.get_layer("probability").activation = keras.activations.linear
    return keras.Model(model.input, model.output)


def score_images(model: keras.Model, images: Images) -> FloatArray:
    """Return a score for each class, float array of shape (n, n_classes).

    Args:
        model: gives logits.
        images: uint8 array of shape (n, size_px, size_px, 1).
    """
    return _spread(model.predict(images, batch_size=BATCH_SIZE, verbose=0))


def find_probabilities(scores: FloatArray) -> FloatArray:
    """Turn scores of shape (n, n_classes) into the probabilities that the network gives."""
    # Of two classes the scores are z and -z, and the network's sigmoid is the softmax of half of them.
    scores = scores / 2 if scores.shape[1] == 2 else scores
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def score_views(
    model: keras.Model, images: Images, views: Mapping[str, Callable[[Image], Image]]
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return a model's probabilities for images as they are, and for each view of them.

    Args:
        model: gives logits.
        images: uint8 array of shape (n, size_px, size_px, 1).
        views: name -> function of an image of shape (size_px, size_px).

    Returns:
        Float arrays of shape (n, n_classes).
    """

    def predict(pixels: Images) -> FloatArray:
        return find_probabilities(score_images(model, pixels))

    changed = {
        name: predict(np.array([change(image[..., 0]) for image in images])[..., None])
        for name, change in views.items()
    }
    return predict(images), changed


def draw_maps(model: keras.Model, images: Images, classes: IntArray) -> dict[str, FloatArray]:
    """Explain decisions by `Grad-CAM`, for a network with convolutions, and by `occlusion`.

    Args:
        model: gives logits.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each.

    Returns:
        name -> float array of shape (n, size_px, size_px), 0 or more.
    """
    gradients = map_gradients(model, images, classes)
    maps = {} if gradients is None else {"Grad-CAM": gradients}
    return maps | {"occlusion": map_occlusion(model, images, classes)}


def map_gradients(model: keras.Model, images: Images, classes: IntArray) -> FloatArray | None:
    """Draw Grad-CAM: the last feature maps, weighted by how much each raises the score of a class.

    A map's weight is the derivative of the score by an offset to the whole map, taken as a difference
    quotient: Keras has no gradients that all of its backends share, and the layers behind the maps are few.

    Args:
        model: gives logits.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each.

    Returns:
        float array of shape (n, size_px, size_px), 0 or more; None for a network without convolutions.

    Source: Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74.
    """
    end = next(
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.Flatten)
    )
    maps = keras.Model(model.input, end.input).predict(images, batch_size=BATCH_SIZE, verbose=0)
    n_maps = maps.shape[-1]
    if n_maps == images.shape[-1]:
        return None
    rest = keras.Model(end.output, model.output)
    vectors = keras.ops.convert_to_numpy(end(maps))
    step = _STEP_FRACTION * max(float(maps.std()), 1e-6)
    offsets = step * np.tile(np.eye(n_maps, dtype=np.float32), vectors.shape[1] // n_maps)
    attention = []
    for own_maps, vector, k in zip(maps, vectors, classes, strict=True):
        scores = _spread(rest.predict(np.vstack([vector + offsets, vector - offsets]), 256, verbose=0))
        weights = (scores[:n_maps, k] - scores[n_maps:, k]) / (2 * step)
        attention.append(np.maximum(own_maps @ weights, 0))
    return _enlarge(np.array(attention), images.shape[1])


def map_occlusion(model: keras.Model, images: Images, classes: IntArray) -> FloatArray:
    """Cover one patch after the other with the image's mean and see how far the score of a class falls.

    Args:
        model: gives logits.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each.

    Returns:
        float array of shape (n, size_px, size_px): the fall, 0 where covering raises the score.

    Source: Zeiler and Fergus 2014, doi:10.1007/978-3-319-10590-1_53.
    """
    edges = np.linspace(0, images.shape[1], N_PATCHES + 1).round().astype(int)
    attention = []
    for image, k in zip(images, classes, strict=True):
        covered = np.repeat(image[None], N_PATCHES**2 + 1, axis=0)
        for number, copy in enumerate(covered[:-1]):
            row, column = divmod(number, N_PATCHES)
            copy[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = round(float(image.mean()))
        scores = score_images(model, covered)[:, k]
        attention.append(np.maximum(scores[-1] - scores[:-1], 0).reshape(N_PATCHES, N_PATCHES))
    return _enlarge(np.array(attention), images.shape[1])


def shuffle_weights(model: keras.Model, seed: int) -> None:
    """Shuffle the values within every weight array: the same network, but nothing learnt is left in it."""
    generator = np.random.default_rng(seed)
    model.set_weights(
        [generator.permutation(weights.ravel()).reshape(weights.shape) for weights in model.get_weights()]
    )


def correlate_maps(maps: FloatArray, others: FloatArray) -> float:
    """Return the mean correlation of maps with others of the same images.

    Args:
        maps: float array of shape (n, size_px, size_px).
        others: likewise. Pairs in which one map is the same everywhere count as 0.
    """
    rows, other_rows = (
        each.reshape(len(each), -1) - each.mean(axis=(1, 2))[:, None] for each in (maps, others)
    )
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(other_rows, axis=1)
    products = (rows * other_rows).sum(axis=1)
    return float(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0).mean())


def _spread(outputs: npt.NDArray[np.float32]) -> FloatArray:
    scores = outputs.astype(np.float64)
    return np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores


def _enlarge(maps: FloatArray, size_px: int) -> FloatArray:
    return np.array([cv2.resize(each, (size_px, size_px), interpolation=cv2.INTER_LINEAR) for each in maps])
