"""A bundle applied to image files; it needs nothing but the bundle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.base.decision import DecisionRule
from pneumo.base.errors import PneumoError
from pneumo.data.decoding import IMAGE_SUFFIXES, UnreadableImageError, decode_image
from pneumo.prediction.bundle import load_bundle
from pneumo.preprocessing.combo import apply_steps
from pneumo.preprocessing.steps import Image

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image file.

    Attributes:
        path: of the file.
        label: the class decided for; None if the file could not be read.
        probabilities: class -> calibrated probability; empty if the file could not be read.
        threshold: of the second class's calibrated probability, for two classes; None for more.
        error: why the file could not be read, or None.
    """

    path: Path
    label: str | None
    probabilities: dict[str, float]
    threshold: float | None
    error: str | None = None


class Predictor:
    """Preprocesses, classifies and calibrates as the experiment did that the model comes from.

    Args:
        path: a bundle.

    Raises:
        PneumoError: the file is no bundle.
    """

    def __init__(self, path: Path) -> None:
        self._network, self.card = load_bundle(path)
        self.rule = DecisionRule(self.card.threshold, self.card.temperature)

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Classify image files, a batch at a time, in their order.

        Args:
            paths: any number of files. One that cannot be read gives a Prediction with `error`.
        """
        for start in range(0, len(paths), BATCH_SIZE):
            batch = paths[start : start + BATCH_SIZE]
            opened = [self._open(path) for path in batch]
            images = [image for image in opened if not isinstance(image, str)]
            predicted = iter(self._predict_images(np.stack(images)) if images else ())
            for path, image in zip(batch, opened, strict=True):
                if isinstance(image, str):
                    yield Prediction(path, None, {}, None, image)
                else:
                    label, probabilities = next(predicted)
                    yield Prediction(path, label, probabilities, self.rule.calibrated_threshold)

    def _open(self, path: Path) -> Image | str:
        """Return a preprocessed image, or why there is none."""
        try:
            return apply_steps(decode_image(path.read_bytes()).pixels, self.card.steps)
        except UnreadableImageError as error:
            return str(error)
        except OSError as error:
            return error.strerror or str(error)

    def _predict_images(self, images: Image) -> Iterator[tuple[str, dict[str, float]]]:
        outputs = np.asarray(self._network.predict_on_batch(images[..., None]), dtype=np.float64)
        raw = np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs
        for number, calibrated in zip(self.rule.decide(raw), self.rule.calibrate(raw), strict=True):
            yield self.card.classes[number], dict(zip(self.card.classes, calibrated.tolist(), strict=True))


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Return the files named, and the image files below the folders named, sorted within each folder.

    Raises:
        PneumoError: a folder holds no image file.
    """
    files = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise PneumoError(f"{path}: Expected image files. Received: a folder without any.")
        files += found
    return files
