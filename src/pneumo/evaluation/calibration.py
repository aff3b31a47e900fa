"""Whether a probability means what it says, and what a decision at it is worth.

A binned reliability curve, the expected calibration error, Murphy's decomposition of the Brier score, one
temperature fitted on validation, and net benefit at a stated prevalence (Vickers and Elkin 2006).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from pneumo.base.decision import scale_temperature
from pneumo.base.errors import PneumoError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

N_BINS = 10
_EPSILON = 1e-7
_TEMPERATURES = (0.05, 20.0)


class BrierParts(NamedTuple):
    """Murphy's (1973) parts of the Brier score of binned probabilities.

    The score is reliability - resolution + uncertainty.

    Attributes:
        reliability: how far probabilities lie from what happens; 0 is best.
        resolution: how far what happens in a bin lies from what happens on the whole; more is better.
        uncertainty: of the classes themselves; the same for every model.
    """

    reliability: float
    resolution: float
    uncertainty: float


def bin_scores(y_true: IntArray, y_score: FloatArray, n_bins: int = N_BINS) -> pd.DataFrame:
    """Sort images by their probability into bins of equal numbers and average each.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,), probabilities in [0, 1].
        n_bins: at most; images of equal probability stay together, so there can be fewer.

    Returns:
        One row a bin: `n` images, `predicted` (mean probability), `observed` (fraction of positives).
    """
    edges = np.unique(np.quantile(y_score, np.linspace(0, 1, n_bins + 1)[1:-1], method="lower"))
    bins = np.searchsorted(edges, y_score, side="left")
    table = pd.DataFrame({"bin": bins, "predicted": y_score, "observed": y_true})
    return (
        table.groupby("bin")
        .agg(n=("observed", "size"), predicted=("predicted", "mean"), observed=("observed", "mean"))
        .reset_index(drop=True)
    )


def score_calibration_error(bins: pd.DataFrame) -> float:
    """Return the expected calibration error: the mean distance of predicted from observed, weighted by n.

    Args:
        bins: as `bin_scores` returns them.
    """
    return float(np.average((bins["predicted"] - bins["observed"]).abs(), weights=bins["n"]))


def split_brier(bins: pd.DataFrame) -> BrierParts:
    """Split the Brier score of binned probabilities into Murphy's parts.

    Args:
        bins: as `bin_scores` returns them.
    """
    n, predicted, observed = (bins[name].to_numpy(float) for name in ("n", "predicted", "observed"))
    rate = float(np.average(observed, weights=n))
    return BrierParts(
        float(np.average((predicted - observed) ** 2, weights=n)),
        float(np.average((observed - rate) ** 2, weights=n)),
        rate * (1 - rate),
    )


def fit_temperature(y_true: IntArray, probabilities: FloatArray) -> float:
    """Find the temperature that gives the least log loss (Guo et al. 2017); meant for validation images.

    Args:
        y_true: int array of shape (n,), class numbers.
        probabilities: float array of shape (n, n_classes).

    Returns:
        Temperature between 0.05 and 20; above 1 the model is too sure of itself.
    """
    rows = np.arange(len(y_true))

    def find_loss(log_temperature: float) -> float:
        scaled = scale_temperature(probabilities, np.exp(log_temperature))
        return float(-np.log(np.clip(scaled[rows, y_true], _EPSILON, 1)).mean())

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(find_loss, bounds=(low, high), method="bounded").x))


def shift_prevalence(y_score: FloatArray, from_prevalence: float, to_prevalence: float) -> FloatArray:
    """Turn probabilities that are calibrated at one prevalence into those at another, by Bayes's theorem.

    The odds are multiplied by the ratio of the prior odds (Elkan 2001, theorem 2; Saerens, Latinne and
    Decaestecker 2002), which assumes that the images of each class are the same at either prevalence.

    Args:
        y_score: float array of shape (n,), calibrated probabilities in [0, 1].
        from_prevalence: of the images on which they were calibrated, in (0, 1).
        to_prevalence: of where the model is to be used, in (0, 1).

    Returns:
        float array of shape (n,), in [0, 1].

    Raises:
        PneumoError: a prevalence is not in (0, 1).
    """
    for value in (from_prevalence, to_prevalence):
        if not 0 < value < 1:
            raise PneumoError(f"Expected a prevalence in (0, 1). Received: {value}")
    positive = y_score * (to_prevalence / from_prevalence)
    negative = (1 - y_score) * ((1 - to_prevalence) / (1 - from_prevalence))
    return positive / (positive + negative)


def tabulate_net_benefit(
    y_true: IntArray, y_score: FloatArray, val_prevalence: float, prevalence: float
) -> pd.DataFrame:
    """Return the net benefit of acting on a model, on everybody and on nobody, by threshold.

    At a threshold t, acting on a healthy child is held to cost t / (1 - t) of what acting on a sick one
    gains; net benefit counts gains less costs, for each child examined (Vickers and Elkin 2006). A threshold
    has that meaning only for probabilities that are calibrated where the model is used. So probabilities are
    shifted from the prevalence at which they were calibrated to the stated one, and the test set's rates of
    true and of false alarms are weighted by the stated one; how many cases the test set has does not matter.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,), probabilities in [0, 1] after `scale_temperature`.
        val_prevalence: of the validation images, on which the temperature was fitted, in (0, 1).
        prevalence: of where the model is to be used, in (0, 1).

    Returns:
        Frame with `threshold` (0.01 to 0.99), `prevalence` (the stated one, in every row), `model`, `all` and
        `none` (0); without rows where y_true holds one class only.
    """
    thresholds = np.arange(1, 100) / 100
    if len(np.unique(y_true)) < 2:
        return pd.DataFrame({name: [] for name in ("threshold", "prevalence", "model", "all", "none")})
    flagged = shift_prevalence(y_score, val_prevalence, prevalence)[:, None] >= thresholds
    true_rate, false_rate = (flagged[y_true == k].mean(axis=0) for k in (1, 0))
    cost = (1 - prevalence) * thresholds / (1 - thresholds)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "prevalence": prevalence,
            "model": prevalence * true_rate - cost * false_rate,
            "all": prevalence - cost,
            "none": 0.0,
        }
    )
