"""train: images.npy and the manifest -> model.keras, history.csv, predictions.csv, run.json of one run.

Where the recipe varies training images, views.webp shows how.
"""

import time
from dataclasses import asdict
from pathlib import Path

from pneumo.base.artifacts import read_json, write_folder, write_json
from pneumo.base.config import Params, Run, build, load_group
from pneumo.base.labels import CLASSES
from pneumo.base.paths import (
    manifest_path,
    run_dir,
    run_seconds_path,
    weights_record_path,
)
from pneumo.base.reproducibility import make_deterministic
from pneumo.base.tables import tabulate_predictions, write_predictions
from pneumo.training.augmentation import draw_sheet
from pneumo.training.dataset import choose_examples, load_dataset, train_run
from pneumo.training.network_file import save_network
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
    data = load_dataset(params, run.combo)
    provenance = {
        **describe_environment(),
        "weights": read_json(weights_record_path(run.model)),
        "hashes": {**hash_inputs(inputs), "images.npy": data.images_sha256},
        "recipe": asdict(recipe),
    }
    trained = train_run(data, recipe, run.seed)
    classes, y_true = CLASSES[params.task], data.y_true[trained.rows]
    table = tabulate_predictions(data.manifest.iloc[trained.rows], classes, y_true, trained.probabilities)
    with write_folder(run_dir(run)) as folder:
        save_network(trained.classifier.model, folder / "model.keras")
        trained.history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
        write_predictions(table, folder / "predictions.csv")
        write_json(folder / "run.json", provenance)
        # Last, as the layers that it builds would change the names of those that are saved.
        if sheet := draw_sheet(choose_examples(data.training), recipe, run.seed):
            (folder / "views.webp").write_bytes(sheet)
    seconds = time.perf_counter() - start
    write_json(run_seconds_path(run), {"train_s": round(seconds, 1)})
    print(f"{run.name}: {len(trained.history)} epochs, {seconds:.0f} s, in {run_dir(run)}")
