"""predict: image files and a bundle -> a line an image, or a table."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pneumo.base.artifacts import write_file, write_json
from pneumo.base.errors import PneumoError
from pneumo.prediction.bundle import Bundle
from pneumo.prediction.explainer import Explainer, lay_over
from pneumo.prediction.predictor import Prediction, Predictor, list_images

RELEASE_PATH = Path("models/release/model.pneumo")
UNLIKE_TEXT = "unlike the training images, so do not rely on this"
_N_NAME_CHARACTERS = 60  # of an image's name in that of its explanation; 4 bytes each stay below 255

Row = dict[str, str | float | bool | None]


def run(
    images: list[str],
    model: Path | None = None,
    csv_path: Path | None = None,
    json_path: Path | None = None,
    explain_dir: Path | None = None,
) -> None:
    """Say of each image what a model makes of it, in their order.

    Args:
        images: files, folders of them, and patterns.
        model: a file that `pneumo export` wrote; None takes the released model.
        csv_path: a table to write in place of lines.
        json_path: a list to write in place of lines.
        explain_dir: a folder for a picture of each image with what speaks for its class.

    Raises:
        PneumoError: the model cannot be loaded, or files could not be read; these are named on their line.
    """
    paths = list_images(images)
    bundle = Bundle(find_model(model))
    predictor = Predictor(bundle)
    write_explanation = _prepare_explanations(bundle, predictor, explain_dir) if explain_dir else None
    has_table = csv_path is not None or json_path is not None
    rows: list[Row] = []
    n_failed = 0
    with tqdm(total=len(paths), unit="image", disable=None) as progress:
        for number, prediction in enumerate(predictor.predict(paths)):
            row = tabulate_prediction(prediction, predictor.card.classes)
            if write_explanation:
                row["explanation"] = write_explanation(number, prediction)
            if has_table:
                rows.append(row)
            if prediction.error is not None or not has_table:
                file = sys.stderr if has_table else sys.stdout
                tqdm.write(format_prediction(prediction), file=file)
            n_failed += prediction.error is not None
            progress.update()
    if csv_path is not None:
        write_rows(csv_path, rows)
    if json_path is not None:
        write_json(json_path, rows)
    if n_failed:
        raise PneumoError(f"{n_failed} of {len(paths)} files could not be read.")


def find_model(model: Path | None) -> Path:
    """Return the path of a model: the one named, or the released one.

    Raises:
        PneumoError: none is named and there is no released one.
    """
    if model is None and not RELEASE_PATH.is_file():
        raise PneumoError(f"Expected a model, or {RELEASE_PATH} in this folder. Received: neither.")
    return model or RELEASE_PATH


def format_prediction(prediction: Prediction) -> str:
    """Return one line: the decision, calibrated probabilities, and a threshold and a warning if any."""
    verdict = prediction.verdict
    if verdict is None:
        return f"{prediction.path}: not read: {prediction.error}"
    named = [f"{name} {value:.3f}" for name, value in verdict.probabilities.items()]
    if verdict.threshold is None:
        text = f"{prediction.path}: {verdict.label} (probabilities: {', '.join(named)})"
    else:
        limit = f"threshold {verdict.threshold:.3f}"
        text = f"{prediction.path}: {verdict.label} (probability of {named[1]}, {limit})"
    return f"{text}; {UNLIKE_TEXT}" if verdict.is_unlike_training else text


def tabulate_prediction(prediction: Prediction, classes: list[str]) -> Row:
    """Return a row of the table: `path`, `label`, `p_<class>`, `threshold`, `novelty`, `unlike`, `error`.

    Args:
        prediction: of one file; what it has not is None.
        classes: of the model.
    """
    verdict = prediction.verdict
    row: Row = {"path": str(prediction.path), "label": None}
    row |= dict.fromkeys([*(f"p_{name}" for name in classes), "threshold", "novelty", "unlike"])
    if verdict is not None:
        row |= {"label": verdict.label, "threshold": verdict.threshold, "novelty": verdict.novelty}
        row |= {f"p_{name}": value for name, value in verdict.probabilities.items()}
        row["unlike"] = verdict.is_unlike_training
    return row | {"error": prediction.error}


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write rows of the same keys as CSV; None is an empty field."""
    with write_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _prepare_explanations(
    bundle: Bundle, predictor: Predictor, folder: Path
) -> Callable[[int, Prediction], str | None]:
    explainer = Explainer(bundle, predictor)
    folder.mkdir(parents=True, exist_ok=True)

    def write_explanation(number: int, prediction: Prediction) -> str | None:
        """Write the picture of one image and return its name."""
        if prediction.verdict is None or prediction.image is None:
            return None
        name = f"{number:05d}_{prediction.path.stem[:_N_NAME_CHARACTERS]}.png"
        attention = explainer.draw_map(prediction.image, prediction.verdict.label)
        with write_file(folder / name) as partial:
            Image.fromarray(lay_over(prediction.image, attention)).save(partial, "PNG")
        return name

    return write_explanation
