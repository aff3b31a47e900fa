"""What the stages have written about an experiment, read for its report."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.artifacts import hash_file, read_json
from pneumo.base.config import Params, Run, RunKey
from pneumo.base.errors import PneumoError
from pneumo.base.paths import (
    explanations_dir,
    exploration_dir,
    external_dir,
    gallery_path,
    manifest_path,
    run_dir,
    run_seconds_path,
    samples_path,
)
from pneumo.base.tables import read_manifest, read_predictions
from pneumo.report.photos import Gallery, Views, show_gallery, show_views

N_GALLERIES = 6  # on a page
VIEWS_NAME = "views.webp"  # in the folder of a run
PROBE_COLUMNS = ("combo", "model", "check", "n_seeds", "value", "lowest", "highest", "n_problems")
STRESS_COLUMNS = (
    "combo",
    "model",
    "seed",
    "change",
    "roc_auc",
    "sensitivity",
    "specificity",
    "balanced_accuracy",
)


@dataclass(frozen=True)
class Inputs:
    """Everything a report is made from.

    Attributes:
        runs: those with predictions, in the order of params.yaml.
        missing: names of those without.
        manifest: one row an image.
        predictions: of each run, content of its predictions.csv.
        records: run name -> content of its run.json.
        external: name of a further test set -> predictions of each run for it.
        probes: what models were found to look at, mean over seeds: `combo`, `model` and the columns of
            probes_by_model.csv; empty where no model was asked.
        stress: scores on changed validation images: `combo` and the columns of stress.csv; likewise.
        history: every epoch of every run: `combo`, `model`, `seed` and the columns of history.csv.
        samples: uint8 array of shape (n_subtypes, n, size_px, size_px), training images as they come.
        combo_samples: combo -> the like, preprocessed.
    """

    runs: list[Run]
    missing: list[str]
    manifest: pd.DataFrame
    predictions: dict[RunKey, pd.DataFrame]
    records: dict[str, dict[str, Any]]
    external: dict[str, dict[RunKey, pd.DataFrame]]
    probes: pd.DataFrame
    stress: pd.DataFrame
    history: pd.DataFrame
    samples: npt.NDArray[np.uint8]
    combo_samples: dict[str, npt.NDArray[np.uint8]]


def gather_inputs(params: Params) -> Inputs:
    """Read what is there.

    Raises:
        PneumoError: no run has predictions.
    """
    runs = list_predicted(params)
    if not runs:
        raise PneumoError("Expected predictions of at least one run. Received: none. `dvc repro` makes them.")
    return Inputs(
        runs,
        [run.name for run in params.runs if run not in runs],
        read_manifest(manifest_path(params.data_name)),
        {run.key: read_predictions(run_dir(run) / "predictions.csv") for run in runs},
        {run.name: read_json(run_dir(run) / "run.json") for run in runs},
        {name: _read_external(name, runs) for name in params.external},
        _read_explanations(params, "probes_by_model", PROBE_COLUMNS),
        _read_explanations(params, "stress", STRESS_COLUMNS),
        pd.concat([_read_history(run) for run in runs]),
        np.load(exploration_dir(params.data_name) / "samples.npy"),
        {combo: np.load(samples_path(params.data_name, combo)) for combo in params.combos},
    )


def list_predicted(params: Params) -> list[Run]:
    """Return the runs that have predictions, in the order of params.yaml."""
    return [run for run in params.runs if (run_dir(run) / "predictions.csv").is_file()]


def read_seconds(runs: list[Run]) -> dict[RunKey, float | None]:
    """Return how long the last training of each run took here; None for a run trained on another machine."""
    paths = {run.key: run_seconds_path(run) for run in runs}
    return {key: read_json(path)["train_s"] if path.is_file() else None for key, path in paths.items()}


def hash_predictions(runs: list[Run]) -> dict[RunKey, str]:
    """Return the SHA-256 of the predictions.csv of each run."""
    return {run.key: hash_file(run_dir(run) / "predictions.csv") for run in runs}


def read_galleries(params: Params, runs: list[RunKey]) -> list[Gallery]:
    """Read what `explain` has kept of runs, in their order; runs of which there is nothing are left out."""
    galleries = []
    for key in runs:
        run = Run(params.experiment, *key)
        path = gallery_path(run)
        if path.is_file():
            table = pd.read_csv(path.with_name("gallery.csv"), dtype={"id": str})
            own = table[(table["model"] == run.model) & (table["seed"] == run.seed)]
            galleries.append(show_gallery(run.name, path.read_bytes(), own))
    return galleries


def read_views(params: Params, runs: list[RunKey]) -> list[Views]:
    """Read what training has kept of the views that runs saw; runs that saw none are left out."""
    paths = {run.name: run_dir(run) / VIEWS_NAME for run in (Run(params.experiment, *key) for key in runs)}
    return [show_views(name, path.read_bytes()) for name, path in paths.items() if path.is_file()]


def choose_galleries(leaderboard: pd.DataFrame, runs: list[RunKey]) -> list[RunKey]:
    """Choose the runs whose pictures are shown: of each model, a seed of its best combo on validation.

    Args:
        leaderboard: ordered by validation.
        runs: those with predictions.
    """
    best = leaderboard.drop_duplicates("model").head(N_GALLERIES)
    return [next(key for key in runs if key[:2] == (row.combo, row.model)) for row in best.itertuples()]


def find_reference(params: Params) -> str:
    """Return the combo that the others are compared with: the first without steps, else the first."""
    return next((combo for combo, steps in params.combos.items() if not steps), next(iter(params.combos)))


def _read_external(name: str, runs: list[Run]) -> dict[RunKey, pd.DataFrame]:
    paths = {
        run.key: external_dir(run.experiment, run.combo) / name / f"{run.model}_{run.seed}.csv"
        for run in runs
    }
    return {key: read_predictions(path) for key, path in paths.items() if path.is_file()}


def _read_explanations(params: Params, name: str, columns: tuple[str, ...]) -> pd.DataFrame:
    paths = {combo: explanations_dir(params.experiment, combo) / f"{name}.csv" for combo in params.combos}
    tables = [pd.read_csv(path).assign(combo=combo) for combo, path in paths.items() if path.is_file()]
    return pd.concat(tables)[list(columns)] if tables else pd.DataFrame(columns=list(columns))


def _read_history(run: Run) -> pd.DataFrame:
    history = pd.read_csv(run_dir(run) / "history.csv")
    for column, value in (("seed", run.seed), ("model", run.model), ("combo", run.combo)):
        history.insert(0, column, value)
    return history
