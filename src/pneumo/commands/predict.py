"""predict: image files and a bundle -> a line an image."""

from pathlib import Path

from pneumo.base.errors import PneumoError
from pneumo.prediction.predictor import Prediction, Predictor, list_images


def run(model: Path, images: list[Path]) -> None:
    """Print what a model says of each image.

    Args:
        model: a file that `pneumo export` wrote.
        images: files, and folders of them.

    Raises:
        PneumoError: the model cannot be loaded, or files could not be read; these are named on their line.
    """
    paths = list_images(images)
    n_failed = 0
    for prediction in Predictor(model).predict(paths):
        n_failed += prediction.error is not None
        print(format_prediction(prediction), flush=True)
    if n_failed:
        raise PneumoError(f"{n_failed} of {len(paths)} files could not be read.")


def format_prediction(prediction: Prediction) -> str:
    """Return one line: the decision, calibrated probabilities, and the threshold where there is one."""
    if prediction.error is not None:
        return f"{prediction.path}: not read: {prediction.error}"
    named = [f"{name} {value:.3f}" for name, value in prediction.probabilities.items()]
    if prediction.threshold is None:
        return f"{prediction.path}: {prediction.label} (probabilities: {', '.join(named)})"
    return (
        f"{prediction.path}: {prediction.label} (probability of {named[1]}, "
        f"threshold {prediction.threshold:.3f})"
    )
