"""Preprocessing steps: functions of one image and their own parameters, nothing else.

A step takes and returns a grey image, a uint8 array of shape (height, width) with values 0 to 255. It knows
neither label nor split nor file name. To add a step, write a function here under `@step`: its name is the
step's name in params.yaml, its keyword arguments are the step's parameters, and the ValueErrors that it
raises are shown to the user before any image is read.
"""

import math
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

FUNCTIONS: dict[str, Callable[..., Image]] = {}
GEOMETRIC: set[str] = set()

_N_GREY_LEVELS = 256
_MAX_TILES = 64
_MAX_SIGMA_PX = 100  # the time grows with it


def step(*, geometric: bool = False) -> Callable[[Callable[..., Image]], Callable[..., Image]]:
    """Register a function as a preprocessing step.

    Args:
        geometric: the step changes the image's height or width; such steps come before `resize`.
    """

    def register(function: Callable[..., Image]) -> Callable[..., Image]:
        FUNCTIONS[function.__name__] = function
        if geometric:
            GEOMETRIC.add(function.__name__)
        return function

    return register


# Geometry


@step(geometric=True)
def crop(
    image: Image,
    *,
    margin: float = 0.08,
    top: float | None = None,
    bottom: float | None = None,
    left: float | None = None,
    right: float | None = None,
) -> Image:
    """Remove margins.

    Args:
        image: uint8 array of shape (height, width).
        margin: fraction of the height or width to remove from every side, in [0, 0.5).
        top: fraction of the height to remove from the top in place of `margin`.
        bottom: fraction of the height to remove from the bottom in place of `margin`.
        left: fraction of the width to remove from the left in place of `margin`.
        right: fraction of the width to remove from the right in place of `margin`.
    """
    height, width = image.shape
    sides = [margin if side is None else side for side in (top, bottom, left, right)]
    if min(sides) < 0 or sides[0] + sides[1] >= 1 or sides[2] + sides[3] >= 1:
        raise ValueError(f"Expected margins of 0 or more, opposite ones below 1 together. Received: {sides}")
    first_row, first_column = int(height * sides[0]), int(width * sides[2])
    last_row = max(height - int(height * sides[1]), first_row + 1)
    last_column = max(width - int(width * sides[3]), first_column + 1)
    return image[first_row:last_row, first_column:last_column]


@step(geometric=True)
def trim(image: Image, *, darkness: float = 0.25, max_fraction: float = 0.3) -> Image:
    """Remove collimation borders and black bars: the rows and columns at the edges that are mostly dark.

    Args:
        image: uint8 array of shape (height, width).
        darkness: a row or column is border while its median is below this fraction of the median of the
            image's central half, in [0, 1].
        max_fraction: greatest fraction of the height or width that is removed from one side, in [0, 0.5).
    """
    if not 0 <= darkness <= 1:
        raise ValueError(f"Expected darkness in [0, 1]. Received: {darkness}")
    if not 0 <= max_fraction < 0.5:
        raise ValueError(f"Expected max_fraction in [0, 0.5). Received: {max_fraction}")
    height, width = image.shape
    centre = image[height // 4 : height - height // 4, width // 4 : width - width // 4]
    limit = darkness * float(np.median(centre))
    first, last = _bright_span(np.median(image, axis=1) >= limit, max_fraction)
    image = image[first:last]
    first, last = _bright_span(np.median(image, axis=0) >= limit, max_fraction)
    return image[:, first:last]


def _bright_span(is_bright: npt.NDArray[np.bool_], max_fraction: float) -> tuple[int, int]:
    n = len(is_bright)
    most = int(n * max_fraction)
    dark_before = int(np.argmax(is_bright)) if is_bright.any() else 0
    dark_after = int(np.argmax(is_bright[::-1])) if is_bright.any() else 0
    return min(dark_before, most), n - min(dark_after, most)


@step(geometric=True)
def resize(
    image: Image, *, size_px: int, mode: Literal["squash", "letterbox", "center_crop"] = "squash"
) -> Image:
    """Resize to `size_px` x `size_px`: area averages where the image shrinks, linear interpolation elsewhere.

    Args:
        image: uint8 array of shape (height, width).
        size_px: height and width of the result, 16 or more; in params.yaml always `image_size_px`.
        mode: `squash` changes the aspect ratio, `letterbox` keeps it and pads with black, `center_crop` keeps
            it and removes what lies outside of the central square.
    """
    if size_px < 16:
        raise ValueError(f"Expected size_px of 16 or more. Received: {size_px}")
    height, width = image.shape
    if mode == "center_crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if mode != "letterbox":
        return _resample(image, size_px, size_px)
    scale = size_px / max(height, width)
    inner_height = min(size_px, max(1, round(height * scale)))
    inner_width = min(size_px, max(1, round(width * scale)))
    canvas = np.zeros((size_px, size_px), np.uint8)
    top, left = (size_px - inner_height) // 2, (size_px - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = _resample(image, inner_height, inner_width)
    return canvas


def _resample(image: Image, height: int, width: int) -> Image:
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)


# Contrast and brightness


