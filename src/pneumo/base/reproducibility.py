"""What makes two runs of the same thing give the same bytes."""

import os


def make_deterministic() -> None:
    """Ask the backend for deterministic operations; call it before Keras is imported.

    Seeds are set where a network is built. JAX on a CPU is deterministic as it is.
    """
    os.environ["TF_DETERMINISTIC_OPS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
