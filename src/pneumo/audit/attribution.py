"""Maps of the pixels that a network's decision rests on: Grad-CAM and occlusion, and a sanity check of them.

A score here is a logit, the network's output before its last activation. Probabilities near 0 and 1 hardly
change when the image changes; logits do. For two classes the score of the second class is the logit and the
score of the first is its negative.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt

from pneumo.audit import regions
from pneumo.audit.scorers import Images, Scorer

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Outputs = npt.NDArray[np.float32]

N_PATCHES = 8  # along each side
BATCH_SIZE = 64
_STEP_FRACTION = 0.01  # of the features' standard deviation


def score_images(scorer: Scorer, images: Images) -> FloatArray:
    """Return a score for each class, float array of shape (n, n_classes).

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
    """
    scores = _predict_scores(scorer, images)
    return (
        _average_scores(scores, _predict_scores(scorer, _mirror(images))) if scorer.averages_flips else scores
    )


def find_probabilities(scores: FloatArray) -> FloatArray:
    """Turn scores of shape (n, n_classes) into the probabilities that the network gives."""
    return np.exp(_find_log_probabilities(scores))


def predict_probabilities(scorer: Scorer, images: Images) -> FloatArray:
    """Return the probability of each class, float array of shape (n, n_classes).

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
    """
    return find_probabilities(score_images(scorer, images))


def score_views(
    scorer: Scorer, images: Images, rows: IntArray, views: Mapping[str, Callable[[Image], Image]]
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the probabilities for images as they are, and for each view of them.

    The images as they are are predicted here as well, not taken from predictions.csv, so that both sides of a
    comparison come from the same computation. Memory holds one batch, not the images.

    Args:
        scorer: the network.
        images: uint8 array of shape (n_all, size_px, size_px, 1), memory-mapped or not.
        rows: int array of shape (n,), the images to score.
        views: name -> function of an image of shape (size_px, size_px).

    Returns:
        Float arrays of shape (n, n_classes), in the order of `rows`.
    """
    as_is: list[FloatArray] = []
    changed: dict[str, list[FloatArray]] = {name: [] for name in views}
    for start in range(0, len(rows), BATCH_SIZE):
        batch = images[rows[start : start + BATCH_SIZE]]
        as_is.append(score_images(scorer, batch))
        for name, change in views.items():
            pixels = np.array([change(image[..., 0]) for image in batch], np.uint8)[..., None]
            changed[name].append(score_images(scorer, pixels))
    return find_probabilities(np.concatenate(as_is)), {
        name: find_probabilities(np.concatenate(scores)) for name, scores in changed.items()
    }


def draw_maps(scorer: Scorer, images: Images, classes: IntArray) -> dict[str, FloatArray]:
    """Explain decisions by `Grad-CAM`, for a network with convolutions, and by `occlusion`.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each image.

    Returns:
        name -> float array of shape (n, size_px, size_px), 0 or more.
    """
    gradients = map_gradients(scorer, images, classes)
    maps = {} if gradients is None else {"Grad-CAM": gradients}
    return maps | {"occlusion": map_occlusion(scorer, images, classes)}


def draw_first_map(scorer: Scorer, images: Images, classes: IntArray) -> FloatArray:
    """Draw only the first of the maps of `draw_maps`."""
    gradients = map_gradients(scorer, images, classes)
    return map_occlusion(scorer, images, classes) if gradients is None else gradients


def map_gradients(scorer: Scorer, images: Images, classes: IntArray) -> FloatArray | None:
    """Draw Grad-CAM: the last feature maps, weighted by how much each raises the score of a class.

    A map's weight is the derivative of the score with respect to an offset to the whole map. It is a
    difference quotient, because Keras has no gradients that all of its backends share.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each image.

    Returns:
        float array of shape (n, size_px, size_px), 0 or more; None for a network without convolutions.

    A classifier that averages over mirror images has the mean of both maps.

    Source: Selvaraju et al. 2017, doi:10.1109/ICCV.2017.74.
    """
    if scorer.maps is None:
        return None
    maps = _predict(scorer.maps.predict_on_batch, images)
    attention = _weigh_maps(scorer, maps, classes)
    if scorer.averages_flips:
        maps = _predict(scorer.maps.predict_on_batch, _mirror(images))
        attention = (attention + _mirror(_weigh_maps(scorer, maps, classes))) / 2
    return _enlarge(attention, images.shape[1])


