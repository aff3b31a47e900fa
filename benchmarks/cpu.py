"""Time training and features on the CPU: here, with Keras's usual ways, PyTorch and faster runtimes.

    pip install torch torchvision openvino
    python benchmarks/cpu.py --output cpu.json

Run it from the project's root. Every way has a process of its own with the same number of threads; the ways
of a network are timed in turn, round by round. A way whose library is not installed is left out.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from gpu import RECIPES as NETWORKS
from gpu import make_recipe

ONNX_FILE = "features.onnx"
Lap = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """What each way is given.

    Attributes:
        network: its name in a recipe.
        n_images: images of a lap, noise.
        size_px: their height and width.
        batch_size: images a step.
        threads: of an operation.
        folder: where the network of `features` lies in ONNX.
    """

    network: str
    n_images: int
    size_px: int
    batch_size: int
    threads: int
    folder: Path

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return uint8 images of shape (n_images, size_px, size_px, 1) and float32 classes 0 and 1."""
        images = np.random.default_rng(0).integers(
            0, 256, (self.n_images, self.size_px, self.size_px, 1), np.uint8
        )
        return images, (np.arange(self.n_images) % 2).astype(np.float32)


def train_here(job: Job) -> Lap:
    """Train as the stage `train` does, without augmentation."""
    import keras

    from pneumo.training.batches import ImageBatches
    from pneumo.training.fit import encode_targets

    images, classes = job.draw()
    model = build_here(job).unflipped
    model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy")
    rows, targets = np.arange(len(images)), encode_targets(classes.astype(int), 2)
    batches = ImageBatches(images, rows, targets, batch_size=job.batch_size, shuffle_seed=0)
    return lambda: model.fit(batches, shuffle=False, verbose=0)


def extract_here(job: Job) -> Lap:
    """Compute features as `load_or_extract_features` does."""
    from pneumo.training.batches import ImageBatches

    images, _ = job.draw()
    extractor = build_here(job).extractor
    batches = ImageBatches(images, np.arange(len(images)), batch_size=job.batch_size)
    return lambda: extractor.predict(batches, verbose=0)


def build_here(job: Job) -> Any:
    """Build the classifier of a recipe, with random weights."""
    from pneumo.base.reproducibility import make_deterministic
    from pneumo.training.networks import build_classifier

    make_deterministic(job.threads)
    recipe = make_recipe(job.network, job.size_px, job.batch_size)
    return build_classifier(recipe, (job.size_px, job.size_px, 1), 2, 0, job.folder)


