"""train: images.npy and the manifest -> model.keras, history.csv, predictions.csv, run.json of one run.

With cross-validation, a run is one network a fold; model.keras is that of the first. Where the recipe varies
training images, views.webp shows how.
"""

import time
from dataclasses import asdict
from pathlib import Path

from pneumo.base.artifacts import read_json, write_folder, write_json
from pneumo.base.config import Params, Run, build, load_group
from pneumo.base.paths import (
    manifest_path,
    run_dir,
    run_seconds_path,
    weights_record_path,
)
from pneumo.base.reproducibility import make_deterministic
from pneumo.base.tables import write_predictions
from pneumo.training.augmentation import draw_sheet
from pneumo.training.dataset import choose_examples, load_folds
from pneumo.training.folds import train_folds
from pneumo.training.provenance import describe_environment, hash_inputs
from pneumo.training.recipe import Recipe

LOCK_PATH = Path("requirements.lock")


def run(params: Params, run: Run) -> None:
    """Train one run and predict validation and test images; test labels are only copied, never looked at."""
    start = time.perf_counter()
    recipe = build(Recipe, load_group("model", run.model, params.models[run.model]), f"model {run.model}")
    make_deterministic(recipe.threads)
    inputs = {
        "requirements.lock": LOCK_PATH,
        "manifest.csv": manifest_path(params.data_name),
    }
    parts = load_folds(params, run.combo, run.seed)
    provenance = {
        **describe_environment(),
        "weights": read_json(weights_record_path(run.model)),
        "hashes": {**hash_inputs(inputs), "images.npy": parts[0].file.sha256},
        "recipe": asdict(recipe),
    }
    with write_folder(run_dir(run)) as folder:
        history, predictions = train_folds(parts, recipe, run.seed, params.task, folder / "model.keras")
        history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        write_predictions(predictions, folder / "predictions.csv")
        write_json(folder / "run.json", provenance)
        # Last, as the layers that it builds would change the names of those that are saved.
        if sheet := draw_sheet(choose_examples(parts[0].training), recipe, run.seed):
            (folder / "views.webp").write_bytes(sheet)
    seconds = time.perf_counter() - start
    write_json(run_seconds_path(run), {"train_s": round(seconds, 1)})
    folds = f" of {len(parts)} folds" if len(parts) > 1 else ""
    print(f"{run.name}: {len(history)} epochs{folds}, {seconds:.0f} s, in {run_dir(run)}")
