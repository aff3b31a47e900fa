"""Stressed validation: how well a network still does when validation images are changed in one way each.

A change is a function of one uint8 image and its own parameters. It is applied after preprocessing, so no
step of a combo can undo it. No test image is used: recipes may be chosen by these scores.

To add a change, write a function below, add it to FUNCTIONS, and name it in conf/stress.yaml.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pneumo.base.decision import DecisionRule
from pneumo.base.errors import PneumoError
from pneumo.evaluation import resampling

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
Images = npt.NDArray[np.uint8]
Change = Callable[[Image], Image]
Changes = Mapping[str, Change]

METRICS = ("roc_auc", "sensitivity", "specificity", "balanced_accuracy")
UNCHANGED, MEAN, WORST = "none", "mean", "worst"


# Changes: uint8 arrays of shape (height, width) in and out, values rounded and limited to 0 to 255


def brightness(image: Image, *, factor: float) -> Image:
    """Multiply all grey values by a factor of 0 or more."""
    _expect(factor >= 0, "a factor of 0 or more", factor)
    return _round(image * np.float64(factor))


def contrast(image: Image, *, factor: float) -> Image:
    """Multiply all distances from the image's mean by a factor of 0 or more."""
    _expect(factor >= 0, "a factor of 0 or more", factor)
    mean = image.mean()
    return _round(mean + factor * (image - mean))


def gamma(image: Image, *, exponent: float) -> Image:
    """Raise grey values, scaled to 0 to 1, to a power above 0; below 1 it brightens."""
    _expect(exponent > 0, "an exponent above 0", exponent)
    return _round(255 * (image / 255) ** exponent)


def crop(image: Image, *, horizontal: float = 0.0, vertical: float = 0.0) -> Image:
    """Cut off both ends of an axis and stretch the rest back to the old size, by linear interpolation.

    Args:
        image: the image.
        horizontal: fraction of the width to cut off at the left and at the right, 0 to 0.4.
        vertical: fraction of the height to cut off at the top and at the bottom, 0 to 0.4.
    """
    for fraction in (horizontal, vertical):
        _expect(0 <= fraction <= 0.4, "a fraction of 0 to 0.4", fraction)
    height, width = image.shape
    rows, columns = round(vertical * height), round(horizontal * width)
    inner = image[rows : height - rows, columns : width - columns]
    return _round(cv2.resize(inner.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))


def pad(image: Image, *, fraction: float) -> Image:
    """Add black on every side and shrink the image back to the old size, averaging over pixel areas.

    Args:
        image: the image.
        fraction: of the height and of the width to add on each side, 0 to 1.
    """
    _expect(0 <= fraction <= 1, "a fraction of 0 to 1", fraction)
    height, width = image.shape
    rows, columns = round(fraction * height), round(fraction * width)
    padded = np.pad(image.astype(np.float32), ((rows, rows), (columns, columns)))
    return _round(cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA))


def blur(image: Image, *, sigma_fraction: float) -> Image:
    """Blur with a Gaussian; the border is mirrored.

    A standard deviation below a third of a pixel hardly changes anything.

    Args:
        image: the image.
        sigma_fraction: standard deviation of the Gaussian as a fraction of the height, above 0.
    """
    return _round(_smooth(image, sigma_fraction))


def sharpen(image: Image, *, sigma_fraction: float, amount: float) -> Image:
    """Add the difference between the image and its blurred copy (unsharp masking).

    Args:
        image: the image.
        sigma_fraction: see `blur`.
        amount: factor of the difference, 0 or more.
    """
    _expect(amount >= 0, "an amount of 0 or more", amount)
    return _round(image + amount * (image - _smooth(image, sigma_fraction)))


def noise(image: Image, *, standard_deviation: float, seed: int) -> Image:
    """Add Gaussian noise, drawn for each pixel.

    Args:
        image: the image. Its content is part of the seed: each image has its own noise, always the same.
        standard_deviation: in grey levels, 0 or more.
        seed: 0 or more.
    """
    _expect(standard_deviation >= 0, "a standard_deviation of 0 or more", standard_deviation)
    generator = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
    return _round(image + generator.normal(0, standard_deviation, image.shape))


FUNCTIONS: dict[str, Callable[..., Image]] = {
    function.__name__: function for function in (brightness, contrast, gamma, crop, pad, blur, sharpen, noise)
}


