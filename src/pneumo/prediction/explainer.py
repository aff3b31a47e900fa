"""Where in an image a bundle's networks found what they decided by."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from pneumo.base.errors import PneumoError
from pneumo.base.messages import hold_messages
from pneumo.prediction.bundle import KERAS, Bundle
from pneumo.prediction.novelty import Float32Array
from pneumo.prediction.predictor import Predictor
from pneumo.preprocessing.steps import Image

FloatArray = npt.NDArray[np.float64]
_OPACITY = 0.5  # of a map where it is strongest
_DrawMap = Callable[[Image, int], FloatArray]  # of one network: image, class number -> map, not yet scaled


class Explainer:
    """Draws what speaks for a class.

    Networks in ONNX draw it from their class activation maps, where they have any. Else it needs Keras, which
    takes seconds to load: Grad-CAM, or occlusion for networks without convolutions; see `audit.attribution`.
    Class activation maps and Grad-CAM are then the same.

    Args:
        bundle: the model.
        predictor: the same model, loaded.

    Raises:
        PneumoError: `can_explain` says no, or a network cannot be loaded.
    """

    def __init__(self, bundle: Bundle, predictor: Predictor) -> None:
        if not can_explain(bundle, predictor):
            raise PneumoError(
                f"{bundle.path}: Expected networks in Keras, or in ONNX with class activation maps, to "
                "explain their decisions. Received: neither."
            )
        self._classes = bundle.card.classes
        ways = [each.draw_class_maps for each in predictor.networks]
        self._draw = [_use_class_maps(each) for each in ways if each]
        if len(self._draw) < len(ways):
            self._draw = _load_keras(bundle)

    def draw_map(self, image: Image, label: str) -> FloatArray:
        """Draw what speaks for a class.

        Args:
            image: uint8 array of shape (size_px, size_px), preprocessed.
            label: the class.

        Returns:
            float array of shape (size_px, size_px) in [0, 1], the mean over the networks; 0 everywhere where
            nothing speaks for the class.
        """
        number = self._classes.index(label)
        drawn = np.mean([draw(image, number) for draw in self._draw], axis=0)
        return drawn / drawn.max() if drawn.max() > 0 else drawn


def can_explain(bundle: Bundle, predictor: Predictor) -> bool:
    """Say whether a model is there in Keras, or its networks have class activation maps."""
    return KERAS in bundle.formats or all(each.draw_class_maps for each in predictor.networks)


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


def _use_class_maps(draw_class_maps: Callable[[Image], Float32Array]) -> _DrawMap:
    def draw(image: Image, number: int) -> FloatArray:
        (views,) = draw_class_maps(image[None, ..., None]).astype(np.float64)
        # Of two classes there is one logit, that of the second.
        logit = np.stack([-views[..., 0], views[..., 0]], axis=-1) if views.shape[-1] == 1 else views
        attention = np.maximum(logit[..., number], 0).mean(axis=0)
        return cv2.resize(attention, image.shape[::-1], interpolation=cv2.INTER_LINEAR)

    return draw


def _load_keras(bundle: Bundle) -> list[_DrawMap]:
    with hold_messages():
        from pneumo.audit import attribution, scorers
        from pneumo.prediction.keras_network import load_keras

    def open_network(number: int) -> _DrawMap:
        # Loaded anew, because a scorer changes the network that it is made of.
        scorer = scorers.open_classifier(load_keras(bundle, number))
        return lambda image, label: attribution.draw_first_map(
            scorer, image[None, ..., None], np.array([label])
        )[0]

    return [open_network(number) for number in range(len(bundle.card.runs))]