def train_usual(job: Job) -> Lap:
    """Train as Keras's guides do: tf.data, and all settings of `compile` and `fit` at their defaults."""
    import keras

    images, classes = job.draw()
    base = build_usual(job)
    model = keras.Sequential([base, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy")
    data = read_usual(images, classes, job)
    return lambda: model.fit(data, verbose=0)


def extract_usual(job: Job) -> Lap:
    """Compute features with `predict` on a tf.data set."""
    images, classes = job.draw()
    base, data = build_usual(job), read_usual(images, classes, job)
    return lambda: base.predict(data, verbose=0)


def build_usual(job: Job) -> Any:
    """Build a network of `keras.applications`, with random weights, that gives features."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    options = {"include_top": False, "weights": None, "pooling": "avg"}
    shape = (job.size_px, job.size_px, 3)
    if job.network == "mobilenet075":
        return keras.applications.MobileNet(input_shape=shape, alpha=0.75, **options)
    return keras.applications.DenseNet121(input_shape=shape, **options)


def read_usual(images: np.ndarray, classes: np.ndarray, job: Job) -> Any:
    """Return a tf.data set of float images of three channels, and classes."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((images, classes)).batch(job.batch_size)
    prepare = lambda x, y: (tf.image.grayscale_to_rgb(tf.cast(x, tf.float32)) / 127.5 - 1, y)  # noqa: E731
    return data.map(prepare).prefetch(tf.data.AUTOTUNE)


def train_torch(job: Job, compiled: bool = False) -> Lap:
    """Train with PyTorch, channels last."""
    import torch

    images, classes = job.draw()
    network = torch.nn.Sequential(build_torch(job), torch.nn.LazyLinear(1))
    network(read_torch(images[:2]))  # after which the last layer knows its size
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    run = torch.compile(network) if compiled else network

    def lap() -> None:
        for start in range(0, len(images), job.batch_size):
            part = slice(start, start + job.batch_size)
            outputs = run(read_torch(images[part]))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                outputs, torch.from_numpy(classes[part])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lap


def train_torch_compiled(job: Job) -> Lap:
    """Train with PyTorch, channels last, compiled."""
    return train_torch(job, compiled=True)


def extract_torch(job: Job, compiled: bool = False) -> Lap:
    """Compute features with PyTorch, channels last."""
    import torch

    images, _ = job.draw()
    network = build_torch(job).to(memory_format=torch.channels_last).eval()
    run = torch.compile(network) if compiled else network

    def lap() -> None:
        with torch.inference_mode():
            for start in range(0, len(images), job.batch_size):
                run(read_torch(images[start : start + job.batch_size]))

    return lap


def extract_torch_compiled(job: Job) -> Lap:
    """Compute features with PyTorch, channels last, compiled."""
    return extract_torch(job, compiled=True)


def build_torch(job: Job) -> Any:
    """Build the same network in PyTorch; torchvision has no first MobileNet."""
    import torch
    from torch import nn

    torch.set_num_threads(job.threads)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if job.network == "densenet121":
        import torchvision

        return nn.Sequential(torchvision.models.densenet121().features, nn.ReLU(), *pool)

    def convolve(n_in: int, n_out: int, size: int, stride: int, groups: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(n_in, n_out, size, stride, size // 2, groups=groups, bias=False)
        return [convolution, nn.BatchNorm2d(n_out), nn.ReLU6()]

    widths = [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    strides = [1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1]
    layers, n_in = convolve(3, 24, 3, 2), 24
    for width, stride in zip(widths, strides, strict=True):
        n_out = width * 3 // 4
        layers += [*convolve(n_in, n_in, 3, stride, groups=n_in), *convolve(n_in, n_out, 1, 1)]
        n_in = n_out
    return nn.Sequential(*layers, *pool)


def read_torch(images: np.ndarray) -> Any:
    """Return float images of three channels, channels last in memory."""
    import torch

    scaled = torch.from_numpy(np.moveaxis(images, -1, 1)).float() / 127.5 - 1
    return scaled.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def extract_onnx(job: Job) -> Lap:
    """Compute features with ONNX Runtime."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(job.folder / ONNX_FILE, options)
    name, images = session.get_inputs()[0].name, job.draw()[0]
    return run_batches(lambda batch: session.run(None, {name: batch}), images, job.batch_size)


def extract_openvino(job: Job) -> Lap:
    """Compute features with OpenVINO, in float32 as all others do."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    network = openvino.compile_model(job.folder / ONNX_FILE, "CPU", settings)
    return run_batches(lambda batch: network(batch), job.draw()[0], job.batch_size)


def run_batches(run: Callable[[np.ndarray], object], images: np.ndarray, batch_size: int) -> Lap:
    """Return a function that runs a network on all images."""
    return lambda: [run(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]


def convert_here(job: Job) -> Lap:
    """Write the network of `extract_here` in ONNX; its lap does nothing."""
    extractor = build_here(job).extractor
    extractor(np.zeros((1, job.size_px, job.size_px, 1), np.uint8))  # Keras exports only what was called
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extractor.export(job.folder / ONNX_FILE, format="onnx", verbose=False)
    return lambda: None


WAYS: dict[str, dict[str, Callable[[Job], Lap]]] = {
    "training": {
        "here": train_here,
        "Keras, usual way": train_usual,
        "PyTorch": train_torch,
        "PyTorch, compiled": train_torch_compiled,
    },
    "features": {
        "here": extract_here,
        "Keras, usual way": extract_usual,
        "PyTorch": extract_torch,
        "PyTorch, compiled": extract_torch_compiled,
        "ONNX Runtime": extract_onnx,
        "OpenVINO": extract_openvino,
    },
}


class Worker:
    """A process that has prepared one way and runs its laps when asked to.

    Attributes:
        missing: the library that it lacks, or None.
    """

    def __init__(self, prepare: Callable[[Job], Lap], job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(prepare, job, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.missing: str | None = self._connection.recv()

    def time_lap(self) -> float:
        """Return the seconds of one lap."""
        self._connection.send(True)
        return self._connection.recv()

    def stop(self) -> None:
        """End the process."""
        self._connection.send(False)
        self._process.join()


def serve(prepare: Callable[[Job], Lap], job: Job, connection: Connection) -> None:
    """Prepare a way, run it once, and time further laps as often as asked."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        lap = prepare(job)
    except ModuleNotFoundError as error:
        connection.send(error.name)
        return
    lap()
    connection.send(None)
    while connection.recv():
        start = time.perf_counter()
        lap()
        connection.send(time.perf_counter() - start)


def measure(task: str, job: Job, rounds: int) -> dict[str, dict[str, Any] | None]:
    """Time the ways of a task in turn; None for a way whose library is missing."""
    workers = {name: Worker(prepare, job) for name, prepare in WAYS[task].items()}
    there = {name: worker for name, worker in workers.items() if worker.missing is None}
    seconds: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(rounds):
        for name, worker in there.items():
            seconds[name].append(worker.time_lap())
    for worker in there.values():
        worker.stop()
    result: dict[str, dict[str, Any] | None] = dict.fromkeys(workers)
    for name, found in seconds.items():
        ratios = sorted(ours / theirs for ours, theirs in zip(seconds["here"], found, strict=True))
        result[name] = {
            "images_per_s": job.n_images / statistics.median(found),
            "ratio": statistics.median(ratios),
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
        }
    return result


def format_table(result: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return results as a Markdown table."""
    lines = ["| network | task | way | images/s | speed, as a multiple of here |", "|---|---|---|---|---|"]
    for network, tasks in result.items():
        for task, ways in tasks.items():
            for name, row in ways.items():
                cells = "not installed | -"
                if row:
                    span = f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
                    cells = f"{row['images_per_s']:.1f} | {row['ratio']:.2f} {span}"
                lines.append(f"| {network} | {task} | {name} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print and write what there is after each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=256, help="of a lap (default: 256)")
    parser.add_argument("--size-px", type=int, default=224, help="(default: 224)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="(default: one a core)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    for network in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(
                NETWORKS[network], args.n_images, args.size_px, args.batch_size, args.threads, Path(folder)
            )
            Worker(convert_here, job).stop()
            result[network] = {task: measure(task, job, args.rounds) for task in WAYS}
        print(format_table({network: result[network]}), flush=True)
        if args.output:
            args.output.write_text(json.dumps({"threads": args.threads, "ways": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
