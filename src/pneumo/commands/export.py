"""export: a trained run -> one file that predicts anywhere."""

from pathlib import Path

import pandas as pd

from pneumo.base.artifacts import read_json
from pneumo.base.config import Params, Run, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES
from pneumo.base.paths import report_dir, run_dir
from pneumo.base.tables import read_predictions
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import fit_rule
from pneumo.prediction.bundle import Card, write_bundle
from pneumo.preprocessing.combo import parse_combo


def run(params: Params, target: Path, run_name: str | None) -> None:
    """Write network, steps, classes, threshold, temperature and provenance of a run into one file.

    Args:
        params: of the run's experiment.
        target: the file to write.
        run_name: combo/model/seed; None takes the first seed of the leaderboard's first row.

    Raises:
        PneumoError: there is no such run, or it has not been trained.
    """
    run = find_run(params, run_name) if run_name else find_best_run(params)
    folder = run_dir(run)
    if not (folder / "model.keras").is_file():
        raise PneumoError(f"Expected {folder}/model.keras. Received: no such file. `dvc repro` trains it.")
    val = select_scores(read_predictions(folder / "predictions.csv"), "val")
    rule = fit_rule(val, params.threshold)
    card = Card(
        classes=list(CLASSES[params.task]),
        steps=parse_combo(run.combo, params.combos[run.combo], params.image_size_px),
        threshold=rule.threshold,
        temperature=rule.temperature,
        trained_on=str(load_group("data", params.source, params.data_overrides)["title"]),
        run=f"{run.experiment}/{run.name}",
        provenance=read_json(folder / "run.json"),
    )
    write_bundle(folder / "model.keras", card, target)
    print(f"{run.name}: {target}, {target.stat().st_size / 1e6:.1f} MB")


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
    """Return the first seed of the leaderboard's first row; validation has put it there.

    Raises:
        PneumoError: there is no leaderboard.
    """
    path = report_dir(params.experiment) / "leaderboard.csv"
    if not path.is_file():
        raise PneumoError(f"Expected {path}, or --run combo/model/seed. Received: neither. Run `dvc repro`.")
    first = pd.read_csv(path).iloc[0]
    return next(run for run in params.runs if (run.combo, run.model) == (first["combo"], first["model"]))
