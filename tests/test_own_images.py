"""A folder of DICOM files with a CSV file, from the words of docs/own_images.md to a report."""

import os
import re

import pandas as pd
import pytest
import yaml

from own_images import plan_images, write_images, write_table
from tiny_project import PARAMS, ROOT, TinyProject

pytestmark = pytest.mark.promise

N_PATIENTS = 160


def read_words():
    """Return the experiment that docs/own_images.md tells to write, and the commands to run."""
    text = (ROOT / "docs/own_images.md").read_text().split("## 3. The experiment")[1].split("\n## ")[0]
    params = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    commands = [line.split("#")[0].split() for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE)]
    return yaml.safe_load(params), commands


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Return the project after the words, and the images that were given to it."""
    words, commands = read_words()
    assert commands == [["pneumo", "use", "hospital"], ["pneumo", "check"], ["dvc", "repro"]]
    tiny = yaml.safe_load(PARAMS)
    assert list(words) == list(tiny)  # a whole experiment
    # The test set is larger than by default, so that groups have the patients that they need to be shown.
    params = words | {key: tiny[key] for key in ("image_size_px", "models", "seeds")}
    params |= {"combos": {"raw": []}, "data": words["data"] | {"test_fraction": 0.5}}
    project = TinyProject.create(tmp_path_factory.mktemp("hospital") / "project")
    (project.root / "conf/experiment/hospital.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    images = plan_images(N_PATIENTS)
    folder = project.root / "originals/hospital"
    write_images(folder, images)
    write_table(folder / "images.csv", images)
    for command in commands:
        project.run(*command)
    return project, images


def test_the_report_has_subgroups(hospital):
    project, images = hospital
    table = project.read_csv("reports/hospital/subgroups.csv")
    assert set(table["attribute"]) == {"view", "age", "sex", "site"}
    manifest = project.read_csv("data/hospital/manifest.csv")
    assert len(manifest) == len(images)
    test = manifest[manifest["split"] == "test"]
    for row in table[table["attribute"].isin(["view", "sex", "site"])].to_dict("records"):
        of_group = test[test[row["attribute"]] == row["group"]]
        assert (row["n_images"], row["n_patients"]) == (len(of_group), of_group["patient"].nunique())
    assert (table["n_patients"] >= 20).all()
    page, card = (
        (project.root / "reports/hospital" / name).read_text() for name in ("index.html", "model_card.md")
    )
    for text in (page, card):
        assert "In groups of patients" in text
        assert "site: north" in text


def list_names(images):
    """Return what must not be committed: names of files and folders, and patients."""
    names = {part.removesuffix(".dcm") for image in images for part in image.path.split("/")}
    ends = {name.split("ü")[-1] for name in names}  # of which no character can be written otherwise
    return sorted(ends | {image.patient for image in images})


def list_committed(project):
    listed = project.run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    return [project.root / path for path in listed.split("\0") if path]


def test_nothing_that_git_would_commit_names_a_file_or_a_patient(hospital):
    project, images = hospital
    paths = list_committed(project)
    assert project.root / "reports/hospital/predictions.csv" in paths
    assert project.root / "dvc.lock" in paths
    names = [name.encode() for name in list_names(images)]
    full = (project.root / "data/reports/hospital/predictions.csv").read_bytes()
    assert sum(name in full for name in names) > N_PATIENTS
    for path in paths:
        if not path.is_relative_to(project.root / "src"):
            content = path.read_bytes()
            assert [name for name in names if name in content] == [], path


def test_the_page_has_no_picture_and_no_path(hospital):
    project, _ = hospital
    page = (project.root / "reports/hospital/index.html").read_text()
    assert "data:image" not in page.replace('href="data:,"', "")
    assert "originals/hospital" not in page
    assert "images.csv" not in page
    assert "(not shown)" in page


def test_the_full_page_stays_in_data(hospital):
    project, images = hospital
    full = project.root / "data/reports/hospital/index.html"
    assert "data:image/webp" in full.read_text()
    assert full not in list_committed(project)
    ids = pd.read_csv(full.parent / "predictions.csv")["id"]
    assert set(ids) <= {image.path for image in images}


def test_pseudonyms_tell_patients_apart(hospital):
    project, _ = hospital
    hidden = project.read_csv("reports/hospital/predictions.csv")
    full = project.read_csv("data/reports/hospital/predictions.csv")
    assert hidden.drop(columns=["id", "patient"]).equals(full.drop(columns=["id", "patient"]))
    for column in ("id", "patient"):
        assert hidden[column].str.fullmatch("[0-9a-f]{16}").all()
        assert (pd.factorize(hidden[column])[0] == pd.factorize(full[column])[0]).all()


def test_a_second_run_runs_nothing_and_a_changed_file_is_seen(hospital, tmp_path):
    project = hospital[0].copy(tmp_path / "project")
    assert project.repro("--dry") == []
    path = project.root / "originals/hospital" / hospital[1][0].path
    os.utime(path, (1, 1))
    assert project.repro("--dry") == []
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    assert project.repro("prepare") == ["download", "prepare"]


def test_changes_elsewhere_are_seen_after_a_check(tmp_path):
    outside = tmp_path / "archive"
    params = yaml.safe_load(PARAMS) | {"data": {"source": "table", "name": "far", "table": "images.csv"}}
    params["data"]["folder"] = str(outside)
    images = plan_images(60)
    write_images(outside, images)
    write_table(outside / "images.csv", images)
    project = TinyProject.create(tmp_path / "project", yaml.safe_dump(params, sort_keys=False))
    assert project.repro("prepare") == ["check", "download", "prepare"]
    assert project.repro("--dry", "prepare") == []
    path = outside / images[0].path
    os.utime(path, (1, 1))
    assert project.repro("prepare") == []
    project.run("pneumo", "check")
    assert project.repro("prepare") == ["download"]  # the content is the same
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    project.run("pneumo", "check")
    assert project.repro("prepare") == ["download", "prepare"]
