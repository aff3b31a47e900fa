"""What in an image speaks for a network's decision: Grad-CAM and occlusion, and whether to believe them.

A score here is a logit, the network's output before its last activation: probabilities near 0 and 1 no longer
move when the image changes. For two classes the score of the second is the logit, that of the first its
negative.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Scorer:
    """A classifier, opened up; its parts share their weights.

    Attributes:
        model: uint8 images of shape (n, size_px, size_px, 1) -> logits of shape (n, 1) or (n, n_classes).
        maps: the same images -> the last feature maps, of shape (n, height, width, n_maps); None where there
            are no convolutions.
        collapse: the layer that turns feature maps into vectors, by pooling or by flattening.
        rest: these vectors -> logits.
    """

    model: keras.Model
    maps: keras.Model | None
    collapse: keras.Layer
    rest: keras.Model


def open_classifier(model: keras.Model) -> Scorer:
    """Open up a classifier of `networks.build_classifier`; from then on it gives logits itself."""
    owner = model.get_layer("head") if any(layer.name == "head" for layer in model.layers) else model
    owner.get_layer("probability").activation = keras.activations.linear
    collapse = next(
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.Flatten)
    )
    has_maps = collapse.input.shape[-1] != model.input.shape[-1]
    return Scorer(
        keras.Model(model.input, model.output),
        keras.Model(model.input, collapse.input) if has_maps else None,
        collapse,
        keras.Model(collapse.output, model.output),
    )


def score_images(scorer: Scorer, images: Images) -> FloatArray:
    """Return a score for each class, float array of shape (n, n_classes).

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
    """
    return _spread(scorer.model.predict(images, batch_size=BATCH_SIZE, verbose=0))


def find_probabilities(scores: FloatArray) -> FloatArray:
    """Turn scores of shape (n, n_classes) into the probabilities that the network gives."""
    # Of two classes the scores are z and -z, and the network's sigmoid is the softmax of half of them.
    scores = scores / 2 if scores.shape[1] == 2 else scores
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def score_views(
    scorer: Scorer, images: Images, views: Mapping[str, Callable[[Image], Image]]
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return a model's probabilities for images as they are, and for each view of them.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        views: name -> function of an image of shape (size_px, size_px).

    Returns:
        Float arrays of shape (n, n_classes).
    """

    def predict(pixels: Images) -> FloatArray:
        return find_probabilities(score_images(scorer, pixels))

    changed = {
        name: predict(np.array([change(image[..., 0]) for image in images])[..., None])
        for name, change in views.items()
    }
    return predict(images), changed


def draw_maps(scorer: Scorer, images: Images, classes: IntArray) -> dict[str, FloatArray]:
    """Explain decisions by `Grad-CAM`, for a network with convolutions, and by `occlusion`.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each.

    Returns:
        name -> float array of shape (n, size_px, size_px), 0 or more.
    """
    gradients = map_gradients(scorer, images, classes)
    maps = {} if gradients is None else {"Grad-CAM": gradients}
    return maps | {"occlusion": map_occlusion(scorer, images, classes)}


def draw_first_map(scorer: Scorer, images: Images, classes: IntArray) -> FloatArray:
    """Draw the first of the maps of `draw_maps` alone."""
    gradients = map_gradients(scorer, images, classes)
    return map_occlusion(scorer, images, classes) if gradients is None else gradients


def map_gradients(scorer: Scorer, images: Images, classes: IntArray) -> FloatArray | None:
    """Draw Grad-CAM: the last feature maps, weighted by how much each raises the score of a class.

    A map's weight is the derivative of the score by an offset to the whole map, taken as a difference
    quotient: Keras has no gradients that all of its backends share, and the layers behind the maps are few.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each.

    Returns:
        float array of shape (n, size_px, size_px), 0 or more; None for a network without convolutions.

    Source: Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74.
    """
    if scorer.maps is None:
        return None
    maps = scorer.maps.predict(images, batch_size=BATCH_SIZE, verbose=0)
    vectors = keras.ops.convert_to_numpy(scorer.collapse(maps))
    n_maps = maps.shape[-1]
    step = _STEP_FRACTION * max(float(maps.std()), 1e-6)
    offsets = step * np.tile(np.eye(n_maps, dtype=np.float32), vectors.shape[1] // n_maps)
    attention = []
    for own_maps, vector, k in zip(maps, vectors, classes, strict=True):
        scores = _spread(scorer.rest.predict_on_batch(np.vstack([vector + offsets, vector - offsets])))
        weights = (scores[:n_maps, k] - scores[n_maps:, k]) / (2 * step)
        attention.append(np.maximum(own_maps @ weights, 0))
    return _enlarge(np.array(attention), images.shape[1])


def map_occlusion(scorer: Scorer, images: Images, classes: IntArray) -> FloatArray:
    """Cover one patch after the other with the image's mean and see how far the score of a class falls.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each.

    Returns:
        float array of shape (n, size_px, size_px): the fall, 0 where covering raises the score.

    Source: Zeiler and Fergus 2014, doi:10.1007/978-3-319-10590-1_53.
    """
    edges = np.linspace(0, images.shape[1], N_PATCHES + 1).round().astype(int)
    covered = np.repeat(images, N_PATCHES**2, axis=0)
    for number, copy in enumerate(covered):
        row, column = divmod(number % N_PATCHES**2, N_PATCHES)
        copy[edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = round(float(copy.mean()))
    as_is = score_images(scorer, images)[np.arange(len(images)), classes]
    scores = score_images(scorer, covered)[np.arange(len(covered)), np.repeat(classes, N_PATCHES**2)]
    falls = as_is[:, None] - scores.reshape(len(images), -1)
    return _enlarge(np.maximum(falls, 0).reshape(-1, N_PATCHES, N_PATCHES), images.shape[1])


def shuffle_weights(scorer: Scorer, seed: int) -> None:
    """Shuffle the values within every weight array: the same network, but nothing learnt is left in it."""
    generator = np.random.default_rng(seed)
    arrays = scorer.model.get_weights()
    scorer.model.set_weights([generator.permutation(each.ravel()).reshape(each.shape) for each in arrays])


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
