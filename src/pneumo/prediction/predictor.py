"""A bundle applied to images; it needs nothing but the bundle."""

import collections
import glob
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from pneumo.base.decision import average_logits
from pneumo.base.errors import PneumoError
from pneumo.base.messages import hold_messages
from pneumo.data.decoding import IMAGE_SUFFIXES, UnreadableImageError, decode_image
from pneumo.prediction.bundle import KERAS, ONNX, Bundle
from pneumo.prediction.novelty import measure_ensemble
from pneumo.preprocessing.combo import apply_steps
from pneumo.preprocessing.steps import Image

BATCH_SIZE = 32
N_BATCHES_AHEAD = 3  # read while the network runs; bounds memory, whatever the number of files

FloatArray = npt.NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Network(Protocol):
    """A network of a bundle, whatever runs it.

    Attributes:
        draw_class_maps: see `onnx_network.OnnxNetwork`; None where it has none.
    """

    draw_class_maps: Callable[[Image], FloatArray] | None

    def run(self, images: Image) -> tuple[FloatArray, FloatArray]:
        """Return outputs and features of one batch; see `keras_network.KerasNetwork.run`."""


@dataclass(frozen=True)
class Verdict:
    """What a model says of one image.

    Attributes:
        label: the class decided for.
        probabilities: class -> calibrated probability.
        threshold: of the second class's calibrated probability, for two classes; None for more.
        novelty: distance from the training images, 1 or less for 99 % of the validation images; None where
            the bundle has no description of training images.
    """

    label: str
    probabilities: dict[str, float]
    threshold: float | None
    novelty: float | None

    @property
    def is_unlike_training(self) -> bool:
        """The image lies further from the training images than nearly all of validation does."""
        return self.novelty is not None and self.novelty > 1


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image file.

    Attributes:
        path: of the file.
        image: uint8 array of shape (size_px, size_px), what the network saw; None if the file was not read.
        verdict: None if the file was not read.
        error: why the file was not read, or None.
    """

    path: Path
    image: Image | None
    verdict: Verdict | None
    error: str | None = None


class Predictor:
    """Preprocesses, classifies and calibrates as the experiment did that the model comes from.

    Args:
        bundle: the model.
        suffix: KERAS or ONNX; None takes ONNX where the bundle has it and ONNX Runtime is installed.

    Attributes:
        card: what the bundle says of the model.
        networks: of the model, loaded.

    Raises:
        PneumoError: a network cannot be loaded.
    """

    def __init__(self, bundle: Bundle, suffix: str | None = None) -> None:
        cv2.setNumThreads(1)  # the threads are ours, one an image
        self.card = bundle.card
        self.networks = load_networks(bundle, suffix or choose_format(bundle))
        self._novelty = bundle.read_novelty()
        try:  # so that what does not fit together shows here, and the first answer is as quick as the others
            self.judge(np.zeros((1, self.card.size_px, self.card.size_px), np.uint8))
        except Exception as error:
            raise bundle.refuse_network(error) from error

    def preprocess(self, data: bytes, max_pixels: int | None = None) -> Image:
        """Decode and preprocess an image file; safe to call from several threads.

        Args:
            data: content of the file.
            max_pixels: what more pixels than this has is refused; None for the decoder's own limit.

        Returns:
            uint8 array of shape (size_px, size_px).

        Raises:
            UnreadableImageError: it cannot be used.
            PneumoError: a package that its format needs is not installed.
        """
        decoded = decode_image(data) if max_pixels is None else decode_image(data, max_pixels)
        return apply_steps(decoded.pixels, self.card.steps)

    def judge(self, images: Image) -> list[Verdict]:
        """Classify one batch.

        Args:
            images: uint8 array of shape (n, size_px, size_px), preprocessed.
        """
        outputs, features = zip(*(network.run(images[..., None]) for network in self.networks), strict=True)
        raw = average_logits([spread_outputs(each) for each in outputs])
        rule, classes = self.card.rule, self.card.classes
        if raw.shape != (len(images), len(classes)) or not np.isfinite(raw).all():
            raise ValueError(f"Expected probabilities of {len(classes)} classes. Received: {raw.shape[1]}")
        distances = [None] * len(raw) if self._novelty is None else measure_ensemble(features, self._novelty)
        return [
            Verdict(
                classes[number],
                dict(zip(classes, calibrated.tolist(), strict=True)),
                rule.calibrated_threshold,
                None if distance is None else float(distance),
            )
            for number, calibrated, distance in zip(
                rule.decide(raw), rule.calibrate(raw), distances, strict=True
            )
        ]

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Classify image files in their order; files are read and decoded while the network runs.

        Args:
            paths: any number of files. One that cannot be read gives a Prediction with `error`.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            opened = read_ahead(pool, self._open, paths, N_BATCHES_AHEAD * BATCH_SIZE)
            batch: list[tuple[Path, Image | str]] = []
            for path, image in zip(paths, opened, strict=True):
                batch.append((path, image))
                if len(batch) == BATCH_SIZE:
                    yield from self._predict_batch(batch)
                    batch = []
            yield from self._predict_batch(batch)

    def _predict_batch(self, batch: list[tuple[Path, Image | str]]) -> Iterator[Prediction]:
        images = [image for _, image in batch if not isinstance(image, str)]
        verdicts = iter(self.judge(np.stack(images)) if images else ())
        for path, image in batch:
            if isinstance(image, str):
                yield Prediction(path, None, None, image)
            else:
                yield Prediction(path, image, next(verdicts))

    def _open(self, path: Path) -> Image | str:
        """Return a preprocessed image, or why there is none."""
        try:
            return self.preprocess(path.read_bytes())
        except (UnreadableImageError, PneumoError) as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)


def choose_format(bundle: Bundle) -> str:
    """Return the format to run a bundle in.

    Raises:
        PneumoError: it is there in ONNX alone, and ONNX Runtime is not installed.
    """
    if ONNX in bundle.formats and importlib.util.find_spec("onnxruntime"):
        return ONNX
    if KERAS in bundle.formats:
        return KERAS
    raise PneumoError(f"{bundle.path}: Expected ONNX Runtime. Received: none. `pip install 'pneumo[onnx]'`")


def load_networks(bundle: Bundle, suffix: str) -> list[Network]:
    """Load the networks of a bundle; Keras is imported only where it is to run them.

    Raises:
        PneumoError: one cannot be loaded.
    """
    numbers = range(len(bundle.card.runs))
    if suffix == ONNX:
        from pneumo.prediction.onnx_network import load_onnx

        return [load_onnx(bundle, number) for number in numbers]
    with hold_messages():
        from pneumo.prediction.keras_network import load_network
    return [load_network(bundle, number) for number in numbers]


def spread_outputs(outputs: FloatArray) -> FloatArray:
    """Return the probability of each class, of shape (n, n_classes), from a network's outputs."""
    return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs


def read_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], n_ahead: int
) -> Iterator[Result]:
    """Yield a function's results in order; the pool computes up to `n_ahead` before they are asked for."""
    pending: collections.deque[Future[Result]] = collections.deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > n_ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def list_images(names: Sequence[str]) -> list[Path]:
    """Return the files named, the image files below the folders named, and the files that patterns match.

    Args:
        names: paths, and patterns with `*`, `?`, `[...]` and `**`. What exists under a name is no pattern.

    Returns:
        Paths in the order of the names, sorted within each folder and pattern.

    Raises:
        PneumoError: a folder holds no image file, or a pattern matches nothing.
    """
    files = []
    for name in names:
        if Path(name).is_dir():
            found = sorted(each for each in Path(name).rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise PneumoError(f"{name}: Expected image files. Received: a folder without any.")
            files += found
        elif glob.has_magic(name) and not os.path.lexists(name):
            matched = [Path(each) for each in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            if not matched:
                raise PneumoError(f"{name}: Expected files that match. Received: none.")
            files += [each for each in matched if not each.is_dir()]
        else:
            files.append(Path(name))
    return files
