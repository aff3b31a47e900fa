"""Training on training and validation images together, with out-of-fold predictions of the latter."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from pneumo.base.errors import PneumoError
from pneumo.training.fit import Features, TrainingData, fit_classifier, predict_rows
from pneumo.training.networks import Classifier
from pneumo.training.recipe import Recipe


@dataclass(frozen=True)
class Refitted:
    """What training on all images gives.

    Attributes:
        classifier: trained on training and validation images.
        history: of that classifier, see `fit_classifier`; it has no validation metrics.
        val_probabilities: float32 array of shape (n_val, n_classes), each from a network that has not seen
            the patient.
    """

    classifier: Classifier
    history: pd.DataFrame
    val_probabilities: npt.NDArray[np.float32]


def refit_classifier(
    build: Callable[[], Classifier],
    recipe: Recipe,
    data: TrainingData,
    val_groups: npt.NDArray[np.generic],
    seed: int,
    load_features: Callable[[Classifier], Features],
) -> Refitted:
    """Train a classifier on training and validation images, and predict the latter out of fold.

    For each fold of validation patients one more network is trained, on the training images and the other
    folds, and predicts that fold. It takes `n_folds + 1` trainings.

    Args:
        build: gives a new classifier with its first weights, the same each time.
        recipe: with `refit`.
        data: training and validation images; the former share no patient with the latter.
        val_groups: array of shape (n_val,), what must stay together: a validation image's patient.
        seed: of the folds, and of the order of the images.
        load_features: gives a classifier's backbone features of all images.

    Raises:
        PneumoError: a class has fewer validation patients than there are folds.
    """
    if recipe.refit is None:
        raise ValueError("Expected a recipe with refit. Received: none")
    folds = assign_folds(data.val_classes, val_groups, recipe.refit.n_folds, seed)

    def fit(is_held_out: npt.NDArray[np.bool_]) -> tuple[Classifier, pd.DataFrame]:
        keras.utils.clear_session()  # frees the network before
        classifier = build()
        part = hold_out(data, is_held_out)
        return classifier, fit_classifier(classifier, recipe, part, seed, partial(load_features, classifier))

    probabilities = np.zeros((len(folds), data.n_classes), np.float32)
    for fold in range(recipe.refit.n_folds):
        held_out = folds == fold
        classifier, _ = fit(held_out)
        load = partial(load_features, classifier)
        rows = data.val_rows[held_out]
        probabilities[held_out] = predict_rows(classifier, recipe, data.images, rows, load)
    classifier, history = fit(np.zeros(len(folds), bool))
    return Refitted(classifier, history, probabilities)


def assign_folds(
    classes: npt.NDArray[np.int64], groups: npt.NDArray[np.generic], n_folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Assign images to folds, such that each group is in one and classes are spread evenly.

    Args:
        classes: int array of shape (n,).
        groups: array of shape (n,), patients.
        n_folds: 2 or more.
        seed: of the shuffle.

    Returns:
        int array of shape (n,), 0 to n_folds - 1.

    Raises:
        PneumoError: a class has fewer groups than there are folds.
    """
    fewest = min(len(np.unique(groups[classes == number])) for number in np.unique(classes))
    if fewest < n_folds:
        raise PneumoError(
            f"refit.n_folds: Expected at most {fewest}, as many as the validation part has patients of its "
            f"rarest class. Received: {n_folds}"
        )
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = np.zeros(len(classes), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(classes, classes, groups)):
        folds[held_out] = fold
    return folds


def hold_out(data: TrainingData, is_held_out: npt.NDArray[np.bool_]) -> TrainingData:
    """Add validation images to the training images, all but those held out, and leave none to validate on.

    Args:
        data: training and validation images.
        is_held_out: bool array of shape (n_val,).
    """
    added = ~is_held_out
    return replace(
        data,
        train_rows=np.concatenate([data.train_rows, data.val_rows[added]]),
        train_classes=np.concatenate([data.train_classes, data.val_classes[added]]),
        val_rows=data.val_rows[:0],
        val_classes=data.val_classes[:0],
    )
