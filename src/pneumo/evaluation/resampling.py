"""How sure a score is, and whether two combos differ: bootstrap over patients, DeLong, McNemar, Holm.

A patient's images resemble one another, so patients are drawn, never images. Seeds add spread of their own:
training again would give other models. With fewer than some 30 patients a class, a bootstrap is too sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

N_DRAWS = 2000
COVERAGE = 0.95
POWER = 0.8


def draw_weights(patients: npt.NDArray[np.object_], y_true: IntArray, n_draws: int, seed: int) -> FloatArray:
    """Draw patients with replacement and return how often each image counts.

    Patients with images of the same classes form a stratum, from which as many are drawn as it has: a test
    set's share of pneumonia was chosen by who made it and is not left to chance.

    Args:
        patients: str array of shape (n,), names.
        y_true: int array of shape (n,), class numbers.
        n_draws: how many sets to draw.
        seed: of the draws.

    Returns:
        float array of shape (n_draws, n), whole numbers.
    """
    _, patient_of_image = np.unique(patients.astype(str), return_inverse=True)
    classes_of_patient = np.zeros(patient_of_image.max() + 1, np.int64)
    np.bitwise_or.at(classes_of_patient, patient_of_image, 1 << y_true)
    generator = np.random.default_rng(seed)
    counts = np.zeros((n_draws, len(classes_of_patient)))
    for classes in np.unique(classes_of_patient):
        members = np.flatnonzero(classes_of_patient == classes)
        counts[:, members] = generator.multinomial(
            len(members), np.full(len(members), 1 / len(members)), size=n_draws
        )
    return counts[:, patient_of_image]


def score_draws(
    y_true: IntArray, probabilities: FloatArray, y_pred: IntArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Compute the metrics of `metrics.py` once for each row of weights.

    Args:
        y_true: int array of shape (n,), class numbers.
        probabilities: float array of shape (n, n_classes).
        y_pred: int array of shape (n,), decisions.
        weights: float array of shape (n_draws, n), how often each image counts.

    Returns:
        metric -> float array of shape (n_draws,); macro averages for more than two classes; nan where a draw
        leaves a metric undefined.
    """
    n_classes = probabilities.shape[1]
    cells = y_true * n_classes + y_pred
    confusion = (weights @ np.eye(n_classes**2)[cells]).reshape(-1, n_classes, n_classes)
    total = weights.sum(axis=1)
    one_hot = np.eye(n_classes)[y_true]
    true_probability = np.clip(probabilities[np.arange(len(y_true)), y_true], np.finfo(float).eps, 1)
    squares = ((probabilities - one_hot) ** 2).sum(axis=1)
    if n_classes == 2:
        squares = squares / 2  # scikit-learn's convention: one term for two classes, the sum for more
    numbers = [1] if n_classes == 2 else range(n_classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_class = [
            _score_ranking(y_true == k, probabilities[:, k], weights) | _score_confusion(confusion, k)
            for k in numbers
        ]
        scores = {name: np.mean([one[name] for one in per_class], axis=0) for name in per_class[0]}
        correct = np.trace(confusion, axis1=1, axis2=2)
        balanced = np.mean(np.diagonal(confusion, axis1=1, axis2=2) / confusion.sum(axis=2), axis=1)
        return scores | {
            "accuracy": correct / total,
            "balanced_accuracy": balanced,
            "mcc": _score_mcc(confusion),
            "brier_score": weights @ squares / total,
            "log_loss": weights @ -np.log(true_probability) / total,
        }


@dataclass(frozen=True)
class SeedSpread:
    """How far one seed's score lies from the mean over all seeds, pooled over combos of one model.

    On one test set, seeds also differ because each errs on other images. That part is in the draws of
    patients too and counts twice, so intervals are a little wide where seeds hardly matter.

    Attributes:
        variance: of one seed.
        degrees_of_freedom: of the variance; 0 where there is one seed only, which says nothing of the spread.
    """

    variance: float
    degrees_of_freedom: int


def pool_seeds(points: Sequence[FloatArray]) -> SeedSpread:
    """Pool the variance over seeds within combos.

    Args:
        points: for each combo a float array of shape (k,), what its k seeds score on the whole test set.
    """
    freedom = sum(len(one) - 1 for one in points)
    if freedom == 0:
        return SeedSpread(0.0, 0)
    squares = sum(float(((one - one.mean()) ** 2).sum()) for one in points)
    return SeedSpread(squares / freedom, freedom)


def join_seeds(draws: FloatArray, spread: SeedSpread, seed: int) -> FloatArray:
    """Turn the draws of k seeds into draws of their mean that vary with patients and with seeds.

    To the mean over seeds in each draw of patients, a draw from Student's t is added, scaled by the standard
    error of a mean over k seeds.

    Args:
        draws: float array of shape (k, n_draws), the same patients in the same column.
        spread: over seeds.
        seed: of the draws from Student's t.

    Returns:
        float array of shape (n_draws,).
    """
    mean = draws.mean(axis=0)
    if spread.variance == 0:
        return mean
    noise = np.random.default_rng(seed).standard_t(spread.degrees_of_freedom, size=mean.shape)
    return mean + np.sqrt(spread.variance / len(draws)) * noise


def find_interval(draws: FloatArray, coverage: float = COVERAGE) -> tuple[float, float]:
    """Return the percentile interval of draws; (nan, nan) where most of them are undefined."""
    if np.isnan(draws).mean() > 0.5:
        return float("nan"), float("nan")
    low, high = np.nanquantile(draws, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A metric of one combo minus that of another, under the same model, on the same patients and seeds.

    Attributes:
        value: the difference of the means over seeds.
        low, high: 95 % interval.
        standard_error: over patients and seeds.
        degrees_of_freedom: of the standard error (Welch and Satterthwaite); inf where seeds add nothing.
        p: two-sided, that there is no difference.
    """

    value: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    p: float

    def smallest_detectable(self, level: float) -> float:
        """Return the difference that would be found in POWER of all test sets of this size.

        Args:
            level: a difference counts as found when its p is at most this.
        """
        quantile = stats.t.ppf(1 - level / 2, self.degrees_of_freedom)
        return float((quantile + stats.norm.ppf(POWER)) * self.standard_error)


def compare_draws(points: FloatArray, draws: FloatArray, spread: SeedSpread, seed: int) -> Difference:
    """Compare a metric of two combos, paired over patients and seeds.

    Args:
        points: float array of shape (k,), the metric of combo a minus that of b for each seed, on the whole
            test set.
        draws: float array of shape (k, n_draws), the same on each draw of patients.
        spread: of such differences over seeds.
        seed: of the random draws of `join_seeds`.
    """
    value = float(points.mean())
    if np.isnan(value):
        return Difference(value, value, value, value, float("inf"), value)
    patients = float(np.nanvar(draws.mean(axis=0), ddof=1))
    seeds = spread.variance / len(points)
    error = float(np.sqrt(patients + seeds))
    freedom = (patients + seeds) ** 2 * spread.degrees_of_freedom / seeds**2 if seeds > 0 else float("inf")
    low, high = find_interval(join_seeds(draws, spread, seed))
    p = float(2 * stats.t.sf(abs(value) / error, freedom)) if error > 0 else float(value == 0)
    return Difference(value, low, high, error, freedom, p)


def correct_holm(p: FloatArray) -> FloatArray:
    """Correct a family of p-values after Holm (1979); undefined ones stay so and are not counted."""
    corrected = np.full(len(p), np.nan)
    defined = ~np.isnan(p)
    if defined.any():
        corrected[defined] = multipletests(p[defined], method="holm")[1]
    return corrected


def place_scores(y_true: IntArray, y_score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the structural components of the AUC (DeLong 1988), by midranks (Sun and Xu 2014).

    Args:
        y_true: int array of shape (n,), 1 is positive; both classes occur.
        y_score: float array of shape (n,).

    Returns:
        For each positive the share of negatives below it, for each negative the share of positives above it;
        ties count half. The mean of either is the AUC.
    """
    positive, negative = y_score[y_true == 1], y_score[y_true == 0]
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    below = (ranks[: len(positive)] - stats.rankdata(positive)) / len(negative)
    above = 1 - (ranks[len(positive) :] - stats.rankdata(negative)) / len(positive)
    return below, above


def compare_rankings(
    y_true: IntArray, scores_a: FloatArray, scores_b: FloatArray
) -> tuple[float, float, float]:
    """Compare two AUCs on the same images after DeLong, DeLong and Clarke-Pearson (1988).

    Images count as independent, which a patient's images are not; `compare_draws` does without that.

    Args:
        y_true: int array of shape (n,), 1 is positive.
        scores_a: float array of shape (k, n), one row a seed; components are averaged over seeds.
        scores_b: likewise.

    Returns:
        The difference of the mean AUCs, its standard error, and the two-sided p.
    """
    components = [[place_scores(y_true, row) for row in scores] for scores in (scores_a, scores_b)]
    below, above = (
        np.mean([one[side] for one in components[0]], axis=0)
        - np.mean([one[side] for one in components[1]], axis=0)
        for side in (0, 1)
    )
    difference = float(below.mean())
    error = float(np.sqrt(below.var(ddof=1) / len(below) + above.var(ddof=1) / len(above)))
    if error == 0:
        return difference, error, 1.0 if difference == 0 else 0.0
    return difference, error, float(2 * stats.norm.sf(abs(difference) / error))


def compare_decisions(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> float:
    """Return the exact two-sided p of McNemar's test that two combos are right equally often.

    Args:
        correct_a: bool array of shape (n,), whether a decides each image rightly.
        correct_b: likewise.
    """
    table = [
        [int(np.sum(correct_a & correct_b)), int(np.sum(correct_a & ~correct_b))],
        [int(np.sum(~correct_a & correct_b)), int(np.sum(~correct_a & ~correct_b))],
    ]
    return float(mcnemar(table, exact=True).pvalue)


def _score_ranking(
    is_class: npt.NDArray[np.bool_], y_score: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    order = np.argsort(-y_score, kind="stable")
    starts = np.flatnonzero(np.diff(y_score[order], prepend=np.inf))  # images of equal score count as one
    ordered = weights[:, order]
    positive = np.add.reduceat(ordered * is_class[order], starts, axis=1)
    everything = np.add.reduceat(ordered, starts, axis=1)
    found, flagged = positive.cumsum(axis=1), everything.cumsum(axis=1)
    n_positive = found[:, -1]
    negative = everything - positive
    n_negative = flagged[:, -1] - n_positive
    passed = found - positive / 2  # positives that score higher than a negative here, ties half
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return {
        "roc_auc": (negative * passed).sum(axis=1) / (n_positive * n_negative),
        "average_precision": np.where(
            n_negative > 0, (positive * precision).sum(axis=1) / n_positive, np.nan
        ),
    }


def _score_confusion(confusion: FloatArray, k: int) -> dict[str, FloatArray]:
    tp = confusion[:, k, k]
    fn = confusion[:, k].sum(axis=1) - tp
    fp = confusion[:, :, k].sum(axis=1) - tp
    tn = confusion.sum(axis=(1, 2)) - tp - fn - fp
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / (tp + fp),
        "npv": tn / (tn + fn),
        "f1": 2 * tp / (2 * tp + fp + fn),
    }


def _score_mcc(confusion: FloatArray) -> FloatArray:
    actual, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    total = actual.sum(axis=1)
    right = np.trace(confusion, axis1=1, axis2=2)
    covariance = right * total - (actual * predicted).sum(axis=1)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return covariance / np.sqrt(spread)
