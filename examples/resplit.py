"""What a random re-split and validating on the test set add to a score.

    python examples/resplit.py --combo raw

Run it where `dvc repro` has run. It trains the head of a frozen network on the features of a combo's images
under four protocols, each with several seeds:

- official: the official test set, all choices on validation patients;
- official, chosen on test: the same, but the epoch and the threshold are those that suit the test set best;
- random images: all images shuffled, whatever the patient, and divided anew into sets of the same sizes;
- random patients: the same, but every patient on one side.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from pneumo.base.artifacts import write_json
from pneumo.base.config import Threshold, ThresholdMethod, build, load_group, load_params
from pneumo.base.reproducibility import make_deterministic
from pneumo.data.split import group_images
from pneumo.evaluation.thresholds import choose_threshold
from pneumo.training.dataset import Dataset, load_dataset
from pneumo.training.fit import TrainingData, fit_classifier, predict_probabilities
from pneumo.training.recipe import Recipe

IntArray = npt.NDArray[np.int64]
YOUDEN = Threshold(ThresholdMethod.youden)


@dataclass(frozen=True)
class Sets:
    """Rows of the training, validation and test set."""

    train: IntArray
    val: IntArray
    test: IntArray
    chosen_on_test: bool = False


def main() -> None:
    """Train under every protocol and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--combo", default="raw", help="(default: %(default)s)")
    parser.add_argument("--model", default="mobilenet_frozen", help="a frozen recipe (default: %(default)s)")
    parser.add_argument("--n-seeds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    make_deterministic()
    params = load_params()
    config = load_group("model", options.model, params.models.get(options.model))
    recipe = build(Recipe, config, options.model)
    data = load_dataset(params, options.combo)
    groups = group_images(data.manifest["patient"], data.manifest["sha256"])

    scores: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.n_seeds):
        for name, sets in draw_protocols(data.training, data.test_rows, groups, seed).items():
            run = train_head(recipe, data, sets, seed)
            shared = np.isin(groups[sets.test], groups[np.concatenate([sets.train, sets.val])]).mean()
            scores.setdefault(name, []).append(run | {"shared_patients": float(shared)})
    table = {name: pd.DataFrame(runs).mean().to_dict() for name, runs in scores.items()}
    print(f"\n{options.model} on {options.combo}, means over {options.n_seeds} seeds")
    print(f"{'protocol':26}{'accuracy':>10}{'ROC AUC':>10}{'test images whose patient is in training':>44}")
    for name, row in table.items():
        print(f"{name:26}{row['accuracy']:>10.1%}{row['roc_auc']:>10.3f}{row['shared_patients']:>44.1%}")
    if options.output:
        write_json(options.output, {"means": table, "runs": scores})


def draw_protocols(training: TrainingData, test: IntArray, groups: IntArray, seed: int) -> dict[str, Sets]:
    """Return the sets of every protocol, of about the same sizes."""
    generator = np.random.default_rng(seed)
    everything = np.concatenate([training.train_rows, training.val_rows, test])
    ends = np.array([len(training.train_rows), len(training.train_rows) + len(training.val_rows)])
    images = generator.permutation(everything)
    order = generator.permutation(np.unique(groups[everything]))
    place = np.empty(order.max() + 1, np.int64)
    place[order] = np.arange(len(order))
    patients = everything[np.argsort(place[groups[everything]], kind="stable")]
    official = Sets(training.train_rows, training.val_rows, test)
    return {
        "official": official,
        "official, chosen on test": replace(official, chosen_on_test=True),
        "random images": Sets(*np.split(images, ends)),
        "random patients": Sets(*split_between_patients(patients, groups, ends)),
    }


def split_between_patients(rows: IntArray, groups: IntArray, ends: IntArray) -> list[IntArray]:
    """Split rows, sorted by patient, at the first border between patients at or after each end."""
    borders = np.flatnonzero(np.diff(groups[rows])) + 1
    return np.split(rows, borders[np.searchsorted(borders, ends)])


def train_head(recipe: Recipe, data: Dataset, sets: Sets, seed: int) -> dict[str, float]:
    """Train a head and score it on the test set."""
    judged = sets.test if sets.chosen_on_test else sets.val
    y_true, images = data.y_true, data.training.images
    classifier = data.build_classifier(recipe, seed)
    features = data.load_features(classifier)
    training = TrainingData(images, sets.train, y_true[sets.train], judged, y_true[judged], 2)
    fit_classifier(classifier, recipe, training, seed, lambda: features)
    of_judged, of_test = (
        predict_probabilities(classifier.head, features, rows)[:, 1].astype(np.float64)
        for rows in (judged, sets.test)
    )
    threshold = choose_threshold(y_true[judged], of_judged, YOUDEN)
    y_test = y_true[sets.test]
    accuracy = np.mean((of_test >= threshold) == (y_test == 1))
    return {"accuracy": float(accuracy), "roc_auc": float(roc_auc_score(y_test, of_test))}


if __name__ == "__main__":
    main()
