"""Training, phase by phase, and the probabilities that come out of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.training.batches import ImageBatches, predict_batches
from pneumo.training.networks import Classifier, set_trainable
from pneumo.training.recipe import Optimizer, Phase, Recipe, Schedule
from pneumo.training.validation import Validation

Features = npt.NDArray[np.float32]

ONE_CYCLE_RISE_FRACTION = 0.25  # fastai's, as is the factor
ONE_CYCLE_FACTOR = 25
HISTORY_COLUMNS = ("phase", "epoch", "loss", "auc", "accuracy", "val_loss", "val_auc", "val_accuracy")


@dataclass(frozen=True)
class TrainingData:
    """What is learned from and what it is watched on.

    Attributes:
        images: uint8 array of shape (n_all, height, width, 1).
        train_rows: int array of shape (n_train,), rows of `images`.
        train_classes: int array of shape (n_train,), class numbers.
        val_rows: int array of shape (n_val,); may be empty where nothing is chosen by it.
        val_classes: int array of shape (n_val,).
        n_classes: 2 or more.
    """

    images: npt.NDArray[np.uint8]
    train_rows: npt.NDArray[np.int64]
    train_classes: npt.NDArray[np.int64]
    val_rows: npt.NDArray[np.int64]
    val_classes: npt.NDArray[np.int64]
    n_classes: int


def fit_classifier(
    classifier: Classifier,
    recipe: Recipe,
    data: TrainingData,
    seed: int,
    load_features: Callable[[], Features],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Train a classifier through the phases of its recipe.

    Each phase leaves the weights of its best epoch, or of its last where the recipe says so.

    Args:
        classifier: its weights are changed.
        recipe: phases, batch size, loss.
        data: training and validation images.
        seed: of the order of the images.
        load_features: gives the backbone's features, shape (n_all, n_features); called only by phases that
            train on features.
        callbacks: for every phase, beside the one that keeps the best epoch.

    Returns:
        The history, one row an epoch: `phase`; `epoch` (from 1, through all phases); `loss`, `auc` (in 200
        bins) and `accuracy` of the training images while they are trained on, the last two NaN with mixup;
        `val_loss`, `val_auc` and `val_accuracy`, NaN without validation images.
    """
    histories = []
    for name, phase in recipe.phases.items():
        set_trainable(classifier, phase.trainable, phase.freeze_batch_norm)
        if phase.uses_features:
            assert classifier.head is not None  # noqa: S101, a recipe checks that it has a backbone
            history = _fit(classifier.head, recipe, phase, data, load_features(), seed, callbacks)
        else:
            model = classifier.augmented if phase.augment else classifier.unflipped
            history = _fit(model, recipe, phase, data, data.images, seed, callbacks)
        histories.append(pd.DataFrame(history).assign(phase=name))
    whole = pd.concat(histories, ignore_index=True)
    return whole.assign(epoch=range(1, len(whole) + 1)).reindex(columns=HISTORY_COLUMNS)


def predict_rows(
    classifier: Classifier,
    recipe: Recipe,
    images: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    load_features: Callable[[], Features],
) -> npt.NDArray[np.float32]:
    """Predict images with a trained classifier, from its backbone's features where its recipe allows that.

    Args:
        classifier: as `fit_classifier` leaves it.
        recipe: what it was trained by.
        images: uint8 array of shape (n_all, height, width, 1).
        rows: int array of shape (n,), the images to predict.
        load_features: gives the backbone's features of all images, shape (n_all, n_features).

    Returns:
        float32 array of shape (n, n_classes).
    """
    if recipe.uses_features_only:
        return predict_probabilities(classifier.head, load_features(), rows)
    return predict_probabilities(classifier.model, images, rows)


def predict_probabilities(
    model: keras.Model, inputs: npt.NDArray[Any], rows: npt.NDArray[np.int64], batch_size: int = 32
) -> npt.NDArray[np.float32]:
    """Predict the probability of every class.

    Args:
        model: a whole classifier for images, its head for features.
        inputs: images or features of all rows.
        rows: int array of shape (n,), the rows to predict.
        batch_size: inputs a step.

    Returns:
        float32 array of shape (n, n_classes); for two classes the model's one output and what it leaves.
    """
    outputs = predict_batches(model, ImageBatches(inputs, rows, batch_size=batch_size))
    if outputs.shape[1] == 1:
        return np.hstack([1 - outputs, outputs])
    return outputs


