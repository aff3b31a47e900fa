"""Where in an image the thorax is, and images with a part blanked: to ask a model what it looks at.

The thorax is taken to lie in an ellipse in the middle. On the real images, squashed to a square, it holds the
lungs of all but oddly centred ones, and leaves out corners, borders, arms and most of the burnt-in markers.
After a combo that crops, the lungs reach beyond it.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

THORAX_RADIUS_FRACTION = 0.44  # of the side; pi * 0.44 ** 2 = 61 % of the image
MARKER_CONTRAST = 60  # grey levels above what surrounds a marker's strokes
_STROKE_FRACTION = 1 / 16  # of the side: wider bright structures are no strokes of a letter
_INPAINT_RADIUS_PX = 3

Image = npt.NDArray[np.uint8]


def find_thorax(size_px: int) -> npt.NDArray[np.bool_]:
    """Return the ellipse in which the thorax lies, bool of shape (size_px, size_px)."""
    at = (np.arange(size_px) + 0.5) / size_px - 0.5
    return at[:, None] ** 2 + at[None, :] ** 2 <= THORAX_RADIUS_FRACTION**2


def blank_thorax(image: Image) -> Image:
    """Fill the thorax with the image's mean: what a model says now, it does not say of lungs."""
    return _fill(image, find_thorax(len(image)))


def keep_thorax(image: Image) -> Image:
    """Fill everything but the thorax with the image's mean."""
    return _fill(image, ~find_thorax(len(image)))


def erase_markers(image: Image) -> Image:
    """Paint over burnt-in letters outside the thorax from what surrounds them.

    Letters are what is narrow and much brighter than its surroundings. Thin bright bones and tubes at the
    edge of the picture can go with them.

    Args:
        image: uint8 array of shape (size_px, size_px).
    """
    mask = find_markers(image)
    if not mask.any():
        return image
    painted: Any = cv2.inpaint(image, mask.astype(np.uint8), _INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    return painted


def find_markers(image: Image) -> npt.NDArray[np.bool_]:
    """Return where `erase_markers` paints, bool of the image's shape."""
    width = max(3, round(_STROKE_FRACTION * len(image)))
    above: Any = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones((width, width), np.uint8))
    found = (above > MARKER_CONTRAST) & ~find_thorax(len(image))
    return cv2.dilate(found.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def score_outside(attention: npt.NDArray[np.float64]) -> float:
    """Return the share of attention outside the thorax; nan where there is none at all.

    Args:
        attention: float array of shape (size_px, size_px), 0 or more. Spread evenly, 0.39 of it lies outside.
    """
    total = attention.sum()
    return float(attention[~find_thorax(len(attention))].sum() / total) if total > 0 else float("nan")


def _fill(image: Image, mask: npt.NDArray[np.bool_]) -> Image:
    filled = image.copy()
    filled[mask] = round(float(image.mean()))
    return filled
