"""What a data set gives away without the lungs, and what is wrong with it: checks without a network.

A check answers one question with a number and a verdict, and says why. Classifiers are scored on patients
that they were not fitted to, with a 95 % interval over patients. A verdict is given only where the whole
interval lies on one side of a limit.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pneumo.base.tables import has_folds
from pneumo.evaluation import resampling

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Images = npt.NDArray[np.uint8]

N_FOLDS = 5
N_DRAWS = 500
MIN_PATIENTS = 10  # of each class; with fewer, no classifier is fitted
BORDER_FRACTION = 0.06
SHORTCUT_AUC = 0.6  # without lungs, a classifier should be near 0.5
COARSE_AUC = 0.9  # brightness or an outline may do better than chance, but not well
SHIFT_AUC = 0.7
SAME_CORRELATION = 0.998
DOUBTFUL_PROBABILITY = 0.02
DOUBTFUL_FRACTION = 0.005
N_FIT = 20_000  # images that a classifier is fitted to; more bring little and take gigabytes
N_IN_BLOCK = 2048  # images; a block of correlations then takes 34 MB


class Verdict(StrEnum):
    """Whether results should be read with a finding in mind."""

    PROBLEM = "problem"
    NO_PROBLEM = "no problem"
    NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Finding:
    """The answer of a check.

    Attributes:
        check: its name.
        question: what it asks.
        value: a ROC AUC, a count or a fraction; nan where it is not known.
        low, high: 95 % interval of a ROC AUC, else nan.
        verdict: whether results should be read with this finding in mind.
        text: what the number means.
    """

    check: str
    question: str
    value: float
    low: float
    high: float
    verdict: Verdict
    text: str


def check_metadata(manifest: pd.DataFrame) -> Finding:
    """Tell the classes apart by the files alone: width, height, aspect ratio, bytes, colour mode.

    Args:
        manifest: training images, with `label`, `patient`, `width`, `height`, `bytes`, `mode`.
    """
    features = manifest[["width", "height", "bytes"]].astype(float)
    features["aspect"] = features["width"] / features["height"]
    features["bytes_per_px"] = features["bytes"] / (features["width"] * features["height"])
    features = features.join(pd.get_dummies(manifest["mode"], dtype=float))
    area = _score_classifier(
        HistGradientBoostingClassifier(random_state=0),
        features.to_numpy(),
        _number_labels(manifest),
        manifest["patient"],
    )
    return _judge(
        "metadata",
        "Can the classes be told apart by width, height, aspect ratio, bytes and colour mode of the files?",
        area,
        SHORTCUT_AUC,
        problem="The files differ between the classes. A network can learn this: resizing to a square, for "
        "example, leaves the aspect ratio visible in the pixels.",
        no_problem="The files hardly differ between the classes.",
    )


def check_border(manifest: pd.DataFrame, images: Images) -> Finding:
    """Tell the classes apart by the outermost pixels, where there are no lungs.

    Args:
        manifest: n training images, with `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px), size_px a multiple of 8.
    """
    width = max(1, round(BORDER_FRACTION * images.shape[1]))
    sides = (
        images[:, :width],
        images[:, -width:],
        images[:, :, :width].swapaxes(1, 2),
        images[:, :, -width:].swapaxes(1, 2),
    )
    strips = [side.reshape(len(images), width, 8, -1).mean(axis=(1, 3)) for side in sides]
    area = _score_classifier(
        HistGradientBoostingClassifier(random_state=0),
        np.hstack(strips),
        _number_labels(manifest),
        manifest["patient"],
    )
    return _judge(
        "border",
        f"Can the classes be told apart by the outer {100 * BORDER_FRACTION:.0f} % of the image?",
        area,
        SHORTCUT_AUC,
        problem="The borders differ between the classes, for example by collimation, markers or black bars. "
        "A network can learn this. Cropping or trimming removes the border.",
        no_problem="The borders hardly differ between the classes.",
    )


def check_brightness(manifest: pd.DataFrame, images: Images) -> Finding:
    """Tell the classes apart by the mean and the standard deviation of all grey values.

    Args:
        manifest: n training images, with `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).
    """
    features = np.array([[image.mean(), image.std()] for image in images])
    area = _score_classifier(_build_linear(1.0), features, _number_labels(manifest), manifest["patient"])
    return _judge_coarse("brightness", "Can the classes be told apart by mean brightness and contrast?", area)


def check_thumbnail(manifest: pd.DataFrame, images: Images) -> Finding:
    """Tell the classes apart by 8 x 8 pixels, in which no infiltrate is visible.

    Args:
        manifest: n training images, with `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).
    """
    area = _score_classifier(
        _build_linear(0.1), shrink(images, 8), _number_labels(manifest), manifest["patient"]
    )
    return _judge_coarse("thumbnail", "Can the classes be told apart by an 8 x 8 thumbnail?", area)


def check_shift(manifest: pd.DataFrame, images: Images, label: str) -> Finding:
    """Tell training from test images of one class by 16 x 16 pixels.

    Args:
        manifest: n images, with `label`, `patient` and `split`.
        images: uint8 array of shape (n, size_px, size_px).
        label: the class.
    """
    rows = (manifest["label"] == label).to_numpy()
    is_test = (manifest["split"] == "test").to_numpy()[rows].astype(np.int64)
    area = _score_classifier(
        _build_linear(0.01), shrink(images[rows], 16), is_test, manifest["patient"][rows]
    )
    return _judge(
        f"shift_{label}",
        f"Can {label} images of the training set be told apart from those of the test set?",
        area,
        SHIFT_AUC,
        problem=f"The {label} images of the two sets come from different distributions. Validation images "
        "are like the training images, so a threshold or an epoch chosen on them may not suit the test set.",
        no_problem=f"The {label} images of the two sets are hard to tell apart.",
    )


def find_copies(manifest: pd.DataFrame, images: Images) -> pd.DataFrame:
    """Find pairs of nearly identical images, one in the test set and one not.

    With cross-validation: pairs of different groups, as one may be tested by a network that has seen the
    other. Memory for correlations is bounded, whatever the number of images.

    Args:
        manifest: n images, with `id`, `patient` and `split`, and with cross-validation `group`.
        images: uint8 array of shape (n, size_px, size_px).

    Returns:
        `test_id`, `other_id`, `correlation` (of 32 x 32 thumbnails, 5 digits), `same_patient`; the highest
        correlation first.
    """
    small = shrink(images, 32)
    is_cross_validated = has_folds(manifest)
    is_test = (manifest["split"] == "test").to_numpy()
    test_rows, other_rows = np.flatnonzero(is_test | is_cross_validated), np.flatnonzero(~is_test)
    blocks = [other_rows[at : at + N_IN_BLOCK] for at in range(0, len(other_rows), N_IN_BLOCK)]
    found = [np.zeros((0, 3))]
    for others in tqdm(blocks, "compare with test images", unit="block"):
        standard = _standardize(small[others])
        for at in range(0, len(test_rows), N_IN_BLOCK):
            tests = test_rows[at : at + N_IN_BLOCK]
            correlation = _standardize(small[tests]) @ standard.T
            row, column = np.nonzero(correlation >= SAME_CORRELATION)
            values = correlation[row, column].round(5)
            found.append(np.stack([tests[row], others[column], values], axis=1))
    pairs = np.concatenate(found)
    if is_cross_validated:
        groups, ends = manifest["group"].to_numpy(), pairs[:, :2].astype(np.int64)
        pairs = pairs[(ends[:, 0] < ends[:, 1]) & (groups[ends[:, 0]] != groups[ends[:, 1]])]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], -pairs[:, 2]))]
    test, other = (manifest.iloc[pairs[:, column].astype(np.int64)] for column in (0, 1))
    return pd.DataFrame(
        {
            "test_id": test["id"].to_numpy(),
            "other_id": other["id"].to_numpy(),
            "correlation": pairs[:, 2],
            "same_patient": test["patient"].to_numpy() == other["patient"].to_numpy(),
        }
    )


def judge_copies(manifest: pd.DataFrame, copies: pd.DataFrame) -> Finding:
    """Count the test images whose patient, file or picture is in the training or validation set too.

    With cross-validation, patients and files are in one fold each, and pictures are counted.

    Args:
        manifest: with `id`, `patient`, `split` and `sha256`.
        copies: as `find_copies` returns them.
    """
    if has_folds(manifest):
        return _judge_copies_of_folds(len(manifest), copies)
    is_test = manifest["split"] == "test"
    test, others = manifest[is_test], manifest[~is_test]
    has_patient = test["patient"].isin(others["patient"])
    has_file = test["sha256"].isin(others["sha256"])
    has_copy = test["id"].isin(copies["test_id"])
    n_affected = int((has_patient | has_file | has_copy).sum())
    return Finding(
        "copies",
        "Do test images share a patient, a file or a nearly identical image with the other sets?",
        float(n_affected),
        float("nan"),
        float("nan"),
        Verdict.PROBLEM if n_affected else Verdict.NO_PROBLEM,
        f"{n_affected} of {len(test)} test images do. Same patient: {has_patient.sum()}. Same file: "
        f"{has_file.sum()}. Nearly identical image: {has_copy.sum()} (copies.csv). "
        "A model may have memorised them."
        if n_affected
        else f"None of the {len(test)} test images does.",
    )


def _judge_copies_of_folds(n_images: int, copies: pd.DataFrame) -> Finding:
    n_affected = len(set(copies["test_id"]) | set(copies["other_id"]))
    return Finding(
        "copies",
        "Are there nearly identical images of different patients, which folds may set apart?",
        float(n_affected),
        float("nan"),
        float("nan"),
        Verdict.PROBLEM if n_affected else Verdict.NO_PROBLEM,
        f"{n_affected} of {n_images} images have such a copy (copies.csv). A model that is tested on one of "
        "a pair may have memorised the other."
        if n_affected
        else f"None of the {n_images} images has such a copy.",
    )


def find_doubtful_labels(manifest: pd.DataFrame, images: Images) -> pd.DataFrame:
    """Find training images that look like the other class to a classifier that has not seen their patient.

    Args:
        manifest: n training images, with `id`, `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).

    Returns:
        `id`, `label` and `probability` of that label, where it is at most 2 %; the least probable first. It
        has no rows where a class has fewer than MIN_PATIENTS patients.
    """
    y_true = _number_labels(manifest)
    if not _are_enough(y_true, manifest["patient"]):
        return pd.DataFrame({"id": [], "label": [], "probability": []})
    positive = _predict_out_of_fold(_build_linear(0.01), shrink(images, 32), y_true, manifest["patient"])
    table = manifest[["id", "label"]].assign(
        probability=np.where(y_true == 1, positive, 1 - positive).round(5)
    )
    table = table[table["probability"] <= DOUBTFUL_PROBABILITY]
    return table.sort_values("probability", kind="stable", ignore_index=True)


def judge_labels(manifest: pd.DataFrame, doubtful: pd.DataFrame) -> Finding:
    """Say whether so many labels are doubtful that they should be checked.

    Args:
        manifest: n training images, with `label` and `patient`.
        doubtful: as `find_doubtful_labels` returns them.
    """
    question = "How many training images look like the other class?"
    nan = float("nan")
    if not _are_enough(_number_labels(manifest), manifest["patient"]):
        return Finding("labels", question, nan, nan, nan, Verdict.NOT_KNOWN, _TOO_FEW)
    fraction = len(doubtful) / len(manifest)
    is_problem = fraction > DOUBTFUL_FRACTION
    return Finding(
        "labels",
        question,
        fraction,
        nan,
        nan,
        Verdict.PROBLEM if is_problem else Verdict.NO_PROBLEM,
        f"A linear model of 32 x 32 pixels gives {len(doubtful)} of {len(manifest)} images a probability of "
        f"at most {100 * DOUBTFUL_PROBABILITY:.0f} % for their own label. "
        + ("Check these labels (doubtful_labels.csv)." if is_problem else "That is few."),
    )


def shrink(images: Images, size_px: int) -> Images:
    """Average images down to thumbnails, one row each.

    Args:
        images: uint8 array of shape (n, height, width).
        size_px: height and width of the thumbnails.

    Returns:
        uint8 array of shape (n, size_px ** 2).
    """
    return _resize(images, size_px).reshape(len(images), -1)


_TOO_FEW = f"Not known: fewer than {MIN_PATIENTS} patients on one of the two sides."


@dataclass(frozen=True)
class _Area:
    value: float
    low: float
    high: float


def _judge(check: str, question: str, area: _Area, limit: float, problem: str, no_problem: str) -> Finding:
    if np.isnan(area.value):
        verdict, text = Verdict.NOT_KNOWN, _TOO_FEW
    elif area.low > limit:
        verdict, text = Verdict.PROBLEM, problem
    elif area.high <= limit:
        verdict, text = Verdict.NO_PROBLEM, no_problem
    else:
        verdict, text = Verdict.NOT_KNOWN, f"Not known: the limit of {limit} lies within the interval."
    return Finding(check, question, area.value, area.low, area.high, verdict, text)


def _judge_coarse(check: str, question: str, area: _Area) -> Finding:
    return _judge(
        check,
        question,
        area,
        COARSE_AUC,
        problem="These few numbers separate the classes well. A high score of a network on these data does "
        "not show that it recognises pneumonia.",
        no_problem="A network must score higher than this to show that it uses more than these few numbers.",
    )


def _number_labels(manifest: pd.DataFrame) -> IntArray:
    return (manifest["label"] == "pneumonia").to_numpy().astype(np.int64)


def _resize(images: Images, size_px: int) -> Images:
    small = [cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA) for image in images]
    return np.array(small, np.uint8).reshape(len(images), size_px, size_px)


def _standardize(rows: Images) -> FloatArray:
    """Shift and scale rows so that the product of two is their correlation; constant rows become 0."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


