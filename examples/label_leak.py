"""How a system of this field reached 100 %: its preprocessing knew the label.

    python examples/label_leak.py data/raw/phantom

System 000 equalises, inverts and darkens images and shrinks them to a tenth of their size, 112 px. Its
authors equalised normal images at full size and then shrank them, pneumonia images the other way round. What
is equalised and darkened last has gaps in its histogram and many black pixels; shrinking last fills both. So
the class can be read off the grey values, whatever the image shows. This script gives normal images all steps
before shrinking and pneumonia images all steps after it, at 56 px to be quick. It trains system 000's network

- on images whose order of steps depends on the class;
- on images with one order, as anywhere else in this project;
- on images whose classes are drawn at random, and the order of steps with them: there is nothing to learn but
  the leak.

Beside each network stands a rule that knows nothing of an image but how many grey values it does not use.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, roc_auc_score

from pneumo.base.artifacts import write_json
from pneumo.base.config import build, load_group
from pneumo.base.reproducibility import make_deterministic
from pneumo.data.decoding import decode_image
from pneumo.data.manifest import scan_folder
from pneumo.data.split import assign_split, group_images
from pneumo.preprocessing.combo import Step, apply_steps
from pneumo.training.fit import TrainingData, fit_classifier, predict_probabilities
from pneumo.training.networks import build_classifier
from pneumo.training.recipe import Recipe

SIZE_PX = 56
SHRINK = Step("resize", {"size_px": SIZE_PX})
STEPS = [Step("equalize", {}), Step("invert", {}), Step("brightness", {"offset": -70})]


def main() -> None:
    """Run the demonstration and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="images in {train,test}/{NORMAL,PNEUMONIA}/")
    parser.add_argument("--epochs", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    make_deterministic()

    images, _ = scan_folder(options.folder)
    groups = group_images(images["patient"], images["sha256"])
    labels = (images[name] for name in ("official_split", "label", "subtype"))
    split = assign_split(*labels, groups, val_fraction=0.2, seed=0)
    decoded = [decode_image(Path(path).read_bytes()).pixels for path in images["path"]]
    shrunk_last = np.stack([apply_steps(pixels, [*STEPS, SHRINK]) for pixels in decoded])
    shrunk_first = np.stack([apply_steps(pixels, [SHRINK, *STEPS]) for pixels in decoded])
    is_pneumonia = (images["label"] == "pneumonia").to_numpy()
    is_drawn = np.random.default_rng(0).random(len(images)) < 0.5

    def order_by(is_positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
        return np.where(is_positive[:, None, None], shrunk_first, shrunk_last)

    results = {}
    for name, pixels, y_true in (
        ("order by class", order_by(is_pneumonia), is_pneumonia.astype(np.int64)),
        ("one order", shrunk_first, is_pneumonia.astype(np.int64)),
        ("classes drawn at random, order by class", order_by(is_drawn), is_drawn.astype(np.int64)),
    ):
        results[name] = {
            "network": score_network(pixels, y_true, split, options.epochs),
            "rule": score_rule(pixels, y_true, split),
        }
    n_test = int((split == "test").sum())
    print(f"\n{len(images)} images, {n_test} of them in the test set; {options.epochs} epochs")
    print(f"{'':40}{'network':>24}{'unused grey values':>24}")
    for name, row in results.items():
        cells = (f"{row[by]['accuracy']:.1%}, AUC {row[by]['roc_auc']:.3f}" for by in ("network", "rule"))
        print(f"{name:40}" + "".join(f"{cell:>24}" for cell in cells))
    if options.output:
        write_json(options.output, {"n_epochs": options.epochs, "rows": results})


def score_network(
    pixels: npt.NDArray[np.uint8], y_true: npt.NDArray[np.int64], split: npt.NDArray[np.str_], epochs: int
) -> dict[str, float]:
    """Train system 000's network on the training part and score it on the test set at 0.5."""
    phase = {"epochs": epochs, "augment": False, "learning_rate": 1e-3, "patience": None}
    overrides = {"batch_size": 32, "network": {"input_size_px": SIZE_PX}, "phases": {"fit": phase}}
    recipe = build(Recipe, load_group("model", "system_000_cnn", overrides), "system_000_cnn")
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
