"""Time the six models of system 001: in plain Keras, and as pneumo trains them, at the same epochs.

    python benchmarks/system_001.py data/raw/kaggle --output system_001.json

Run it from the project's root. Every model is trained in a process of its own, on a few images and for a few
epochs; what the whole would take is extrapolated from these, part by part, and printed beside it. MobileNet
0.75 stands for the pretrained network, which the authors do not name.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from frozen_features import PREPROCESS_INPUT, download_weights, run_in_new_process
from pneumo.base.artifacts import hash_file, write_json
from pneumo.base.config import build, load_group
from pneumo.base.labels import CLASSES, Task
from pneumo.base.reproducibility import make_deterministic
from pneumo.data.manifest import scan_folder
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import parse_combo
from pneumo.training.features import load_or_extract_features
from pneumo.training.fit import Features, TrainingData, fit_classifier
from pneumo.training.networks import Classifier, build_classifier, set_trainable
from pneumo.training.recipe import BACKBONES, Recipe, find_weights

MODELS = ("system_001_a", "system_001_b", "system_001_c", "system_001_d", "system_001_e", "system_001_f")
SIZE_PX = 128  # of system_001
CLASS_NAMES = CLASSES[Task.subtype]
N_ALL = 4185 + 1047  # training and validation images of the whole data set


class EpochTimer(keras.callbacks.Callback):
    """Notes the seconds of each epoch, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._start)


@dataclass
class PhaseTiming:
    """Seconds of one phase: those of its epochs, and all, which include compiling."""

    epoch_s: list[float]
    total_s: float

    def extrapolate(self, n_epochs: int, scale: float) -> float:
        """Return what the phase would take with more epochs, on `scale` times the images."""
        later_s = statistics.median(self.epoch_s[1:])
        once_s = self.total_s - len(self.epoch_s) * later_s
        return once_s + n_epochs * scale * later_s


