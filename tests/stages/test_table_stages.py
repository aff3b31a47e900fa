"""The stages up to the manifest, for a table of one's own."""

import contextlib
from pathlib import Path

import pandas as pd
import pytest

from own_images import plan_images, write_images, write_table
from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.base.tables import read_manifest
from pneumo.cli import main
from pneumo.stages import check, download, prepare
from workspace import edit_params

PHANTOM = "{source: phantom, name: phantom, n_train: 40, n_val: 8, n_test: 16}"
DATA = "{source: table, name: hospital, folder: originals/hospital, table: images.csv}"


@pytest.fixture
def images(workspace):
    images = plan_images()
    write_images(workspace / "originals/hospital", images)
    write_table(workspace / "originals/hospital/images.csv", images)
    edit_params(workspace, PHANTOM, DATA)
    return images


def edit_table(edit):
    path = Path("originals/hospital/images.csv")
    edit(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def prepare_data():
    params = load_params()
    download.run(params)
    prepare.run(params)
    return read_manifest(Path("data/hospital/manifest.csv"))


def test_splits_are_carved_out_by_patient(images):
    manifest = prepare_data()
    assert len(manifest) == len(images) == 75
    assert not manifest[["patient", "split"]].drop_duplicates()["patient"].duplicated().any()
    counts = pd.crosstab(manifest["label"], manifest["split"])
    for label, n_images in manifest["label"].value_counts().items():
        assert abs(counts.loc[label, "test"] - 0.2 * n_images) <= 1
        assert abs(counts.loc[label, "val"] - 0.25 * 0.8 * n_images) <= 1
    assert manifest["official_split"].isna().all()
    by_id = manifest.set_index("id")
    for image in images:
        assert by_id.loc[image.path, ["view", "sex", "site"]].tolist() == [image.view, image.sex, image.site]
        assert by_id.loc[image.path, "age"] == float(image.age)


FOLDS = "split: {val_fraction: 0.25, seed: 0, protocol: folds, n_folds: 5}"


def test_with_folds_no_test_set_is_carved_out(workspace, images, capsys):
    edit_params(workspace, "split: {val_fraction: 0.25, seed: 0}", FOLDS)
    check.run(load_params())
    said = capsys.readouterr().out
    assert "data: cross-validation over 5 folds by patient; each seed draws its own\n" in said
    assert "carved out" not in said
    manifest = prepare_data()
    assert "75 images of 60 patients: 5 folds, drawn for each seed\n" in capsys.readouterr().out
    assert len(manifest) == len(images)
    assert set(manifest["split"]) == {"folds"}
    assert not manifest[["patient", "group"]].drop_duplicates()["patient"].duplicated().any()


def test_a_stated_split_sets_nothing_aside_with_folds(workspace, images, capsys):
    edit_params(workspace, "split: {val_fraction: 0.25, seed: 0}", FOLDS)
    # Images of one patient on both sides, which an official split sets aside.
    edit_table(lambda table: table.assign(split=["train", "test"] * 37 + ["train"]))
    manifest = prepare_data()
    assert len(manifest) == len(images)
    assert manifest["official_split"].value_counts().to_dict() == {"train": 38, "test": 37}
    check.run(load_params())
    assert "the split that the data state is not used" in capsys.readouterr().out


def test_files_of_one_content_are_in_one_group(workspace, images):
    edit_params(workspace, "split: {val_fraction: 0.25, seed: 0}", FOLDS)
    folder = Path("originals/hospital")
    first = images[0]
    other = next(each for each in images if each.label == first.label and each.patient != first.patient)
    (folder / other.path).write_bytes((folder / first.path).read_bytes())
    group = prepare_data().set_index("id")["group"]
    assert group[other.path] == group[first.path]


def test_too_few_patients_for_folds_are_named(workspace, images):
    edit_params(workspace, "split: {val_fraction: 0.25, seed: 0}", FOLDS)
    normal = [each.path for each in images if each.label == "normal"]
    edit_table(lambda table: table[~table["path"].isin(normal[3:])])
    with pytest.raises(PneumoError, match=r"Expected enough normal patients .* Lower split\.n_folds"):
        check.run(load_params())


@pytest.mark.usefixtures("images")
def test_the_seed_of_the_split_decides(workspace):
    first = prepare_data()
    assert prepare_data().equals(first)
    edit_params(workspace, "{val_fraction: 0.25, seed: 0}", "{val_fraction: 0.25, seed: 1}")
    assert (prepare_data()["split"] != first["split"]).any()


def test_a_split_column_is_kept_and_contradictions_are_set_aside(images):
    patients = sorted({image.patient for image in images})

    def state(table):
        is_test = table["patient"].isin(patients[::5])
        table["split"] = is_test.map({True: "test", False: "train"})
        table.loc[table.index[table["patient"] == patients[0]][:1], "split"] = "train"
        return table

    edit_table(state)
    stated = pd.read_csv("originals/hospital/images.csv", dtype=str).set_index("path")
    manifest = prepare_data()
    quarantine = pd.read_csv("data/hospital/exploration/quarantine.csv")
    assert len(quarantine) == 1
    assert stated.loc[quarantine["path"], ["patient", "split"]].to_numpy().tolist() == [
        [patients[0], "train"]
    ]
    assert quarantine["reason"].tolist() == ["its patient or its content is also in the test set"]
    is_test = stated.loc[manifest["id"], "split"].to_numpy() == "test"
    assert ((manifest["split"] == "test").to_numpy() == is_test).all()


@pytest.mark.usefixtures("images")
def test_a_split_column_without_a_test_set_is_refused():
    edit_table(lambda table: table.assign(split="train"))
    with pytest.raises(PneumoError, match="Expected normal images in the test set"):
        check.run(load_params())


@pytest.mark.usefixtures("images")
def test_check_says_what_it_finds(capsys):
    edit_table(lambda table: table.assign(label=["flu", "flu", *table["label"][2:]]))
    with contextlib.suppress(SystemExit):
        main(["check"])
    lines = capsys.readouterr().out.splitlines()
    assert "data: Chest X-rays from a table, 73 images of 59 patients" in lines
    assert "data: set aside: 2 its label is neither positive nor negative ('flu')" in lines
    assert "data: in the table for subgroups: view, age, sex, site" in lines
    assert any(line.startswith("data: test: ") for line in lines)
    assert not any("outside originals" in line for line in lines)


@pytest.mark.usefixtures("images")
def test_check_and_prepare_agree_where_no_content_is_shared(capsys):
    check.run(load_params())
    lines = capsys.readouterr().out.splitlines()
    manifest = prepare_data()
    for split in ("test",):
        counts = manifest.loc[manifest["split"] == split, "label"].value_counts()
        assert f"data: {split}: {counts['normal']} normal, {counts['pneumonia']} pneumonia" in lines


@pytest.mark.usefixtures("images")
def test_check_names_patients_with_both_labels(capsys):
    edit_table(lambda table: table.assign(label=["pneumonia", *table["label"][1:]]))
    check.run(load_params())
    assert "data: 1 patients have normal images and images of pneumonia" in capsys.readouterr().out


@pytest.mark.usefixtures("images")
def test_check_refuses_a_table_without_patients():
    edit_table(lambda table: table.drop(columns="patient"))
    with pytest.raises(PneumoError, match=r"Expected a column with the patient"):
        check.run(load_params())


@pytest.mark.usefixtures("images")
def test_check_says_that_dvc_does_not_see_other_folders(workspace, capsys):
    (workspace / "originals/hospital").rename(workspace / "archive")
    edit_params(workspace, "folder: originals/hospital", f"folder: {workspace / 'archive'}")
    check.run(load_params())
    assert "outside originals/" in capsys.readouterr().out
    assert (workspace / "originals/.hospital.fingerprint").is_file()


@pytest.mark.usefixtures("images")
def test_download_says_that_images_stay(capsys):
    download.run(load_params())
    assert capsys.readouterr().out == "Chest X-rays from a table: a table of 75 images in data/raw/hospital\n"
