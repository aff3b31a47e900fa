"""What a trained model answers when parts of the images are removed, and where its attention lies.

Nothing here runs a network: scores and maps come in as arrays.

A probe speaks about one trained network. Its interval is over patients, and it is a problem only where the
whole interval lies beyond the limit. Over the seeds of a model, problems are counted and not judged again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.audit import regions
from pneumo.evaluation import resampling

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

VIEWS = {
    "without_thorax": regions.blank_thorax,
    "thorax_only": regions.keep_thorax,
    "without_markers": regions.erase_markers,
}
N_DRAWS = 500
SHORTCUT_AUC = 0.6  # without lungs, a model should be near 0.5
MARKED_FALL = 0.01
EVEN_ATTENTION = 0.39  # the share of the image that lies outside the thorax
SAME_MAPS = 0.5


@dataclass(frozen=True)
class Probe:
    """The answer to one question about a trained network.

    Attributes:
        check: its name.
        value: a ROC AUC, a share or a correlation; nan where it is not defined.
        low, high: 95 % interval over patients; nan where it is not defined.
        is_problem: the interval shows a problem. False does not show that there is none.
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
    """Score a model on the images as they are and with parts of them removed.

    Args:
        y_true: int array of shape (n,), class numbers.
        patients: str array of shape (n,).
        probabilities: float array of shape (n, n_classes), for the images as they are.
        views: keys of VIEWS -> float array of shape (n, n_classes), for the changed images.

    Returns:
        `as_is`, which is never a problem, and one Probe a view. Without the thorax, an AUC above SHORTCUT_AUC
        is a problem. Where only surroundings or markers are removed, a fall of the AUC by more than
        MARKED_FALL is a problem.
    """
    weights = np.vstack([np.ones(len(y_true)), resampling.draw_weights(patients, y_true, N_DRAWS, seed=0)])
    areas = {
        name: resampling.score_draws(y_true, scores, scores.argmax(axis=1), weights)["roc_auc"]
        for name, scores in {"as_is": probabilities, **views}.items()
    }
    probes = []
    for name, drawn in areas.items():
        low, high = resampling.find_interval(drawn[1:])
        least_fall, _ = resampling.find_interval(areas["as_is"][1:] - drawn[1:])
        is_problem = low > SHORTCUT_AUC if name == "without_thorax" else least_fall > MARKED_FALL
        probes.append(Probe(name, float(drawn[0]), low, high, bool(is_problem)))
    return probes


def probe_attention(attention: FloatArray) -> Probe:
    """Return the share of a model's attention outside the thorax, its mean over images.

    Args:
        attention: float array of shape (n, size_px, size_px), 0 or more, one image a patient, chosen at
            random. Images without any attention are left out.

    Returns:
        A Probe. It is a problem if more attention lies outside than if it were spread evenly.
    """
    shares = np.array([regions.score_outside(each) for each in attention])
    value, low, high = _average(shares)
    return Probe("attention_outside", value, low, high, low > EVEN_ATTENTION)


def probe_maps(correlations: FloatArray) -> Probe:
    """Compare a model's maps with those of the same network with shuffled weights.

    Args:
        correlations: float array of shape (n,), of the two maps of each image, one image a patient, chosen at
            random; nan where not defined, which is left out.

    Returns:
        A Probe. It is a problem if the maps are alike: they then show the image and not what was learnt.

    Source: Adebayo et al. 2018, Sanity Checks for Saliency Maps.
    """
    value, low, high = _average(correlations)
    return Probe("map_correlation", value, low, high, low > SAME_MAPS)


def average_seeds(probes: pd.DataFrame) -> pd.DataFrame:
    """Average the probes of a model over its seeds.

    Args:
        probes: the fields of Probe, and `model` and `seed`.

    Returns:
        One row a `model` and `check`, in the order in which they first occur: `n_seeds`; `value`, `lowest`
        and `highest`, the mean and the range over seeds; `n_problems`, how many seeds have a problem.
    """
    return (
        probes.groupby(["model", "check"], sort=False)
        .agg(
            n_seeds=("seed", "size"),
            value=("value", "mean"),
            lowest=("value", "min"),
            highest=("value", "max"),
            n_problems=("is_problem", "sum"),
        )
        .reset_index()
    )


def select_sample(patients: npt.NDArray[np.object_], n: int, seed: int) -> IntArray:
    """Choose images at random, one a patient.

    Args:
        patients: str array of shape (n_images,).
        n: how many to choose; all patients where there are fewer.
        seed: of the choice.

    Returns:
        Row numbers, rising.
    """
    shuffled = np.random.default_rng(seed).permutation(len(patients))
    _, firsts = np.unique(patients[shuffled].astype(str), return_index=True)
    return np.sort(shuffled[np.sort(firsts)[:n]])


def _average(values: FloatArray) -> tuple[float, float, float]:
    """Return the mean of independent values and its bootstrap interval; of fewer than two, no interval."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), float("nan"), float("nan")
    if len(values) == 1:
        return float(values[0]), float("nan"), float("nan")
    drawn = np.random.default_rng(0).choice(values, size=(N_DRAWS, len(values))).mean(axis=1)
    return float(values.mean()), *resampling.find_interval(drawn)
