"""Whether a probability means what it says, and what a decision at it is worth.

A binned reliability curve, the expected calibration error, Murphy's decomposition of the Brier score, one
temperature fitted on validation, and net benefit (Vickers and Elkin 2006).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

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


def scale_temperature(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Divide log probabilities by a temperature; the order of images within two classes stays as it is.

    Args:
        probabilities: float array of shape (n, n_classes).
        temperature: above 0; 1 changes nothing.

    Returns:
        float array of shape (n, n_classes), rows sum to 1.
    """
    logits = np.log(np.clip(probabilities, _EPSILON, 1)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def tabulate_net_benefit(y_true: IntArray, y_score: FloatArray) -> pd.DataFrame:
    """Return the net benefit of acting on a model, on everybody and on nobody, by threshold.

    At a threshold t, acting on a healthy child is held to cost t / (1 - t) of what acting on a sick one
    gains; net benefit counts gains minus costs, for each child examined.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        y_score: float array of shape (n,), probabilities in [0, 1].

    Returns:
        Frame with `threshold` (0.01 to 0.99), `model`, `all` and `none` (0).
    """
    thresholds = np.arange(1, 100) / 100
    odds = thresholds / (1 - thresholds)
    flagged = y_score[:, None] >= thresholds
    positive = (y_true == 1)[:, None]
    true_rate, false_rate = (flagged & positive).mean(axis=0), (flagged & ~positive).mean(axis=0)
    rate = positive.mean()
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "model": true_rate - false_rate * odds,
            "all": rate - (1 - rate) * odds,
            "none": 0.0,
        }
    )
