"""The gallery: test images that show how a model decides, with maps of what each decision rests on."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.audit import regions
from pneumo.evaluation.predictions import Scores

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SIZE_PX = 144  # of a picture, at most
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
    attention: FloatArray,
) -> pd.DataFrame:
    """Say what each image of a gallery is and what was decided.

    Args:
        ids: str array of shape (n_images,).
        scores: predictions for these images.
        y_pred: int array of shape (n_images,), decisions.
        groups: as `select_gallery` returns them; n row numbers together.
        attention: float array of shape (n, size_px, size_px), a map for each image of the groups, in order.

    Returns:
        `group`, `id`, `actual`, `predicted`, `probability` of the predicted class, and `attention_outside`,
        the share of the map outside the thorax.
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
            "attention_outside": [regions.score_outside(each) for each in attention],
        }
    )


def save_gallery(images: npt.NDArray[np.uint8], maps: Mapping[str, FloatArray], path: Path) -> None:
    """Save the pictures of a gallery for `numpy.load`, at most SIZE_PX high and wide; not compressed.

    The file holds `images`; `names`, str array of shape (n_maps,); and `maps`, uint8 array of shape
    (n_maps, n, height, width), each map scaled to a maximum of 255, or 0 where it has no attention.
    A pack compresses the galleries of all models together, to half of what they take one by one.

    Args:
        images: uint8 array of shape (n, size_px, size_px).
        maps: name -> float array of shape (n, size_px, size_px), 0 or more.
        path: ends in .npz.
    """
    stacked = np.stack(list(maps.values()))
    peaks = stacked.max(axis=(2, 3), keepdims=True)
    shares = np.divide(stacked, peaks, out=np.zeros_like(stacked), where=peaks > 0)
    scaled = np.rint(255 * shares).astype(np.uint8)
    shrunk = np.array([_shrink(each) for each in images])
    shrunk_maps = np.array([[_shrink(each) for each in of_kind] for of_kind in scaled])
    np.savez(path, images=shrunk, names=np.array(list(maps)), maps=shrunk_maps)


def _shrink(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if len(picture) <= SIZE_PX:
        return picture
    shrunk = cv2.resize(picture, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.uint8, copy=False)
