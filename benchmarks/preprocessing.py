"""Time `preprocess` against OpenCV alone decoding the same files, and measure its peak memory.

python benchmarks/preprocessing.py data/raw/kaggle/train --output preprocessing.json
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from pneumo.base.artifacts import write_json
from pneumo.data.decoding import IMAGE_SUFFIXES
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import Step, parse_combo

IMAGE_SIZE_PX = 224
COMBOS = {"raw": [], "clahe": ["clahe"], "crop_clahe": ["crop", "clahe"]}
BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="image files, at any depth")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of timings a combo (default: 5)")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 30], help="of the files, for memory")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    paths = sorted(str(path) for path in args.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        parser.error(f"Expected image files in {args.folder}. Received: none")

    # Memory first: Linux hands this process's own peak down to the children it starts.
    memory_mb = {n * len(paths): measure_peak_memory(paths * n) for n in args.copies}
    speed = time_combos(paths, args.rounds)

    print(f"\n{len(paths)} files, {os.cpu_count()} CPUs, {args.rounds} rounds; images/s are medians")
    print(f"{'combo':12}{'OpenCV decodes':>16}{'preprocess':>12}{'ratio (min to max)':>24}")
    for combo, row in speed.items():
        rates = f"{row['decode_images_per_s']:16.1f}{row['preprocess_images_per_s']:12.1f}"
        ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
        print(f"{combo:12}{rates}{ratio:>24}")
    for n_images, peak_mb in memory_mb.items():
        print(f"peak memory of preprocessing {n_images} images: {peak_mb:.0f} MB")
    if args.output:
        result = {"n_files": len(paths), "n_cpus": os.cpu_count(), "n_rounds": args.rounds}
        write_json(args.output, result | {"speed": speed, "peak_memory_mb_by_n_images": memory_mb})


def time_combos(paths: list[str], n_rounds: int) -> dict[str, dict[str, float]]:
    """Time decoding and preprocessing in turn, so that whatever else the machine does strikes both.

    Returns:
        combo -> images a second of each (medians) and the ratio preprocess / decode of each pair.
    """
    decode(paths)  # the first read of a file is the disk's speed
    pairs: dict[str, list[tuple[float, float]]] = {combo: [] for combo in COMBOS}
    for _ in range(n_rounds):
        for combo in COMBOS:
            start = time.perf_counter()
            decode(paths)
            decoded = time.perf_counter()
            preprocess(paths, combo)
            pairs[combo].append((decoded - start, time.perf_counter() - decoded))
    return {combo: summarize(len(paths), seconds) for combo, seconds in pairs.items()}


def summarize(n_images: int, pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Summarize the (decode, preprocess) seconds of a combo's rounds."""
    ratios = [decode_s / preprocess_s for decode_s, preprocess_s in pairs]
    return {
        "decode_images_per_s": statistics.median(n_images / decode_s for decode_s, _ in pairs),
        "preprocess_images_per_s": statistics.median(n_images / preprocess_s for _, preprocess_s in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def decode(paths: list[str]) -> None:
    """Decode files with OpenCV and drop the pixels; files and threads are handled as `preprocess` does."""

    def decode_file(path: str) -> None:
        pixels = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None, f"OpenCV cannot decode {path}"

    cv2.setNumThreads(1)
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode_file, paths):
            pass


def preprocess(paths: list[str], combo: str) -> None:
    """Preprocess files into a temporary array."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(paths, parse_steps(combo), Path(folder, combo, "images.npy"))


def parse_steps(combo: str) -> list[Step]:
    """Return the steps of one of COMBOS."""
    return parse_combo(combo, COMBOS[combo], IMAGE_SIZE_PX)


def measure_peak_memory(paths: list[str]) -> float:
    """Return the peak resident memory, in MB, of a new process that preprocesses files with every step."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(preprocess, paths, "crop_clahe").result()
        return pool.submit(own_peak_memory_mb).result()


def own_peak_memory_mb() -> float:
    """Return the peak resident memory of this process, the interpreter and libraries included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_MAXRSS / 1e6


if __name__ == "__main__":
    main()
