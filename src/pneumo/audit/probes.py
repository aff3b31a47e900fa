"""What a trained model answers when parts of the images are gone, and which images show best how it decides.

Nothing here runs a network: scores and attention come in as arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pneumo.audit import regions
from pneumo.evaluation import resampling

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

VIEWS = {
    "without_thorax": regions.blank_thorax,
    "thorax_only": regions.keep_thorax,
    "without_markers": regions.erase_markers,
}
GROUPS = ("certain and right", "certain and wrong", "undecided")
N_DRAWS = 500
SHORTCUT_AUC = 0.6  # what cannot see lungs should be near 0.5
MARKED_FALL = 0.01
EVEN_ATTENTION = 0.39  # the share of the image that lies outside the thorax
SAME_MAPS = 0.5


@dataclass(frozen=True)
class Probe:
    """What one question to a model came to.

    Attributes:
        check: its name.
        value: a ROC AUC, a share or a correlation.
        low, high: 95 % interval over patients of a ROC AUC, else nan.
        is_problem: whether the model's score should be read with this in mind.
    """

    check: str
    value: float
    low: float
    high: float
    is_problem: bool


def probe_views(
    y_true: IntArray,
    patients: npt.NDArray[np.object_],
    probabilities: FloatArray,
    views: Mapping[str, FloatArray],
) -> list[Probe]:
    """Score a model on the images as they are and with parts of them gone.

    Args:
        y_true: int array of shape (n,), class numbers.
        patients: str array of shape (n,).
        probabilities: float array of shape (n, n_classes), for the images as they are.
        views: keys of VIEWS -> float array of shape (n, n_classes), for the images so changed.

    Returns:
        `as_is`, which is no problem, and one Probe a view. To tell the classes apart without the thorax is a
        problem, and so is a fall by more than MARKED_FALL where only surroundings or markers are gone.
    """
    weights = np.vstack([np.ones(len(y_true)), resampling.draw_weights(patients, y_true, N_DRAWS, seed=0)])
    areas = {
        name: resampling.score_draws(y_true, scores, scores.argmax(axis=1), weights)["roc_auc"]
        for name, scores in {"as_is": probabilities, **views}.items()
    }
    probes = []
    for name, drawn in areas.items():
        low, high = resampling.find_interval(drawn[1:])
        fall = resampling.find_interval(areas["as_is"][1:] - drawn[1:])
        is_problem = low > SHORTCUT_AUC if name == "without_thorax" else fall[0] > MARKED_FALL
        probes.append(Probe(name, float(drawn[0]), low, high, bool(is_problem)))
    return probes


def probe_attention(attention: FloatArray) -> Probe:
    """Say how much of a model's attention lies outside the thorax, on average over images.

    Args:
        attention: float array of shape (n, size_px, size_px), 0 or more. As much outside as if it were spread
            evenly is a problem. Images without any attention are left out.
    """
    shares = np.array([regions.score_outside(each) for each in attention])
    value = float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")
    return Probe("attention_outside", value, float("nan"), float("nan"), bool(value >= EVEN_ATTENTION))


def probe_maps(correlation: float) -> Probe:
    """Say whether maps show what was learnt.

    Args:
        correlation: of a model's maps with those of the same network with shuffled weights. If they are
            alike, the maps show the image and the architecture, not the training.

    Source: Adebayo et al. 2018, Sanity Checks for Saliency Maps.
    """
    return Probe("map_correlation", correlation, float("nan"), float("nan"), correlation > SAME_MAPS)


def select_gallery(
    y_true: IntArray,
    y_pred: IntArray,
    margins: FloatArray,
    patients: npt.NDArray[np.object_],
    n_each: int,
) -> dict[str, IntArray]:
    """Choose the images that show best how a model decides.

    Args:
        y_true: int array of shape (n,), class numbers.
        y_pred: int array of shape (n,), decisions.
        margins: float array of shape (n,), how far each decision is from the other; 0 or more.
        patients: str array of shape (n,); a group has one image of a patient.
        n_each: images a group.

    Returns:
        For each of GROUPS at most n_each row numbers: the rightly decided of greatest margin, the wrongly
        decided of greatest margin, and those of least margin.
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
    """Return how far each decision is from the other, in logits, float array of shape (n,).

    Args:
        probabilities: float array of shape (n, n_classes).
        threshold: of the second of two classes; None takes the class of most probability.
    """
    logs = np.log(np.clip(probabilities, 1e-9, 1))
    if threshold is None:
        ordered = np.sort(logs, axis=1)
        return ordered[:, -1] - ordered[:, -2]
    at = np.clip(threshold, 1e-9, 1 - 1e-9)
    return np.abs(logs[:, 1] - logs[:, 0] - np.log(at / (1 - at)))
