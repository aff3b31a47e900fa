"""export: trained runs -> one file that predicts anywhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from pneumo.base.artifacts import hash_file, read_json
from pneumo.base.config import Params, Run, load_group
from pneumo.base.decision import DecisionRule, average_logits
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES
from pneumo.base.paths import images_path, manifest_path, report_dir, run_dir
from pneumo.base.tables import PROBABILITY_PREFIX, locate_predictions, read_manifest, read_predictions
from pneumo.evaluation import comparison
from pneumo.evaluation.predictions import Scores, select_scores
from pneumo.evaluation.scoring import fit_rule, score_run
from pneumo.prediction.bundle import KERAS, ONNX, Card, Metric, write_bundle
from pneumo.prediction.keras_network import KerasNetwork, convert_to_onnx
from pneumo.prediction.novelty import Float32Array, fit_ensemble
from pneumo.prediction.predictor import BATCH_SIZE, Network
from pneumo.preprocessing.combo import parse_combo
from pneumo.training.network_file import load_network


def run(
    params: Params,
    target: Path,
    run_name: str | None = None,
    ensemble: bool = False,
    onnx: bool = False,
    no_keras: bool = False,
) -> None:
    """Write networks, steps, classes, threshold, temperature, metrics and provenance into one file.

    Args:
        params: of the runs' experiment.
        target: the file to write.
        run_name: combo/model/seed; None takes the first seed of the leaderboard's first row.
        ensemble: take all trained seeds of that combo and model, which decide by their mean logit.
        onnx: write the networks in ONNX too.
        no_keras: write them in ONNX only.

    Raises:
        PneumoError: there is no such run, it has not been trained, its images are not there or have changed,
            or runs are cross-validated.
    """
    if params.split.has_folds:
        raise PneumoError(
            "split.protocol: Expected official, to export a model. Received: folds. A cross-validated run is "
            "a network a fold, and no image is left on which they could be tested together. Train with "
            "split.protocol: official, under another name of the experiment."
        )
    if no_keras and not onnx:
        raise PneumoError(
            "--no-keras: Expected --onnx beside it. Received: none, so no network would be left."
        )
    first = find_run(params, run_name) if run_name else find_best_run(params)
    runs = find_seeds(params, first) if ensemble else [first]
    for each in runs:
        if not (run_dir(each) / "model.keras").is_file():
            raise PneumoError(
                f"Expected {run_dir(each)}/model.keras. Received: no such file. `dvc repro` trains it."
            )
    records = [read_json(run_dir(each) / "run.json") for each in runs]
    check_images(params, first, records[0]["hashes"]["images.npy"])
    networks = [KerasNetwork(load_network(run_dir(each) / "model.keras")) for each in runs]
    manifest = read_manifest(manifest_path(params.data_name))
    tables = [read_predictions(run_dir(each) / "predictions.csv") for each in runs]
    predictions = join_predictions(
        [predict_test(params, first, manifest, *each) for each in zip(tables, networks, strict=True)]
    )
    val, test = select_scores(predictions, "val"), select_scores(predictions, "test")
    rule = fit_rule(val, params.threshold)
    card = Card(
        classes=list(CLASSES[params.task]),
        steps=parse_combo(first.combo, params.combos[first.combo], params.image_size_px),
        threshold=rule.threshold,
        temperature=rule.temperature,
        trained_on=str(load_group("data", params.source, params.data_overrides)["title"]),
        runs=[f"{each.experiment}/{each.name}" for each in runs],
        metrics=score_test(val, test, rule),
        n_test=len(test.y_true),
        provenance=records,
    )
    files: dict[str, Sequence[bytes]] = {}
    if not no_keras:
        files[KERAS] = [(run_dir(each) / "model.keras").read_bytes() for each in runs]
    if onnx:
        files[ONNX] = [convert_to_onnx(each) for each in networks]
    write_bundle(target, card, files, describe_training(params, first, manifest, networks))
    names = ", ".join(each.name for each in runs)
    print(f"{names}: {target}, {target.stat().st_size / 1e6:.1f} MB")


def find_run(params: Params, name: str) -> Run:
    """Return the run of a name.

    Raises:
        PneumoError: params.yaml has no such run.
    """
    for run in params.runs:
        if run.name == name:
            return run
    names = ", ".join(run.name for run in params.runs[:5])
    raise PneumoError(f"--run: Expected a run of params.yaml, such as {names}. Received: {name}")


def find_best_run(params: Params) -> Run:
    """Return the first seed of the leaderboard's first row; validation has put it there, never the test set.

    Raises:
        PneumoError: there is no leaderboard, or it is of other combos and models.
    """
    path = report_dir(params.experiment) / "leaderboard.csv"
    if not path.is_file():
        raise PneumoError(f"Expected {path}, or --run combo/model/seed. Received: neither. Run `dvc repro`.")
    first = pd.read_csv(path).iloc[0]
    for run in params.runs:
        if (run.combo, run.model) == (first["combo"], first["model"]):
            return run
    raise PneumoError(
        f"Expected {first['combo']} and {first['model']}, the first of {path}, in params.yaml. Received: "
        "others. Run `dvc repro`."
    )


def find_seeds(params: Params, run: Run) -> list[Run]:
    """Return the trained runs that differ from a run by their seed alone, itself among them.

    Raises:
        PneumoError: there are fewer than two.
    """
    same = [each for each in params.runs if (each.combo, each.model) == (run.combo, run.model)]
    trained = [each for each in same if (run_dir(each) / "model.keras").is_file()]
    if len(trained) < 2:
        raise PneumoError(
            f"--ensemble: Expected two trained seeds or more of {run.combo}/{run.model}. Received: "
            f"{len(trained)}"
        )
    return trained


def check_images(params: Params, run: Run, expected: str | None) -> None:
    """Check that images.npy is what a run was trained on.

    Args:
        params: of the run's experiment.
        run: its combo is used.
        expected: SHA-256 from its run.json.

    Raises:
        PneumoError: it is not.
    """
    path = images_path(params.data_name, run.combo)
    if not path.is_file():
        raise PneumoError(
            f"Expected {path}, to describe the training images. Received: no such file. Run `dvc repro`."
        )
    if hash_file(path) != expected:
        raise PneumoError(
            f"Expected {path} as {run.name} was trained on it. Received: other images. Run `dvc repro`."
        )


def predict_test(
    params: Params, run: Run, manifest: pd.DataFrame, table: pd.DataFrame, network: Network
) -> pd.DataFrame:
    """Predict the test images again, with what is exported and where it is exported.

    A GPU computes with fewer bits than a CPU that runs the file, and a card must say what the file does.
    Validation images keep the predictions that the threshold was chosen on.

    Args:
        params: of the run's experiment.
        run: its combo is used.
        manifest: of its data set.
        table: content of predictions.csv.
        network: of the run.

    Raises:
        PneumoError: there is no test image, or one is not in the manifest.
    """
    is_test = (table["split"] == "test").to_numpy()
    if not is_test.any():
        raise PneumoError(f"{run.name}: Expected predictions of test images. Received: none.")
    rows = locate_predictions(table[is_test], manifest, run.name)
    images = np.load(images_path(params.data_name, run.combo), mmap_mode="r")
    outputs = _run(network, images, rows, "test")[0]
    columns = [name for name in table.columns if name.startswith(PROBABILITY_PREFIX)]
    predicted = table.copy()
    predicted.loc[is_test, columns] = np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs
    return predicted


def join_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the predictions of an ensemble: the mean logit over its networks.

    Args:
        tables: content of predictions.csv of each network, all on the same images.

    Raises:
        PneumoError: the networks predicted different images.
    """
    joint = tables[0].copy()
    columns = [name for name in joint.columns if name.startswith(PROBABILITY_PREFIX)]
    if any(not each[["id", "split"]].equals(joint[["id", "split"]]) for each in tables):
        raise PneumoError(
            "--ensemble: Expected predictions of the same images from every seed. Run `dvc repro`."
        )
    joint[columns] = average_logits([each[columns].to_numpy(np.float64) for each in tables])
    return joint