def map_occlusion(scorer: Scorer, images: Images, classes: IntArray) -> FloatArray:
    """Cover one patch at a time and measure by how much the score of a class falls.

    A patch is filled with the mean of the rest of the image.

    Args:
        scorer: the network.
        images: uint8 array of shape (n, size_px, size_px, 1).
        classes: int array of shape (n,), the class to explain for each image.

    Returns:
        float array of shape (n, size_px, size_px): the fall, 0 where covering raises the score.

    Source: Zeiler and Fergus 2014, doi:10.1007/978-3-319-10590-1_53.
    """
    patches = find_patches(images.shape[1])
    as_is = score_images(scorer, images)[np.arange(len(images)), classes]
    falls = np.empty((len(images), len(patches)))
    for row, image in enumerate(images):
        covered = np.array([regions.fill_part(image[..., 0], patch) for patch in patches])
        falls[row] = as_is[row] - score_images(scorer, covered[..., None])[:, classes[row]]
    return _enlarge(np.maximum(falls, 0).reshape(-1, N_PATCHES, N_PATCHES), images.shape[1])


def find_patches(size_px: int) -> npt.NDArray[np.bool_]:
    """Return the patches of `map_occlusion`, row by row.

    Args:
        size_px: height and width of the image, N_PATCHES or more.

    Returns:
        bool array of shape (N_PATCHES ** 2, size_px, size_px); each pixel lies in one patch.
    """
    edges = np.linspace(0, size_px, N_PATCHES + 1).round().astype(int)
    patch_of_px = np.repeat(np.arange(N_PATCHES), np.diff(edges))
    numbers = patch_of_px[:, None] * N_PATCHES + patch_of_px[None, :]
    return numbers == np.arange(N_PATCHES**2)[:, None, None]


def correlate_maps(maps: FloatArray, others: FloatArray) -> FloatArray:
    """Return the Pearson correlation of each map with another map of the same image.

    Args:
        maps: float array of shape (n, size_px, size_px).
        others: likewise.

    Returns:
        float array of shape (n,); nan where a map is constant, so that no correlation is defined.
    """
    rows, other_rows = (
        each.reshape(len(each), -1) - each.mean(axis=(1, 2))[:, None] for each in (maps, others)
    )
    is_constant = np.array([np.ptp(each, axis=(1, 2)) == 0 for each in (maps, others)]).any(axis=0)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(other_rows, axis=1)
    products = (rows * other_rows).sum(axis=1)
    return np.divide(products, norms, out=np.full(len(maps), np.nan), where=~is_constant)


def _weigh_maps(scorer: Scorer, maps: npt.NDArray[np.float32], classes: IntArray) -> FloatArray:
    vectors = keras.ops.convert_to_numpy(scorer.collapse(maps))
    n_maps = maps.shape[-1]
    directions = np.tile(np.eye(n_maps, dtype=np.float32), vectors.shape[1] // n_maps)
    attention = []
    for own_maps, vector, k in zip(maps, vectors, classes, strict=True):
        step = _STEP_FRACTION * max(float(own_maps.std()), 1e-6)
        offsets = step * directions
        scores = _spread(scorer.rest.predict_on_batch(np.vstack([vector + offsets, vector - offsets])))
        weights = (scores[:n_maps, k] - scores[n_maps:, k]) / (2 * step)
        attention.append(np.maximum(own_maps @ weights, 0))
    return np.array(attention)


def _predict_scores(scorer: Scorer, images: Images) -> FloatArray:
    return _spread(_predict(partial(_predict_batch, scorer), images))


def _predict_batch(scorer: Scorer, batch: Images) -> Outputs:
    if scorer.extract is None:
        return scorer.model.predict_on_batch(batch)
    return scorer.rest.predict_on_batch(scorer.extract(batch))


def _predict(predict_batch: Callable[[Images], Outputs], images: Images) -> Outputs:
    # Keras's `predict` prepares its input anew in each call, which takes longer than a small network does.
    batches = (images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE))
    return np.concatenate([predict_batch(batch) for batch in batches])


def _spread(outputs: Outputs) -> FloatArray:
    scores = outputs.astype(np.float64)
    return np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores


def _average_scores(scores: FloatArray, others: FloatArray) -> FloatArray:
    """Return the scores that belong to the mean of two sets of probabilities, without leaving logarithms."""
    logs = np.logaddexp(_find_log_probabilities(scores), _find_log_probabilities(others))
    return _spread(logs[:, 1:] - logs[:, :1]) if logs.shape[1] == 2 else logs


def _find_log_probabilities(scores: FloatArray) -> FloatArray:
    # Of two classes the scores are z and -z, and the network's sigmoid is the softmax of half of them.
    scores = scores / 2 if scores.shape[1] == 2 else scores
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def _mirror(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return images[:, :, ::-1]


def _enlarge(maps: FloatArray, size_px: int) -> FloatArray:
    return np.array([cv2.resize(each, (size_px, size_px), interpolation=cv2.INTER_LINEAR) for each in maps])
