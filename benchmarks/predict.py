"""Time `predict` against the bare network on the same images, and Keras against ONNX, and measure memory.

python benchmarks/predict.py model.pneumo data/raw/kaggle/test --output predict.json
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.base.artifacts import write_json
from pneumo.base.reproducibility import limit_blas_threads
from pneumo.data.decoding import IMAGE_SUFFIXES
from pneumo.prediction.bundle import Bundle
from pneumo.prediction.predictor import BATCH_SIZE, Predictor, load_networks

BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    limit_blas_threads()  # as the command line does; the processes that measure are begun after this
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a bundle, best with its network in Keras and ONNX")
    parser.add_argument("folder", type=Path, help="image files, at any depth")
    parser.add_argument("--n-images", type=int, default=640, help="a round (default: 640)")
    parser.add_argument("--rounds", type=int, default=5, help="of timings (default: 5)")
    parser.add_argument("--n-for-memory", type=int, default=5000, help="images (default: 5000)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    found = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        parser.error(f"Expected image files in {args.folder}. Received: none")
    formats = Bundle(args.model).formats
    # Memory first: Linux hands this process's own peak down to the children it starts.
    for_memory = repeat(found, args.n_for_memory)
    memory_mb = {suffix: measure_peak_memory(args.model, suffix, for_memory) for suffix in formats}
    timed = run_alone(time_formats, args.model, formats, repeat(found, args.n_images), args.rounds)
    print(
        f"\n{args.n_images} images a round, {os.cpu_count()} CPUs, {args.rounds} rounds; images/s are medians"
    )
    print(f"{'format':10}{'network':>10}{'predict':>10}{'ratio (min to max)':>24}{'peak memory':>14}")
    for suffix, row in timed.items():
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        rates = f"{row['network_images_per_s']:10.1f}{row['predict_images_per_s']:10.1f}"
        print(f"{suffix:10}{rates}{ratio:>24}{memory_mb[suffix]:11.0f} MB")
    result = {"n_cpus": os.cpu_count(), "n_images": args.n_images, "n_rounds": args.rounds}
    result |= {"formats": timed, "n_for_memory": args.n_for_memory, "peak_memory_mb": memory_mb}
    if len(formats) == 2:
        keras, onnx = (timed[suffix]["network_images_per_s"] for suffix in formats)
        result["onnx_by_keras"] = onnx / keras
        print(f"ONNX over Keras, network alone: {onnx / keras:.2f}")
    if args.output:
        write_json(args.output, result)


def repeat(paths: list[Path], n: int) -> list[Path]:
    """Return n paths, each of them as often as needed."""
    return (paths * (n // len(paths) + 1))[:n]


def time_formats(
    model: Path, formats: list[str], paths: list[Path], n_rounds: int
) -> dict[str, dict[str, float]]:
    """Time network and predict in turn, so that whatever else the machine does strikes both.

    Returns:
        Format -> images a second of each (medians) and the ratio predict / network of each pair.
    """
    bundle = Bundle(model)
    predictors = {suffix: Predictor(bundle, suffix) for suffix in formats}
    networks = {suffix: load_networks(bundle, suffix) for suffix in formats}
    first = predictors[formats[0]]
    images = np.stack([first.preprocess(path.read_bytes()) for path in paths])[..., None]

    def run_network(suffix: str) -> None:
        for start in range(0, len(images), BATCH_SIZE):
            for network in networks[suffix]:
                network.run(images[start : start + BATCH_SIZE])

    def run_predict(suffix: str) -> None:
        assert sum(each.error is None for each in predictors[suffix].predict(paths)) == len(paths)

    pairs: dict[str, list[tuple[float, float]]] = {suffix: [] for suffix in formats}
    for number in range(n_rounds + 1):
        for suffix in formats:
            seconds = (measure(lambda: run_network(suffix)), measure(lambda: run_predict(suffix)))  # noqa: B023
            if number > 0:  # the first round compiles
                pairs[suffix].append(seconds)
    return {suffix: summarize(len(paths), of_format) for suffix, of_format in pairs.items()}


def measure(function: Callable[[], None]) -> float:
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def summarize(n_images: int, pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Summarize the (network, predict) seconds of a format's rounds."""
    ratios = [network_s / predict_s for network_s, predict_s in pairs]
    return {
        "network_images_per_s": statistics.median(n_images / network_s for network_s, _ in pairs),
        "predict_images_per_s": statistics.median(n_images / predict_s for _, predict_s in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def run_alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process, which `limit_blas_threads` reaches."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure_peak_memory(model: Path, suffix: str, paths: list[Path]) -> float:
    """Return the peak resident memory, in MB, of a new process that predicts files."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(predict_all, model, suffix, paths).result()
        return pool.submit(own_peak_memory_mb).result()


def predict_all(model: Path, suffix: str, paths: list[Path]) -> None:
    """Predict files and drop what comes out."""
    for _ in Predictor(Bundle(model), suffix).predict(paths):
        pass


def own_peak_memory_mb() -> float:
    """Return the peak resident memory of this process, the interpreter and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_MAXRSS / 1e6


if __name__ == "__main__":
    main()
