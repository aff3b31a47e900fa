"""What makes two runs of the same thing give the same bytes."""

import os


def make_deterministic() -> None:
    """Ask TensorFlow for operations that add in the same order every time; call it before the first one runs.

    Seeds are set where a network is built. JAX on a CPU needs no asking.
    """
    os.environ["TF_DETERMINISTIC_OPS"] = "1"
