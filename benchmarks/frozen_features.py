"""Time a head on a frozen backbone: the usual Keras way, pneumo's way, and a second head on cached features.

    python benchmarks/frozen_features.py data/raw/kaggle/train --output frozen_features.json

Run it from the project's root. Each way runs in a process of its own; the clock starts when that has imported
its libraries and stops when the head is trained.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.model_selection import train_test_split

from pneumo.base.artifacts import hash_file, write_json
from pneumo.base.config import build, load_group
from pneumo.base.labels import CLASS_FOLDERS
from pneumo.base.reproducibility import make_deterministic
from pneumo.data.decoding import IMAGE_SUFFIXES
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import parse_combo
from pneumo.training.features import load_or_extract_features
from pneumo.training.fit import TrainingData, fit_classifier
from pneumo.training.networks import build_backbone, build_classifier
from pneumo.training.recipe import BACKBONES, Recipe, find_weights

PREPROCESS_INPUT = {
    "densenet121": keras.applications.densenet.preprocess_input,
    "mobilenet075": keras.applications.mobilenet.preprocess_input,
}


@dataclass
class Timing:
    """Seconds that one way took, part by part, and its validation AUC after the last epoch."""

    parts_s: dict[str, float] = field(default_factory=dict)
    val_auc: float = float("nan")

    def __post_init__(self) -> None:
        self._last = time.perf_counter()

    def stop(self, part: str) -> None:
        """Count the seconds since the last stop, at first since the beginning, under a part's name."""
        now = time.perf_counter()
        self.parts_s[part] = self.parts_s.get(part, 0.0) + now - self._last
        self._last = now

    @property
    def total_s(self) -> float:
        """Seconds of all parts."""
        return sum(self.parts_s.values())


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="images in subfolders NORMAL and PNEUMONIA")
    parser.add_argument("--n-images", type=int, default=1000, help="drawn at random (default: 1000)")
    parser.add_argument("--model", default="densenet121_frozen", help="recipe (default: densenet121_frozen)")
    parser.add_argument("--epochs", type=int, default=10, help="(default: 10)")
    parser.add_argument("--weights-dir", type=Path, help="default: let Keras download them")
    parser.add_argument("--n-second-heads", type=int, default=3, help="(default: 3)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    phases = {"head": {"epochs": args.epochs, "patience": None}}
    recipe = build(Recipe, load_group("model", args.model, {"phases": phases}), args.model)

    with tempfile.TemporaryDirectory() as folder:
        n_images = link_images(args.folder, args.n_images, Path(folder))
        common = (recipe, args.weights_dir, Path(folder))
        run_in_new_process(download_weights, recipe, args.weights_dir)
        usual = run_in_new_process(train_usual_way, *common)
        make_deterministic()  # as the train stage does; the processes below inherit it
        heads = [run_in_new_process(train_head, *common, seed) for seed in range(1 + args.n_second_heads)]
    first, *others = heads
    second = sorted(others, key=lambda timing: timing.total_s)[len(others) // 2]

    print(f"\n{args.model}, {n_images} images, {args.epochs} epochs, {os.cpu_count()} CPUs")
    for name, timing in (("usual way", usual), ("first head", first), ("second head (median)", second)):
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in timing.parts_s.items())
        speedup = f"{usual.total_s / timing.total_s:.1f} x"
        print(f"{name:22}{timing.total_s:9.2f} s{speedup:>9}   AUC {timing.val_auc:.3f}   ({parts})")
    if args.output:
        result = {"model": args.model, "n_images": n_images, "epochs": args.epochs, "n_cpus": os.cpu_count()}
        timings: dict[str, Any] = {
            "usual_way": asdict(usual),
            "first_head": asdict(first),
            "second_heads": [asdict(timing) for timing in others],
        }
        write_json(args.output, result | timings)


def link_images(folder: Path, n_images: int, work_dir: Path) -> int:
    """Draw at most n_images and link them as work_dir/{train,val}/<class>/*; return how many there are."""
    files = [path for name in CLASS_FOLDERS for path in (folder / name).iterdir()]
    paths = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)
    n_images = min(n_images, len(paths))
    sizes = {"train_size": n_images - n_images // 5, "test_size": n_images // 5}
    names = [path.parent.name for path in paths]
    split = train_test_split(paths, **sizes, stratify=names, random_state=0)
    for part, part_paths in zip(("train", "val"), split, strict=True):
        for path in part_paths:
            link = work_dir / part / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return n_images


def run_in_new_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process, where this script and its imports are loaded already."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def download_weights(recipe: Recipe, weights_dir: Path | None) -> None:
    """Build the backbone once, so that no timing holds a download."""
    build_backbone(recipe.network, weights_dir)


def train_usual_way(recipe: Recipe, weights_dir: Path | None, work_dir: Path) -> Timing:
    """Train a head as Keras's own guides do: every image passes the backbone in every epoch."""
    timing = Timing()
    keras.utils.set_random_seed(0)
    network, phase = recipe.network, recipe.phases["head"]
    size = (network.input_size_px, network.input_size_px)
    options = {"label_mode": "binary", "image_size": size, "batch_size": recipe.batch_size}
    train = keras.utils.image_dataset_from_directory(work_dir / "train", seed=0, **options)
    val = keras.utils.image_dataset_from_directory(work_dir / "val", shuffle=False, **options)
    spec = BACKBONES[network.name]
    weights = None if weights_dir else "imagenet"
    build_base = getattr(keras.applications, spec.builder)
    base = build_base(include_top=False, weights=weights, input_shape=(*size, 3), **spec.arguments)
    if weights_dir:
        base.load_weights(find_weights(network.name, weights_dir))
    base.trainable = False
    inputs = keras.Input((*size, 3))
    x = base(PREPROCESS_INPUT[network.name](inputs), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(network.dropout)(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    optimizer = keras.optimizers.Adam(phase.learning_rate)
    model.compile(optimizer, loss="binary_crossentropy", metrics=[keras.metrics.AUC(name="auc"), "accuracy"])
    timing.stop("build")
    laps = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, _: timing.stop("later epochs" if epoch else "first epoch")
    )
    fit = model.fit(train, validation_data=val, epochs=phase.epochs, callbacks=[laps], verbose=2)
    timing.val_auc = fit.history["val_auc"][-1]
    return timing


def train_head(recipe: Recipe, weights_dir: Path | None, work_dir: Path, seed: int) -> Timing:
    """Train a head as the stages do; what an earlier call left, images.npy and features, is used again."""
    timing = Timing()
    paths = sorted(work_dir.glob("*/*/*"))
    is_val = np.array([path.parts[-3] == "val" for path in paths])
    y = np.array([CLASS_FOLDERS.index(path.parent.name) for path in paths])
    images_path = work_dir / "images.npy"
    if not images_path.is_file():
        steps = parse_combo("raw", [], recipe.network.input_size_px)
        write_images([str(path) for path in paths], steps, images_path)
        timing.stop("preprocess")
    images = np.load(images_path, mmap_mode="r")
    classifier = build_classifier(recipe, images.shape[1:], len(CLASS_FOLDERS), seed, weights_dir)
    timing.stop("build")
    features = load_or_extract_features(classifier.extractor, images_path, hash_file(images_path), work_dir)
    timing.stop("features")
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    data = TrainingData(images, train, y[train], val, y[val], len(CLASS_FOLDERS))
    history = fit_classifier(classifier, recipe, data, seed, lambda: features)
    timing.stop("fit")
    timing.val_auc = float(history["val_auc"].iloc[-1])
    return timing


if __name__ == "__main__":
    main()