@step()
def clahe(image: Image, *, clip_limit: float = 2.0, tiles: int = 8) -> Image:
    """Equalise the histogram tile by tile, with limited contrast (CLAHE; Zuiderveld 1994).

    Args:
        image: uint8 array of shape (height, width).
        clip_limit: highest bin of a tile's histogram, as a multiple of the mean bin, above 0 and up to 256,
            which clips nothing. It is rounded, see `find_clip_px`.
        tiles: number of tiles along each side, 1 to 64.
    """
    if not (0 < clip_limit <= _N_GREY_LEVELS and 1 <= tiles <= _MAX_TILES):
        raise ValueError(
            f"Expected clip_limit above 0 and up to {_N_GREY_LEVELS}, and tiles from 1 to {_MAX_TILES}. "
            f"Received: {clip_limit}, {tiles}"
        )
    return cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles, tiles)).apply(image)  # type: ignore[return-value]


def find_clip_px(clip_limit: float, tiles: int, size_px: int) -> int:
    """Return the highest bin of a tile's histogram in pixels, as OpenCV rounds it.

    OpenCV clips at whole pixels, at least 1. Limits that are rounded to the same number give the same images.

    Args:
        clip_limit: as in `clahe`.
        tiles: as in `clahe`.
        size_px: height and width of the image; OpenCV pads it to a multiple of `tiles`.

    Source: modules/imgproc/src/clahe.cpp of OpenCV 4 and 5.
    """
    return max(1, int(clip_limit * math.ceil(size_px / tiles) ** 2 / _N_GREY_LEVELS))


@step()
def equalize(image: Image) -> Image:
    """Equalise the histogram of the whole image."""
    return cv2.equalizeHist(image)  # type: ignore[return-value]


@step()
def gamma(image: Image, *, gamma: float) -> Image:
    """Raise grey values, scaled to [0, 1], to the power `gamma`; below 1 brightens, above 1 darkens."""
    if gamma <= 0:
        raise ValueError(f"Expected gamma > 0. Received: {gamma}")
    return _apply_table(image, 255 * (np.arange(256) / 255) ** gamma)


@step()
def invert(image: Image) -> Image:
    """Swap black and white."""
    return 255 - image


@step()
def brightness(image: Image, *, factor: float = 1.0, offset: float = 0.0) -> Image:
    """Multiply grey values by `factor` (0 or more), add `offset` (in grey levels) and clip to 0 to 255."""
    if factor < 0:
        raise ValueError(f"Expected factor of 0 or more. Received: {factor}")
    return _apply_table(image, np.arange(256) * factor + offset)


@step()
def stretch(image: Image, *, low_percentile: float = 1.0, high_percentile: float = 99.0) -> Image:
    """Stretch grey values linearly so that two percentiles become 0 and 255; values beyond are clipped."""
    if not 0 <= low_percentile < high_percentile <= 100:
        raise ValueError(
            "Expected 0 <= low_percentile < high_percentile <= 100. "
            f"Received: {low_percentile}, {high_percentile}"
        )
    low, high = np.percentile(image, [low_percentile, high_percentile])
    return _apply_table(image, (np.arange(256) - low) * 255 / max(high - low, 1))


def _apply_table(image: Image, values: npt.NDArray[np.floating]) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)[image]


# Noise, sharpness and edges


@step()
def median(image: Image, *, size_px: int = 3) -> Image:
    """Replace each pixel by the median of the `size_px` x `size_px` pixels around it (odd, 3 to 255)."""
    if not 3 <= size_px <= 255 or size_px % 2 == 0:
        raise ValueError(f"Expected an odd size_px from 3 to 255. Received: {size_px}")
    return cv2.medianBlur(image, size_px)  # type: ignore[return-value]


@step()
def gaussian(image: Image, *, sigma_px: float = 1.0) -> Image:
    """Blur with a Gaussian of standard deviation `sigma_px`, above 0 and up to 100."""
    _check_sigma(sigma_px)
    return cv2.GaussianBlur(image, (0, 0), sigma_px)  # type: ignore[return-value]


def _check_sigma(sigma_px: float) -> None:
    if not 0 < sigma_px <= _MAX_SIGMA_PX:
        raise ValueError(f"Expected sigma_px above 0 and up to {_MAX_SIGMA_PX}. Received: {sigma_px}")


@step()
def unsharp(image: Image, *, sigma_px: float = 2.0, amount: float = 1.0) -> Image:
    """Sharpen: add `amount` (0 or more) times the difference from the image after `gaussian`."""
    _check_sigma(sigma_px)
    if amount < 0:
        raise ValueError(f"Expected amount of 0 or more. Received: {amount}")
    blurred = cv2.GaussianBlur(image, (0, 0), sigma_px)
    return cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)  # type: ignore[return-value]


@step()
def canny(image: Image, *, low: float = 40.0, high: float = 80.0) -> Image:
    """Mark edges white on black (Canny 1986): gradients above `high`, and above `low` where connected."""
    if not 0 <= low <= high:
        raise ValueError(f"Expected 0 <= low <= high. Received: {low}, {high}")
    return cv2.Canny(image, low, high)  # type: ignore[return-value]


@step()
def sobel(image: Image) -> Image:
    """Replace the image by the magnitude of its gradient (3 x 3 Sobel, divided by 4, clipped at 255)."""
    across, down = (cv2.Sobel(image, cv2.CV_16S, *order).astype(np.int32) for order in ((1, 0), (0, 1)))
    # Not cv2.magnitude: OpenCV 5 takes approximate roots, and other ones in other threads.
    return np.minimum(np.sqrt(across**2 + down**2) / 4, 255).astype(np.uint8)
