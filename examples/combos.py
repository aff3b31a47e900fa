"""What each combo of preprocessing keeps of an image, and what it throws away.

    python examples/combos.py

Run it where `dvc repro` has preprocessed the combos of params.yaml. For each combo it prints, as means over
training images: how many of 256 grey values an image uses, the share of its pixels that are black, the bits
that a pixel's grey value carries, and how much of the variance of the grey values under the first combo
without steps can be told from the value at the same place under this one (1: nothing is lost; of a combo that
moves pixels, such as a crop, that says little).
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.artifacts import write_json
from pneumo.base.config import load_params
from pneumo.report.inputs import find_reference
from pneumo.training.dataset import load_dataset

Image = npt.NDArray[np.uint8]


def main() -> None:
    """Measure every combo and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-images", type=int, default=500, help="drawn at random (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    params = load_params()
    reference = load_dataset(params, find_reference(params)).training
    n_images = min(options.n_images, len(reference.train_rows))
    rows = np.sort(np.random.default_rng(0).choice(reference.train_rows, n_images, replace=False))
    table = {}
    for combo in params.combos:
        images = load_dataset(params, combo).training.images
        measured = [measure(images[row, ..., 0], reference.images[row, ..., 0]) for row in rows]
        table[combo] = pd.DataFrame(measured).mean().to_dict()
    print(pd.DataFrame(table).T.round(3).to_string())
    if options.output:
        write_json(options.output, {"n_images": n_images, "combos": table})


def measure(image: Image, reference: Image) -> dict[str, float]:
    """Return `grey_values`, `black`, `bits` and `kept` of an image under a combo and without steps."""
    counts = np.bincount(image.ravel(), minlength=256)
    shares = counts[counts > 0] / image.size
    return {
        "grey_values": float(np.count_nonzero(counts)),
        "black": float(counts[0] / image.size),
        "bits": float(-(shares * np.log2(shares)).sum()),
        "kept": explain_variance(image, reference),
    }


def explain_variance(image: Image, reference: Image) -> float:
    """Return the share of a reference's variance that is between the grey values of an image, not within."""
    values, counts = image.ravel(), np.bincount(image.ravel(), minlength=256)
    wanted = reference.ravel().astype(np.float64)
    sums = np.bincount(values, weights=wanted, minlength=256)
    means = np.divide(sums, counts, out=np.zeros(256), where=counts > 0)
    total = wanted.var()
    return float(means[values].var() / total) if total else 1.0


if __name__ == "__main__":
    main()