@dataclass
class ModelTiming:
    """Seconds of one model, by part; `per_image_s` holds parts that are done once an image."""

    fixed_s: float = 0.0
    per_image_s: float = 0.0
    phases: dict[str, PhaseTiming] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """Seconds that were measured."""
        return self.fixed_s + self.per_image_s + sum(phase.total_s for phase in self.phases.values())

    def extrapolate(self, recipe: Recipe, scale: float) -> float:
        """Return what a recipe would take with all of its epochs, on `scale` times the images."""
        phases = (
            timing.extrapolate(recipe.phases[name].epochs, scale) for name, timing in self.phases.items()
        )
        return self.fixed_s + scale * self.per_image_s + sum(phases)


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="images in {train,test}/{NORMAL,PNEUMONIA}/")
    parser.add_argument("--n-images", type=int, default=600, help="drawn at random (default: %(default)s)")
    parser.add_argument(
        "--copies", type=int, default=1, help="of each, where there are few (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=3, help="measured in each phase (default: %(default)s)")
    parser.add_argument("--weights-dir", type=Path, help="default: let Keras download them")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("--epochs: Expected 2 or more, the first takes longer than the others.")
    recipes = {name: build(Recipe, load_group("model", name), name) for name in MODELS}

    usual, ours = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        n_images = link_images(args.folder, args.n_images, args.copies, work_dir)
        run_in_new_process(download_weights, recipes["system_001_b"], args.weights_dir)
        preprocess_s = run_in_new_process(preprocess, work_dir)
        for name, recipe in recipes.items():
            short = replace(
                recipe,
                phases={
                    phase: replace(each, epochs=args.epochs, patience=None)
                    for phase, each in recipe.phases.items()
                },
            )
            usual[name] = run_in_new_process(train_usual_way, short, args.weights_dir, work_dir)
            ours[name] = run_in_new_process(train_here, short, args.weights_dir, work_dir)

    scale = N_ALL / n_images
    whole_usual = {name: usual[name].extrapolate(recipe, scale) for name, recipe in recipes.items()}
    whole_ours = {name: ours[name].extrapolate(recipe, scale) for name, recipe in recipes.items()}
    totals_s = (sum(whole_usual.values()), sum(whole_ours.values()) + scale * preprocess_s)
    print(f"\n{n_images} images, {args.epochs} epochs a phase measured, {os.cpu_count()} CPUs;")
    print(f"extrapolated to {N_ALL} images and all epochs. Seconds:")
    print(f"{'':16}{'measured':>10}{'measured':>10}{'whole':>10}{'whole':>10}")
    print(f"{'model':16}{'usual way':>10}{'here':>10}{'usual way':>10}{'here':>10}{'ratio':>8}")
    for name in recipes:
        whole = (whole_usual[name], whole_ours[name])
        print_row(name, usual[name].total_s, ours[name].total_s, *whole)
    print_row("preprocess", 0, preprocess_s, 0, scale * preprocess_s)
    measured = (sum(timing.total_s for timing in each.values()) for each in (usual, ours))
    print_row("together", *measured, *totals_s)
    if args.output:
        write_json(
            args.output,
            {
                "n_images": n_images,
                "n_copies": args.copies,
                "n_images_extrapolated": N_ALL,
                "n_cpus": os.cpu_count(),
                "preprocess_s": preprocess_s,
                "usual_way": {name: asdict(timing) for name, timing in usual.items()},
                "here": {name: asdict(timing) for name, timing in ours.items()},
                "extrapolated_s": {"usual_way": whole_usual, "here": whole_ours},
                "ratio": totals_s[0] / totals_s[1],
            },
        )


def print_row(name: str, *seconds: float) -> None:
    """Print a row of the table; the ratio is that of the last two numbers."""
    usual_s, here_s = seconds[-2:]
    ratio = f"{usual_s / here_s:.1f} x" if usual_s else ""
    print(f"{name:16}" + "".join(f"{each:>10.1f}" for each in seconds) + f"{ratio:>8}")


def link_images(folder: Path, n_images: int, n_copies: int, work_dir: Path) -> int:
    """Draw at most n_images of train/, link copies as work_dir/{train,val}/<class>/*; return how many."""
    images, _ = scan_folder(folder)
    images = images[images["official_split"] == "train"]
    images = images.sample(min(n_images, len(images)), random_state=0)
    parts = train_test_split(images, test_size=len(images) // 5, stratify=images["subtype"], random_state=0)
    for part, rows in zip(("train", "val"), parts, strict=True):
        for path, name in zip(rows["path"], rows["subtype"], strict=True):
            for i in range(n_copies):
                link = work_dir / part / name / f"{i}_{Path(path).name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(Path(path).resolve())
    return n_copies * len(images)


def preprocess(work_dir: Path) -> float:
    """Write images.npy as the stage `preprocess` does, once for all models; return the seconds."""
    start = time.perf_counter()
    paths = [str(path) for path in list_linked(work_dir)]
    write_images(paths, parse_combo("raw", [], SIZE_PX), work_dir / "images.npy")
    return time.perf_counter() - start


def list_linked(work_dir: Path) -> list[Path]:
    """Return the images that `link_images` has linked, in order."""
    return sorted(work_dir.glob("*/*/*"))


def train_here(recipe: Recipe, weights_dir: Path | None, work_dir: Path) -> ModelTiming:
    """Train a recipe as the stage `train` does; features that an earlier model has left are used again."""
    make_deterministic()
    timing = ModelTiming()
    start = time.perf_counter()
    paths = list_linked(work_dir)
    is_val = np.array([path.parts[-3] == "val" for path in paths])
    y = np.array([CLASS_NAMES.index(path.parent.name) for path in paths])
    images_path = work_dir / "images.npy"
    images = np.load(images_path, mmap_mode="r")
    classifier = build_classifier(recipe, images.shape[1:], len(CLASS_NAMES), 0, weights_dir)
    train, val = np.flatnonzero(~is_val), np.flatnonzero(is_val)
    data = TrainingData(images, train, y[train], val, y[val], len(CLASS_NAMES))
    timing.fixed_s = time.perf_counter() - start

    def load_features() -> Features:
        start = time.perf_counter()
        features = load_or_extract_features(
            classifier.extractor, images_path, hash_file(images_path), work_dir
        )
        timing.per_image_s += time.perf_counter() - start
        return features

    for name, phase in recipe.phases.items():
        timer, start, done_s = EpochTimer(), time.perf_counter(), timing.per_image_s
        fit_classifier(
            classifier, replace(recipe, phases={name: phase}), data, 0, load_features, callbacks=[timer]
        )
        total_s = time.perf_counter() - start - (timing.per_image_s - done_s)
        timing.phases[name] = PhaseTiming(timer.seconds, total_s)
    return timing


def train_usual_way(recipe: Recipe, weights_dir: Path | None, work_dir: Path) -> ModelTiming:
    """Train the same network in plain Keras: files are decoded, and pass the backbone, in every epoch."""
    timing = ModelTiming()
    start = time.perf_counter()
    keras.utils.set_random_seed(0)
    network = recipe.network
    generator = tf.keras.preprocessing.image.ImageDataGenerator()
    options = {"target_size": (network.input_size_px, network.input_size_px), "classes": list(CLASS_NAMES)}
    options |= {"class_mode": "categorical", "batch_size": recipe.batch_size}
    train = generator.flow_from_directory(work_dir / "train", seed=0, **options)
    val = generator.flow_from_directory(work_dir / "val", shuffle=False, **options)
    inputs = keras.Input((network.input_size_px, network.input_size_px, 3))
    base = None
    if network.has_backbone:
        spec = BACKBONES[network.name]
        build_base = getattr(keras.applications, spec.builder)
        weights = None if weights_dir else "imagenet"
        base = build_base(include_top=False, weights=weights, input_shape=inputs.shape[1:], **spec.arguments)
        if weights_dir:
            base.load_weights(find_weights(network.name, weights_dir))
        x = keras.layers.GlobalAveragePooling2D()(base(PREPROCESS_INPUT[network.name](inputs)))
    else:
        x = keras.layers.Rescaling(1 / 255)(inputs)
        for n_filters in network.filters:
            x = keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu")(x)
            x = keras.layers.MaxPooling2D()(x)
        x = keras.layers.Flatten()(x)
    for n_units in network.units:
        x = keras.layers.Dense(n_units, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(len(CLASS_NAMES), activation="softmax")(x))
    timing.fixed_s = time.perf_counter() - start
    for name, phase in recipe.phases.items():
        start, timer = time.perf_counter(), EpochTimer()
        if base is not None:
            set_trainable(Classifier(model, model, base), phase.trainable, phase.freeze_batch_norm)
        optimizer = keras.optimizers.Adam(phase.learning_rate)
        model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
        model.fit(train, validation_data=val, epochs=phase.epochs, callbacks=[timer], verbose=2)
        timing.phases[name] = PhaseTiming(timer.seconds, time.perf_counter() - start)
    return timing


if __name__ == "__main__":
    main()
