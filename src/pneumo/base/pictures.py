"""Pictures side by side, to be looked at."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def encode_sheet(rows: Iterable[Sequence[Picture]], size_px: int, quality: int) -> bytes:
    """Lay square grey pictures side by side, a row under the other. The same pictures give the same bytes.

    Args:
        rows: as many pictures in each, uint8 arrays of one shape (height, width).
        size_px: larger pictures are shrunk to this height and width, averaged over areas.
        quality: of WebP, 0 to 100.

    Returns:
        A WebP file.
    """
    sheet = cv2.vconcat([cv2.hconcat([_shrink(picture, size_px) for picture in row]) for row in rows])
    _, encoded = cv2.imencode(".webp", sheet, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return encoded.tobytes()


def _shrink(picture: Picture, size_px: int) -> Picture:
    if len(picture) <= size_px:
        return picture
    shrunk = cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.uint8, copy=False)
