"""Where in an image a bundle's networks found what they decided by."""

import cv2
import numpy as np
import numpy.typing as npt

from pneumo.audit import attribution
from pneumo.base.errors import PneumoError
from pneumo.prediction.bundle import KERAS, Bundle
from pneumo.prediction.keras_network import load_keras
from pneumo.preprocessing.steps import Image

FloatArray = npt.NDArray[np.float64]
_OPACITY = 0.5  # of a map where it is strongest


class Explainer:
    """Draws Grad-CAM, or occlusion for networks without convolutions; see `audit.attribution`.

    Args:
        bundle: with its networks in Keras.

    Raises:
        PneumoError: it has them in ONNX alone, which has no gradients, or a network cannot be loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        if KERAS not in bundle.formats:
            raise PneumoError(
                f"{bundle.path}: Expected networks in Keras, to explain their decisions. Received: ONNX only."
            )
        self._classes = bundle.card.classes
        # Loaded anew, because a scorer changes the network that it is made of.
        self._scorers = [
            attribution.open_classifier(load_keras(bundle, number)) for number in range(len(bundle.card.runs))
        ]

    def draw_map(self, image: Image, label: str) -> FloatArray:
        """Draw what speaks for a class.

        Args:
            image: uint8 array of shape (size_px, size_px), preprocessed.
            label: the class.

        Returns:
            float array of shape (size_px, size_px) in [0, 1], the mean over the networks; 0 everywhere where
            nothing speaks for the class.
        """
        number = np.array([self._classes.index(label)])
        images = image[None, ..., None]
        drawn = np.mean(
            [attribution.draw_first_map(each, images, number)[0] for each in self._scorers], axis=0
        )
        return drawn / drawn.max() if drawn.max() > 0 else drawn


def colour_map(attention: FloatArray) -> npt.NDArray[np.uint8]:
    """Return a map as colours that lie over the image, the weaker the more transparent.

    Args:
        attention: float array of shape (size_px, size_px) in [0, 1].

    Returns:
        uint8 array of shape (size_px, size_px, 4): red, green, blue, alpha.
    """
    levels = np.rint(attention * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.dstack([colours, levels])


def lay_over(image: Image, attention: FloatArray) -> npt.NDArray[np.uint8]:
    """Return an image with its map over it, uint8 array of shape (size_px, size_px, 3), red, green, blue."""
    colours = colour_map(attention)
    alpha = _OPACITY * colours[..., 3:] / 255
    return np.rint(image[..., None] * (1 - alpha) + colours[..., :3] * alpha).astype(np.uint8)
