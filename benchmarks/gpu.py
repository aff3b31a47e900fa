"""Benchmark: training on a GPU, or on whatever device there is: images a second, input, memory.

Each recipe is trained for some epochs on random images of 224 px, first from the array that batches are read
from, then on one batch that does not change: what the first takes longer is time lost to input.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RECIPES = {"MobileNet 0.75": "mobilenet075", "DenseNet121": "densenet121"}


def main() -> None:
    """Measure each network in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-images", type=int, default=2048, help="(default: 2048)")
    parser.add_argument("--size-px", type=int, default=224, help="(default: 224)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--epochs", type=int, default=3, help="timed, after one that compiles (default: 3)")
    parser.add_argument("--precision", default="float32", help="of a recipe (default: float32)")
    parser.add_argument("--jit-compile", action="store_true", help="with XLA; JAX always does")
    parser.add_argument("--cpu", action="store_true", help="measure the CPU too, for the ratio")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("--network", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.network:
        print(json.dumps(measure_network(options)))
        return
    result = {name: measure_devices(network, options.cpu) for name, network in RECIPES.items()}
    print(format_table(result))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


def measure_devices(network: str, with_cpu: bool) -> dict[str, Any]:
    """Measure a network on the device that Keras finds, and with `with_cpu` on the CPU."""
    measured = run_process(network, {})
    cpu = run_process(network, {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}) if with_cpu else None
    ratio = measured["images_per_s"] / cpu["images_per_s"] if cpu else None
    return {**measured, "cpu": cpu, "ratio_to_cpu": ratio}


def run_process(network: str, environment: dict[str, str]) -> dict[str, Any]:
    """Measure a network in a new process, whose memory is its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--network", network]
    finished = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        sys.exit(finished.stderr)
    return json.loads(finished.stdout.splitlines()[-1])


def measure_network(options: argparse.Namespace) -> dict[str, Any]:
    """Time epochs of a network's training in this process."""
    import keras

    from pneumo.training.batches import ImageBatches
    from pneumo.training.devices import find_device
    from pneumo.training.fit import encode_targets
    from pneumo.training.networks import build_classifier

    recipe = make_recipe(options.network, options.size_px, options.batch_size, options.precision)
    n_images, size_px = options.n_images, options.size_px
    images = np.random.default_rng(0).integers(0, 256, (n_images, size_px, size_px, 1), dtype=np.uint8)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, images)
        stored = np.load(file.name, mmap_mode="r")
        model = build_classifier(recipe, images.shape[1:], 2, 0, Path("none")).unflipped
        jit_compile = options.jit_compile or keras.backend.backend() == "jax"
        model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy", jit_compile=jit_compile)
        targets = encode_targets(np.arange(n_images) % 2, 2)
        batches = ImageBatches(
            stored, np.arange(n_images), targets, batch_size=options.batch_size, shuffle_seed=0
        )
        fixed = fix_batch(batches)
        seconds = {}
        for name, given in (("read", batches), ("fixed", fixed)):
            model.fit(given, epochs=1, shuffle=False, verbose=0)
            start = time.perf_counter()
            model.fit(given, epochs=options.epochs, shuffle=False, verbose=0)
            seconds[name] = (time.perf_counter() - start) / options.epochs
    return {
        "backend": keras.backend.backend(),
        "device": find_device(),
        "images_per_s": n_images / seconds["read"],
        "input_share": max(0.0, 1 - seconds["fixed"] / seconds["read"]),
        "process_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "device_memory_mb": read_device_memory_mb(),
    }


def make_recipe(network: str, size_px: int, batch_size: int, precision: str = "float32") -> Any:
    """Return a recipe that trains all of a network from random weights, on images as they are."""
    from pneumo.training.recipe import Monitor, Network, Phase, Precision, Recipe, Weights

    return Recipe(
        network=Network(network, size_px, weights=Weights.random),
        batch_size=batch_size,
        balance_classes=False,
        monitor=Monitor.val_auc,
        phases={"fit": Phase(epochs=1, learning_rate=1e-4)},
        precision=Precision(precision),
    )


def fix_batch(batches: Any) -> Any:
    """Return a data set that gives the first of some batches, as often as there are batches."""
    import keras

    class FixedBatch(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> Any:
            return first

    first = batches[0]
    return FixedBatch()


def read_device_memory_mb() -> float | None:
    """Return the most memory used of the first device; None where the backend does not tell."""
    import keras

    if keras.backend.backend() != "jax":
        return None
    import jax

    statistics = jax.devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] / 1e6 if statistics else None


def format_table(result: dict[str, dict[str, Any]]) -> str:
    """Return the result as a Markdown table."""
    lines = [
        "| training | device | images/s | of the time, lost to input | device memory | ratio to the CPU |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result.items():
        memory = "-" if row["device_memory_mb"] is None else f"{row['device_memory_mb']:.0f} MB"
        ratio = "-" if row["ratio_to_cpu"] is None else f"{row['ratio_to_cpu']:.1f}"
        device = f"{row['backend']}, {row['device']}"
        cells = [name, device, f"{row['images_per_s']:.1f}", f"{row['input_share']:.1%}", memory, ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