def load_changes(path: Path) -> Changes:
    """Read the list of changes and try each on a small image.

    Args:
        path: of conf/stress.yaml: name -> {function: {parameter: value}}.

    Raises:
        PneumoError: the file is missing or no YAML; a name is reserved; a function or parameter is unknown,
            of the wrong type or out of range.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeError, YAMLError, OmegaConfBaseException) as error:
        raise PneumoError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise PneumoError(
            f"{path}: Expected {{name: {{function: {{parameter: value}}}}}}. Received: {content!r}"
        )
    return {str(name): _parse_change(path, str(name), entry) for name, entry in content.items()}


def sample_validation(table: pd.DataFrame, n: int, seed: int) -> IntArray:
    """Choose validation images at random: one a patient, as many of each class.

    The choice depends on the ids and not on the order of the rows: all runs on the same data get the same
    images.

    Args:
        table: `id`, `split`, `patient` and `y_true` (class number), as in predictions.csv.
        n: how many images to choose; fewer where a class has too few patients.
        seed: of the choice.

    Returns:
        Row numbers of the table, rising; all are of the split `val`.
    """
    rows = np.flatnonzero(table["split"] == "val")
    rows = rows[np.argsort(table["id"].to_numpy(str)[rows])]
    rows = np.random.default_rng(seed).permutation(rows)
    chosen = table.iloc[rows][["patient", "y_true"]].assign(row=rows).drop_duplicates("patient")
    n_classes = chosen["y_true"].nunique()
    return np.sort(chosen.groupby("y_true").head(n // max(n_classes, 1))["row"].to_numpy(np.int64))


def score_stress(
    predict: Callable[[Images], FloatArray],
    images: Images,
    y_true: IntArray,
    threshold: float | None,
    changes: Changes,
) -> pd.DataFrame:
    """Score a network on images as they are and under each change.

    Args:
        predict: uint8 images of shape (n, height, width, 1) -> probabilities of shape (n, n_classes).
        images: uint8 array of shape (n, height, width, 1), validation images.
        y_true: int array of shape (n,), class numbers.
        threshold: of the second of two classes, chosen on unchanged validation images; None takes the most
            probable class.
        changes: name -> function of an image of shape (height, width).

    Returns:
        One row a `change` with METRICS: `none`, the changes, then `mean` and `worst` (the lowest) of each
        metric over the changes, without `none`. For more than two classes, metrics are macro averages; nan
        where a metric is undefined.
    """
    rows = {UNCHANGED: _score(predict(images), y_true, threshold)}
    for name, change in changes.items():
        changed = np.array([change(image[..., 0]) for image in images], np.uint8)[..., None]
        rows[name] = _score(predict(changed), y_true, threshold)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(METRICS))
    stressed = table.drop(index=UNCHANGED)
    table.loc[MEAN] = stressed.mean()
    table.loc[WORST] = stressed.min()
    return table.rename_axis("change").reset_index()


def _score(probabilities: FloatArray, y_true: IntArray, threshold: float | None) -> dict[str, float]:
    y_pred = DecisionRule(threshold, 1.0).decide(probabilities)
    scores = resampling.score_draws(y_true, probabilities, y_pred, np.ones((1, len(y_true))))
    return {metric: float(scores[metric][0]) for metric in METRICS}


def _parse_change(path: Path, name: str, entry: Any) -> Change:
    where = f"{path}: {name}"
    if name in (UNCHANGED, MEAN, WORST):
        raise PneumoError(f"{where}: Expected a name other than {UNCHANGED}, {MEAN} and {WORST}.")
    if not isinstance(entry, dict) or len(entry) != 1 or not isinstance(next(iter(entry.values())), dict):
        raise PneumoError(f"{where}: Expected one {{function: {{parameter: value}}}}. Received: {entry!r}")
    function, parameters = next(iter(entry.items()))
    if function not in FUNCTIONS:
        raise PneumoError(f"{where}: Expected one of {', '.join(FUNCTIONS)}. Received: {function}")
    change = partial(FUNCTIONS[function], **parameters)
    try:
        change(np.zeros((32, 32), np.uint8))
    except (TypeError, ValueError) as error:
        raise PneumoError(f"{where}: {function}: {error}") from error
    return change


def _expect(holds: bool, expected: str, received: object) -> None:
    if not holds:
        raise ValueError(f"Expected {expected}. Received: {received}")


def _smooth(image: Image, sigma_fraction: float) -> npt.NDArray[np.float32]:
    _expect(sigma_fraction > 0, "a sigma_fraction above 0", sigma_fraction)
    smooth: Any = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma_fraction * len(image))
    return smooth


def _round(values: npt.NDArray[Any]) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
