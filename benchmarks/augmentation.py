"""Time an epoch without augmentation, with a chain of Keras layers, and with pneumo's random view.

    python benchmarks/augmentation.py --output augmentation.json

Run it from the project's root. Images are noise and weights random: neither changes how long a step takes.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from pneumo.base.artifacts import write_json
from pneumo.base.reproducibility import make_deterministic
from pneumo.training.augmentation import RandomView
from pneumo.training.batches import ImageBatches
from pneumo.training.networks import build_backbone
from pneumo.training.recipe import Augmentation, Network, Weights

BATCH_SIZE = 32
AUGMENTATION = Augmentation(
    flip=True,
    rotation_degrees=10,
    shift_fraction=0.1,
    zoom_fraction=0.25,
    area_fraction=[0.2, 1.0],
    aspect_ratio=[0.75, 1.333],
    brightness_fraction=0.3,
    contrast_fraction=0.3,
    gamma=0.35,
    sharpness=1.2,
    noise_levels=8,
)


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=320, help="in an epoch (default: 320)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--size-px", type=int, default=224, help="height and width (default: 224)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    make_deterministic()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (args.n_images, args.size_px, args.size_px, 1), dtype=np.uint8)
    batches = ImageBatches(
        images,
        np.arange(args.n_images),
        (np.arange(args.n_images) % 2)[:, None].astype(np.float32),
        batch_size=BATCH_SIZE,
    )
    models = {name: build_model(args.size_px, build()) for name, build in WAYS.items()}
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    seconds = time_epochs(models, batches, args.rounds, clocks)

    result: dict[str, dict[str, dict[str, float]]] = {}
    print(f"\nMobileNet 0.75, {args.size_px} px, {args.n_images} images, {os.cpu_count()} CPUs")
    for clock in clocks:
        print(f"{clock} time of an epoch, and its ratio to that without augmentation (smallest to greatest)")
        result[clock] = {}
        for name, each in seconds[clock].items():
            ratios = np.array(each) / seconds[clock]["none"]
            row = {
                "epoch_s": float(np.median(each)),
                "ratio": float(np.median(ratios)),
                "ratio_min": float(ratios.min()),
                "ratio_max": float(ratios.max()),
            }
            result[clock][name] = row
            spread = f"({row['ratio_min']:.3f} to {row['ratio_max']:.3f})"
            print(f"  {name:16}{row['epoch_s']:9.2f} s{row['ratio']:9.3f} {spread}")
    if args.output:
        settings = {"n_images": args.n_images, "size_px": args.size_px, "rounds": args.rounds}
        write_json(args.output, settings | {"n_cpus": os.cpu_count(), "seconds": result})


def build_chain() -> list[keras.Layer]:
    """Build the usual chain of Keras layers: four resamplings; no crop, gamma, sharpness or noise."""
    a = AUGMENTATION
    layers = keras.layers
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(a.rotation_degrees / 360, fill_mode="constant"),
        layers.RandomTranslation(a.shift_fraction, a.shift_fraction, fill_mode="constant"),
        layers.RandomZoom(a.zoom_fraction, a.zoom_fraction, fill_mode="constant"),
        layers.RandomBrightness(a.brightness_fraction),
        layers.RandomContrast(a.contrast_fraction),
    ]


WAYS: dict[str, Callable[[], list[keras.Layer]]] = {
    "none": list,
    "chain of layers": build_chain,
    "random view": lambda: [RandomView(AUGMENTATION, seed=0)],
}


def build_model(size_px: int, augmentation: list[keras.Layer]) -> keras.Model:
    """Build and compile a network with all layers trained, as the recipe mobilenet_finetuned trains it."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone(Network("mobilenet075", size_px, weights=Weights.random), Path("weights"))
    inputs = keras.Input((size_px, size_px, 1), dtype="uint8")
    x = keras.layers.Rescaling(1.0)(inputs)
    for layer in augmentation:
        x = layer(x)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(keras.layers.Concatenate()([x, x, x]))
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.2)(x)))
    jit_compile = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.AdamW(5e-4), "binary_crossentropy", jit_compile=jit_compile)
    return model


def time_epochs(
    models: dict[str, keras.Model],
    batches: ImageBatches,
    rounds: int,
    clocks: dict[str, Callable[[], float]],
) -> dict[str, dict[str, list[float]]]:
    """Time epochs; every round trains each model in turn.

    Returns:
        Name of a clock -> name of a model -> seconds, one value a round.
    """
    seconds: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in models} for clock in clocks}
    for i in range(rounds + 1):
        for name, model in models.items():
            starts = {clock: read() for clock, read in clocks.items()}
            model.fit(batches, epochs=1, shuffle=False, verbose=0)
            if i > 0:  # the first compiles
                for clock, read in clocks.items():
                    seconds[clock][name].append(read() - starts[clock])
    return seconds


if __name__ == "__main__":
    main()
