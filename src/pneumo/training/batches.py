"""Batches of images read row by row from a memory-mapped array."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from pneumo.training.devices import count_devices


class ImageBatches(keras.utils.PyDataset):
    """Batches for fit and predict; memory holds one batch, not the array.

    Where a network is on several devices (`devices.use_devices`), so many of the first images come once more
    at the end that their number can be divided by that of devices, as in PyTorch's DistributedSampler.

    Attributes:
        n_rows: images without those that come again; outputs after so many are to be dropped.

    Args:
        images: uint8 array of shape (n_all, height, width, channels), memory-mapped or not.
        rows: int array of shape (n,), the images to give, in order.
        targets: float array of shape (n, n_outputs), or None to give images alone.
        sample_weights: float array of shape (n,), or None for equal weights.
        batch_size: images a batch; the last may be smaller.
        shuffle_seed: a new order in every epoch, the same for the same seed; None keeps the order.
        mixup_alpha: above 0, each image and its target are mixed with those before it in the batch. Its own
            share is drawn from Beta(alpha, alpha), anew in every epoch; needs `shuffle_seed`.

    Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.float32] | None = None,
        sample_weights: npt.NDArray[np.float32] | None = None,
        *,
        batch_size: int,
        shuffle_seed: int | None = None,
        mixup_alpha: float = 0.0,
    ) -> None:
        super().__init__()
        self._images = images
        self._rows = rows
        self._targets = targets
        self._sample_weights = sample_weights
        self._batch_size = batch_size
        self._generator = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        self.n_rows = len(rows)
        self._n_given = self.n_rows + -self.n_rows % count_devices()
        self._order = np.resize(np.arange(self.n_rows), self._n_given)
        self._mixup_alpha = mixup_alpha
        self._shares = np.ones(self._n_given)
        self.on_epoch_end()

    @property
    def holds_features(self) -> bool:
        """Whether there are vectors in place of images."""
        return self._images.ndim == 2

    def __len__(self) -> int:
        return -(-self._n_given // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        chosen = self._order[part]
        images = self._images[self._rows[chosen]]
        if self._targets is None:
            return (images,)
        targets = self._targets[chosen]
        weights = None if self._sample_weights is None else self._sample_weights[chosen]
        if self._mixup_alpha:
            images, targets, weights = mix(images, targets, weights, self._shares[part])
        return (images, targets) if weights is None else (images, targets, weights)

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order, and the shares of its mixtures."""
        if self._generator is not None:
            self._order = np.resize(self._generator.permutation(self.n_rows), self._n_given)
            if self._mixup_alpha:
                self._shares = self._generator.beta(self._mixup_alpha, self._mixup_alpha, self._n_given)


def predict_batches(model: keras.Model, batches: ImageBatches) -> npt.NDArray[np.float32]:
    """Return what a network says of the images of all batches, or of their features.

    Args:
        model: images or features -> outputs of shape (n, n_outputs).
        batches: without targets, or with targets that are not looked at.

    Returns:
        float array of shape (n_rows, n_outputs).
    """
    if batches.holds_features and count_devices() == 1:
        # `predict` prepares its input anew in each call, which takes longer than a head on features does.
        outputs = np.concatenate([model.predict_on_batch(batches[i][0]) for i in range(len(batches))])
    else:
        outputs = model.predict(batches, verbose=0)
    return outputs[: batches.n_rows]


def mix(
    images: npt.NDArray[Any],
    targets: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32] | None,
    shares: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Mix each input of a batch with the one before it, the first with the last.

    The cross-entropy of a mixed target, times its mixed weight, is the mixture of two weighted losses.

    Args:
        images: uint8 images or float features of shape (n, ...).
        targets: float array of shape (n, n_outputs).
        weights: float array of shape (n,), or None for equal weights.
        shares: float array of shape (n,) in [0, 1], of each input itself.

    Returns:
        Images (whole numbers where they were), targets and weights, of the same shapes and types.
    """

    def blend(values: npt.NDArray[Any], shares: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        own = shares.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        return own * values + (1 - own) * np.roll(values, 1, axis=0)

    mixed = blend(images, shares)
    if np.issubdtype(images.dtype, np.integer):
        mixed = np.rint(mixed)
    mixed_weights = None
    target_shares = shares
    if weights is not None:
        mixed_weights = blend(weights, shares).astype(np.float32)
        target_shares = shares * weights / mixed_weights
    return mixed.astype(images.dtype), blend(targets, target_shares).astype(np.float32), mixed_weights