def balanced_weights(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return a weight for each of n images, such that classes weigh the same in sum and the mean is 1."""
    counts = np.bincount(classes)
    n_present = np.count_nonzero(counts)
    return (len(classes) / (n_present * counts[classes])).astype(np.float32)


def repeat_smaller_classes(classes: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Choose images such that every class has as many as the largest: all of them, some more than once.

    Args:
        classes: int array of shape (n,), class numbers.
        seed: of the choice of those that are repeated once more than the others of their class.

    Returns:
        int array of places in `classes`, not shuffled.
    """
    generator = np.random.default_rng(seed)
    largest = np.bincount(classes).max()
    chosen = []
    for number in np.unique(classes):
        members = np.flatnonzero(classes == number)
        n_more = largest % len(members)
        more = generator.choice(members, n_more, replace=False)
        chosen.append(np.concatenate([np.tile(members, largest // len(members)), np.sort(more)]))
    return np.concatenate(chosen)


def encode_targets(classes: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.float32]:
    """Encode class numbers as a model's outputs: shape (n, 1) for two classes, one-hot for more."""
    if n_classes == 2:
        return classes[:, None].astype(np.float32)
    return np.eye(n_classes, dtype=np.float32)[classes]


def _fit(
    model: keras.Model,
    recipe: Recipe,
    phase: Phase,
    data: TrainingData,
    inputs: npt.NDArray[Any],
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, list[float]]:
    rows, classes = data.train_rows, data.train_classes
    if recipe.oversample:
        chosen = repeat_smaller_classes(classes, seed)
        rows, classes = rows[chosen], classes[chosen]
    weights = balanced_weights(classes) if recipe.balance_classes else None
    train = ImageBatches(
        inputs,
        rows,
        encode_targets(classes, data.n_classes),
        weights,
        batch_size=recipe.batch_size,
        shuffle_seed=seed,
        mixup_alpha=recipe.mixup_alpha,
    )
    loss = _build_loss(data.n_classes, recipe.label_smoothing)
    model.compile(
        optimizer=build_optimizer(phase, n_steps=phase.epochs * len(train)),
        loss=loss,
        # Targets between the classes have no decision to compare with.
        metrics=None if recipe.mixup_alpha else _build_metrics(data.n_classes),
        # Keras compiles no deterministic operations of TensorFlow's, and those of runs are deterministic.
        jit_compile=keras.backend.backend() == "jax",
    )
    judges: list[keras.callbacks.Callback] = []
    if len(data.val_rows):
        targets = encode_targets(data.val_classes, data.n_classes)
        val = ImageBatches(inputs, data.val_rows, targets, batch_size=recipe.batch_size)
        best_epoch = keras.callbacks.EarlyStopping(
            monitor=recipe.monitor.value,
            mode=recipe.monitor.mode,
            patience=phase.patience or phase.epochs,
            restore_best_weights=recipe.keep_best,
        )
        judges = [Validation(val, loss), best_epoch]
    judges += callbacks
    return model.fit(
        train,
        epochs=phase.epochs,
        callbacks=_use_average(judges) if phase.use_ema else judges,
        shuffle=False,
        verbose=2,
    ).history


def _use_average(callbacks: list[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """Let callbacks at the end of an epoch find the moving average of the weights in the model.

    It is taken out again before the next epoch and before the end of training, where Keras puts it in for
    good. The `swap_on_epoch` of Keras's callback ends with the weights themselves where training stops early.
    """
    swap = keras.callbacks.SwapEMAWeights()
    put_in = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: swap.on_test_begin())
    take_out = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: swap.on_test_end())
    return [swap, put_in, *callbacks, take_out]


def build_optimizer(phase: Phase, n_steps: int) -> keras.Optimizer:
    """Build a phase's optimizer with its learning-rate schedule over `n_steps` steps."""
    rate: Any = phase.learning_rate
    if phase.schedule is Schedule.cosine:
        rate = keras.optimizers.schedules.CosineDecay(phase.learning_rate, n_steps)
    elif phase.schedule is Schedule.one_cycle:
        n_rising = max(1, round(ONE_CYCLE_RISE_FRACTION * n_steps))
        rate = keras.optimizers.schedules.CosineDecay(
            phase.learning_rate / ONE_CYCLE_FACTOR,
            max(1, n_steps - n_rising),
            warmup_target=phase.learning_rate,
            warmup_steps=n_rising,
        )
    average: dict[str, Any] = {"use_ema": phase.use_ema, "ema_momentum": phase.ema_momentum}
    if phase.optimizer is Optimizer.adamw:
        return keras.optimizers.AdamW(rate, weight_decay=phase.weight_decay, **average)
    if phase.optimizer is Optimizer.sgd:
        return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **average)
    return keras.optimizers.Adam(rate, **average)


def _build_loss(n_classes: int, label_smoothing: float) -> keras.Loss:
    if n_classes == 2:
        return keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)
    return keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing)


def _build_metrics(n_classes: int) -> list[keras.Metric]:
    if n_classes == 2:
        return [keras.metrics.AUC(name="auc"), keras.metrics.BinaryAccuracy(name="accuracy")]
    return [
        keras.metrics.AUC(name="auc", multi_label=True, num_labels=n_classes),
        keras.metrics.CategoricalAccuracy(name="accuracy"),
    ]
