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
    _leave_optimizer(model).save(raw)
    with write_file(path) as partial, zipfile.ZipFile(raw) as source, zipfile.ZipFile(partial, "w") as target:
        for name in sorted(source.namelist()):
            content = _CLEANERS.get(name, bytes)(source.read(name))
            target.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)
    raw.unlink()


def _leave_optimizer(layer: keras.Layer) -> keras.Layer:
    """Return a network without its optimizer, and those inside it without theirs; all share their weights."""
    if not isinstance(layer, keras.Model) or not _has_optimizer(layer):
        return layer
    bare = keras.Model(layer.input, layer.output, name=layer.name)
    return keras.models.clone_model(bare, clone_function=_leave_optimizer)


def load_network(path: Path) -> keras.Model:
    """Load what `save_network` saved."""
    return keras.models.load_model(path, compile=False)


def _has_optimizer(model: keras.Model) -> bool:
    inner = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return model.compiled or any(_has_optimizer(each) for each in inner)


def _clean_metadata(content: bytes) -> bytes:
    return json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()


def _clean_config(content: bytes) -> bytes:
    numbers: dict[str, int] = {}

    def renumber(match: re.Match[str]) -> str:
        return f'"shared_object_id": {numbers.setdefault(match[1], len(numbers))}'

    return re.sub(r'"shared_object_id": (\d+)', renumber, content.decode()).encode()


_CLEANERS = {"metadata.json": _clean_metadata, "config.json": _clean_config}
