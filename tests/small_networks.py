"""Recipes, images and networks so small that training them takes a moment."""

from pathlib import Path

import numpy as np
import pytest

from pneumo.training.fit import TrainingData
from pneumo.training.networks import Classifier, build_classifier
from pneumo.training.recipe import BACKBONES, Monitor, Network, Phase, Recipe, Weights

SIZE_PX = 32
SHAPE = (SIZE_PX, SIZE_PX, 1)
NO_WEIGHTS = Path("no such folder")


def NO_FEATURES():  # noqa: N802
    pytest.fail("features are not needed")


def make_recipe(name="dense", **changes) -> Recipe:
    size_px = max(SIZE_PX, BACKBONES[name].min_size_px) if name in BACKBONES else SIZE_PX
    network = Network(
        name, size_px, filters=[4] if name == "cnn" else [], units=[4], dropout=0.1, weights=Weights.random
    )
    settings = {"batch_size": 8, "balance_classes": True, "monitor": Monitor.val_auc}
    phases = {"fit": Phase(epochs=2, learning_rate=1e-3)}
    return Recipe(network=network, **{**settings, "phases": phases, **changes})


def make_images(n=24, size_px=SIZE_PX) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size_px, size_px, 1), dtype=np.uint8)


def make_data(images: np.ndarray, n_classes=2) -> TrainingData:
    rows = np.arange(len(images))
    classes = rows % n_classes
    return TrainingData(images, rows[:-8], classes[:-8], rows[-8:], classes[-8:], n_classes)


def build_small(recipe: Recipe, n_classes=2, seed=0) -> Classifier:
    return build_classifier(recipe, SHAPE, n_classes, seed, NO_WEIGHTS)
