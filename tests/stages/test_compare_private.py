"""The report of a private data set: what `compare` leaves in reports/ and in data/."""

import contextlib
import io
import shutil

import pandas as pd
import pytest

from pneumo.base.config import Run, load_params
from pneumo.base.privacy import SALT_PATH
from pneumo.stages import audit, compare, evaluate
from workspace import TEST, VAL, edit_params, make_workspace, tabulate, write_run

FOLDER = "/archive/of the hospital"


@pytest.fixture(scope="module")
def project(tmp_path_factory, phantom_data):
    """Compare two runs of phantoms that are private and partly odd.

    Returns:
        The project's folder, and what compare printed.
    """
    root = tmp_path_factory.mktemp("private")
    make_workspace(root)
    shutil.copytree(phantom_data, root / "data")
    edit_params(root, "n_test: 16}", "n_test: 16, private: true}")
    edit_params(root, "external: {}", f"external: {{elsewhere: {FOLDER}}}")
    exploration = root / "data/phantom/exploration"
    odd = {"id": ["train/NORMAL/Müller.png"], "reason": ["same file as train/NORMAL/Meier.png"]}
    pd.DataFrame(odd).to_csv(exploration / "oddities.csv", index=False)
    bad = {"path": ["train/Schmidt/x.png", "y.png"], "reason": ["unknown class folder Schmidt", "empty file"]}
    pd.DataFrame(bad).to_csv(exploration / "quarantine.csv", index=False)
    with contextlib.chdir(root):
        params = load_params()
        for combo in ("raw", "clahe"):
            run = Run("tiny", combo, "dense", 0)
            write_run(run, tabulate(VAL, TEST))
            evaluate.run(params, run)
        audit.run(params)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            compare.run(params)
    return root, output.getvalue()


def read_report(project):
    folder = project[0] / "reports/tiny"
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "runs"
    }


def test_no_name_and_no_path_is_in_any_file(project):
    files = read_report(project)
    ids = [*tabulate(VAL, TEST)["id"], *pd.read_csv(project[0] / "data/phantom/manifest.csv")["id"]]
    for name, text in files.items():
        for word in ("Müller", "Meier", "Schmidt", FOLDER, *ids):
            assert word not in text, (name, word)
    assert "unknown class folder" in files["data/quarantine.csv"]
    assert "empty file" in files["index.html"]


def test_the_page_has_no_picture(project):
    page = read_report(project)["index.html"]
    assert "data:image" not in page
    assert "(not shown)" in page


def test_the_full_report_has_them(project):
    full = project[0] / "data/reports/tiny"
    text = (full / "index.html").read_text()
    assert "Schmidt" in text
    assert FOLDER in text
    assert text.count("data:image/webp") > 4
    assert "Meier" in (full / "data/oddities.csv").read_text()
    assert pd.read_csv(full / "predictions.csv")["id"].tolist() == tabulate(VAL, TEST)["id"].tolist()
    assert "data/reports/tiny/index.html" in project[1]


def test_numbers_are_those_of_the_full_report(project):
    report, full = project[0] / "reports/tiny", project[0] / "data/reports/tiny"
    for path in full.glob("*.csv"):
        hidden, shown = (pd.read_csv(folder / path.name) for folder in (report, full))
        names = [name for name in ("id", "patient", "path") if name in shown]
        assert hidden.drop(columns=names).equals(shown.drop(columns=names)), path.name


def test_the_same_data_give_the_same_report(project, monkeypatch):
    monkeypatch.chdir(project[0])
    before, salt = read_report(project), SALT_PATH.read_text()
    compare.run(load_params())
    assert SALT_PATH.read_text() == salt
    assert read_report(project) == before
