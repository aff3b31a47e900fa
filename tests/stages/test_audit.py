"""The stage audit: which pixels it reads, what it writes where, and what it says on the way."""

import contextlib
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from pneumo.audit.data_checks import Verdict
from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.cli import main
from pneumo.data.decoding import decode_image
from pneumo.preprocessing.combo import apply_steps, parse_combo
from pneumo.stages import audit, download, prepare
from tiny_project import PARAMS, ROOT

CHECKS = [
    "metadata",
    "border",
    "brightness",
    "thumbnail",
    "shift_normal",
    "shift_pneumonia",
    "copies",
    "labels",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a project as `prepare` leaves it."""
    root = tmp_path_factory.mktemp("prepared")
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / "params.yaml").write_text(PARAMS)
    with contextlib.chdir(root):
        download.run(load_params())
        prepare.run(load_params())
    return root


@pytest.fixture
def project(prepared, tmp_path, monkeypatch):
    """Work in a copy of the prepared project."""
    shutil.copytree(prepared, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_findings_are_of_the_data_set_and_not_of_an_experiment(project, capsys):
    assert main(["audit"]) == 0
    folder = project / "data/phantom/audit"
    assert {path.name for path in folder.iterdir()} == {"findings.csv", "copies.csv", "doubtful_labels.csv"}
    assert not (project / "reports").exists()
    findings = pd.read_csv(folder / "findings.csv")
    assert findings["check"].tolist() == CHECKS
    assert set(findings["verdict"]) <= set(Verdict)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split()[-1] for line in printed[:-1]] == CHECKS
    assert printed[-1] == "8 checks of 64 images, in data/phantom/audit"
    before = read_all(folder)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("experiment: tiny", "experiment: other"))
    assert main(["audit"]) == 0
    assert read_all(folder) == before


@pytest.mark.usefixtures("project")
def test_progress_says_what_is_being_done(capsys):
    audit.run(load_params())
    shown = capsys.readouterr().err
    for name in ("read images: ", "compare with test images: ", "check files: ", "check labels: "):
        assert name in shown
    assert "tmp" not in shown


@pytest.mark.parametrize("n_in_flight", [5, 256])
def test_images_are_shrunk_as_preprocessing_shrinks_them(project, monkeypatch, n_in_flight):
    monkeypatch.setattr(audit, "N_IN_FLIGHT", n_in_flight)
    paths = sorted(project.glob("data/raw/phantom/test/*/*.*"))[:8]
    for number, shape in enumerate([(40, 300), (300, 40), (40, 50), (64, 64), (1, 1)]):
        paths.append(project / f"{number}.png")
        image = np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)
        cv2.imwrite(str(paths[-1]), image)
    found = audit.read_thumbnails([str(path) for path in paths])
    assert (found.dtype, found.shape) == (np.uint8, (13, 64, 64))
    steps = parse_combo("audit", [], 64)
    for path, thumbnail in zip(paths, found, strict=True):
        expected = apply_steps(decode_image(path.read_bytes()).pixels, steps)
        np.testing.assert_array_equal(thumbnail, expected)


def test_a_file_that_was_damaged_since_is_named_and_the_old_findings_stay(project):
    audit.run(load_params())
    before = read_all(project / "data/phantom")
    path = pd.read_csv("data/phantom/manifest.csv")["path"][17]
    (project / path).write_bytes(b"no image")
    with pytest.raises(PneumoError, match=rf"Expected the images of the manifest\. Received: {path}: not a"):
        audit.run(load_params())
    assert read_all(project / "data/phantom") == before


@pytest.mark.usefixtures("project")
def test_training_images_and_test_images_are_told_apart_by_the_split():
    """A mark on test images alone is a shift and nothing that gives the class away."""
    manifest = pd.read_csv("data/phantom/manifest.csv")
    many = pd.concat([manifest] * 4, ignore_index=True)
    many["patient"] = [f"p{i}" for i in range(len(many))]
    many["id"] = [f"i{i}" for i in range(len(many))]
    many["sha256"] = many["id"]
    images = np.random.default_rng(0).integers(60, 200, (len(many), 64, 64), dtype=np.uint8)
    images[(many["split"] == "test").to_numpy(), :4] = 250
    findings, tables = audit.check_images(many, images)
    verdicts = {finding.check: finding.verdict for finding in findings}
    assert verdicts["shift_normal"] == verdicts["shift_pneumonia"] == Verdict.PROBLEM
    assert verdicts["border"] != Verdict.PROBLEM
    assert set(tables) == {"copies", "doubtful_labels"}
    images[(many["split"] == "train").to_numpy() & (many["label"] == "normal").to_numpy(), :4] = 250
    verdicts = {finding.check: finding.verdict for finding in audit.check_images(many, images)[0]}
    assert verdicts["border"] == Verdict.PROBLEM
