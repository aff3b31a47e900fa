"""A frozen backbone's features, computed once and kept under a key made from all they depend on."""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from pneumo.base.artifacts import write_array
from pneumo.base.reproducibility import THREADS_VARIABLE
from pneumo.training.batches import ImageBatches

BATCH_SIZE = 32


def load_or_extract_features(
    extractor: keras.Model, images_path: Path, images_sha256: str, cache_dir: Path
) -> npt.NDArray[np.float32]:
    """Return the features of every image, from the cache where they have been computed before.

    Args:
        extractor: uint8 images of shape (n, height, width, channels) -> float32 of shape (n, n_features).
        images_path: .npy file of the images.
        images_sha256: of that file's content, in hexadecimal digits.
        cache_dir: where features lie, one .npy file a key.

    Returns:
        Read-only float32 array of shape (n, n_features), row i from image i.
    """
    path = cache_dir / f"{feature_key(extractor, images_sha256)}.npy"
    if not path.is_file():
        images = np.load(images_path, mmap_mode="r")
        batches = ImageBatches(images, np.arange(len(images)), batch_size=BATCH_SIZE)
        features = extractor.predict(batches, verbose=2)[: len(images)].astype(np.float32, copy=False)
        write_array(path, features)
    return np.load(path, mmap_mode="r")


def feature_key(extractor: keras.Model, images_sha256: str) -> str:
    """Return a key of all that features depend on.

    Returns:
        64 hexadecimal digits that change with the images, the extractor's layers and weights, the versions of
        Keras and its backend, the kinds of device that the backend uses, and the threads of an operation.
    """
    digest = hashlib.sha256(images_sha256.encode())
    layers = [_describe_layer(layer) for layer in extractor.layers]
    threads = os.environ.get(THREADS_VARIABLE)
    digest.update(json.dumps([*describe_computation(), threads, layers], default=str).encode())
    for weights in extractor.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def describe_computation() -> list[object]:
    """Return what, besides a network and its inputs, its outputs depend on: versions and kinds of device."""
    backend = keras.backend.backend()
    kinds = sorted({name.partition(":")[0] for name in keras.distribution.list_devices()})
    return [keras.__version__, backend, version(backend), kinds]


def _describe_layer(layer: keras.Layer) -> list[object]:
    """Return what a layer does, but not its name, which counts up with every network of a process."""
    config = {} if isinstance(layer, keras.Model) else layer.get_config()
    config.pop("name", None)
    name = layer.name if isinstance(layer, keras.Model) else type(layer).__name__
    return [name, layer.count_params(), layer.output.shape, config]
