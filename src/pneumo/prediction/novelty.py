"""How far an image lies from those that a network was trained on, in the network's own features.

Features are scaled to length 1, so that what counts is which of them are strong. Those of training are taken
for a normal distribution whose covariance is free in its N_AXES widest directions and the same in all others
(probabilistic principal component analysis). The distance of an image is the Mahalanobis distance under it.
The unit of distance is chosen on validation: FALSE_ALARM_FRACTION of its images lie beyond 1.

What is kept is a float32 array of shape (2 + n_axes, n_features). Row 0 is the mean; row 1 is the factor of
each feature; the other rows are axes. With z the scaled features less the mean, the distance is
sqrt(|row1 * z|^2 - |axes @ z|^2).

benchmarks/unlike.py measures what is noticed. Features that are averaged over the image say little of where
in it things lie: small networks do not notice an image that lies upside down.

Source: Tipping and Bishop 1999, doi:10.1111/1467-9868.00196; Lee et al. 2018, A Simple Unified Framework for
Detecting Out-of-Distribution Samples.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

N_AXES = 64
FALSE_ALARM_FRACTION = 0.01  # of validation images
_SMALLEST_VARIANCE = 1e-6  # as a fraction of the mean variance; a feature that is always 0 has none
_SMALLEST_DISTANCE = 1e-12
_N_LEADING_ROWS = 2


def fit_novelty(features: Float32Array) -> Float32Array:
    """Describe the features of training images.

    Args:
        features: float array of shape (n, n_features), n at least 2.

    Returns:
        The array described above, float32 of shape (2 + n_axes, n_features), for a distance whose mean square
        over the training images is n_features.
    """
    scaled = _scale_to_length_one(features)
    mean = scaled.mean(axis=0)
    covariance = np.cov(scaled, rowvar=False).reshape(len(mean), len(mean))
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    floor = max(_SMALLEST_VARIANCE * values.mean(), np.finfo(np.float32).tiny)
    n_axes = min(N_AXES, len(values) - 1, len(features) - 1)
    variances = np.maximum(values[:n_axes], floor)
    rest = max(values[n_axes:].mean(), floor)
    axes = np.sqrt(np.maximum(1 / rest - 1 / variances, 0)) * vectors[:, :n_axes]
    factors = np.full(len(mean), np.sqrt(1 / rest))
    return np.vstack([mean, factors, axes.T]).astype(np.float32)


def measure_distance(features: Float32Array, description: Float32Array) -> FloatArray:
    """Return the distance of each image, float array of shape (n,), 0 or more.

    Args:
        features: float array of shape (n, n_features).
        description: as `fit_novelty` or `set_unit` returns it.
    """
    mean, factors, axes = np.split(description.astype(np.float64), [1, _N_LEADING_ROWS])
    shifted = _scale_to_length_one(features) - mean
    squares = ((shifted * factors) ** 2).sum(axis=1) - ((shifted @ axes.T) ** 2).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0))


def set_unit(description: Float32Array, unit: float) -> Float32Array:
    """Return the description under which what lay at the distance `unit` lies at 1."""
    scaled = description.copy()
    scaled[1:] /= unit
    return scaled


def fit_ensemble(training: Sequence[Float32Array], validation: Sequence[Float32Array]) -> list[Float32Array]:
    """Describe the features of each network so that FALSE_ALARM_FRACTION of validation lies beyond 1.

    Args:
        training: of each network the features of training images, float array of shape (n, n_features).
        validation: of each network the features of validation images.
    """
    descriptions = []
    for of_training, of_validation in zip(training, validation, strict=True):
        description = fit_novelty(of_training)
        descriptions.append(set_unit(description, _find_limit(measure_distance(of_validation, description))))
    joint = _find_limit(measure_ensemble(validation, descriptions))
    return [set_unit(description, joint) for description in descriptions]


def measure_ensemble(features: Sequence[Float32Array], descriptions: Sequence[Float32Array]) -> FloatArray:
    """Return the mean distance over the networks of an ensemble, float array of shape (n,).

    Args:
        features: of each network a float array of shape (n, n_features).
        descriptions: of each network, as `fit_ensemble` returns them.
    """
    return np.mean(
        [
            measure_distance(each, description)
            for each, description in zip(features, descriptions, strict=True)
        ],
        axis=0,
    )


def _find_limit(distances: FloatArray) -> float:
    return max(float(np.quantile(distances, 1 - FALSE_ALARM_FRACTION)), _SMALLEST_DISTANCE)


def _scale_to_length_one(features: Float32Array) -> FloatArray:
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return features / np.maximum(lengths, _SMALLEST_DISTANCE)
