"""Validation metrics against naive implementations, and their place among the callbacks."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.training.batches import ImageBatches
from pneumo.training.fit import encode_targets
from pneumo.training.validation import Validation, compute_accuracy, compute_auc


def count_pairs(is_positive, scores):
    """Return the share of pairs of a positive and a negative that are in order; ties count half."""
    positive, negative = scores[is_positive], scores[~is_positive]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return np.mean(pairs)


def draw(n=60, n_classes=2, n_levels=None, seed=0):
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, n_classes, n)
    outputs = generator.uniform(size=(n, n_classes)) + 0.5 * np.eye(n_classes)[classes]
    outputs /= outputs.sum(axis=1, keepdims=True)
    if n_levels:
        outputs = np.round(outputs * n_levels) / n_levels
    outputs = outputs[:, 1:] if n_classes == 2 else outputs
    return encode_targets(classes, n_classes), outputs.astype(np.float32)


@pytest.mark.parametrize("n_levels", [None, 4], ids=["no ties", "ties"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_auc_is_the_share_of_pairs_in_order(n_classes, n_levels):
    targets, outputs = draw(n_classes=n_classes, n_levels=n_levels)
    areas = [count_pairs(targets[:, k] == 1, outputs[:, k]) for k in range(targets.shape[1])]
    assert 0.5 < np.mean(areas) < 1
    assert compute_auc(targets, outputs) == pytest.approx(np.mean(areas))


def test_auc_of_three_classes_is_the_macro_average_of_scikit_learn():
    targets, outputs = draw(n_classes=3)
    outputs /= outputs.sum(axis=1, keepdims=True)
    expected = roc_auc_score(targets.argmax(axis=1), outputs, multi_class="ovr", average="macro")
    assert compute_auc(targets, outputs) == pytest.approx(expected)


def test_auc_is_exact_where_that_of_keras_is_not():
    """Good networks put most probabilities into a few of Keras's 200 bins."""
    y = np.repeat([0.0, 1.0], 500)[:, None].astype(np.float32)
    logits = np.random.default_rng(0).normal(np.where(y == 1, 9, 0), 2.0)
    outputs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    binned = keras.metrics.AUC()
    binned.update_state(y, outputs)
    assert compute_auc(y, outputs) == pytest.approx(roc_auc_score(y[:, 0], logits[:, 0]), abs=1e-5)
    assert compute_auc(y, outputs) - float(binned.result()) > 0.001


def test_auc_leaves_out_classes_that_cannot_be_told():
    one_class = np.ones((5, 1), np.float32)
    assert np.isnan(compute_auc(one_class, np.linspace(0, 1, 5)[:, None]))
    targets, outputs = draw(n_classes=3)
    without_last = targets[:, 2] == 0
    targets, outputs = targets[without_last], outputs[without_last]
    expected = np.mean([count_pairs(targets[:, k] == 1, outputs[:, k]) for k in (0, 1)])
    assert compute_auc(targets, outputs) == pytest.approx(expected)


def test_auc_of_a_network_that_diverged_is_not_a_number():
    targets, outputs = draw()
    outputs[3] = np.nan
    assert np.isnan(compute_auc(targets, outputs))


def test_accuracy_is_the_share_of_right_decisions():
    targets = np.array([[0], [0], [1], [1]], np.float32)
    assert compute_accuracy(targets, np.array([[0.1], [0.5], [0.5], [0.9]], np.float32)) == 0.75
    one_hot = np.eye(3, dtype=np.float32)[[0, 1, 2, 2]]
    outputs = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]], np.float32)
    assert compute_accuracy(one_hot, outputs) == 0.5


def make_validation(targets, outputs_by_epoch, loss=None):
    """Return a callback on a network that gives these outputs, one array an epoch."""
    n = len(targets)
    batches = ImageBatches(np.zeros((n, 1, 1, 1), np.float32), np.arange(n), targets, batch_size=7)
    validation = Validation(batches, loss or keras.losses.BinaryCrossentropy())
    outputs = iter(outputs_by_epoch)
    validation.set_model(SimpleNamespace(predict=lambda *_, **__: next(outputs)))
    return validation


@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_prediction_gives_all_metrics(n_classes):
    targets, outputs = draw(n=30, n_classes=n_classes)
    kind = "BinaryCrossentropy" if n_classes == 2 else "CategoricalCrossentropy"
    smoothed = getattr(keras.losses, kind)(label_smoothing=0.1)
    logs = {"loss": 1.0}
    make_validation(targets, [outputs], smoothed).on_epoch_end(0, logs)
    assert logs == {
        "loss": 1.0,
        "val_loss": pytest.approx(float(smoothed(targets, outputs))),
        "val_auc": pytest.approx(compute_auc(targets, outputs)),
        "val_accuracy": pytest.approx(compute_accuracy(targets, outputs)),
    }


def test_early_stopping_sees_the_exact_auc_of_each_epoch():
    targets = np.array([0, 0, 1, 1], np.float32)[:, None]
    ranks = [[1, 2, 3, 4], [4, 3, 2, 1], [1, 3, 2, 4], [2, 1, 3, 4], [1, 3, 2, 4]]  # AUC 1, 0, 3/4, 1, 3/4
    epochs = [np.array(each, np.float32)[:, None] / 10 for each in ranks]
    validation = make_validation(targets, epochs)
    stop = keras.callbacks.EarlyStopping("val_auc", mode="max", patience=2)
    stop.set_model(SimpleNamespace(stop_training=False))
    stop.on_train_begin()
    seen = []
    for epoch in range(5):
        logs = {}
        for callback in (validation, stop):
            callback.on_epoch_end(epoch, logs)
        seen.append(logs["val_auc"])
        if stop.model.stop_training:
            break
    assert seen == [1, 0, 0.75]
    assert (stop.best_epoch, stop.stopped_epoch) == (0, 2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_metrics_in_a_history_are_those_of_keras(n_classes):
    """Keras's own validation stands beside: loss and accuracy agree."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(50, 6)).astype(np.float32)
    targets = encode_targets(generator.integers(0, n_classes, 50), n_classes)
    batches = ImageBatches(images, np.arange(50), targets, batch_size=8)
    output = keras.layers.Dense(*((1, "sigmoid") if n_classes == 2 else (3, "softmax")))
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.5), output])
    kind = "Binary" if n_classes == 2 else "Categorical"
    loss = getattr(keras.losses, f"{kind}Crossentropy")(label_smoothing=0.1)
    model.compile("adam", loss, metrics=[getattr(keras.metrics, f"{kind}Accuracy")(name="accuracy")])
    keras_logs, history = [], []
    before = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: keras_logs.append(dict(logs)))
    after = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: history.append(dict(logs)))
    fit = model.fit(
        batches,
        validation_data=batches,
        epochs=3,
        callbacks=[before, Validation(batches, loss), after],
        verbose=0,
    )
    for theirs, ours in zip(keras_logs, history, strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)
        assert ours["val_accuracy"] == pytest.approx(theirs["val_accuracy"], abs=1e-6)
        assert 0 < ours["val_auc"] < 1
    assert fit.history["val_auc"] == [logs["val_auc"] for logs in history]
