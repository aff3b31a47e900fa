"""Measure time and peak memory of every stage on many generated images, through a table.

python benchmarks/scale.py --n-images 1000 10000 --output scale.json
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml

from pneumo.base.artifacts import write_json

ROOT = Path(__file__).parents[1]
IMAGES_EACH = 3  # of a patient
BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024
CNN = {"network": {"filters": [8, 16], "units": [16]}, "phases": {"fit": {"epochs": 1}}}
PNEUMO = "import sys; from pneumo.cli import main; sys.exit(main())"
SITES = ("north", "south")


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--image-px", type=int, default=512, help="height and width of the files (512)")
    parser.add_argument("--size-px", type=int, default=64, help="of the preprocessed images (64)")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    results = {}
    for n_images in args.n_images:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            start = time.perf_counter()
            make_project(Path(folder), n_images, args.image_px, args.size_px)
            print(f"{n_images} images drawn in {time.perf_counter() - start:.0f} s", flush=True)
            results[str(n_images)] = measure_stages(Path(folder))
    if args.output:
        write_json(args.output, {"n_cpus": os.cpu_count(), "image_px": args.image_px, "stages": results})


def make_project(root: Path, n_images: int, image_px: int, size_px: int) -> None:
    """Fill a folder with conf/, params.yaml, images and their table."""
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / "weights").mkdir()
    folder = root / "originals/many"
    for number in range(-(-n_images // 1000)):
        (folder / str(number)).mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(partial(draw_image, folder, image_px), range(n_images), chunksize=100))
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "patient", "view", "age", "sex", "site"])
        writer.writerows(rows)
    params = {
        "experiment": "many",
        "data": {"source": "table", "name": "many", "folder": "originals/many", "table": "images.csv"},
        "split": {"val_fraction": 0.2, "seed": 0},
        "image_size_px": size_px,
        "task": "binary",
        "combos": {"raw": [], "equalize": ["equalize"]},
        "models": {"cnn": CNN},
        "seeds": [0],
        "threshold": {"method": "youden"},
        "prevalence": 0.2,
        "ensembles": {},
        "equivalence_margin": 0.01,
        "weights_dir": "weights",
        "external": {},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def draw_image(folder: Path, image_px: int, number: int) -> list[object]:
    """Write one image of soft shapes and fine noise, brighter where there is pneumonia; return its row."""
    generator = np.random.default_rng(number)
    patient = number // IMAGES_EACH
    label = ("normal", "pneumonia")[patient % 2]
    coarse = generator.integers(0, 200, (12, 12), dtype=np.uint8)
    if label == "pneumonia":
        coarse[4:8, 4:8] = np.minimum(255, coarse[4:8, 4:8] + 40)
    pixels = cv2.resize(coarse, (image_px, image_px), interpolation=cv2.INTER_CUBIC)
    noise = generator.integers(0, 12, (image_px // 4, image_px // 4), dtype=np.uint8)
    pixels = cv2.add(pixels, cv2.resize(noise, (image_px, image_px)))
    path = f"{number // 1000}/{number}.jpeg"
    _, encoded = cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    (folder / path).write_bytes(encoded.tobytes())
    age, sex = patient % 90, "FM"[patient // 2 % 2]
    return [path, label, f"P{patient}", ("PA", "AP")[number % 2], age, sex, SITES[patient // 4 % 2]]


def measure_stages(root: Path) -> dict[str, dict[str, float]]:
    """Run every stage in a process of its own; return its seconds and peak memory in MB."""
    run = ["--combo", "raw", "--model", "cnn", "--seed", "0"]
    commands = {
        "check": ["check"],
        "download": ["download"],
        "download again": ["download"],
        "prepare": ["prepare"],
        "audit": ["audit"],
        "preprocess raw": ["preprocess", "--combo", "raw"],
        "preprocess equalize": ["preprocess", "--combo", "equalize"],
        "weights": ["weights", "--model", "cnn"],
        "train": ["train", *run],
        "evaluate": ["evaluate", *run],
        "explain": ["explain", "--combo", "raw"],
        "compare": ["compare"],
    }
    measured = {}
    for name, command in commands.items():
        measured[name] = measure(root, command)
        print(f"{name:22}{measured[name]['seconds']:9.1f} s{measured[name]['peak_mb']:9.0f} MB", flush=True)
    page = root / "reports/many/index.html"
    predictions = root / "reports/many/predictions.csv"
    for name, path in (("page", page), ("predictions.csv", predictions)):
        print(f"{name:22}{path.stat().st_size / 2**20:9.1f} MB")
    return measured


def measure(root: Path, command: list[str]) -> dict[str, float]:
    """Run `pneumo` with a command in a folder and wait for it.

    Raises:
        RuntimeError: it failed; the message has what it said.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", PNEUMO, *command], cwd=root, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"pneumo {' '.join(command)}: {said.read()[-3000:]}")
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), "peak_mb": round(usage.ru_maxrss * BYTES_PER_MAXRSS / 2**20)}


if __name__ == "__main__":
    main()
