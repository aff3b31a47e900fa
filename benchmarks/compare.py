"""Measure what it costs to compare the runs of an experiment: seconds, seconds of the processor, memory.

python benchmarks/compare.py --output compare.json
python benchmarks/compare.py --n-combos 10 --n-models 10 --n-images 5000

Predictions are drawn at random. All that the stage `compare` computes from them is measured, without reading
files and without the page.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo.base.artifacts import write_json
from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.evaluation.comparison import RunKey, join_predictions
from pneumo.evaluation.curves import band_roc
from pneumo.evaluation.experiment import compile_results, group_seeds

IMAGES_PER_PATIENT = 1.5
PNEUMONIA_FRACTION = 0.6
REFERENCE = "combo_0"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-combos", type=int, default=6)
    parser.add_argument("--n-models", type=int, default=5)
    parser.add_argument("--n-seeds", type=int, default=3)
    parser.add_argument("--n-images", type=int, default=624, help="of the test set")
    parser.add_argument("--n-val", type=int, default=1000, help="images of validation")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    predictions = draw_predictions(
        options.n_combos, options.n_models, options.n_seeds, options.n_images, options.n_val
    )
    wall, processor = time.perf_counter(), time.process_time()
    compare(predictions)
    result = {
        "n_runs": len(predictions),
        "n_images": options.n_images,
        "wall_s": round(time.perf_counter() - wall, 1),
        "processor_s": round(time.process_time() - processor, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(", ".join(f"{name} {value:,}" for name, value in result.items()))
    if options.output:
        write_json(options.output, result)


def draw_predictions(
    n_combos: int, n_models: int, n_seeds: int, n_images: int, n_val: int
) -> dict[RunKey, pd.DataFrame]:
    """Draw the predictions of every run, of better and worse networks."""
    generator = np.random.default_rng(0)
    split = np.repeat(["val", "test"], [n_val, n_images])
    patients = generator.integers(0, len(split) / IMAGES_PER_PATIENT, len(split))
    y_true = (generator.random(len(patients.tolist())) < PNEUMONIA_FRACTION).astype(int)
    images = pd.DataFrame(
        {
            "id": [f"{part}/{i}.jpeg" for i, part in enumerate(split)],
            "split": split,
            "patient": [f"{part}{patient}" for part, patient in zip(split, patients, strict=True)],
            "y_true": y_true,
        }
    )
    shared = generator.normal(size=len(images))
    predictions = {}
    for combo in range(n_combos):
        for model in range(n_models):
            for seed in range(n_seeds):
                logits = 2 * (2 * y_true - 1) + shared + generator.normal(size=len(images))
                positive = 1 / (1 + np.exp(-logits))
                predictions[f"combo_{combo}", f"model_{model}", seed] = images.assign(
                    p_normal=1 - positive, p_pneumonia=positive
                )
    return predictions


def compare(predictions: dict[RunKey, pd.DataFrame]) -> None:
    """Do what the stage does between reading and writing."""
    results = compile_results(predictions, Threshold(ThresholdMethod.youden), 0.2, REFERENCE, 0.01)
    best = group_seeds(list(predictions))[results.best_run[:2]]
    band_roc([results.outcomes[key].decide(results.outcomes[key].test) for key in best])
    join_predictions({"/".join(map(str, key)): table for key, table in predictions.items()})


if __name__ == "__main__":
    main()
