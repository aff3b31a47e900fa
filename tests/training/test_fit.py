"""Training, phase by phase, on small networks."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from pneumo.base.artifacts import hash_file
from pneumo.training.features import load_or_extract_features
from pneumo.training.fit import (
    balanced_weights,
    build_optimizer,
    encode_targets,
    fit_classifier,
    predict_probabilities,
    predict_rows,
    repeat_smaller_classes,
)
from pneumo.training.recipe import Augmentation, Monitor, Optimizer, Phase, Schedule
from small_networks import NO_FEATURES, build_small, make_data, make_images, make_recipe

TESTS_DIR = Path(__file__).parent.parent


def test_only_phases_that_augment_see_varied_images():
    images = make_images(24)
    augmentation = Augmentation(brightness_fraction=0.9)

    def train(augment, augmentation):
        phases = {"fit": Phase(epochs=1, learning_rate=1e-2, augment=augment)}
        recipe = make_recipe("cnn", phases=phases, augmentation=augmentation)
        classifier = build_small(recipe)
        history = fit_classifier(classifier, recipe, make_data(images), 0, NO_FEATURES)
        return history["loss"][0], classifier.model

    plain_loss, _ = train(False, Augmentation())
    unused_loss, _ = train(False, augmentation)
    varied_loss, model = train(True, augmentation)
    assert plain_loss == unused_loss != varied_loss
    assert not any("view" in layer.name for layer in model.layers)


def test_balanced_weights_make_classes_count_the_same():
    classes = np.array([0, 1, 1, 1, 2, 2])
    weights = balanced_weights(classes)
    sums = [weights[classes == k].sum() for k in range(3)]
    np.testing.assert_allclose(sums, sums[0])
    assert weights.mean() == pytest.approx(1)


def test_smaller_classes_are_repeated_and_none_is_left_out():
    classes = np.array([0, 1, 1, 1, 1, 1, 2, 2])
    chosen = repeat_smaller_classes(classes, seed=0)
    assert np.bincount(classes[chosen]).tolist() == [5, 5, 5]
    assert np.bincount(chosen, minlength=8)[:6].tolist() == [5, 1, 1, 1, 1, 1]
    assert sorted(np.bincount(chosen)[6:]) == [2, 3]
    np.testing.assert_array_equal(chosen, repeat_smaller_classes(classes, seed=0))


def test_targets_are_one_column_for_two_classes_and_one_hot_for_more():
    np.testing.assert_array_equal(encode_targets(np.array([0, 1]), 2), [[0], [1]])
    np.testing.assert_array_equal(encode_targets(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])


def test_a_cosine_schedule_falls_from_the_learning_rate_to_zero():
    phase = Phase(epochs=1, learning_rate=0.5, schedule=Schedule.cosine)
    schedule = build_optimizer(phase, n_steps=10)._learning_rate
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0.5, 0.25, 0])


def test_one_cycle_rises_for_a_quarter_and_falls_to_zero():
    phase = Phase(epochs=1, learning_rate=0.5, schedule=Schedule.one_cycle)
    schedule = build_optimizer(phase, n_steps=100)._learning_rate
    assert [float(schedule(step)) for step in (0, 25, 100)] == pytest.approx([0.5 / 25, 0.5, 0], abs=1e-6)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_every_optimizer_starts_at_the_learning_rate(optimizer):
    phase = Phase(epochs=1, learning_rate=0.5, optimizer=optimizer, weight_decay=0.1)
    built = build_optimizer(phase, n_steps=10)
    assert type(built).__name__.lower() == optimizer.value
    assert float(built.learning_rate) == pytest.approx(0.5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_training_learns_and_keeps_the_best_epoch(n_classes):
    images = make_images(60) // 4
    data = make_data(images, n_classes)
    images += ((np.arange(60) % n_classes) * 80).astype(np.uint8)[:, None, None, None]
    recipe = make_recipe(phases={"fit": Phase(epochs=12, learning_rate=3e-3)}, monitor=Monitor.val_loss)
    classifier = build_small(recipe, n_classes=n_classes)
    history = fit_classifier(classifier, recipe, data, 0, NO_FEATURES)
    assert list(history["epoch"]) == list(range(1, 13))
    assert history["val_auc"].max() > 0.9
    probabilities = predict_probabilities(classifier.model, images, data.val_rows)
    loss = -np.log(probabilities[np.arange(8), data.val_classes]).mean()
    assert loss == pytest.approx(history["val_loss"].min(), abs=1e-3)


def test_the_last_epoch_is_kept_where_the_recipe_says_so():
    images = make_images(24)
    data = make_data(images)
    recipe = make_recipe(
        phases={"fit": Phase(epochs=6, learning_rate=0.05)}, monitor=Monitor.val_loss, keep_best=False
    )
    classifier = build_small(recipe)
    history = fit_classifier(classifier, recipe, data, 0, NO_FEATURES)
    probabilities = predict_probabilities(classifier.model, images, data.val_rows)
    loss = -np.log(probabilities[np.arange(8), data.val_classes]).mean()
    assert loss == pytest.approx(history["val_loss"].iloc[-1], rel=1e-3)
    assert history["val_loss"].iloc[-1] > history["val_loss"].min()


def test_oversampling_trains_on_as_many_of_each_class():
    images = make_images(24)
    data = replace(make_data(images), train_classes=np.repeat([0, 1], [4, 12]))
    recipe = make_recipe(phases={"fit": Phase(1, 1e-3)}, oversample=True)
    classifier = build_small(recipe)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append((batch, logs)))
    fit_classifier(classifier, recipe, data, 0, NO_FEATURES, callbacks=[watch])
    assert len(seen) == 24 / recipe.batch_size


def test_early_stopping_ends_after_patience():
    images = make_images(24)
    recipe = make_recipe(
        phases={"fit": Phase(epochs=50, learning_rate=1e-9, patience=2)}, monitor=Monitor.val_accuracy
    )
    classifier = build_small(recipe)
    history = fit_classifier(classifier, recipe, make_data(images), 0, NO_FEATURES)
    assert len(history) == 3


def test_a_head_phase_trains_the_head_alone_on_features(tmp_path):
    images = make_images(24)
    path = tmp_path / "images.npy"
    np.save(path, images)
    recipe = make_recipe(
        "mobilenet075",
        phases={
            "head": Phase(epochs=2, learning_rate=1e-2, trainable="head"),
            "finetune": Phase(1, 1e-3, trainable="last_10", augment=True, freeze_batch_norm=False),
        },
        augmentation=Augmentation(flip=True),
    )
    classifier = build_small(recipe)
    before = [weights.copy() for weights in classifier.backbone.get_weights()]
    head_only = make_recipe("mobilenet075", phases={"head": recipe.phases["head"]})
    calls = []

    def load_features():
        calls.append(1)
        return load_or_extract_features(classifier.extractor, path, hash_file(path), tmp_path / "cache")

    fit_classifier(classifier, head_only, make_data(images), 0, load_features)
    assert calls == [1]
    for old, new in zip(before, classifier.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    history = fit_classifier(classifier, recipe, make_data(images), 0, load_features)
    assert list(history["phase"]) == ["head", "head", "finetune"]
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, classifier.backbone.get_weights(), strict=True)
    ]
    assert any(changed)
    assert not all(changed)


class Notes(keras.callbacks.Callback):
    """Keeps the weights after each step, and at the end of each epoch as other callbacks find them."""

    def __init__(self):
        super().__init__()
        self.steps, self.epochs, self.scores = [], [], []

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002
        self.steps.append(self.take())

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        self.epochs.append(self.take())
        self.scores.append(logs["val_loss"])

    def take(self):
        return [np.array(each) for each in self.model.trainable_variables]


class TestMovingAverage:
    momentum = 0.8

    def train(self, **phase):
        settings = {"epochs": 3, "learning_rate": 0.02, "use_ema": True, "ema_momentum": self.momentum}
        phases = {"fit": Phase(**settings | phase)}
        keep_best = phase.get("patience") is not None
        recipe = make_recipe("cnn", phases=phases, monitor=Monitor.val_loss, keep_best=keep_best)
        classifier = build_small(recipe)
        notes = Notes()
        history = fit_classifier(classifier, recipe, make_data(make_images()), 0, NO_FEATURES, [notes])
        return classifier.model, notes, history

    def average(self, steps):
        """Return the moving average after each step."""
        averages = [steps[0]]
        for step in steps[1:]:
            pairs = zip(averages[-1], step, strict=True)
            averages.append([self.momentum * old + (1 - self.momentum) * new for old, new in pairs])
        return averages

    def test_judges_each_epoch_and_ends_the_phase_while_training_goes_on_from_the_weights(self):
        model, notes, history = self.train()
        _, plain, plain_history = self.train(use_ema=False)
        for ours, theirs in zip(notes.steps, plain.steps, strict=True):
            assert_close(ours, theirs)
        averages = self.average(notes.steps)
        n_steps = len(notes.steps) // 3
        for epoch in range(3):
            assert_close(notes.epochs[epoch], averages[(epoch + 1) * n_steps - 1])
        assert_close([np.array(each) for each in model.trainable_variables], averages[-1])
        assert np.abs(history["val_loss"] - plain_history["val_loss"]).min() > 1e-5

    def test_is_what_validation_is_of(self):
        model, notes, history = self.train()
        data = make_data(make_images())
        for weights, val_loss in zip(notes.epochs, history["val_loss"], strict=True):
            for variable, value in zip(model.trainable_variables, weights, strict=True):
                variable.assign(value)
            probabilities = predict_probabilities(model, data.images, data.val_rows)
            loss = -np.log(probabilities[np.arange(8), data.val_classes]).mean()
            assert loss == pytest.approx(val_loss, rel=1e-4)

    @pytest.mark.parametrize("keep_best", [True, False])
    def test_is_kept_where_training_stops_early(self, keep_best):
        phases = {"fit": Phase(20, 0.02, patience=2, use_ema=True, ema_momentum=self.momentum)}
        recipe = make_recipe("cnn", phases=phases, monitor=Monitor.val_accuracy, keep_best=keep_best)
        classifier = build_small(recipe)
        notes = Notes()
        history = fit_classifier(classifier, recipe, make_data(make_images()), 0, NO_FEATURES, [notes])
        assert len(history) < 20
        kept = notes.epochs[history["val_accuracy"].argmax() if keep_best else -1]
        assert_close([np.array(each) for each in classifier.model.trainable_variables], kept)
        assert np.abs(kept[0] - notes.steps[-1][0]).max() > 1e-5


def assert_close(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_mixed_images_have_a_loss_and_no_decisions():
    images = make_images(24)
    recipe = make_recipe("cnn", mixup_alpha=0.4)
    classifier = build_small(recipe)
    history = fit_classifier(classifier, recipe, make_data(images), 0, NO_FEATURES)
    assert history[["auc", "accuracy"]].isna().all(axis=None)
    assert history[["loss", "val_loss", "val_auc", "val_accuracy"]].notna().all(axis=None)
    plain = fit_classifier(build_small(recipe), make_recipe("cnn"), make_data(images), 0, NO_FEATURES)
    assert list(plain) == list(history)
    assert plain.notna().all(axis=None)
    assert plain["loss"][0] != history["loss"][0]


def test_without_validation_images_the_last_epoch_is_kept():
    data = make_data(make_images(24))
    data = replace(data, val_rows=data.val_rows[:0], val_classes=data.val_classes[:0])
    recipe = make_recipe("cnn", keep_best=False)
    history = fit_classifier(build_small(recipe), recipe, data, 0, NO_FEATURES)
    assert len(history) == 2
    assert history[["val_loss", "val_auc", "val_accuracy"]].isna().all(axis=None)
    assert history[["loss", "auc", "accuracy"]].notna().all(axis=None)


def test_rows_are_predicted_from_features_where_all_phases_train_on_them():
    images = make_images(24)
    rows = np.array([5, 2])
    head = {"head": Phase(1, 1e-3, trainable="head")}
    recipe = make_recipe("mobilenet075", phases=head)
    classifier = build_small(recipe)
    features = classifier.extractor.predict(images, verbose=0)
    expected = predict_probabilities(classifier.model, images, rows)
    np.testing.assert_allclose(
        predict_rows(classifier, recipe, images, rows, lambda: features), expected, atol=1e-6
    )
    both = make_recipe("mobilenet075", phases=head | {"fit": Phase(1, 1e-3)})
    np.testing.assert_array_equal(predict_rows(classifier, both, images, rows, NO_FEATURES), expected)


# Trains with everything that a recipe may say, prints the history and a hash of the predictions.
TRAINER = """
import hashlib, json, sys

