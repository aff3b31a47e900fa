"""A saved model applied to image files; it needs nothing but the model's file."""

from dataclasses import dataclass
from pathlib import Path

from pneumo.base.errors import PneumoError
from pneumo.data.decoding import UnreadableImageError, decode_image
from pneumo.prediction.bundle import load_bundle
from pneumo.preprocessing.combo import apply_steps


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        label: a class, by the threshold chosen on validation for two, the most probable of more.
        probabilities: class -> probability.
    """

    label: str
    probabilities: dict[str, float]


class Predictor:
    """Preprocesses and classifies as the run that left the model did.

    Args:
        path: model.keras of a run.

    Raises:
        PneumoError: the file is no such model.
    """

    def __init__(self, path: Path) -> None:
        self._model, self.card = load_bundle(path)

    def predict(self, path: Path) -> Prediction:
        """Classify one image file.

        Raises:
            PneumoError: the file is missing or is no image.
        """
        try:
            pixels = decode_image(path.read_bytes()).pixels
        except (OSError, UnreadableImageError) as error:
            raise PneumoError(f"{path}: Expected an image. Received: {error}") from error
        image = apply_steps(pixels, self.card.steps)
        outputs = self._model.predict(image[None, :, :, None], verbose=0)[0].tolist()
        values = [1 - outputs[0], outputs[0]] if len(outputs) == 1 else outputs
        chosen = values.index(max(values))
        if self.card.threshold is not None:
            chosen = int(values[1] >= self.card.threshold)
        return Prediction(self.card.classes[chosen], dict(zip(self.card.classes, values, strict=True)))
