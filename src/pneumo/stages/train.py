"""train: images.npy and the manifest -> model.keras, history.csv, predictions.csv, timing.json of one run."""

import time
from pathlib import Path

import numpy as np

from pneumo.base.artifacts import write_folder, write_json
from pneumo.base.config import Params, Run, build, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, Task
from pneumo.base.paths import FEATURE_CACHE_DIR, images_path, manifest_path
from pneumo.base.reproducibility import make_deterministic
from pneumo.domain.bundle import Card, save_bundle
from pneumo.domain.features import load_or_extract_features
from pneumo.domain.manifest import read_manifest
from pneumo.domain.metrics import choose_threshold
from pneumo.domain.networks import build_classifier
from pneumo.domain.predictions import (
    number_classes,
    select_scores,
    tabulate_predictions,
    write_predictions,
)
from pneumo.domain.recipe import Recipe
from pneumo.domain.training import Features, TrainingData, fit_classifier, predict_probabilities
from pneumo.domain.transforms import parse_combo


def run(params: Params, run: Run) -> None:
    """Train one run and predict validation and test images; test labels are only copied, never looked at."""
    start = time.perf_counter()
    make_deterministic()
    recipe = build(Recipe, load_group("model", run.model, params.models[run.model]), f"model {run.model}")
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    manifest = read_manifest(manifest_path(params.source))
    images_file = images_path(params.source, run.combo)
    images = np.load(images_file, mmap_mode="r")
    classes = CLASSES[params.task]
    y = number_classes(manifest, params.task)
    rows = {part: np.flatnonzero((manifest["split"] == part) & (y >= 0)) for part in ("train", "val", "test")}
    for part in ("train", "val"):
        missing = set(range(len(classes))) - set(y[rows[part]])
        if missing:
            raise PneumoError(f"Expected {classes[min(missing)]} images in {part}. Received: none")
    data = TrainingData(images, rows["train"], y[rows["train"]], rows["val"], y[rows["val"]], len(classes))

    weights_dir = Path(params.weights_dir) if params.weights_dir else None
    classifier = build_classifier(recipe, images.shape[1:], len(classes), run.seed, weights_dir)

    def load_features() -> Features:
        return load_or_extract_features(classifier.extractor, images_file, FEATURE_CACHE_DIR)

    history = fit_classifier(classifier, recipe, data, run.seed, load_features)
    predicted = np.concatenate([rows["val"], rows["test"]])
    if all(phase.uses_features for phase in recipe.phases.values()):
        probabilities = predict_probabilities(classifier.head, load_features(), predicted)
    else:
        probabilities = predict_probabilities(classifier.model, images, predicted)
    table = tabulate_predictions(manifest.iloc[predicted], classes, y[predicted], probabilities)
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
