"""A trained network as a `.keras` file, the same bytes for the same training.

Keras stamps its files with the date and with memory addresses. Both are taken out.
"""

import json
import re
import zipfile
from pathlib import Path

import keras

from pneumo.base.artifacts import write_file

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_network(model: keras.Model, path: Path) -> None:
    """Save a network without its optimizer.

    Args:
        model: uint8 images of shape (n, height, width, 1) in, probabilities out.
        path: ends in `.keras`.
    """
    raw = path.with_name(f"{path.stem}.raw.keras")
    keras.models.clone_model(model, clone_function=_copy_compiled).save(raw)
    with write_file(path) as partial, zipfile.ZipFile(raw) as source, zipfile.ZipFile(partial, "w") as target:
        for name in sorted(source.namelist()):
            content = _CLEANERS.get(name, bytes)(source.read(name))
            target.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)
    raw.unlink()


def load_network(path: Path) -> keras.Model:
    """Load what `save_network` saved."""
    return keras.models.load_model(path, compile=False)


def _copy_compiled(layer: keras.Layer) -> keras.Layer:
    """Copy a network that has an optimizer; the others share their weights with the clone."""
    if not isinstance(layer, keras.Model) or not layer.compiled:
        return layer
    copy = type(layer).from_config(layer.get_config())
    copy.set_weights(layer.get_weights())
    return copy


def _clean_metadata(content: bytes) -> bytes:
    return json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()


def _clean_config(content: bytes) -> bytes:
    numbers: dict[str, int] = {}

    def renumber(match: re.Match[str]) -> str:
        return f'"shared_object_id": {numbers.setdefault(match[1], len(numbers))}'

    return re.sub(r'"shared_object_id": (\d+)', renumber, content.decode()).encode()


_CLEANERS = {"metadata.json": _clean_metadata, "config.json": _clean_config}