def _build_linear(strength: float) -> Any:
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
    )


def _are_enough(y_true: IntArray, patients: pd.Series) -> bool:
    n_patients = [patients[y_true == number].nunique() for number in (0, 1)]
    return min(n_patients) >= MIN_PATIENTS


def _predict_out_of_fold(
    classifier: ClassifierMixin, features: FloatArray | Images, y_true: IntArray, patients: pd.Series
) -> FloatArray:
    """Predict each image by a classifier that has not seen its patient.

    Args:
        classifier: fitted to N_FIT images at most, drawn at random where there are more, which bounds memory.
        features: array of shape (n, n_features); grey levels, uint8, are divided by 255 block by block.
        y_true: int array of shape (n,).
        patients: of the n images.

    Returns:
        float array of shape (n,), probabilities of class 1.
    """
    generator = np.random.default_rng(0)
    predicted = np.empty(len(y_true))
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0)
    # Threads of OpenMP and BLAS wait for one another. On data this small they gain nothing, and while other
    # processes use the cores a fit that takes 1 s takes a minute.
    with threadpool_limits(limits=1):
        for fit_rows, rows in folds.split(features, y_true, patients):
            if len(fit_rows) > N_FIT:
                fit_rows = np.sort(generator.choice(fit_rows, N_FIT, replace=False))
            fitted = clone(classifier).fit(_scale(features[fit_rows]), y_true[fit_rows])
            for start in range(0, len(rows), N_FIT):
                block = rows[start : start + N_FIT]
                predicted[block] = fitted.predict_proba(_scale(features[block]))[:, 1]
    return predicted


def _scale(features: FloatArray | Images) -> FloatArray:
    return features / 255 if features.dtype == np.uint8 else features.astype(np.float64, copy=False)


def _score_classifier(
    classifier: ClassifierMixin, features: FloatArray | Images, y_true: IntArray, patients: pd.Series
) -> _Area:
    if not _are_enough(y_true, patients):
        return _Area(float("nan"), float("nan"), float("nan"))
    positive = _predict_out_of_fold(classifier, features, y_true, patients)
    drawn = resampling.draw_weights(patients.to_numpy(object), y_true, N_DRAWS, seed=0)
    weights = np.vstack([np.ones(len(y_true)), drawn])
    probabilities = np.stack([1 - positive, positive], axis=1)
    y_pred = (positive >= 0.5).astype(np.int64)
    areas = resampling.score_draws(y_true, probabilities, y_pred, weights)["roc_auc"]
    return _Area(float(areas[0]), *resampling.find_interval(areas[1:]))
