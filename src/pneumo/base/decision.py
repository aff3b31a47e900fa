"""From networks' probabilities to calibrated probabilities and decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SMALLEST = 1e-7


@dataclass(frozen=True)
class DecisionRule:
    """How a model decides; fitted on validation alone.

    Attributes:
        threshold: the second of two classes is chosen from this probability on, as the network gives it; None
            for more classes, of which the most probable is chosen.
        temperature: above 0; log probabilities are divided by it.
    """

    threshold: float | None
    temperature: float

    def decide(self, probabilities: npt.NDArray[np.floating]) -> IntArray:
        """Choose a class for each image.

        Args:
            probabilities: float array of shape (n, n_classes), as the network gives them.

        Returns:
            int array of shape (n,), class numbers.
        """
        if self.threshold is None:
            return probabilities.argmax(axis=1)
        return (probabilities[:, 1] >= self.threshold).astype(np.int64)

    def calibrate(self, probabilities: npt.NDArray[np.floating]) -> FloatArray:
        """Return calibrated probabilities of the same shape, float array (n, n_classes), rows sum to 1."""
        return scale_temperature(probabilities, self.temperature)

    @property
    def calibrated_threshold(self) -> float | None:
        """The threshold on the scale of calibrated probabilities, in [0, 1]."""
        if self.threshold is None:
            return None
        at = min(max(self.threshold, 0.0), 1.0)
        return float(self.calibrate(np.array([[1 - at, at]]))[0, 1])


def scale_temperature(probabilities: npt.NDArray[np.floating], temperature: float) -> FloatArray:
    """Divide log probabilities by a temperature; the order of images within two classes stays as it is.

    Args:
        probabilities: float array of shape (n, n_classes).
        temperature: above 0; 1 changes nothing.

    Returns:
        float array of shape (n, n_classes), rows sum to 1.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    logits = np.log(np.clip(probabilities.astype(np.float64), _SMALLEST, 1)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def average_logits(probabilities: Sequence[npt.NDArray[np.floating]]) -> FloatArray:
    """Join the networks of an ensemble by the mean of their logits; one network alone changes nothing.

    Args:
        probabilities: of each network a float array of shape (n, n_classes), rows sum to 1.

    Returns:
        float array of shape (n, n_classes), rows sum to 1.
    """
    if len(probabilities) == 1:
        return probabilities[0].astype(np.float64)
    logits = np.mean(
        [np.log(np.clip(each.astype(np.float64), _SMALLEST, 1)) for each in probabilities], axis=0
    )
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
