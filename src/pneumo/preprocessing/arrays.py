"""Preprocessed images: one array on disk for each combo."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from pneumo.base.artifacts import hash_file, write_file
from pneumo.data.decoding import decode_image
from pneumo.data.exploration import choose_samples
from pneumo.preprocessing.combo import Step, apply_steps
from pneumo.preprocessing.steps import Image

# Images that are preprocessed before any of them is written: this bounds memory for any number of images.
N_IN_FLIGHT = 256
N_SAMPLES = 2  # of each subtype, for people to look at
SAMPLE_SIZE_PX = 144


def write_images(paths: list[str], steps: list[Step], target: Path, name: str = "preprocess") -> None:
    """Preprocess files into one array, uint8 of shape (n, size_px, size_px, 1), in parallel.

    Args:
        paths: of n image files.
        steps: as `parse_combo` returns them.
        target: .npy file; row i comes from path i.
        name: what the progress bar is called.
    """
    cv2.setNumThreads(1)  # the pool below runs one thread per core already

    def preprocess(path: str) -> Image:
        return apply_steps(decode_image(Path(path).read_bytes()).pixels, steps)

    size_px = next(step.parameters["size_px"] for step in steps if step.name == "resize")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), size_px, size_px, 1)}
    with write_file(target) as partial, partial.open("wb") as file, ThreadPoolExecutor() as pool:
        np.lib.format.write_array_header_1_0(file, header)
        with tqdm(total=len(paths), desc=name, unit="image") as progress:
            for start in range(0, len(paths), N_IN_FLIGHT):
                for image in pool.map(preprocess, paths[start : start + N_IN_FLIGHT]):
                    file.write(image.tobytes())
                    progress.update()


def draw_samples(images: npt.NDArray[np.uint8], manifest: pd.DataFrame) -> npt.NDArray[np.uint8]:
    """Pick training images of each subtype; the same ones whatever the steps were.

    Args:
        images: uint8 array of shape (n, size_px, size_px, 1), row i for row i of the manifest.
        manifest: with `split`, `subtype` and `sha256`.

    Returns:
        uint8 array of shape (n_subtypes, N_SAMPLES, side, side), SAMPLE_SIZE_PX a side at most, rows as of
        `data.exploration.list_train_subtypes`; black where a subtype has fewer than N_SAMPLES images.
    """
    chosen, side = choose_samples(manifest, N_SAMPLES), min(images.shape[1], SAMPLE_SIZE_PX)
    samples = np.zeros((len(chosen), N_SAMPLES, side, side), np.uint8)
    for row, places in enumerate(chosen):
        for column, place in enumerate(places):
            samples[row, column] = cv2.resize(
                images[place, ..., 0], (side, side), interpolation=cv2.INTER_AREA
            )
    return samples


def find_identical_images(paths: Mapping[str, Path]) -> list[list[str]]:
    """Find combos that gave the same images.

    Args:
        paths: combo -> its images.npy.

    Returns:
        Groups of two or more combos whose files have the same content, in the order of `paths`.
    """
    groups: dict[str, list[str]] = {}
    for combo, path in paths.items():
        groups.setdefault(hash_file(path), []).append(combo)
    return [combos for combos in groups.values() if len(combos) > 1]
