"""Where the thorax lies in an image, and images with one part removed.

The thorax is taken to lie in an ellipse in the middle of the image. On the real images, squashed to a square,
the ellipse holds the lungs of nearly all images. It leaves out the corners, the borders, the arms and most
burnt-in markers. After a combo that crops, the lungs reach beyond the ellipse.

A part that is removed is filled with the mean of the part that stays. The result therefore depends on nothing
that was removed.
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
    """Fill the thorax with the mean of its surroundings.

    Args:
        image: uint8 array of shape (size_px, size_px).

    Returns:
        The same shape and type. It does not depend on any pixel of the thorax.
    """
    return fill_part(image, find_thorax(len(image)))


def keep_thorax(image: Image) -> Image:
    """Fill the surroundings of the thorax with the mean of the thorax.

    Args:
        image: uint8 array of shape (size_px, size_px).

    Returns:
        The same shape and type. It does not depend on any pixel outside the thorax.
    """
    return fill_part(image, ~find_thorax(len(image)))


def fill_part(image: Image, part: npt.NDArray[np.bool_]) -> Image:
    """Fill a part of an image with the mean of the rest.

    Args:
        image: uint8 array of shape (height, width).
        part: bool array of the same shape, true where the image is filled; at least one value is false.

    Returns:
        A new array. It does not depend on the pixels that were filled.
    """
    filled = image.copy()
    filled[part] = round(float(image[~part].mean()))
    return filled


def erase_markers(image: Image) -> Image:
    """Paint over burnt-in letters outside the thorax, from the pixels around them.

    Letters are found as narrow strokes much brighter than their surroundings. Thin bright bones and tubes
    near the border can be painted over as well. The thorax stays as it is. A smooth spot remains where a
    letter was, so a model that uses only the place of a marker may not be found out.

    Args:
        image: uint8 array of shape (size_px, size_px).
    """
    mask = find_markers(image)
    if not mask.any():
        return image
    painted: Any = cv2.inpaint(image, mask.astype(np.uint8), _INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    return painted


def find_markers(image: Image) -> npt.NDArray[np.bool_]:
    """Return where `erase_markers` paints, bool of the image's shape, false in the thorax."""
    width = max(3, round(_STROKE_FRACTION * len(image)))
    above: Any = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, np.ones((width, width), np.uint8))
    surroundings = ~find_thorax(len(image))
    found = (above > MARKER_CONTRAST) & surroundings
    return cv2.dilate(found.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & surroundings


def score_outside(attention: npt.NDArray[np.float64]) -> float:
    """Return the share of attention outside the thorax; nan where there is no attention at all.

    Args:
        attention: float array of shape (size_px, size_px), 0 or more. Of attention spread evenly, 0.39 lies
            outside.
    """
    total = attention.sum()
    return float(attention[~find_thorax(len(attention))].sum() / total) if total > 0 else float("nan")
