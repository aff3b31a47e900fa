"""pack: what a report is made from -> reports/<experiment>/inputs.tar.xz, for `pneumo remake`.

It holds the predictions, records and histories of all runs, what the models look at, and the tables of the
data set, but no network and no image beyond those that the page shows. The same inputs give the same bytes.
"""

import tarfile
from pathlib import Path

import pandas as pd

from pneumo.base.artifacts import write_file
from pneumo.base.config import PARAMS_PATH, Params, RunKey
from pneumo.base.errors import PneumoError
from pneumo.base.paths import (
    audit_dir,
    explanations_dir,
    exploration_dir,
    external_dir,
    manifest_path,
    pack_path,
    report_dir,
    run_dir,
    samples_path,
)
from pneumo.base.privacy import has_private_data
from pneumo.report.inputs import VIEWS_NAME, choose_galleries, list_predicted

_NETWORK_NAME = "model.keras"


def run(params: Params) -> None:
    """Pack what `compare` has read.

    Raises:
        PneumoError: the data set is private, or `compare` has not run.
    """
    if has_private_data(params):
        raise PneumoError(
            f"Expected a data set that is not private. Received: {params.data_name}. A pack holds names and "
            "images."
        )
    target, files = pack_path(params.experiment), list_inputs(params)
    with write_file(target) as partial, tarfile.open(partial, "w:xz") as archive:
        for path in files:
            entry = tarfile.TarInfo(path.as_posix())
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(entry, file)
    print(f"{len(files)} files: {target}, {target.stat().st_size / 1e6:.1f} MB")


def list_inputs(params: Params) -> list[Path]:
    """Return the files that `compare` reads, sorted; of the galleries those that are on the page.

    Raises:
        PneumoError: `compare` has not run.
    """
    leaderboard_path = report_dir(params.experiment) / "leaderboard.csv"
    if not leaderboard_path.is_file():
        raise PneumoError(f"Expected {leaderboard_path}. Received: no such file. Run `dvc repro`.")
    runs = list_predicted(params)
    shown = choose_galleries(pd.read_csv(leaderboard_path), [run.key for run in runs])
    folders = [audit_dir(params.data_name), exploration_dir(params.data_name), *map(run_dir, runs)]
    for combo in params.combos:
        folders += [explanations_dir(params.experiment, combo), external_dir(params.experiment, combo)]
    files = {PARAMS_PATH, manifest_path(params.data_name)}
    files |= {samples_path(params.data_name, combo) for combo in params.combos}
    files |= {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    galleries = {_name_gallery(params, run.key) for run in runs}
    unseen = galleries - {_name_gallery(params, key) for key in shown}
    unseen |= {run_dir(run) / VIEWS_NAME for run in runs if run.key not in shown}
    return sorted(path for path in files - unseen if path.name != _NETWORK_NAME)


def _name_gallery(params: Params, key: RunKey) -> Path:
    combo, model, seed = key
    return explanations_dir(params.experiment, combo) / f"{model}_{seed}.npz"
