"""Draws of patients, what runs score on them, and tests of two rankings or two sets of decisions.

A patient's images resemble one another, so patients are drawn, never images.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import signal, stats

from pneumo.evaluation.metrics import split_folds

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

N_DRAWS = 2000
COVERAGE = 0.95
_BLOCK = 2**17  # images times draws that are scored at once, so that they stay in the processor's cache


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
    y_true: IntArray,
    probabilities: FloatArray,
    y_pred: IntArray,
    weights: FloatArray,
    folds: IntArray | None = None,
) -> dict[str, FloatArray]:
    """Compute the metrics of `metrics.py` once for each row of weights.

    Args:
        y_true: int array of shape (n,), class numbers.
        probabilities: float array of shape (n, n_classes).
        y_pred: int array of shape (n,), decisions.
        weights: float array of shape (n_draws, n), whole numbers: how often each image counts.
        folds: int array of shape (n,); None where one network predicted all images.

    Returns:
        metric -> float array of shape (n_draws,); macro averages for more than two classes; nan where a draw
        leaves a metric undefined.
    """
    size = max(1, _BLOCK // max(1, len(y_true)))
    parts = split_folds(folds, len(y_true))
    blocks = [
        _score_block(y_true, probabilities, y_pred, weights[start : start + size], parts)
        for start in range(0, len(weights), size)
    ]
    return {metric: np.concatenate([block[metric] for block in blocks]) for metric in blocks[0]}


def count_patient_freedom(patients: npt.NDArray[np.object_], y_true: IntArray) -> int:
    """Return the degrees of freedom of a variance over patients: those of the smallest class, less one.

    Args:
        patients: str array of shape (n,), names.
        y_true: int array of shape (n,), class numbers.
    """
    return min(len(np.unique(patients[y_true == k].astype(str))) for k in np.unique(y_true)) - 1


def find_interval(draws: FloatArray, coverage: float = COVERAGE) -> tuple[float, float]:
    """Return the percentile interval of draws; (nan, nan) where most of them are undefined.

    For a score near 1 it is too narrow: `Estimate.find_score_interval` covers better.
    """
    if np.isnan(draws).mean() > 0.5:
        return float("nan"), float("nan")
    low, high = np.nanquantile(draws, [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(low), float(high)


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

    Images count as independent, which a patient's images are not, and what another training would change is
    not in it.

    Args:
        y_true: int array of shape (n,), 1 is positive; two images of each class or more.
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


def compare_decisions(
    correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_], patients: npt.NDArray[np.object_]
) -> float:
    """Return the exact two-sided p of a sign-flip test that two combos are right equally often.

    For each patient, the right decisions of a less those of b are counted over images and seeds; under the
    null hypothesis each such count is as likely with the other sign. The sum over all patients is compared
    with its distribution over all flips of signs. With one seed and one image a patient this is McNemar's
    exact test. It is about these trained networks; what another training would change is not in it.

    Args:
        correct_a: bool array of shape (k, n), whether each of k seeds of a decides each image rightly.
        correct_b: likewise.
        patients: str array of shape (n,), names.
    """
    _, patient_of_image = np.unique(patients.astype(str), return_inverse=True)
    by_image = correct_a.sum(axis=0) - correct_b.sum(axis=0)
    by_patient = np.rint(np.bincount(patient_of_image, weights=by_image)).astype(np.int64)
    sizes, counts = np.unique(np.abs(by_patient[by_patient != 0]), return_counts=True)
    chances = np.ones(1)  # of each sum from -m to m
    for size, count in zip(sizes, counts, strict=True):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = signal.convolve(chances, of_size)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(np.clip(chances[np.abs(sums) >= abs(by_patient.sum())].sum(), 0, 1))


def _score_block(
    y_true: IntArray,
    probabilities: FloatArray,
    y_pred: IntArray,
    weights: FloatArray,
    parts: Sequence[IntArray],
) -> dict[str, FloatArray]:
    n_classes = probabilities.shape[1]
    cells = y_true * n_classes + y_pred
    confusion = (weights @ np.eye(n_classes**2)[cells]).reshape(-1, n_classes, n_classes)
    total = weights.sum(axis=1)
    if n_classes == 2:
        # As in metrics.py, the second of two classes alone counts: as stored, the two need not sum to 1.
        shares = np.stack([1 - probabilities[:, 1], probabilities[:, 1]], axis=1)
        squares = (probabilities[:, 1] - y_true) ** 2
    else:
        shares = probabilities / probabilities.sum(axis=1, keepdims=True)
        squares = ((probabilities - np.eye(n_classes)[y_true]) ** 2).sum(axis=1)
    true_share = np.clip(shares[np.arange(len(y_true)), y_true], np.finfo(float).eps, 1)
    numbers = [1] if n_classes == 2 else range(n_classes)
    by_image = np.ascontiguousarray(weights.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_class = [
            _score_ranking(y_true == k, probabilities[:, k], by_image, parts) | _score_confusion(confusion, k)
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
            "log_loss": weights @ -np.log(true_share) / total,
        }


def _score_ranking(
    is_class: npt.NDArray[np.bool_], y_score: FloatArray, by_image: FloatArray, parts: Sequence[IntArray]
) -> dict[str, FloatArray]:
    """Score one class against the rest, ranked within each part; as in metrics.py.

    Args:
        is_class: bool array of shape (n,).
        y_score: float array of shape (n,).
        by_image: float array of shape (n, n_draws), how often each image counts in each draw.
        parts: rows of each fold.
    """
    if len(parts) == 1:
        ranked, n_pairs, precision, n_positive = _rank_part(is_class, y_score, by_image)
    else:
        ranked, n_pairs, precision, n_positive = np.sum(
            [_rank_part(is_class[rows], y_score[rows], by_image[rows]) for rows in parts], axis=0
        )
    return {"roc_auc": ranked / n_pairs, "average_precision": precision / n_positive}


def _rank_part(
    is_class: npt.NDArray[np.bool_], y_score: FloatArray, by_image: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return sums of one fold by draw: pairs that are ranked rightly, all pairs, precisions, positives.

    The last two are 0 where the fold has no negatives and so ranks nothing.
    """
    order = np.argsort(-y_score, kind="stable")
    starts = np.flatnonzero(np.diff(y_score[order], prepend=np.inf))  # images of equal score count as one
    everything = by_image[order]
    positive = everything * is_class[order, None]
    if len(starts) < len(order):
        everything, positive = (np.add.reduceat(part, starts, axis=0) for part in (everything, positive))
    found, flagged = positive.cumsum(axis=0), everything.cumsum(axis=0)
    n_positive, n_negative = found[-1].copy(), flagged[-1] - found[-1]  # `found` changes below
    precision = found / np.maximum(flagged, 1)  # where nothing is flagged, nothing is found
    found -= positive / 2  # positives that score higher than a negative here, ties half
    everything -= positive
    return (
        np.einsum("ij,ij->j", everything, found),
        n_positive * n_negative,
        np.where(n_negative > 0, np.einsum("ij,ij->j", positive, precision), 0.0),
        np.where(n_negative > 0, n_positive, 0.0),
    )


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