def score_test(val: Scores, test: Scores, rule: DecisionRule) -> dict[str, Metric]:
    """Return every metric on the test set with its 95 % interval over patients, as the report has them."""
    key = ("", "", 0)
    y_pred = rule.decide(test.probabilities)
    decided = comparison.Decided(test.y_true, test.probabilities, y_pred, test.patients)
    runs = comparison.tabulate_runs({key: score_run(val, test, rule)})
    (row,) = comparison.add_run_intervals(runs, comparison.draw_scores({key: decided})).to_dict("records")
    return {
        name: Metric(*(_or_none(row[column]) for column in (name, f"{name}_low", f"{name}_high")))
        for name in comparison.METRICS
    }


def describe_training(
    params: Params, run: Run, manifest: pd.DataFrame, networks: Sequence[Network]
) -> list[Float32Array]:
    """Describe the features of each network on training images, and choose the unit on validation.

    Args:
        params: of the run's experiment.
        run: its combo is used.
        manifest: of its data set.
        networks: trained on its images.
    """
    split = manifest["split"].to_numpy()
    images = np.load(images_path(params.data_name, run.combo), mmap_mode="r")
    features = {
        part: [_run(network, images, np.flatnonzero(split == part), part)[1] for network in networks]
        for part in ("train", "val")
    }
    return fit_ensemble(features["train"], features["val"])


def _run(
    network: Network, images: np.ndarray, rows: np.ndarray, part: str
) -> tuple[Float32Array, Float32Array]:
    """Return outputs and features of images."""
    batches = tqdm(range(0, len(rows), BATCH_SIZE), desc=f"predict {part}", unit="batch", disable=None)
    found = [network.run(images[rows[start : start + BATCH_SIZE]]) for start in batches]
    outputs, features = map(np.vstack, zip(*found, strict=True))
    return outputs, features


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
