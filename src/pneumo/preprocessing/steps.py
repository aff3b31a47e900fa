"""Preprocessing steps: functions of one image and their own parameters, nothing else.

A step takes and returns a grey image, a uint8 array of shape (height, width) with values 0 to 255. It cannot
see a label, a split or a file name. To add one, write a function here under `@step`: its name is the step's
name in params.yaml, its keyword arguments are the step's parameters, and the ValueErrors it raises are shown
to the user before any image is read.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import cv2
import numpy as np
import numpy.typing as npt

from pneumo.base.errors import PneumoError

Image = npt.NDArray[np.uint8]

_FUNCTIONS: dict[str, Callable[..., Image]] = {}
_GEOMETRIC: set[str] = set()


def step(*, geometric: bool = False) -> Callable[[Callable[..., Image]], Callable[..., Image]]:
    """Register a function as a preprocessing step.

    Args:
        geometric: the step changes the image's height or width; such steps stand before `resize`.
    """

    def register(function: Callable[..., Image]) -> Callable[..., Image]:
        _FUNCTIONS[function.__name__] = function
        if geometric:
            _GEOMETRIC.add(function.__name__)
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
    """Cut margins off.

    Args:
        image: uint8 array of shape (height, width).
        margin: fraction of the height or width to cut from every side, in [0, 0.5).
        top: fraction of the height to cut from the top instead of `margin`; likewise the other three.
        bottom: see top.
        left: see top.
        right: see top.
    """
    height, width = image.shape
    sides = [margin if side is None else side for side in (top, bottom, left, right)]
    if min(sides) < 0 or sides[0] + sides[1] >= 1 or sides[2] + sides[3] >= 1:
        raise ValueError(f"Expected margins of 0 or more that leave something. Received: {sides}")
    first_row, first_column = int(height * sides[0]), int(width * sides[2])
    last_row = max(height - int(height * sides[1]), first_row + 1)
    last_column = max(width - int(width * sides[3]), first_column + 1)
    return image[first_row:last_row, first_column:last_column]


@step(geometric=True)
def trim(image: Image, *, darkness: float = 0.25, max_fraction: float = 0.3) -> Image:
    """Cut collimation borders and black bars off: the rows and columns at the edges that are mostly dark.

    Args:
        image: uint8 array of shape (height, width).
        darkness: a row or column is border while its median is below this fraction of the median of the
            image's central half, in [0, 1].
        max_fraction: at most this fraction of the height or width goes from one side, in [0, 0.5).
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
    """Bring the image to `size_px` x `size_px`, averaging over pixel areas where it shrinks.

    Args:
        image: uint8 array of shape (height, width).
        size_px: height and width of the result; `image_size_px` of params.yaml where it is not given.
        mode: `squash` gives up the aspect ratio, `letterbox` keeps it and pads with black, `center_crop`
            keeps it and cuts what does not fit.
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
        clip_limit: highest bin of a tile's histogram, as a multiple of the mean bin, above 0.
        tiles: number of tiles along each side.
    """
    if clip_limit <= 0 or tiles < 1:
        raise ValueError(f"Expected clip_limit > 0 and tiles >= 1. Received: {clip_limit}, {tiles}")
    return cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles, tiles)).apply(image)  # type: ignore[return-value]


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
    """Stretch grey values linearly so that two percentiles become 0 and 255; beyond them is clipped."""
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
    """Blur with a Gaussian of standard deviation `sigma_px`."""
    if sigma_px <= 0:
        raise ValueError(f"Expected sigma_px > 0. Received: {sigma_px}")
    return cv2.GaussianBlur(image, (0, 0), sigma_px)  # type: ignore[return-value]


@step()
def unsharp(image: Image, *, sigma_px: float = 2.0, amount: float = 1.0) -> Image:
    """Sharpen: add `amount` times the difference from the image blurred with `sigma_px`."""
    if sigma_px <= 0 or amount < 0:
        raise ValueError(f"Expected sigma_px > 0 and amount >= 0. Received: {sigma_px}, {amount}")
    blurred = cv2.GaussianBlur(image, (0, 0), sigma_px)
    return cv2.addWeighted(image, 1 + amount, blurred, -amount, 0)  # type: ignore[return-value]


@step()
def canny(image: Image, *, low: float = 40.0, high: float = 80.0) -> Image:
    """Mark edges white on black (Canny 1986); gradients above `high` begin one, above `low` continue it."""
    if not 0 <= low <= high:
        raise ValueError(f"Expected 0 <= low <= high. Received: {low}, {high}")
    return cv2.Canny(image, low, high)  # type: ignore[return-value]


