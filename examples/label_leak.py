"""How a system of this field reached 100 %: its preprocessing knew the label.

    python examples/label_leak.py data/raw/phantom

The authors of system 000 equalised normal images at full size and then shrank them, and shrank pneumonia
images and then equalised them. Equalising last leaves gaps in the histogram, shrinking last fills them: the
class can be read off the grey values, whatever the image shows. This script trains the same network twice,
once on images prepared like that and once with one order for both classes, and sets a rule beside it that
only counts unused grey values.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, roc_auc_score

from pneumo.base.artifacts import write_json
from pneumo.base.config import build, load_group
from pneumo.base.reproducibility import make_deterministic
from pneumo.domain.images import decode_image
from pneumo.domain.manifest import scan_folder
from pneumo.domain.networks import build_classifier
from pneumo.domain.recipe import Recipe
from pneumo.domain.split import assign_split, group_images
from pneumo.domain.training import TrainingData, fit_classifier, predict_probabilities
from pneumo.domain.transforms import Step, apply_steps

SIZE_PX = 112
SHRINK = Step("resize", {"size_px": SIZE_PX})
EQUALIZE = Step("equalize", {})
ORDERS = {"equalise, then shrink": [EQUALIZE, SHRINK], "shrink, then equalise": [SHRINK, EQUALIZE]}


def main() -> None:
    """Run the demonstration and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="images in {train,test}/{NORMAL,PNEUMONIA}/")
    parser.add_argument("--epochs", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    make_deterministic()

    images, _ = scan_folder(options.folder)
    groups = group_images(images["patient"], images["sha256"])
    labels = (images[name] for name in ("official_split", "label", "subtype"))
    split = assign_split(*labels, groups, val_fraction=0.2, seed=0)
    y_true = (images["label"] == "pneumonia").to_numpy().astype(np.int64)
    decoded = [decode_image(Path(path).read_bytes()).pixels for path in images["path"]]
    orders = {
        name: np.stack([apply_steps(pixels, steps) for pixels in decoded]) for name, steps in ORDERS.items()
    }
    first, last = orders.values()
    leaky = np.where((y_true == 1)[:, None, None], last, first)
    results = {}
    for name, pixels in {"order by class": leaky, "one order": last}.items():
        results[name] = {
            "network": score_network(pixels, y_true, split, options.epochs),
            "rule": score_rule(pixels, y_true, split),
        }
    n_test = int((split == "test").sum())
    print(f"\n{len(images)} images, {n_test} of them in the test set; {options.epochs} epochs")
    print(f"{'preprocessing':18}{'network':>24}{'unused grey values':>24}")
    for name, row in results.items():
        cells = (f"{row[by]['accuracy']:.1%}, AUC {row[by]['roc_auc']:.3f}" for by in ("network", "rule"))
        print(f"{name:18}" + "".join(f"{cell:>24}" for cell in cells))
    if options.output:
        write_json(options.output, results)


def score_network(
    pixels: npt.NDArray[np.uint8], y_true: npt.NDArray[np.int64], split: npt.NDArray[np.str_], epochs: int
) -> dict[str, float]:
    """Train system 000's network on the training part and score it on the test set at 0.5."""
    overrides = {"phases": {"fit": {"epochs": epochs, "augment": False, "learning_rate": 1e-3}}}
    recipe = build(Recipe, load_group("model", "seed_000_cnn", overrides), "seed_000_cnn")
    images = pixels[..., None]
    train, val, test = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
    classifier = build_classifier(recipe, images.shape[1:], 2, seed=0, weights_dir=None)
    data = TrainingData(images, train, y_true[train], val, y_true[val], n_classes=2)
    fit_classifier(classifier, recipe, data, 0, load_features=lambda: None)
    y_score = predict_probabilities(classifier.model, images, test)[:, 1]
    return score(y_true[test], y_score, y_score >= 0.5)


def score_rule(
    pixels: npt.NDArray[np.uint8], y_true: npt.NDArray[np.int64], split: npt.NDArray[np.str_]
) -> dict[str, float]:
    """Score a threshold on the number of unused grey values, chosen on the training part."""
    unused = np.array([256 - len(np.unique(image)) for image in pixels])
    is_train = split == "train"
    candidates = np.unique(unused[is_train])
    correct = [np.mean((unused[is_train] >= value) == y_true[is_train]) for value in candidates]
    chosen = candidates[int(np.argmax(correct))]
    is_test = split == "test"
    return score(y_true[is_test], unused[is_test], unused[is_test] >= chosen)


def score(
    y_true: npt.NDArray[np.int64], y_score: npt.NDArray[np.number], y_pred: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """Return accuracy and ROC AUC."""
    return {
        "accuracy": float(accuracy_score(y_true, y_pred)),
        "roc_auc": float(roc_auc_score(y_true, y_score)),
    }


if __name__ == "__main__":
    main()
