"""Training, phase by phase, on small networks."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from small_networks import NO_FEATURES, build_small, make_data, make_images, make_recipe

from pneumo.training.features import load_or_extract_features
from pneumo.training.fit import (
    balanced_weights,
    build_optimizer,
    encode_targets,
    fit_classifier,
    predict_probabilities,
    repeat_smaller_classes,
)
from pneumo.training.recipe import Augmentation, Monitor, Optimizer, Phase, Schedule


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
        return load_or_extract_features(classifier.extractor, path, tmp_path / "cache")

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
