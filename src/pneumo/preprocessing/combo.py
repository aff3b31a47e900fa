"""A combo: preprocessing steps in order, checked before any image is read."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from pneumo.base.errors import PneumoError
from pneumo.preprocessing.steps import FUNCTIONS, GEOMETRIC, Image


@dataclass(frozen=True)
class Step:
    """A step with its parameters, ready to be applied."""

    name: str
    parameters: dict[str, Any]

    def __call__(self, image: Image) -> Image:
        """Apply the step to a uint8 array of shape (height, width)."""
        return FUNCTIONS[self.name](image, **self.parameters)


def step_names() -> list[str]:
    """Return the names that params.yaml may use."""
    return sorted(FUNCTIONS)


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
        n_leading = next((i for i, step in enumerate(parsed) if step.name not in GEOMETRIC), len(parsed))
        parsed.insert(n_leading, Step("resize", {"size_px": image_size_px}))
    names = [step.name for step in parsed]
    for name in names[names.index("resize") + 1 :]:
        if name in GEOMETRIC:
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
    if name not in FUNCTIONS:
        raise PneumoError(f"{where}: Expected one of {', '.join(step_names())}. Received: {name!r}")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise PneumoError(f"{where}.{name}: Expected {{parameter: value}}. Received: {parameters!r}")
    if name == "resize":
        parameters = {"size_px": image_size_px} | parameters
    parameters = _check_types(f"{where}.{name}", FUNCTIONS[name], parameters)
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
