"""The gallery: test images that show how a model decides, with maps of what each decision rests on."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.audit import regions
from pneumo.base.pictures import encode_sheet
from pneumo.evaluation.predictions import Scores

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SIZE_PX = 144  # of a picture, at most
_QUALITY = 90  # the page compresses it once more
GROUPS = ("certain and right", "certain and wrong", "undecided")


def select_gallery(
    y_true: IntArray,
    y_pred: IntArray,
    margins: FloatArray,
    patients: npt.NDArray[np.object_],
    n_each: int,
) -> dict[str, IntArray]:
    """Choose the images that show how a model decides.

    Args:
        y_true: int array of shape (n,), class numbers.
        y_pred: int array of shape (n,), decisions.
        margins: float array of shape (n,), how far each decision is from the other one; 0 or more.
        patients: str array of shape (n,); a group has one image of a patient.
        n_each: images a group.

    Returns:
        For each of GROUPS at most n_each row numbers: right decisions with the largest margins, wrong
        decisions with the largest margins, and decisions with the smallest margins.
    """
    falling = np.argsort(-margins, kind="stable")
    is_right = y_pred[falling] == y_true[falling]
    ordered = (falling[is_right], falling[~is_right], np.argsort(margins, kind="stable"))
    chosen = {}
    for group, rows in zip(GROUPS, ordered, strict=True):
        _, firsts = np.unique(patients[rows].astype(str), return_index=True)
        chosen[group] = rows[np.sort(firsts)[:n_each]]
    return chosen


def find_margins(probabilities: FloatArray, threshold: float | None) -> FloatArray:
    """Return how far each decision is from the other one, in logits, float array of shape (n,).

    Args:
        probabilities: float array of shape (n, n_classes).
        threshold: of the second of two classes; None takes the most probable class.
    """
    logs = np.log(np.clip(probabilities, 1e-9, 1))
    if threshold is None:
        ordered = np.sort(logs, axis=1)
        return ordered[:, -1] - ordered[:, -2]
    at = np.clip(threshold, 1e-9, 1 - 1e-9)
    return np.abs(logs[:, 1] - logs[:, 0] - np.log(at / (1 - at)))


def tabulate_gallery(
    ids: npt.NDArray[np.object_],
    scores: Scores,
    y_pred: IntArray,
    groups: Mapping[str, IntArray],
    maps: Mapping[str, FloatArray],
) -> pd.DataFrame:
    """Say what each image of a gallery is and what was decided.

    Args:
        ids: str array of shape (n_images,).
        scores: predictions for these images.
        y_pred: int array of shape (n_images,), decisions.
        groups: as `select_gallery` returns them; n row numbers together.
        maps: name -> float array of shape (n, size_px, size_px), of the images of the groups, in order.

    Returns:
        `group`, `id`, `actual`, `predicted`, `probability` of the predicted class, `attention_outside`, the
        share of the first map outside the thorax, and `maps`, the names of all.
    """
    classes = np.array(scores.classes)
    rows = np.concatenate(list(groups.values()))
    return pd.DataFrame(
        {
            "group": np.repeat(list(groups), [len(each) for each in groups.values()]),
            "id": ids[rows],
            "actual": classes[scores.y_true[rows]],
            "predicted": classes[y_pred[rows]],
            "probability": scores.probabilities[rows, y_pred[rows]],
            "attention_outside": [regions.score_outside(each) for each in next(iter(maps.values()))],
            "maps": ", ".join(maps),
        }
    )


def draw_sheet(images: npt.NDArray[np.uint8], maps: Mapping[str, FloatArray]) -> bytes:
    """Draw the pictures of a gallery side by side, at most SIZE_PX high and wide each.

    Args:
        images: uint8 array of shape (n, size_px, size_px).
        maps: name -> float array of shape (n, size_px, size_px), 0 or more.

    Returns:
        A WebP file, which is lossy and there to be looked at: a row an image, the image first and then each
        of its maps, white where it is greatest, or black where it has no attention.
    """
    columns = [images]
    for values in maps.values():
        peaks = values.max(axis=(1, 2), keepdims=True)
        shares = np.divide(values, peaks, out=np.zeros_like(values), where=peaks > 0)
        columns.append(np.rint(255 * shares).astype(np.uint8))
    return encode_sheet(zip(*columns, strict=True), SIZE_PX, _QUALITY)
