"""audit: the images as they come -> reports/<experiment>/audit/, what they give away without lungs."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from pneumo.audit import data_checks
from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params
from pneumo.base.labels import CLASSES, Task
from pneumo.base.paths import audit_dir, manifest_path
from pneumo.base.tables import read_manifest
from pneumo.preprocessing.arrays import write_images
from pneumo.preprocessing.combo import parse_combo

SIZE_PX = 64


def run(params: Params) -> None:
    """Run every check on the images without preprocessing; models and predictions are not looked at."""
    manifest = read_manifest(manifest_path(params.source))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "audit.npy"
        write_images(manifest["path"].tolist(), parse_combo("audit", [], SIZE_PX), path)
        images = np.load(path)[..., 0]
    is_train = manifest["split"].isin(["train", "val"]).to_numpy()
    train, train_images = manifest[is_train], images[is_train]
    copies = data_checks.find_copies(manifest, images)
    doubtful = data_checks.find_doubtful_labels(train, train_images)
    findings = [
        data_checks.check_metadata(train),
        data_checks.check_border(train, train_images),
        data_checks.check_brightness(train, train_images),
        data_checks.check_thumbnail(train, train_images),
        *(data_checks.check_shift(manifest, images, label) for label in CLASSES[Task.binary]),
        data_checks.judge_copies(manifest, copies),
        data_checks.judge_labels(len(train), doubtful),
    ]
    tables = {
        "findings": pd.DataFrame([asdict(finding) for finding in findings]),
        "copies": copies,
        "doubtful_labels": doubtful,
    }
    with write_folder(audit_dir(params.source)) as target:
        for name, table in tables.items():
            table.to_csv(target / f"{name}.csv", index=False, float_format="%.6g")
    for finding in findings:
        print(f"{'problem' if finding.is_problem else 'fine':7}  {finding.check}: {finding.value:.3g}")