import keras
import numpy as np

from pneumo.base.reproducibility import make_deterministic
from pneumo.training.fit import fit_classifier, predict_rows
from pneumo.training.recipe import Augmentation, Monitor, Phase

make_deterministic()
from small_networks import build_small, make_data, make_images, make_recipe

settings = json.loads(sys.argv[1])
phases = {"fit": Phase(2, 1e-2, augment=True, use_ema=True)}
recipe = make_recipe(
    "cnn",
    phases=phases,
    augmentation=Augmentation(**settings),
    mixup_alpha=0.3,
    predict_flips=True,
    monitor=Monitor.val_loss,
    label_smoothing=0.1,
)
data = make_data(make_images(40))
classifier = build_small(recipe)
history = fit_classifier(classifier, recipe, data, 0, None)
scores = predict_rows(classifier, recipe, data.images, data.val_rows, None)
targets = 0.9 * data.val_classes + 0.05
y = classifier.unflipped.predict(data.images[data.val_rows], verbose=0)[:, 0]
loss = -(targets * np.log(y) + (1 - targets) * np.log(1 - y)).mean()
print(json.dumps({
    "backend": keras.backend.backend(),
    "history": history.drop(columns="phase").to_dict("list"),
    "val_loss_kept": float(loss),
    "hash": hashlib.sha256(scores.tobytes()).hexdigest(),
}))
"""
EVERYTHING = {
    "flip": True,
    "rotation_degrees": 10,
    "area_fraction": [0.3, 1],
    "gamma": 0.2,
    "sharpness": 1,
    "noise_levels": 4,
}


def train_with_everything(backend):
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": f"{TESTS_DIR}:{os.environ.get('PYTHONPATH', '')}",
    }
    script = [sys.executable, "-c", TRAINER, json.dumps(EVERYTHING)]
    result = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.promise)])
def test_both_backends_train_with_everything_and_give_the_same_bytes_twice(backend):
    first, second = train_with_everything(backend), train_with_everything(backend)
    assert first["backend"] == backend
    history = first["history"]
    for name in ("loss", "val_loss", "val_auc", "val_accuracy"):
        assert np.isfinite(history[name]).all(), name
    assert first["val_loss_kept"] == pytest.approx(min(history["val_loss"]), rel=1e-4)
    assert first["hash"] == second["hash"]
    np.testing.assert_equal(history, second["history"])
