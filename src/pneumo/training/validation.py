"""Exact validation metrics after each epoch, from one prediction of the validation images."""

import keras
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from pneumo.training.batches import ImageBatches, predict_batches


class Validation(keras.callbacks.Callback):
    """Adds `val_loss`, `val_auc` and `val_accuracy` to the logs of an epoch, for the callbacks after it.

    It replaces `validation_data` of Keras's fit, whose AUC counts in 200 bins: it can be 0.006 too low for a
    good network, more than epochs differ by.

    Args:
        batches: the validation images with their targets.
        loss: of targets and outputs.
    """

    def __init__(self, batches: ImageBatches, loss: keras.Loss) -> None:
        super().__init__()
        self._batches = batches
        self._loss = loss
        targets = np.concatenate([batches[i][1] for i in range(len(batches))])
        self._targets = targets[: batches.n_rows]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Predict the validation images and add their metrics."""
        outputs = predict_batches(self.model, self._batches)
        if logs is not None:
            logs["val_loss"] = float(self._loss(self._targets, outputs))
            logs["val_auc"] = compute_auc(self._targets, outputs)
            logs["val_accuracy"] = compute_accuracy(self._targets, outputs)


def compute_auc(targets: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]) -> float:
    """Return the area under the ROC curve, for more than two classes the mean of each class against the rest.

    Args:
        targets: float array, of shape (n, 1) for two classes (1 is the second), one-hot of shape
            (n, n_classes) for more.
        outputs: float array of the same shape, probabilities.

    Returns:
        Fraction in [0, 1]; a class that no image has, or every image, is left out of the mean. NaN where none
        is left, and where an output is NaN.
    """
    if np.isnan(outputs).any():
        return float("nan")
    counts = targets.sum(axis=0)
    areas = [
        roc_auc_score(targets[:, k], outputs[:, k])
        for k in np.flatnonzero((counts > 0) & (counts < len(targets)))
    ]
    return float(np.mean(areas)) if areas else float("nan")


def compute_accuracy(targets: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]) -> float:
    """Return the share of right decisions: above 0.5 for two classes, the most probable class for more.

    Args:
        targets: as in `compute_auc`.
        outputs: likewise.
    """
    if targets.shape[1] == 1:
        return float(np.mean((outputs > 0.5) == (targets == 1)))
    return float(np.mean(outputs.argmax(axis=1) == targets.argmax(axis=1)))
