"""train: images.npy and the manifest -> model.keras, history.csv, predictions.csv, timing.json of one run."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.artifacts import write_folder, write_json
from pneumo.base.config import Params, Run, build, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, Task
from pneumo.base.paths import FEATURE_CACHE_DIR, images_path, manifest_path
from pneumo.base.reproducibility import make_deterministic
from pneumo.data.manifest import read_manifest
from pneumo.evaluation.predictions import (
    number_classes,
    select_scores,
    tabulate_predictions,
    write_predictions,
)
from pneumo.evaluation.thresholds import choose_threshold
from pneumo.prediction.bundle import Card, save_bundle
from pneumo.preprocessing.combo import parse_combo
from pneumo.training.features import load_or_extract_features
from pneumo.training.fit import Features, TrainingData, fit_classifier, predict_probabilities
from pneumo.training.networks import Classifier, build_classifier
from pneumo.training.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """What a run learns from, and what it predicts.

    Attributes:
        manifest: one row an image.
        images_path: .npy file of a combo's images, row i for row i of the manifest.
        y_true: int array of shape (n,), class numbers; -1 where the class is not known.
        training: the training and validation part.
        test_rows: int array of rows of the test set.
        weights_dir: folder with ImageNet weights, or None to let Keras download them.
    """

    manifest: pd.DataFrame
    images_path: Path
    y_true: npt.NDArray[np.int64]
    training: TrainingData
    test_rows: npt.NDArray[np.int64]
    weights_dir: Path | None

    def build_classifier(self, recipe: Recipe, seed: int) -> Classifier:
        """Build a recipe's network for these images and classes; see `networks.build_classifier`."""
        shape = self.training.images.shape[1:]
        return build_classifier(recipe, shape, self.training.n_classes, seed, self.weights_dir)

    def load_features(self, classifier: Classifier) -> Features:
        """Return the features of all images from the backbone of a classifier, computed once and kept."""
        return load_or_extract_features(classifier.extractor, self.images_path, FEATURE_CACHE_DIR)


def load_data(params: Params, combo: str) -> Data:
    """Read the manifest and open a combo's images.

    Raises:
        PneumoError: a class has no training or no validation images.
    """
    manifest = read_manifest(manifest_path(params.source))
    path = images_path(params.source, combo)
    classes = CLASSES[params.task]
    y_true = number_classes(manifest, params.task)
    train, val, test = (
        np.flatnonzero((manifest["split"] == part) & (y_true >= 0)) for part in ("train", "val", "test")
    )
    for part, rows in (("train", train), ("val", val)):
        missing = set(range(len(classes))) - set(y_true[rows])
        if missing:
            raise PneumoError(f"Expected {classes[min(missing)]} images in {part}. Received: none")
    images = np.load(path, mmap_mode="r")
    training = TrainingData(images, train, y_true[train], val, y_true[val], len(classes))
    weights_dir = Path(params.weights_dir) if params.weights_dir else None
    return Data(manifest, path, y_true, training, test, weights_dir)


def run(params: Params, run: Run) -> None:
    """Train one run and predict validation and test images; test labels are only copied, never looked at."""
    start = time.perf_counter()
    make_deterministic()
    recipe = build(Recipe, load_group("model", run.model, params.models[run.model]), f"model {run.model}")
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    data = load_data(params, run.combo)
    classes = CLASSES[params.task]
    classifier = data.build_classifier(recipe, run.seed)
    history = fit_classifier(
        classifier, recipe, data.training, run.seed, lambda: data.load_features(classifier)
    )
    predicted = np.concatenate([data.training.val_rows, data.test_rows])
    if all(phase.uses_features for phase in recipe.phases.values()):
        probabilities = predict_probabilities(classifier.head, data.load_features(classifier), predicted)
    else:
        probabilities = predict_probabilities(classifier.model, data.training.images, predicted)
    table = tabulate_predictions(
        data.manifest.iloc[predicted], classes, data.y_true[predicted], probabilities
    )
    threshold = None
    if params.task is Task.binary:
        val = select_scores(table, "val")
        threshold = choose_threshold(val.y_true, val.probabilities[:, 1], params.threshold)

    with write_folder(run.model_dir) as folder:
        steps = parse_combo(run.combo, params.combos[run.combo], params.image_size_px)
        card = Card(list(classes), steps, threshold, title)
        save_bundle(classifier.model, card, folder / "model.keras")
        history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        write_predictions(table, folder / "predictions.csv")
        write_json(
            folder / "timing.json",
            {"train_s": round(time.perf_counter() - start, 1), "n_epochs": len(history)},
        )
    print(f"{run.name}: {len(history)} epochs, {time.perf_counter() - start:.0f} s, in {run.model_dir}")
