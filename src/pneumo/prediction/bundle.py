"""The file a run leaves behind: network, preprocessing steps, classes and threshold in one `.keras` archive.

Keras stamps its archives with the date and with memory addresses. Both are taken out, so that the same
training gives the same bytes.
"""

import json
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from pneumo.base.artifacts import write_file
from pneumo.base.errors import PneumoError
from pneumo.preprocessing.combo import Step

CARD_NAME = "pneumo.json"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Card:
    """What a prediction needs besides the network.

    Attributes:
        classes: names, in the order of class numbers.
        steps: preprocessing, from a decoded grey image to the network's input.
        threshold: of the second class's probability, for two classes; None for more.
        trained_on: the data set's title.
    """

    classes: list[str]
    steps: list[Step]
    threshold: float | None
    trained_on: str


def save_bundle(model: keras.Model, card: Card, path: Path) -> None:
    """Save a network and its card; the same weights and card give the same bytes.

    Args:
        model: uint8 images in, probabilities out. Optimizer state is left out.
        card: kept in the archive as `pneumo.json`, which Keras ignores.
        path: ends in `.keras`.
    """
    raw = path.with_name(f"{path.stem}.raw.keras")
    uncompiled = keras.models.clone_model(model)
    uncompiled.set_weights(model.get_weights())
    uncompiled.save(raw)
    with write_file(path) as partial, zipfile.ZipFile(raw) as source, zipfile.ZipFile(partial, "w") as target:
        for name in sorted(source.namelist()):
            _write_entry(target, name, _CLEANERS.get(name, lambda content: content)(source.read(name)))
        _write_entry(target, CARD_NAME, json.dumps(asdict(card), indent=2).encode())
    raw.unlink()


def load_bundle(path: Path) -> tuple[keras.Model, Card]:
    """Load what `save_bundle` saved.

    Raises:
        PneumoError: the file is missing or is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = json.loads(archive.read(CARD_NAME))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise PneumoError(f"Expected a model.keras that pneumo has trained. Received: {path}") from error
    content["steps"] = [Step(**step) for step in content["steps"]]
    return keras.models.load_model(path, compile=False), Card(**content)


def _write_entry(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)


def _clean_metadata(content: bytes) -> bytes:
    return json.dumps({"keras_version": json.loads(content)["keras_version"]}).encode()


def _clean_config(content: bytes) -> bytes:
    numbers: dict[str, int] = {}

    def renumber(match: re.Match[str]) -> str:
        return f'"shared_object_id": {numbers.setdefault(match[1], len(numbers))}'

    return re.sub(r'"shared_object_id": (\d+)', renumber, content.decode()).encode()


_CLEANERS = {"metadata.json": _clean_metadata, "config.json": _clean_config}
