"""Measure time and peak memory of every stage on many generated images, through a table.

python benchmarks/scale.py --n-images 1000 10000 --output scale.json
python benchmarks/scale.py --n-images 100000 --folder /scratch --output scale.json

With --folder, what is there is kept: stopped, it continues with the same command.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml

from pneumo.base.artifacts import read_json, write_file, write_json

ROOT = Path(__file__).parents[1]
IMAGES_EACH = 3  # of a patient
BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024
CNN = {"network": {"filters": [8, 16], "units": [16]}, "phases": {"fit": {"epochs": 1}}}
PNEUMO = "import sys; from pneumo.cli import main; sys.exit(main())"
SITES = ("north", "south")
N_FEATURES = 1000
# A frozen backbone with random weights, which take as long as others, on a part of the images.
FEATURES = f"""
from pathlib import Path
import numpy as np
from pneumo.base.artifacts import hash_file, write_array
from pneumo.base.config import build, load_group
from pneumo.base.reproducibility import make_deterministic
make_deterministic()
from pneumo.training.features import load_or_extract_features
from pneumo.training.networks import build_classifier
from pneumo.training.recipe import Recipe
images = np.load("data/many/raw/images.npy", mmap_mode="r")[:{N_FEATURES}]
part = Path("data/part.npy")
write_array(part, images)
changes = {{"network": {{"weights": "random"}}}}
recipe = build(Recipe, load_group("model", "mobilenet_frozen", changes), "mobilenet_frozen")
network = build_classifier(recipe, images.shape[1:], 2, 0, None)
load_or_extract_features(network.extractor, part, hash_file(part), Path("data/.part_features"))
"""


def main() -> None:
    """Measure, print a table and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--image-px", type=int, default=512, help="height and width of the files (512)")
    parser.add_argument("--size-px", type=int, default=64, help="of the preprocessed images (64)")
    parser.add_argument("--folder", type=Path, help="where all is kept; by default a temporary folder")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    results = {}
    for n_images in args.n_images:
        with open_folder(args.folder, n_images) as folder:
            start = time.perf_counter()
            make_project(folder, n_images, args.image_px, args.size_px)
            print(f"{n_images} images drawn in {time.perf_counter() - start:.0f} s", flush=True)
            results[str(n_images)] = measure_stages(folder)
    if args.output:
        write_json(args.output, {"n_cpus": os.cpu_count(), "image_px": args.image_px, "stages": results})


@contextmanager
def open_folder(parent: Path | None, n_images: int) -> Iterator[Path]:
    """Yield a folder for a project: one that stays below `parent`, or a temporary one."""
    if parent:
        folder = parent / f"scale_{n_images}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def make_project(root: Path, n_images: int, image_px: int, size_px: int) -> None:
    """Fill a folder with conf/, params.yaml, images and their table; images that are there are kept."""
    shutil.copytree(ROOT / "conf", root / "conf", dirs_exist_ok=True)
    (root / "weights").mkdir(exist_ok=True)
    folder = root / "originals/many"
    for number in range(-(-n_images // 1000)):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
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
    patient = number // IMAGES_EACH
    label = ("normal", "pneumonia")[patient % 2]
    path = f"{number // 1000}/{number}.jpeg"
    if not (folder / path).is_file():
        with write_file(folder / path) as partial:
            partial.write_bytes(encode_image(number, label, image_px))
    age, sex = patient % 90, "FM"[patient // 2 % 2]
    return [path, label, f"P{patient}", ("PA", "AP")[number % 2], age, sex, SITES[patient // 4 % 2]]


def encode_image(number: int, label: str, image_px: int) -> bytes:
    """Draw an image and return it as JPEG."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 200, (12, 12), dtype=np.uint8)
    if label == "pneumonia":
        coarse[4:8, 4:8] = np.minimum(255, coarse[4:8, 4:8] + 40)
    pixels = cv2.resize(coarse, (image_px, image_px), interpolation=cv2.INTER_CUBIC)
    noise = generator.integers(0, 12, (image_px // 4, image_px // 4), dtype=np.uint8)
    pixels = cv2.add(pixels, cv2.resize(noise, (image_px, image_px)))
    _, encoded = cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return encoded.tobytes()


def measure_stages(root: Path) -> dict[str, dict[str, float]]:
    """Run every stage in a process of its own; return its seconds, those of processors and peak memory in MB.

    What was measured before in this folder is not measured again.
    """
    run = ["--combo", "raw", "--model", "cnn", "--seed", "0"]
    commands = {
        "check": ["check"],
        "download": ["download"],
        "download again": ["download"],
        "prepare": ["prepare"],
        "audit": ["audit"],
        "preprocess raw": ["preprocess", "--combo", "raw"],
        "preprocess equalize": ["preprocess", "--combo", "equalize"],
        f"features of {N_FEATURES}": [],
        "weights": ["weights", "--model", "cnn"],
        "train": ["train", *run],
        "evaluate": ["evaluate", *run],
        "explain": ["explain", "--combo", "raw"],
        "compare": ["compare"],
    }
    path = root / "measured.json"
    measured: dict[str, dict[str, float]] = read_json(path) if path.is_file() else {}
    for name, command in commands.items():
        if name not in measured:
            measured[name] = measure(root, [PNEUMO, *command] if command else [FEATURES])
            write_json(path, measured)
        one = measured[name]
        times = f"{one['seconds']:9.1f} s{one['processor_s']:9.1f} s of processors"
        print(f"{name:22}{times}{one['peak_mb']:9.0f} MB", flush=True)
    page = root / "reports/many/index.html"
    predictions = root / "reports/many/predictions.csv"
    for name, path in (("page", page), ("predictions.csv", predictions)):
        print(f"{name:22}{path.stat().st_size / 2**20:9.1f} MB")
    return measured


def measure(root: Path, command: list[str]) -> dict[str, float]:
    """Run Python code with arguments in a folder and wait for it.

    Raises:
        RuntimeError: it failed; the message has what it said.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-c", *command], cwd=root, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[1:] or 'features'}: {said.read()[-3000:]}")
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * BYTES_PER_MAXRSS / 2**20),
    }


if __name__ == "__main__":
    main()
