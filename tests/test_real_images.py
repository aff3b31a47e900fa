"""What is known of the real images, looked for in the images themselves.

The folder PNEUMO_REAL_DATA holds chest_xray_fullres_sample.zip, original files of the training part, and
chest_xray_224.zip, copies of all images.
"""

import contextlib
import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kaggle_server import replace_kaggle
from pneumo.base.labels import CLASS_FOLDERS, SPLITS
from pneumo.cli import main
from pneumo.data.manifest import parse_name
from tiny_project import PARAMS, TinyProject
from workspace import make_workspace, read_all

FOLDER = os.environ.get("PNEUMO_REAL_DATA", "")
ARCHIVE = Path(FOLDER, "chest_xray_fullres_sample.zip")
COPIES = Path(FOLDER, "chest_xray_224.zip")

pytestmark = [
    pytest.mark.real_images,
    pytest.mark.skipif(
        not ARCHIVE.is_file(), reason=f"needs real images: PNEUMO_REAL_DATA={FOLDER!r} has no {ARCHIVE.name}"
    ),
]


@pytest.fixture
def originals(tmp_path):
    """Return a folder of original files, a third of the patients as a test set."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    root = tmp_path / "chest_xray_fullres_sample"
    for path in sorted(root.glob("train/*/*.jpeg")):
        if sum(parse_name(path.stem).patient.encode()) % 3 == 0:
            target = root / "test" / path.relative_to(root / "train")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return root


def test_the_report_names_the_shortcut_in_the_original_files(originals, tmp_path):
    params = PARAMS.replace(
        "{source: phantom, name: phantom, n_train: 40, n_val: 8, n_test: 16}",
        f"{{source: local, name: local, path: {originals}}}",
    )
    project = TinyProject.create(tmp_path / "project", params)
    project.repro()
    findings = project.read_csv("reports/tiny/audit/findings.csv").set_index("check")
    metadata = findings.loc["metadata"]
    assert metadata["verdict"] == "problem"
    assert metadata["value"] > 0.95
    page = (project.root / "reports/tiny/index.html").read_text()
    question = page[page.index(metadata["question"]) :]
    assert '<span class="harms">problem</span>' in question[: question.index("</tr>")]
    assert pd.isna(findings.loc["copies", "low"])


RUN = ("--combo", "raw", "--model", "dense", "--seed", "0")
STAGES = (
    ("check",),
    ("download",),
    ("prepare",),
    ("audit",),
    ("preprocess", "--combo", "raw"),
    ("weights", "--model", "dense"),
    ("train", *RUN),
    ("evaluate", *RUN),
    ("explain", "--combo", "raw"),
    ("external", "--combo", "raw"),
    ("compare",),
)


def run_stages(root, source):
    """Run every stage on a source of real images; return data, models and the report as path -> content."""
    keras.utils.clear_session()  # as in a process of its own, where layers have the same names
    make_workspace(root)
    clahe = "  clahe: [{clahe: {clip_limit: 2.0, tiles: 4}}]\n"
    phantom = "{source: phantom, name: phantom, n_train: 40, n_val: 8, n_test: 16}"
    path = root / "params.yaml"
    path.write_text(path.read_text().replace(clahe, "").replace(phantom, source))
    (root / "originals").mkdir()
    with contextlib.chdir(root):
        for command in STAGES:
            assert main(list(command)) == 0
        shutil.rmtree("models/.seconds")
        (root / "reports/tiny/seconds.csv").unlink()
    return {name: read_all(root / name) for name in ("data", "models", "reports")}


def zip_folder(folder, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*.jpeg")):
            archive.write(path, Path("chest_xray", path.relative_to(folder)))
    return target


def read_archive(path):
    """Return the X-rays of an archive in Kaggle's layout: path below the data set's folder -> content."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpeg")]
        return {"/".join(name.split("/")[-3:]): archive.read(name) for name in names}


@pytest.mark.parametrize("which", ["originals", "copies"])
def test_local_files_are_handled_like_those_of_kaggle(which, request, tmp_path, monkeypatch):
    """The same archive through `local` and through `kaggle`: the same data, networks and report.

    Identity, patient and pixels are compared with what is read from the archive directly, too.
    """
    archive = (
        COPIES if which == "copies" else zip_folder(request.getfixturevalue("originals"), tmp_path / "a.zip")
    )
    files = read_archive(archive)
    counts = {
        split: {
            folder: sum(name.startswith(f"{split}/{folder}/") for name in files) for folder in CLASS_FOLDERS
        }
        for split in SPLITS
    }
    common = "name: xrays, title: X-rays"
    local = run_stages(tmp_path / "local", f"{{source: local, {common}, path: {archive}, private: false}}")
    with replace_kaggle(archive.read_bytes(), monkeypatch, tmp_path):
        handle = f"handle: owner/xrays/versions/2, counts: {counts}"
        kaggle = run_stages(tmp_path / "kaggle", f"{{source: kaggle, {common}, {handle}}}")
    for part in ("data", "models", "reports"):
        assert local[part].keys() == kaggle[part].keys()
        differ = {str(path) for path in local[part] if local[part][path] != kaggle[part][path]}
        # These quote the experiment's data from params.yaml.
        assert differ <= {"tiny/index.html", "tiny/model_card.md", "tiny/summary.json"}

    with contextlib.chdir(tmp_path / "local"):
        manifest = pd.read_csv("data/xrays/manifest.csv").set_index("id")
        images = np.load("data/xrays/raw/images.npy", mmap_mode="r")
        set_aside = pd.read_csv("data/xrays/exploration/quarantine.csv")["path"]
    assert {*manifest.index, *set_aside} == files.keys()
    for row, (id_, entry) in enumerate(manifest.iterrows()):
        split, folder, name = id_.split("/")
        assert entry["sha256"] == hashlib.sha256(files[id_]).hexdigest()
        assert entry["label"] == folder.lower()
        assert (entry["split"] == "test") == (split == "test")
        parts = Path(name).stem.split("-")
        patient = "_".join(name.split("_")[:2])
        if folder == "NORMAL":
            patient = "-".join(parts[: parts.index("IM") + 2])
        assert entry["patient"] == patient
        if row % 50 == 0:
            grey = np.asarray(Image.open(io.BytesIO(files[id_])).convert("L"))
            expected = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
            np.testing.assert_allclose(images[row, ..., 0], expected, atol=1)
