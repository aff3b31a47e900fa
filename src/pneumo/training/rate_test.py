"""The learning-rate range test: raise the rate step by step, see where the loss falls and where it explodes.

Source: Smith 2015, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186.
"""

import keras
import numpy as np
import pandas as pd

SMOOTHING = 0.9  # share of the past in the running mean of the loss
EXPLODED = 4  # the test ends where the loss is so many times its least
UNSETTLED_FRACTION = 0.1  # of the steps, the first of which do not count: a few batches may be lucky


class RateTest(keras.callbacks.Callback):
    """Raises the learning rate exponentially, a step a batch, and notes the loss; ends the training.

    Args:
        low: the first learning rate.
        high: the last.
        n_steps: batches between them.
    """

    def __init__(self, low: float, high: float, n_steps: int) -> None:
        super().__init__()
        self._rates = np.geomspace(low, high, n_steps)
        self._n_unsettled = int(UNSETTLED_FRACTION * n_steps)
        self._losses: list[float] = []
        self._sum = 0.0
        self._n = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Note that Keras begins its running mean of the loss anew."""
        self._sum, self._n = 0.0, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Set the rate of the next step."""
        step = min(len(self._losses), len(self._rates) - 1)
        self.model.optimizer.learning_rate = float(self._rates[step])

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Note the step's loss, and stop at the last rate or where the loss explodes."""
        mean = float((logs or {})["loss"])  # of all batches of the epoch so far
        self._n += 1
        self._losses.append(mean * self._n - self._sum)
        self._sum = mean * self._n
        settled = smooth(self._losses)[self._n_unsettled :]
        has_exploded = not np.isfinite(mean) or (bool(settled) and settled[-1] > EXPLODED * min(settled))
        if has_exploded or len(self._losses) == len(self._rates):
            self.model.stop_training = True

    def tabulate(self) -> pd.DataFrame:
        """Return one row a step: `learning_rate`, `loss` of its batch, `smoothed`, and `settled`.

        The first smoothed losses are those of a few batches, low or high by chance: they are not settled.
        """
        n = min(len(self._losses), len(self._rates))
        losses = self._losses[:n]
        table = pd.DataFrame({"learning_rate": self._rates[:n], "loss": losses, "smoothed": smooth(losses)})
        return table.assign(settled=np.arange(n) >= min(self._n_unsettled, n - 1))


def smooth(losses: list[float]) -> list[float]:
    """Return the exponential running mean, corrected for its start at 0."""
    smoothed, mean = [], 0.0
    for n, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**n))
    return smoothed


def suggest_rate(table: pd.DataFrame) -> float:
    """Return a tenth of the rate at which the settled loss is least: still falling, and far from exploding.

    Args:
        table: as `RateTest.tabulate` returns it.
    """
    settled = table[table["settled"]]
    return float(settled["learning_rate"].iloc[int(settled["smoothed"].argmin())]) / 10
