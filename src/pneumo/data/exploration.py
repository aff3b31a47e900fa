"""Sample images of a data set."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.labels import Subtype
from pneumo.data.decoding import decode_image

N_SAMPLES = 8
SAMPLE_SIZE_PX = 160


def sample_images(manifest: pd.DataFrame) -> npt.NDArray[np.uint8]:
    """Return some training images of each subtype that there is, in the order of `Subtype`.

    Args:
        manifest: with `path`, `split`, `subtype` and `sha256`.

    Returns:
        uint8 array of shape (n_subtypes, N_SAMPLES, SAMPLE_SIZE_PX, SAMPLE_SIZE_PX); black beside an image
        that is not square, and where there are fewer images.
    """
    train = manifest[manifest["split"] == "train"]
    subtypes = [subtype for subtype in Subtype if (train["subtype"] == subtype).any()]
    grid = np.zeros((len(subtypes), N_SAMPLES, SAMPLE_SIZE_PX, SAMPLE_SIZE_PX), np.uint8)
    for row, subtype in enumerate(subtypes):
        # Hashes are as good as random and the same on every machine.
        chosen = train[train["subtype"] == subtype].sort_values("sha256")["path"].head(N_SAMPLES)
        for column, path in enumerate(chosen):
            grid[row, column] = _letterbox(decode_image(Path(path).read_bytes()).pixels)
    return grid


def _letterbox(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    scale = SAMPLE_SIZE_PX / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    canvas = np.zeros((SAMPLE_SIZE_PX, SAMPLE_SIZE_PX), np.uint8)
    top, left = (SAMPLE_SIZE_PX - height) // 2, (SAMPLE_SIZE_PX - width) // 2
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    canvas[top : top + height, left : left + width] = small
    return canvas
