"""Batches of images read row by row from a memory-mapped array."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt


class ImageBatches(keras.utils.PyDataset):
    """Batches for fit and predict; memory holds one batch, not the array.

    Args:
        images: uint8 array of shape (n_all, height, width, channels), memory-mapped or not.
        rows: int array of shape (n,), the images to give, in order.
        targets: float array of shape (n, n_outputs), or None to give images alone.
        sample_weights: float array of shape (n,), or None for equal weights.
        batch_size: images a batch; the last may be smaller.
        shuffle_seed: a new order in every epoch, the same for the same seed; None keeps the order.
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
    ) -> None:
        super().__init__()
        self._images = images
        self._rows = rows
        self._targets = targets
        self._sample_weights = sample_weights
        self._batch_size = batch_size
        self._generator = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
        self._order = np.arange(len(rows))
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        images = self._images[self._rows[chosen]]
        if self._targets is None:
            return (images,)
        if self._sample_weights is None:
            return images, self._targets[chosen]
        return images, self._targets[chosen], self._sample_weights[chosen]

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order."""
        if self._generator is not None:
            self._order = self._generator.permutation(len(self._rows))
