"""What a run learns from, how it is trained on that, and what it predicts."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.artifacts import hash_file
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES
from pneumo.base.partition import divide_into_folds
from pneumo.base.paths import FEATURE_CACHE_DIR, images_path, manifest_path
from pneumo.base.tables import number_classes, read_manifest
from pneumo.training.devices import use_devices
from pneumo.training.features import load_or_extract_features
from pneumo.training.fit import Features, TrainingData, fit_classifier, predict_rows
from pneumo.training.networks import Classifier, build_classifier
from pneumo.training.recipe import Recipe
from pneumo.training.refit import refit_classifier


@dataclass(frozen=True)
class ImagesFile:
    """The .npy file of a combo's images, row i for row i of the manifest; all folds of a run share one.

    Attributes:
        path: of the file.
    """

    path: Path

    @cached_property
    def sha256(self) -> str:
        """Hash of its content, computed once: it may have many gigabytes."""
        return hash_file(self.path)


@dataclass(frozen=True)
class Dataset:
    """A combo's images, their classes and their split.

    Attributes:
        manifest: one row an image.
        file: of the combo's images.
        y_true: int array of shape (n,), class numbers; -1 where the class is not known.
        training: the training and validation part.
        test_rows: int array of rows of the test set.
        weights_dir: folder with ImageNet weights.
    """

    manifest: pd.DataFrame
    file: ImagesFile
    y_true: npt.NDArray[np.int64]
    training: TrainingData
    test_rows: npt.NDArray[np.int64]
    weights_dir: Path

    def build_classifier(self, recipe: Recipe, seed: int) -> Classifier:
        """Build a recipe's network for these images and classes, on its devices.

        See `networks.build_classifier`.
        """
        use_devices(recipe.devices)
        shape = self.training.images.shape[1:]
        return build_classifier(recipe, shape, self.training.n_classes, seed, self.weights_dir)

    def load_features(self, classifier: Classifier) -> Features:
        """Return the features of all images from the backbone of a classifier, computed once and kept."""
        return load_or_extract_features(
            classifier.extractor, self.file.path, self.file.sha256, FEATURE_CACHE_DIR
        )


def load_dataset(params: Params, combo: str) -> Dataset:
    """Read the manifest and open a combo's images, to choose a recipe by.

    Raises:
        PneumoError: a class has no training or no validation images, or images are divided into folds.
    """
    if params.split.has_folds:
        raise PneumoError(
            "split.protocol: Expected official, to choose a recipe by. Received: folds. What validates in "
            "one fold is tested in another, so a recipe chosen by it would be chosen on the test set."
        )
    file = ImagesFile(images_path(params.data_name, combo))
    return _open_dataset(params, file, read_manifest(manifest_path(params.data_name)))


def load_folds(params: Params, combo: str, seed: int) -> list[Dataset]:
    """Read the manifest and open a combo's images, divided as each network of a run sees them.

    Args:
        params: data, split and task.
        combo: whose images.
        seed: of the run. With cross-validation, each seed divides the images anew, so that the spread over
            seeds holds what another division would change.

    Returns:
        One Dataset, or one a fold with `split` in its manifest.

    Raises:
        PneumoError: a class has no training or no validation images, or too few patients for the folds.
    """
    manifest = read_manifest(manifest_path(params.data_name))
    file = ImagesFile(images_path(params.data_name, combo))
    if not params.split.has_folds:
        return [_open_dataset(params, file, manifest)]
    if "group" not in manifest:
        raise PneumoError(
            "Expected a manifest prepared for split.protocol: folds. Received: one with an official split. "
            "Run `dvc repro`."
        )
    labels, subtypes = (manifest[name].to_numpy(str) for name in ("label", "subtype"))
    divided = divide_into_folds(labels, subtypes, manifest["group"].to_numpy(), params.split, seed)
    return [_open_dataset(params, file, manifest.assign(split=parts)) for parts in divided]


def _open_dataset(params: Params, file: ImagesFile, manifest: pd.DataFrame) -> Dataset:
    classes = CLASSES[params.task]
    y_true = number_classes(manifest, params.task)
    train, val, test = (
        np.flatnonzero((manifest["split"] == part) & (y_true >= 0)) for part in ("train", "val", "test")
    )
    for part, rows in (("train", train), ("val", val)):
        missing = set(range(len(classes))) - set(y_true[rows])
        if missing:
            raise PneumoError(f"Expected {classes[min(missing)]} images in {part}. Received: none")
    images = np.load(file.path, mmap_mode="r")
    training = TrainingData(images, train, y_true[train], val, y_true[val], len(classes))
    return Dataset(manifest, file, y_true, training, test, Path(params.weights_dir))


def choose_examples(training: TrainingData) -> npt.NDArray[np.uint8]:
    """Return the first training image of each class: uint8 array of shape (n_classes, height, width, 1)."""
    firsts = [int(np.argmax(training.train_classes == k)) for k in range(training.n_classes)]
    return training.images[np.sort(training.train_rows[firsts])]


@dataclass(frozen=True)
class TrainedRun:
    """What training a recipe on a dataset gives.

    Attributes:
        classifier: the trained network.
        history: one row an epoch, see `fit.fit_classifier`.
        rows: int array of shape (n,), rows of the validation and then of the test images.
        probabilities: float32 array of shape (n, n_classes), predicted for these rows. With `refit`, those of
            validation images come from networks that have not seen their patients.
    """

    classifier: Classifier
    history: pd.DataFrame
    rows: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]


def train_run(data: Dataset, recipe: Recipe, seed: int) -> TrainedRun:
    """Train a recipe and predict validation and test images.

    Args:
        data: images, classes and split.
        recipe: the network and its training.
        seed: of weights, order of images and augmentation.
    """
    images, val_rows = data.training.images, data.training.val_rows
    if recipe.refit is None:
        classifier = data.build_classifier(recipe, seed)
        load = partial(data.load_features, classifier)
        history = fit_classifier(classifier, recipe, data.training, seed, load)
        of_val = predict_rows(classifier, recipe, images, val_rows, load)
    else:
        build = partial(data.build_classifier, recipe, seed)
        patients = data.manifest["patient"].to_numpy(str)[val_rows]
        refitted = refit_classifier(build, recipe, data.training, patients, seed, data.load_features)
        classifier, history, of_val = refitted.classifier, refitted.history, refitted.val_probabilities
        load = partial(data.load_features, classifier)
    of_test = predict_rows(classifier, recipe, images, data.test_rows, load)
    rows = np.concatenate([val_rows, data.test_rows])
    return TrainedRun(classifier, history, rows, np.concatenate([of_val, of_test]))
