"""audit: the images as they come -> data/<name>/audit/, what they give away without the lungs."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from pneumo.audit import data_checks
from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, FOLDS, Task
from pneumo.base.paths import audit_dir, manifest_path
from pneumo.base.tables import has_folds, read_manifest
from pneumo.data.decoding import UnreadableImageError, decode_image

SIZE_PX = 64
N_IN_FLIGHT = 256  # images; bounds memory, whatever their number


def run(params: Params) -> None:
    """Run every check on the images without preprocessing; models and predictions are not read."""
    manifest = read_manifest(manifest_path(params.data_name))
    findings, tables = check_images(manifest, read_thumbnails(manifest["path"].tolist()))
    tables["findings"] = pd.DataFrame([asdict(finding) for finding in findings])
    with write_folder(audit_dir(params.data_name)) as folder:
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    for finding in findings:
        print(f"{finding.verdict:10}  {finding.check}: {finding.value:.3g}")
    print(f"{len(findings)} checks of {len(manifest)} images, in {audit_dir(params.data_name)}")


def read_thumbnails(paths: list[str]) -> data_checks.Images:
    """Decode image files and shrink them, in parallel.

    Args:
        paths: of n image files.

    Returns:
        uint8 array of shape (n, SIZE_PX, SIZE_PX); row i comes from path i.

    Raises:
        PneumoError: a file is no image any more.
    """
    cv2.setNumThreads(1)  # the threads are those of the pool, one an image
    thumbnails = np.empty((len(paths), SIZE_PX, SIZE_PX), np.uint8)
    with ThreadPoolExecutor() as pool, tqdm(total=len(paths), desc="read images", unit="image") as progress:
        for start in range(0, len(paths), N_IN_FLIGHT):
            chunk = pool.map(read_thumbnail, paths[start : start + N_IN_FLIGHT])
            for row, thumbnail in enumerate(chunk, start):
                thumbnails[row] = thumbnail
                progress.update()
    return thumbnails


def read_thumbnail(path: str) -> data_checks.Images:
    """Return one image as uint8 of shape (SIZE_PX, SIZE_PX), averaged over pixel areas where it shrinks."""
    try:
        pixels = decode_image(Path(path).read_bytes()).pixels
    except UnreadableImageError as error:
        raise PneumoError(f"Expected the images of the manifest. Received: {path}: {error}") from error
    shrinks = min(pixels.shape) >= SIZE_PX
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (SIZE_PX, SIZE_PX), interpolation=interpolation).astype(np.uint8, copy=False)


def check_images(
    manifest: pd.DataFrame, images: data_checks.Images
) -> tuple[list[data_checks.Finding], dict[str, pd.DataFrame]]:
    """Run every check.

    Args:
        manifest: n images.
        images: uint8 array of shape (n, SIZE_PX, SIZE_PX).

    Returns:
        The findings, and the tables `copies` and `doubtful_labels`.
    """
    is_train = manifest["split"].isin(["train", "val", FOLDS]).to_numpy()
    train, train_images = manifest[is_train], images[is_train]
    copies = data_checks.find_copies(manifest, images)
    tables = {"copies": copies}

    def check_labels() -> data_checks.Finding:
        tables["doubtful_labels"] = data_checks.find_doubtful_labels(train, train_images)
        return data_checks.judge_labels(train, tables["doubtful_labels"])

    normal, pneumonia = CLASSES[Task.binary]
    checks = {
        "files": lambda: data_checks.check_metadata(train),
        "borders": lambda: data_checks.check_border(train, train_images),
        "brightness": lambda: data_checks.check_brightness(train, train_images),
        "thumbnails": lambda: data_checks.check_thumbnail(train, train_images),
    }
    if not has_folds(manifest):  # folds are drawn from one distribution
        checks["normal test images"] = lambda: data_checks.check_shift(manifest, images, normal)
        checks["pneumonia test images"] = lambda: data_checks.check_shift(manifest, images, pneumonia)
    checks["copies"] = lambda: data_checks.judge_copies(manifest, copies)
    checks["labels"] = check_labels
    findings = []
    with tqdm(checks.items(), unit="check") as progress:
        for name, check in progress:
            progress.set_description(f"check {name}")
            findings.append(check())
    return findings, tables
