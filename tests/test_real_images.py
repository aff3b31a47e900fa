"""What is known of the real images, looked for in the images themselves.

The folder PNEUMO_REAL_DATA holds chest_xray_fullres_sample.zip, original files of the training part.
"""

import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from pneumo.data.manifest import parse_name
from tiny_project import PARAMS, TinyProject

FOLDER = os.environ.get("PNEUMO_REAL_DATA", "")
ARCHIVE = Path(FOLDER, "chest_xray_fullres_sample.zip")

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
