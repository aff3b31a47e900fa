"""A trained model as one file: the network, and all that a prediction needs besides.

The file is a zip archive of `network.keras`, as training wrote it, and `card.json`. It holds no code. The
same model gives the same bytes.
"""

import json
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from pneumo.base.artifacts import write_file
from pneumo.base.errors import PneumoError
from pneumo.preprocessing.combo import Step

NETWORK_NAME, CARD_NAME = "network.keras", "card.json"
FORMAT_VERSION = 1
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Card:
    """What a prediction needs besides the network, and where the model comes from.

    Attributes:
        classes: names, in the order of class numbers.
        steps: preprocessing, from a decoded grey image to the network's input.
        threshold: of the second class's probability as the network gives it, for two classes; None for more.
        temperature: log probabilities are divided by it.
        trained_on: the data set's title.
        run: experiment/combo/model/seed.
        provenance: content of the run's run.json.
        format_version: of the file.
    """

    classes: list[str]
    steps: list[Step]
    threshold: float | None
    temperature: float
    trained_on: str
    run: str
    provenance: dict[str, Any]
    format_version: int = FORMAT_VERSION


def write_bundle(network: Path, card: Card, target: Path) -> None:
    """Write a bundle.

    Args:
        network: model.keras of a run.
        card: what goes with it.
        target: the file to write.
    """
    contents = {
        CARD_NAME: (json.dumps(asdict(card), indent=2, allow_nan=False) + "\n").encode(),
        NETWORK_NAME: network.read_bytes(),
    }
    with write_file(target) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)


def load_bundle(path: Path) -> tuple[keras.Model, Card]:
    """Load what `write_bundle` wrote. Nothing in the file is run as code.

    Raises:
        PneumoError: the file is missing, damaged, or no bundle.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            content = json.loads(archive.read(CARD_NAME))
            content["steps"] = [Step(**step) for step in content["steps"]]
            card = Card(**content)
            archive.extract(NETWORK_NAME, folder)
            network = keras.models.load_model(Path(folder, NETWORK_NAME), compile=False, safe_mode=True)
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise PneumoError(
            f"Expected a model that `pneumo export` wrote. Received: {path} ({type(error).__name__})"
        ) from error
    if card.format_version != FORMAT_VERSION:
        raise PneumoError(
            f"{path}: Expected format {FORMAT_VERSION}. Received: {card.format_version}. Export it again."
        )
    return network, card
