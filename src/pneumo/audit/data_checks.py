"""What a data set gives away without its lungs, and what is wrong with it: checks without a network.

A check answers one question with a number, says whether that number is a problem, and why. Classifiers are
scored on patients that they were not fitted to, with a 95 % interval over patients.
"""

from dataclasses import dataclass
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

from pneumo.evaluation import resampling

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

N_FOLDS = 5
N_DRAWS = 500
MIN_PATIENTS = 10  # of each class; with fewer, a classifier is not asked
BORDER_FRACTION = 0.06
SHORTCUT_AUC = 0.6  # what cannot see lungs should be near 0.5
COARSE_AUC = 0.9  # what sees no more than brightness or an outline may be better than chance, but not good
SHIFT_AUC = 0.7
SAME_CORRELATION = 0.998
DOUBTFUL_PROBABILITY = 0.02
DOUBTFUL_FRACTION = 0.005


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: its name.
        question: what it asks.
        value: the number found: a ROC AUC, a count or a fraction.
        low, high: 95 % interval of a ROC AUC, else nan.
        is_problem: whether results should be read with this in mind.
        text: what the number means.
    """

    check: str
    question: str
    value: float
    low: float
    high: float
    is_problem: bool
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
    return _judge_shortcut(
        "metadata",
        "Can the classes be told apart by size, aspect ratio, bytes and colour mode of the files?",
        area,
        "Resizing to a square keeps the aspect ratio in the pixels, where a network can learn it.",
    )


def check_border(manifest: pd.DataFrame, images: npt.NDArray[np.uint8]) -> Finding:
    """Tell the classes apart by the outermost pixels, where there are no lungs.

    Args:
        manifest: n training images, with `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).
    """
    size_px = images.shape[1]
    width = max(1, round(BORDER_FRACTION * size_px))
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
    return _judge_shortcut(
        "border",
        f"Can the classes be told apart by the outer {BORDER_FRACTION:.0%} of the image?",
        area,
        "Collimation, markers or black bars go with the class; cropping or trimming takes them away.",
    )


def check_brightness(manifest: pd.DataFrame, images: npt.NDArray[np.uint8]) -> Finding:
    """Tell the classes apart by the mean and the spread of all grey values.

    Args:
        manifest: n training images, with `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).
    """
    features = np.stack([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)
    area = _score_classifier(_build_linear(1.0), features, _number_labels(manifest), manifest["patient"])
    return _judge_coarse("brightness", "Can the classes be told apart by mean brightness and contrast?", area)


def check_thumbnail(manifest: pd.DataFrame, images: npt.NDArray[np.uint8]) -> Finding:
    """Tell the classes apart by 8 x 8 pixels, in which no infiltrate can be made out.

    Args:
        manifest: n training images, with `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).
    """
    area = _score_classifier(
        _build_linear(0.1), shrink(images, 8), _number_labels(manifest), manifest["patient"]
    )
    return _judge_coarse("thumbnail", "Can the classes be told apart by an 8 x 8 thumbnail?", area)


def check_shift(manifest: pd.DataFrame, images: npt.NDArray[np.uint8], label: str) -> Finding:
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
    is_problem = area.low > SHIFT_AUC
    meaning = (
        "They come from different distributions: a threshold or an epoch chosen on validation, which is like "
        "the training set, need not suit the test set."
        if is_problem
        else "Little sets them apart, so what validation says should hold on the test set."
    )
    question = f"Can {label} images of the training set be told from those of the test set?"
    return _report(f"shift_{label}", question, area, is_problem, meaning)


def find_copies(manifest: pd.DataFrame, images: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Find pairs of nearly identical images, one in the test set and one not.

    Args:
        manifest: n images, with `id`, `patient` and `split`.
        images: uint8 array of shape (n, size_px, size_px).

    Returns:
        `test_id`, `other_id`, `correlation` (of 32 x 32 thumbnails), `same_patient`; the most alike first.
    """
    pixels = shrink(images, 32)
    pixels = pixels - pixels.mean(axis=1, keepdims=True)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-9)
    is_test = (manifest["split"] == "test").to_numpy()
    correlation = pixels[is_test] @ pixels[~is_test].T
    test_rows, other_rows = np.nonzero(correlation >= SAME_CORRELATION)
    test, other = manifest[is_test].iloc[test_rows], manifest[~is_test].iloc[other_rows]
    table = pd.DataFrame(
        {
            "test_id": test["id"].to_numpy(),
            "other_id": other["id"].to_numpy(),
            "correlation": correlation[test_rows, other_rows].round(5),
            "same_patient": test["patient"].to_numpy() == other["patient"].to_numpy(),
        }
    )
    return table.sort_values("correlation", ascending=False, kind="stable", ignore_index=True)


def judge_copies(manifest: pd.DataFrame, copies: pd.DataFrame) -> Finding:
    """Say whether patients or pictures of the test set are in the training or validation set too.

    Args:
        manifest: with `patient`, `split` and `sha256`.
        copies: as `find_copies` returns them.
    """
    is_test = manifest["split"] == "test"
    shared = {
        key: len(set(manifest.loc[is_test, key]) & set(manifest.loc[~is_test, key]))
        for key in ("patient", "sha256")
    }
    n_found = shared["patient"] + shared["sha256"] + len(copies)
    return Finding(
        "copies",
        "Are patients, files or nearly identical images on both sides of the test set's border?",
        float(n_found),
        float("nan"),
        float("nan"),
        n_found > 0,
        f"{shared['patient']} patients and {shared['sha256']} files are in the test set and outside it; "
        f"{len(copies)} pairs of images look the same"
        + (" (copies.csv). Scores on them are memory, not skill." if n_found else "."),
    )


def find_doubtful_labels(manifest: pd.DataFrame, images: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Find training images that look like the other class to a classifier that has not seen their patient.

    Args:
        manifest: n training images, with `id`, `label` and `patient`.
        images: uint8 array of shape (n, size_px, size_px).

    Returns:
        `id`, `label` and `probability` of that label, where it is at most 2 %; the least probable first.
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


def judge_labels(n_images: int, doubtful: pd.DataFrame) -> Finding:
    """Say whether so many labels are doubtful that the data should be looked at.

    Args:
        n_images: of the training set.
        doubtful: as `find_doubtful_labels` returns them.
    """
    fraction = len(doubtful) / n_images
    is_problem = fraction > DOUBTFUL_FRACTION
    return Finding(
        "labels",
        "How many training images look like the other class?",
        fraction,
        float("nan"),
        float("nan"),
        is_problem,
        f"A linear model of 32 x 32 pixels takes {len(doubtful)} of {n_images} images for the other class, "
        "with 98 % or more" + (": look at them (doubtful_labels.csv)." if is_problem else "; that is few."),
    )


def shrink(images: npt.NDArray[np.uint8], size_px: int) -> FloatArray:
    """Average images down to thumbnails, a row each: (n, height, width) -> (n, size_px ** 2)."""
    small = [cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA) for image in images]
    return np.array(small, dtype=np.float64).reshape(len(images), -1) / 255


@dataclass(frozen=True)
class _Area:
    value: float
    low: float
    high: float


def _judge_shortcut(check: str, question: str, area: _Area, why: str) -> Finding:
    is_problem = area.low > SHORTCUT_AUC
    text = why if is_problem else "Next to nothing there goes with the class."
    return _report(check, question, area, is_problem, text)


def _judge_coarse(check: str, question: str, area: _Area) -> Finding:
    is_problem = area.low > COARSE_AUC
    text = (
        "So little is enough to score well: a network's high score on these data does not show that it sees "
        "pneumonia."
        if is_problem
        else "A network has to beat this to show that it sees more."
    )
    return _report(check, question, area, is_problem, text)


def _report(check: str, question: str, area: _Area, is_problem: bool, text: str) -> Finding:
    if np.isnan(area.value):
        text = f"Not known: fewer than {MIN_PATIENTS} patients on one side."
    return Finding(check, question, area.value, area.low, area.high, is_problem, text)


def _number_labels(manifest: pd.DataFrame) -> IntArray:
    return (manifest["label"] == "pneumonia").to_numpy().astype(np.int64)


def _build_linear(strength: float) -> Any:
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=500)
    )


def _are_enough(y_true: IntArray, patients: pd.Series) -> bool:
    n_patients = [patients[y_true == number].nunique() for number in (0, 1)]
    return min(n_patients) >= MIN_PATIENTS


def _predict_out_of_fold(
    classifier: ClassifierMixin, features: FloatArray, y_true: IntArray, patients: pd.Series
) -> FloatArray:
    predicted = np.empty(len(y_true))
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0)
    for fit_rows, rows in folds.split(features, y_true, patients):
        fitted = clone(classifier).fit(features[fit_rows], y_true[fit_rows])
        predicted[rows] = fitted.predict_proba(features[rows])[:, 1]
    return predicted


def _score_classifier(
    classifier: ClassifierMixin, features: FloatArray, y_true: IntArray, patients: pd.Series
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
