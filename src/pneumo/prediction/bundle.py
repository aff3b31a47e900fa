"""A trained model as one file: its networks, and all that a prediction needs besides.

The file is a zip archive of

- `card.json`, a `Card`;
- for each network of the model `network_<i>.keras`, as training wrote it, or `network_<i>.onnx`, or both;
- for each network `novelty_<i>.npy`, what its features are like on training images (see `novelty`).

The file holds no code, its entries are read into memory and never extracted by name, and none is read whose
stated size is beyond what a model of this project can have. The same networks in Keras give the same bytes;
tf2onnx orders what it writes in another way each time.
"""

import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumo.base.artifacts import write_file
from pneumo.base.decision import DecisionRule
from pneumo.base.errors import PneumoError
from pneumo.preprocessing.combo import Step, parse_combo

Float32Array = npt.NDArray[np.float32]

CARD_NAME = "card.json"
KERAS, ONNX = ".keras", ".onnx"
FORMAT_VERSION = 2
MAX_NETWORKS = 64
MAX_SIZE_PX = 2048
MAX_CARD_BYTES = 10_000_000
MAX_NETWORK_BYTES = 1_000_000_000
MAX_NOVELTY_BYTES = 50_000_000
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
# What zipfile raises for archives that are damaged, encrypted or packed in a way that it does not know.
_DAMAGES = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    MemoryError,
)


@dataclass(frozen=True)
class Metric:
    """A metric on the test set and its 95 % interval over patients; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Card:
    """What a prediction needs besides the networks, and where the model comes from.

    Attributes:
        classes: names, in the order of class numbers.
        steps: preprocessing, from a decoded grey image to the networks' input.
        threshold: of the second class's probability as the networks give it, for two classes; None for more.
        temperature: log probabilities are divided by it.
        trained_on: the data set's title.
        runs: experiment/combo/model/seed of each network.
        metrics: name -> its value on the test set.
        n_test: number of images of the test set.
        provenance: content of the run.json of each network.
        format_version: of the file.
    """

    classes: list[str]
    steps: list[Step]
    threshold: float | None
    temperature: float
    trained_on: str
    runs: list[str]
    metrics: dict[str, Metric] = field(default_factory=dict)
    n_test: int = 0
    provenance: list[dict[str, Any]] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    @property
    def rule(self) -> DecisionRule:
        """How the model decides."""
        return DecisionRule(self.threshold, self.temperature)

    @property
    def size_px(self) -> int:
        """Height and width of the networks' input."""
        return next(step.parameters["size_px"] for step in self.steps if step.name == "resize")


class NotABundleError(Exception):
    """The content of a file is not what `write_bundle` writes; the message is a short reason."""


class Bundle:
    """A bundle that has been opened; networks are read when they are asked for.

    Args:
        path: the file.

    Attributes:
        path: the file.
        card: what goes with the networks.
        formats: KERAS, ONNX or both; every network is there in each of them.

    Raises:
        PneumoError: the file is missing, damaged, of another format, or no bundle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._sizes = _list_entries(path)
            self.card = _parse_card(self._read(CARD_NAME, MAX_CARD_BYTES))
            self.formats = self._find_formats()
        except NotABundleError as error:
            raise self._refuse(str(error)) from error

    def read_network(self, number: int, suffix: str) -> bytes:
        """Return the content of a network's file.

        Args:
            number: of the network, from 0.
            suffix: KERAS or ONNX.

        Raises:
            PneumoError: it is not there, or damaged.
        """
        try:
            return self._read(f"network_{number}{suffix}", MAX_NETWORK_BYTES)
        except NotABundleError as error:
            raise self._refuse(str(error)) from error

    def read_novelty(self) -> list[Float32Array] | None:
        """Return the array of each network for `novelty`, or None where the bundle has none.

        Raises:
            PneumoError: an array is damaged.
        """
        names = [f"novelty_{number}.npy" for number in range(len(self.card.runs))]
        if not any(name in self._sizes for name in names):
            return None
        try:
            return [_parse_array(self._read(name, MAX_NOVELTY_BYTES)) for name in names]
        except NotABundleError as error:
            raise self._refuse(str(error)) from error

    def refuse_network(self, error: Exception) -> PneumoError:
        """Return the error for a network that cannot be loaded."""
        return self._refuse(f"its network cannot be loaded: {type(error).__name__}")

    def _read(self, name: str, limit: int) -> bytes:
        if name not in self._sizes:
            raise NotABundleError(f"without {name}")
        if self._sizes[name] > limit:
            raise NotABundleError(f"{name} is of {self._sizes[name]} bytes, over the limit of {limit}")
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(name)
        except _DAMAGES as error:
            raise NotABundleError(f"{name} is damaged") from error

    def _find_formats(self) -> list[str]:
        numbers = range(len(self.card.runs))
        formats = [
            suffix
            for suffix in (KERAS, ONNX)
            if all(f"network_{number}{suffix}" in self._sizes for number in numbers)
        ]
        if not formats:
            raise NotABundleError("without a network for each run of its card")
        return formats

    def _refuse(self, reason: str) -> PneumoError:
        return PneumoError(f"Expected a model that `pneumo export` wrote. Received: {self.path} ({reason})")


def write_bundle(
    target: Path,
    card: Card,
    networks: dict[str, Sequence[bytes]],
    novelty: Sequence[Float32Array] | None = None,
) -> None:
    """Write a bundle.

    Args:
        target: the file to write.
        card: what goes with the networks.
        networks: KERAS, ONNX or both -> content of the file of each network.
        novelty: array of each network for `novelty`, or None for a model that warns of nothing.
    """
    contents = {CARD_NAME: (json.dumps(asdict(card), indent=2, allow_nan=False) + "\n").encode()}
    for suffix, files in networks.items():
        contents |= {f"network_{number}{suffix}": content for number, content in enumerate(files)}
    for number, array in enumerate(novelty or []):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        contents[f"novelty_{number}.npy"] = buffer.getvalue()
    with write_file(target) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)


def _list_entries(path: Path) -> dict[str, int]:
    """Return the size of each entry as the archive states it; `zipfile` reads no more than that."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise NotABundleError(error.strerror or type(error).__name__) from error
    except _DAMAGES as error:
        raise NotABundleError("no zip archive, or a damaged one") from error
    return {entry.filename: entry.file_size for entry in entries}


