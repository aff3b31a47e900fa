"""external: a combo's models -> reports/<experiment>/external/<combo>/, predictions for further test sets."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES
from pneumo.base.messages import hold_messages
from pneumo.base.paths import external_dir, manifest_path, run_dir
from pneumo.base.reproducibility import make_deterministic
from pneumo.base.tables import number_classes, read_manifest, tabulate_predictions, write_predictions
from pneumo.data.manifest import scan_class_folders
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import parse_combo


def run(params: Params, combo: str) -> None:
    """Predict every external set with every model of a combo, as trained; thresholds stay as they are."""
    own = read_manifest(manifest_path(params.data_name))
    learnt = own.loc[own["split"].isin(["train", "val"]), "sha256"]
    with write_folder(external_dir(params.experiment, combo)) as folder:
        pd.DataFrame({"name": list(params.external)}).to_csv(folder / "sets.csv", index=False)
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
    # Keras takes seconds to import, and most experiments have no external set.
    with hold_messages():
        from pneumo.training.fit import predict_probabilities
        from pneumo.training.network_file import load_network

    make_deterministic()
    y_true = number_classes(images, params.task)
    rows = np.flatnonzero(y_true >= 0)
    steps = parse_combo(combo, params.combos[combo], params.image_size_px)
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "images.npy")
        write_images(images["path"].tolist(), steps, path)
        pixels = np.load(path, mmap_mode="r")
        for run in params.runs:
            if run.combo != combo:
                continue
            network = load_network(run_dir(run) / "model.keras")
            probabilities = predict_probabilities(network, pixels, rows)
            table = tabulate_predictions(images.iloc[rows], CLASSES[params.task], y_true[rows], probabilities)
            write_predictions(table, folder / f"{run.model}_{run.seed}.csv")
