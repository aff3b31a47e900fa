"""external: a combo's models -> reports/<experiment>/external/<combo>/, predictions for further test sets."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES
from pneumo.base.paths import external_dir, manifest_path
from pneumo.base.reproducibility import make_deterministic
from pneumo.data.manifest import read_manifest, scan_class_folders
from pneumo.evaluation.predictions import number_classes, tabulate_predictions, write_predictions


def run(params: Params, combo: str) -> None:
    """Predict every external set with every model of a combo, as trained; thresholds stay as they are."""
    own = read_manifest(manifest_path(params.source))
    learnt = own.loc[own["split"].isin(["train", "val"]), "sha256"]
    with write_folder(external_dir(params.experiment, combo)) as folder:
        for name, path in params.external.items():
            images, set_aside = scan_external(name, Path(path).expanduser(), learnt)
            (folder / name).mkdir()
            set_aside.to_csv(folder / name / "set_aside.csv", index=False)
            predict_set(params, combo, images, folder / name)
            print(f"{combo}: {name}: {len(images)} images, {len(set_aside)} set aside")


def scan_external(name: str, path: Path, learnt: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a set's images and leave out those that the models have learnt from.

    Args:
        name: of the set.
        path: its folder.
        learnt: SHA-256 of the training and validation images.

    Returns:
        Rows as of a manifest, and `path` and `reason` of the files set aside.

    Raises:
        PneumoError: no image of a class is left.
    """
    images, set_aside = scan_class_folders(path)
    is_known = images["sha256"].isin(learnt)
    known = images.loc[is_known, ["id"]].rename(columns={"id": "path"})
    images = images[~is_known].reset_index(drop=True).assign(split="test")
    for label in ("normal", "pneumonia"):
        if not (images["label"] == label).any():
            raise PneumoError(
                f"external.{name}: Expected images in a folder {label.upper()} below {path}, other than "
                "those trained on. Received: none."
            )
    reason = "its content is among the training or validation images"
    return images, pd.concat([set_aside, known.assign(reason=reason)], ignore_index=True)


def predict_set(params: Params, combo: str, images: pd.DataFrame, folder: Path) -> None:
    """Write the predictions of a combo's models, one <model>_<seed>.csv each, in predictions.csv's form."""
    # Keras takes seconds to load, and most experiments have no external set.
    from pneumo.prediction.bundle import load_bundle
    from pneumo.preprocessing.arrays import write_images
    from pneumo.training.fit import predict_probabilities

    make_deterministic()
    y_true = number_classes(images, params.task)
    rows = np.flatnonzero(y_true >= 0)
    classes = CLASSES[params.task]
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "images.npy")
        for run in params.runs:
            if run.combo != combo:
                continue
            model, card = load_bundle(run.model_dir / "model.keras")
            if not path.is_file():
                write_images(images["path"].tolist(), card.steps, path)
            probabilities = predict_probabilities(model, np.load(path, mmap_mode="r"), rows)
            table = tabulate_predictions(images.iloc[rows], classes, y_true[rows], probabilities)
            write_predictions(table, folder / f"{run.model}_{run.seed}.csv")