def _parse_card(content: bytes) -> Card:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NotABundleError(f"{CARD_NAME} is no JSON") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise NotABundleError(f"of format {version!r}, not {FORMAT_VERSION}; export it again")
    if set(values) != {each.name for each in fields(Card)}:
        raise NotABundleError(f"{CARD_NAME} has other keys")
    for key, (is_right, expected) in _CHECKS.items():
        if not is_right(values[key]):
            raise NotABundleError(f"{key} of {CARD_NAME} is not {expected}")
    if (values["threshold"] is None) != (len(values["classes"]) > 2):
        raise NotABundleError(f"{CARD_NAME} has a threshold for {len(values['classes'])} classes")
    metrics = {name: Metric(**metric) for name, metric in values["metrics"].items()}
    return Card(**values | {"steps": _parse_steps(values["steps"]), "metrics": metrics})


def _parse_steps(steps: list[dict[str, Any]]) -> list[Step]:
    sizes = [step["parameters"].get("size_px") for step in steps if step["name"] == "resize"]
    if len(sizes) != 1 or not isinstance(sizes[0], int) or not 1 <= sizes[0] <= MAX_SIZE_PX:
        raise NotABundleError(f"its images are not resized once to 1 to {MAX_SIZE_PX} pixels")
    try:
        return parse_combo(CARD_NAME, [{step["name"]: step["parameters"]} for step in steps], sizes[0])
    except PneumoError as error:
        raise NotABundleError(str(error)) from error


def _parse_array(content: bytes) -> Float32Array:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, TypeError) as error:
        raise NotABundleError("an array is damaged") from error
    if array.dtype != np.float32 or array.ndim != 2 or not np.isfinite(array).all():
        raise NotABundleError("an array is not of finite float32 numbers in two dimensions")
    return array


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list_of(kind: type, n_least: int = 0, n_most: int = MAX_NETWORKS) -> Any:
    return lambda value: (
        isinstance(value, list)
        and n_least <= len(value) <= n_most
        and all(isinstance(each, kind) for each in value)
    )


def _are_steps(value: object) -> bool:
    return _is_list_of(dict, 1)(value) and all(
        set(each) == {"name", "parameters"}
        and isinstance(each["name"], str)
        and isinstance(each["parameters"], dict)
        for each in value  # type: ignore[attr-defined]
    )


def _are_metrics(value: object) -> bool:
    names = {each.name for each in fields(Metric)}
    return isinstance(value, dict) and all(
        isinstance(each, dict)
        and set(each) == names
        and all(number is None or _is_number(number) for number in each.values())
        for each in value.values()
    )


_CHECKS: dict[str, tuple[Any, str]] = {
    "classes": (_is_list_of(str, 2), "two names or more"),
    "steps": (_are_steps, "a list of steps"),
    "threshold": (lambda value: value is None or _is_number(value), "a number or null"),
    "temperature": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "trained_on": (lambda value: isinstance(value, str), "a text"),
    "runs": (_is_list_of(str, 1), "a list of names"),
    "metrics": (_are_metrics, "of values with an interval each"),
    "n_test": (lambda value: isinstance(value, int) and value >= 0, "a number of images"),
    "provenance": (_is_list_of(dict), "a list of records"),
}
