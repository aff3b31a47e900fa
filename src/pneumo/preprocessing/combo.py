"""A combo: preprocessing steps in order, checked before any image is read."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from pneumo.base.errors import PneumoError
from pneumo.preprocessing.steps import FUNCTIONS, GEOMETRIC, Image, find_clip_px


@dataclass(frozen=True)
class Step:
    """A step with its parameters, ready to be applied."""

    name: str
    parameters: dict[str, Any]

    def __call__(self, image: Image) -> Image:
        """Apply the step to a uint8 array of shape (height, width)."""
        return FUNCTIONS[self.name](image, **self.parameters)


def step_names() -> list[str]:
    """Return the names of all steps, sorted."""
    return sorted(FUNCTIONS)


def parse_combo(combo: str, steps: Any, image_size_px: int) -> list[Step]:
    """Turn a combo of params.yaml into checked steps.

    A combo without `resize` gets one after its leading geometric steps, so that the other steps work at the
    final size. Every step is tried on a small image.

    Args:
        combo: its name, for errors.
        steps: list of step names or of {name: {parameter: value}}; an empty list or dict is no step.
        image_size_px: height and width of the result.

    Raises:
        PneumoError: `steps` is something else; a step or parameter is unknown, of the wrong type or out of
            range; `resize` has another size; a geometric step comes after `resize`.
    """
    if not isinstance(steps, list) and steps != {}:
        raise PneumoError(f"combos.{combo}: Expected a list of steps, or [] for none. Received: {steps!r}")
    parsed = [_parse_step(f"combos.{combo}[{i}]", entry, image_size_px) for i, entry in enumerate(steps)]
    if "resize" not in (step.name for step in parsed):
        n_leading = next((i for i, step in enumerate(parsed) if step.name not in GEOMETRIC), len(parsed))
        parsed.insert(n_leading, Step("resize", {"size_px": image_size_px}))
    for step in parsed[_find_resize(parsed) + 1 :]:
        if step.name in GEOMETRIC:
            raise PneumoError(
                f"combos.{combo}: Expected crop, trim and one resize before the other steps. "
                f"Received: {step.name} after resize"
            )
    return parsed


def find_ineffective_limits(combo: str, steps: Sequence[Step]) -> list[str]:
    """Find `clahe` steps whose clip limit has no effect at the size of the images.

    OpenCV rounds the limit to whole pixels of a tile, at least 1 (see `steps.find_clip_px`). All limits that
    are rounded to 1 give the same images. Steps before `resize` are left out, as originals have any size.

    Args:
        combo: its name.
        steps: as `parse_combo` returns them.

    Returns:
        For each such step a sentence that names it and the parameters that have an effect.
    """
    resize = _find_resize(steps)
    size_px = steps[resize].parameters["size_px"]
    found = []
    for step in steps[resize + 1 :]:
        if step.name != "clahe":
            continue
        limit, tiles = (_list_values(step)[name] for name in ("clip_limit", "tiles"))
        if find_clip_px(limit, tiles, size_px) > 1:
            continue
        side_px = math.ceil(size_px / tiles)
        lowest = math.ceil(1000 * 2 * 256 / side_px**2) / 1000
        fewer_tiles = [n for n in range(1, tiles) if find_clip_px(limit, n, size_px) > 1]
        remedy = f" or tiles to {max(fewer_tiles)} or less" if fewer_tiles else ""
        found.append(
            f"combos.{combo}: the clip_limit of {limit:g} has no effect. At image_size_px {size_px} and "
            f"tiles {tiles}, a tile has {side_px} x {side_px} px, and OpenCV rounds the limit to 1 px, as it "
            f"does with every lower one. Set clip_limit to {lowest:g} or more{remedy}."
        )
    return found


def find_equal_combos(combos: Mapping[str, Sequence[Step]]) -> list[list[str]]:
    """Find combos whose steps must give the same images.

    Parameters that are left out count as their defaults, and clip limits of `clahe` as OpenCV rounds them.

    Args:
        combos: name -> steps, as `parse_combo` returns them.

    Returns:
        Groups of two or more names, in the order of `combos`.
    """
    groups: dict[str, list[str]] = {}
    for name, steps in combos.items():
        groups.setdefault(_describe_effect(steps), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def apply_steps(image: Image, steps: Sequence[Step]) -> Image:
    """Apply steps in order.

    Args:
        image: uint8 array of shape (height, width).
        steps: as `parse_combo` returns them.

    Returns:
        Contiguous uint8 array of shape (size_px, size_px), where size_px is the combo's `image_size_px`.
    """
    for each in steps:
        image = each(image)
    return np.ascontiguousarray(image)


def _find_resize(steps: Sequence[Step]) -> int:
    return [step.name for step in steps].index("resize")


def _list_values(step: Step) -> dict[str, Any]:
    """Return the parameters of a step, with the defaults of those that are left out."""
    parameters = inspect.signature(FUNCTIONS[step.name]).parameters.values()
    defaults = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return defaults | step.parameters


def _describe_effect(steps: Sequence[Step]) -> str:
    resize = _find_resize(steps)
    size_px = steps[resize].parameters["size_px"]
    effects = []
    for i, step in enumerate(steps):
        values = _list_values(step)
        if step.name == "clahe" and i > resize:
            values["clip_limit"] = find_clip_px(values["clip_limit"], values["tiles"], size_px)
        effects.append((step.name, sorted(values.items())))
    return repr(effects)


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
    if name == "resize" and parameters["size_px"] != image_size_px:
        raise PneumoError(
            f"{where}.resize.size_px: Expected image_size_px, {image_size_px}, or no size_px, as all combos "
            f"are compared at one size. Received: {parameters['size_px']}"
        )
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