@step()
def sobel(image: Image) -> Image:
    """Replace the image by the magnitude of its gradient (3 x 3 Sobel, divided by 4, clipped at 255)."""
    across = cv2.Sobel(image, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(image, cv2.CV_32F, 0, 1)
    return np.clip(cv2.magnitude(across, down) / 4, 0, 255).astype(np.uint8)


# Combos


@dataclass(frozen=True)
class Step:
    """A step with its parameters, ready to be applied."""

    name: str
    parameters: dict[str, Any]

    def __call__(self, image: Image) -> Image:
        """Apply the step to a uint8 array of shape (height, width)."""
        return _FUNCTIONS[self.name](image, **self.parameters)


def step_names() -> list[str]:
    """Return the names that params.yaml may use."""
    return sorted(_FUNCTIONS)


def parse_combo(combo: str, steps: Any, image_size_px: int) -> list[Step]:
    """Turn a combo of params.yaml into steps that are known to work.

    A combo that names no `resize` gets one after its leading geometric steps, so that the others work at the
    final size. Every step is tried on a small image.

    Args:
        combo: its name, for errors.
        steps: list of step names or of {name: {parameter: value}}; an empty list or dict is no step.
        image_size_px: what `resize` takes where it names no size.

    Raises:
        PneumoError: `steps` is something else; a step or parameter is unknown, of the wrong type or out of
            range; a geometric step stands behind `resize`.
    """
    if not isinstance(steps, list) and steps != {}:
        raise PneumoError(f"combos.{combo}: Expected a list of steps, or [] for none. Received: {steps!r}")
    parsed = [_parse_step(f"combos.{combo}[{i}]", entry, image_size_px) for i, entry in enumerate(steps)]
    if "resize" not in (step.name for step in parsed):
        n_leading = next((i for i, step in enumerate(parsed) if step.name not in _GEOMETRIC), len(parsed))
        parsed.insert(n_leading, Step("resize", {"size_px": image_size_px}))
    names = [step.name for step in parsed]
    for name in names[names.index("resize") + 1 :]:
        if name in _GEOMETRIC:
            raise PneumoError(
                f"combos.{combo}: Expected crop, trim and one resize before the other steps. "
                f"Received: {name} behind resize"
            )
    return parsed


def apply_steps(image: Image, steps: Sequence[Step]) -> Image:
    """Apply steps in order.

    Args:
        image: uint8 array of shape (height, width).
        steps: as `parse_combo` returns them.

    Returns:
        Contiguous uint8 array of shape (size_px, size_px), as the combo's `resize` says.
    """
    for each in steps:
        image = each(image)
    return np.ascontiguousarray(image)


def _parse_step(where: str, entry: Any, image_size_px: int) -> Step:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise PneumoError(
            f"{where}: Expected one step, as {{name: {{parameter: value}}}}. Received: {entry!r}"
        )
    [(name, parameters)] = entry.items()
    if name not in _FUNCTIONS:
        raise PneumoError(f"{where}: Expected one of {', '.join(step_names())}. Received: {name!r}")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise PneumoError(f"{where}.{name}: Expected {{parameter: value}}. Received: {parameters!r}")
    if name == "resize":
        parameters = {"size_px": image_size_px} | parameters
    parameters = _check_types(f"{where}.{name}", _FUNCTIONS[name], parameters)
    parsed = Step(name, parameters)
    try:
        parsed(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)))
    except ValueError as error:
        raise PneumoError(f"{where}.{name}: {error}") from error
    return parsed


def _check_types(where: str, function: Callable[..., Image], parameters: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(function)
    known = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name in parameters:
        if name not in known:
            names = ", ".join(known) or "no parameter"
            raise PneumoError(f"{where}: Expected {names}. Received: {name!r}")
    checked = {}
    for name, parameter in known.items():
        if name not in parameters:
            if parameter.default is inspect.Parameter.empty:
                raise PneumoError(f"{where}: Expected a value for {name}. Received: none")
            continue
        checked[name] = _check_type(f"{where}.{name}", hints[name], parameters[name])
    return checked


def _check_type(where: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise PneumoError(f"{where}: Expected one of {', '.join(get_args(hint))}. Received: {value!r}")
    allowed = get_args(hint) or (hint,)
    if isinstance(value, float) and not math.isfinite(value):
        raise PneumoError(f"{where}: Expected a finite number. Received: {value}")
    if not isinstance(value, bool):
        if float in allowed and isinstance(value, int):
            return float(value)
        if isinstance(value, allowed):
            return value
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
    raise PneumoError(f"{where}: Expected {names}. Received: {value!r}")
