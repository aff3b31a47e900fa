"""The devices of this process: which one trains, and one network on several."""

import keras

from pneumo.base.errors import PneumoError


def find_device() -> str:
    """Return the device that training uses, in Keras's words, e.g. `cpu:0` or `gpu:0`."""
    devices = keras.distribution.list_devices()
    return next((name for name in devices if not name.startswith("cpu")), devices[0])


def use_devices(n_devices: int) -> None:
    """Divide the batches of networks that are built from now on among devices; each holds all weights.

    Args:
        n_devices: how many; 1 undoes it.

    Raises:
        PneumoError: there are fewer devices of the kind that trains, or the backend is not JAX.
    """
    if n_devices == 1:
        keras.distribution.set_distribution(None)
        return
    backend = keras.backend.backend()
    if backend != "jax":
        raise PneumoError(
            f"devices: Expected 1 with {backend}; more need JAX (KERAS_BACKEND=jax). Received: {n_devices}"
        )
    kind = find_device().partition(":")[0]
    devices = keras.distribution.list_devices(kind)
    if len(devices) < n_devices:
        raise PneumoError(f"devices: Expected at most {len(devices)}, those there are. Received: {n_devices}")
    distribution = keras.distribution.DataParallel(devices=devices[:n_devices], auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)


def count_devices() -> int:
    """Return the number of devices that `use_devices` was given last."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def describe_determinism() -> str:
    """Say how far two runs of the same recipe and seed give the same bytes here."""
    if find_device().startswith("cpu"):
        return "the same bytes with the same versions, processor and recipe"
    asked = {
        "jax": "XLA was asked for deterministic operations (--xla_gpu_deterministic_ops)",
        "tensorflow": "TensorFlow was asked for deterministic operations (TF_DETERMINISTIC_OPS)",
    }
    return asked.get(keras.backend.backend(), "not asked for")
