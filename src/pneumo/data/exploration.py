"""Sample pictures of a data set, for people to look at."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.labels import Subtype
from pneumo.base.tables import find_training_images
from pneumo.data.decoding import decode_image

N_SAMPLES = 8
SAMPLE_SIZE_PX = 160


def list_train_subtypes(manifest: pd.DataFrame) -> list[Subtype]:
    """Return the subtypes of the training images, in the order of `Subtype`: the rows of `draw_samples`.

    Args:
        manifest: with `split` and `subtype`.
    """
    found = set(manifest.loc[find_training_images(manifest), "subtype"])
    return [subtype for subtype in Subtype if subtype in found]


def choose_samples(manifest: pd.DataFrame, n: int) -> list[list[int]]:
    """Choose training images of each subtype.

    The order of the files' hashes is as good as random and the same on every machine.

    Args:
        manifest: with `split`, `subtype` and `sha256`.
        n: images of a subtype, at most.

    Returns:
        Row numbers of the manifest, a list for each of `list_train_subtypes`.
    """
    places = manifest.reset_index(drop=True)
    train = places[find_training_images(places)].sort_values("sha256", kind="stable")
    subtypes = list_train_subtypes(manifest)
    return [train.index[train["subtype"] == subtype][:n].tolist() for subtype in subtypes]


def draw_samples(manifest: pd.DataFrame) -> npt.NDArray[np.uint8]:
    """Draw training images of each subtype, as `choose_samples` chooses them, and make them small.

    Args:
        manifest: with `path`, `split`, `subtype` and `sha256`.

    Returns:
        uint8 array of shape (n_subtypes, N_SAMPLES, SAMPLE_SIZE_PX, SAMPLE_SIZE_PX), rows as of
        `list_train_subtypes`. The aspect ratio is kept and the rest is black. Where a subtype has fewer than
        N_SAMPLES images, the last pictures are black.
    """
    chosen = choose_samples(manifest, N_SAMPLES)
    samples = np.zeros((len(chosen), N_SAMPLES, SAMPLE_SIZE_PX, SAMPLE_SIZE_PX), np.uint8)
    for row, places in enumerate(chosen):
        for column, path in enumerate(manifest["path"].iloc[places]):
            samples[row, column] = _make_thumbnail(decode_image(Path(path).read_bytes()).pixels)
    return samples


def _make_thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = SAMPLE_SIZE_PX / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    top, left = (SAMPLE_SIZE_PX - height) // 2, (SAMPLE_SIZE_PX - width) // 2
    interpolation = cv2.INTER_AREA if scale <= 1 else cv2.INTER_LINEAR
    thumbnail = np.zeros((SAMPLE_SIZE_PX, SAMPLE_SIZE_PX), np.uint8)
    resized = cv2.resize(pixels, (width, height), interpolation=interpolation)
    thumbnail[top : top + height, left : left + width] = resized
    return thumbnail
