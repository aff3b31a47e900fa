"""The source `table`: from a table and files to table.csv, and from there to rows of the manifest."""

import os
import warnings
from pathlib import Path

import pandas as pd
import pytest

from dicom_files import dicom
from hostile import draw_image, encode, jpeg
from own_images import plan_images, write_images, write_table
from pneumo.base.artifacts import hash_file
from pneumo.base.errors import PneumoError
from pneumo.data import sources
from pneumo.data.manifest import Patients, scan_table
from pneumo.data.sources import table
from tiny_project import ROOT
from workspace import make_workspace


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    make_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_files(folder, files):
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_small(folder="originals/hospital", header="path,label,patient", rows=None):
    write_files(folder, {f"{name}.jpeg": jpeg(number) for number, name in enumerate("abcd")})
    rows = rows or ["a.jpeg,normal,1", "b.jpeg,pneumonia,2", "c.jpeg,normal,3", "d.jpeg,pneumonia,3"]
    Path(folder, "images.csv").write_text("\n".join([header, *rows]) + "\n")


def load(name="table", folder="originals/hospital", **settings):
    settings = {"table": "images.csv"} | settings if name == "table" else settings
    return sources.load_source(name, {"folder": folder, **settings})


def fetch(source):
    target = Path("target")
    target.mkdir()
    sources.fetch(source, target)
    return target


def scan(source):
    return scan_table(fetch(source), source.patients)


def test_images_stay_where_they_are():
    write_small()
    before = {path: path.stat().st_mtime_ns for path in Path("originals").rglob("*")}
    target = fetch(load())
    assert sorted(path.name for path in target.iterdir()) == ["rejected.csv", "table.csv"]
    rows = pd.read_csv(target / "table.csv", dtype=str)
    assert rows["file"].tolist() == [f"originals/hospital/{name}.jpeg" for name in "abcd"]
    assert rows["sha256"].tolist() == [hash_file(Path(file)) for file in rows["file"]]
    assert {path: path.stat().st_mtime_ns for path in Path("originals").rglob("*")} == before


def test_rows_become_rows_of_the_manifest():
    rows = ["a.jpeg,normal,1", "b.jpeg,pneumonia,2", "c.jpeg,normal,3", "gone.jpeg,normal,4", "d.jpeg,?,5"]
    write_small(rows=rows)
    Path("originals/hospital/c.jpeg").write_bytes(b"no image")
    images, quarantine = scan(load())
    assert images["id"].tolist() == ["a.jpeg", "b.jpeg"]
    assert images["patient"].tolist() == ["1", "2"]
    assert images["path"].tolist() == ["originals/hospital/a.jpeg", "originals/hospital/b.jpeg"]
    assert images[["width", "height"]].to_numpy().tolist() == [[96, 80]] * 2
    assert set(images["official_split"]) == {""}
    reasons = quarantine.set_index("path")["reason"].to_dict()
    assert reasons.pop("c.jpeg").startswith("not a readable")
    assert reasons == {
        "gone.jpeg": "no such file",
        "d.jpeg": "its label is neither positive nor negative",
    }


def test_a_patient_with_two_labels_is_processed():
    write_small(rows=["a.jpeg,normal,1", "b.jpeg,pneumonia,1", "c.jpeg,normal,2"])
    images, _ = scan(load())
    assert images[["patient", "label"]].to_numpy().tolist() == [
        ["1", "normal"],
        ["1", "pneumonia"],
        ["2", "normal"],
    ]


def test_a_table_without_patients_is_refused():
    write_small(header="path,label,remark")
    with pytest.raises(PneumoError, match=r"Expected a column with the patient.*patients: per_image"):
        scan(load())


def test_patients_per_image_leave_out_the_column():
    write_small()
    images, _ = scan(load(patients="per_image"))
    assert (images["patient"] == images["id"]).all()


def test_patients_and_groups_of_dicom_headers():
    elements = {"PatientAge": "036M", "PatientSex": "F"}
    files = {f"{i}.dcm": dicom(draw_image(i), PatientID=f"P{i}", **elements) for i in range(3)}
    write_files("originals/hospital", files)
    table_text = "path,label,view,sex\n0.dcm,normal,AP,\n1.dcm,pneumonia,,M\n2.dcm,normal,,\n"
    Path("originals/hospital/images.csv").write_text(table_text)
    images, _ = scan(load(patients="from_dicom"))
    assert images["patient"].tolist() == ["P0", "P1", "P2"]
    assert images["view"].tolist() == ["AP", "PA", "PA"]  # the table's word counts
    assert images["sex"].tolist() == ["F", "M", "F"]
    assert images["age"].tolist() == ["3", "3", "3"]
    assert images["site"].tolist() == ["", "", ""]


def test_a_table_of_no_usable_row_says_why():
    write_small(rows=["x.jpeg,normal,1", "y.jpeg,normal,1", "a.jpeg,flu,1"])
    with pytest.raises(
        PneumoError, match=r"3 rows, all set aside: 2 no such file \('x.jpeg', 'y.jpeg'\); 1 its"
    ):
        fetch(load())


def test_files_of_the_same_size_and_time_are_not_read_again(monkeypatch):
    write_small()
    files = [f"originals/hospital/{name}.jpeg" for name in "abcd"]
    first = table.fingerprint_files(files)
    read = []
    monkeypatch.setattr(table, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    assert table.fingerprint_files(files) == first
    assert read == []
    os.utime(files[0], (1, 1))
    Path(files[1]).write_bytes(jpeg(77))
    second = table.fingerprint_files(files[:2])
    assert sorted(read) == ["a.jpeg", "b.jpeg"]
    assert second[0] == first[0]
    assert second[1] == hash_file(Path(files[1])) != first[1]
    assert table.fingerprint_files(files) == [*second, *first[2:]]
    assert len(read) == 2


def test_what_lies_elsewhere_is_noted_where_dvc_sees_it(workspace):
    write_small()
    assert not table.note_changes(load().settings, "inside")
    outside = workspace / "archive"
    write_small(outside)
    settings = load(folder=str(outside)).settings
    note = Path("originals/.outside.fingerprint")
    notes = []
    for change in (
        None,
        lambda: os.utime(outside / "a.jpeg", (1, 1)),
        lambda: write_small(outside, rows=["a.jpeg,normal,9"]),
    ):
        if change:
            change()
        assert table.note_changes(settings, "outside")
        notes.append(note.read_text())
    assert len(set(notes)) == 3
    assert table.note_changes(settings, "outside")
    assert note.read_text() == notes[-1]
    assert [path.name for path in Path("originals").iterdir() if path.is_file()] == [note.name]


def test_a_table_elsewhere_is_noted_too(workspace):
    write_small()
    table_path = Path("originals/hospital/images.csv").rename(workspace / "images.csv")
    settings = load(table=str(table_path)).settings
    assert table.note_changes(settings, "apart")
    note = Path("originals/.apart.fingerprint")
    before = note.read_text()
    table_path.write_text(table_path.read_text() + "gone.jpeg,normal,9\n")
    table.note_changes(settings, "apart")
    assert note.read_text() != before


def test_the_file_of_the_source_states_the_defaults():
    settings = load().settings
    assert settings == table.Settings(folder="originals/hospital", table="images.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": ""}, r"Expected data\.folder"),
        ({"folder": "nowhere"}, r"Expected data\.folder to be a folder"),
        ({"table": ""}, r"Expected data\.table or data\.tables\. Received: none"),
        ({"tables": {"train": "x.csv"}}, r"Received: both"),
        ({"table": "", "tables": {"exam": "x.csv"}}, r"tables: Expected train, val, test"),
        ({"test_fraction": 0.0}, r"Expected test_fraction in"),
        ({"patients": "from_name"}, r"Expected patients to be one of from_dicom, from_table, per_image"),
        ({"label": {"column": "Target", "possitive": ["1"]}}, r"possitive"),
    ],
)
def test_settings_are_checked(settings, message):
    write_small()
    with pytest.raises(PneumoError, match=message):
        fetch(load(**settings))


def test_only_tables_have_patients_in_a_table():
    with pytest.raises(PneumoError, match=r"local\.yaml: Expected patients to be one of from_name"):
        sources.load_source("local", {"path": "x", "patients": "from_table"})


@pytest.mark.parametrize(
    ("name", "is_private"),
    [("table", True), ("local", True), ("kaggle", False), ("phantom", False), ("nih", True)],
)
def test_data_of_ones_own_are_private(name, is_private):
    settings = {"table": {"folder": "x", "table": "y"}, "local": {"path": "x"}, "nih": {"folder": "x"}}
    assert sources.load_source(name, settings.get(name, {})).private is is_private
    assert not sources.load_source(name, settings.get(name, {}) | {"private": False}).private


def test_rsna_layout():
    uids = [f"0004cfab-14fd-4e49-80ba-63a80b6bdd{i:02}" for i in range(4)]
    elements = {"PatientSex": "F", "PatientAge": "51"}  # the standard has 051Y, and pydicom warns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = {f"{uid}.dcm": dicom(draw_image(i), PatientID=uid, **elements) for i, uid in enumerate(uids)}
    write_files("rsna/stage_2_train_images", files)
    rows = [
        f"{uids[0]},,,,,0",
        f"{uids[1]},264.0,152.0,213.0,379.0,1",
        f"{uids[1]},562.0,152.0,256.0,453.0,1",
    ]
    rows += [f"{uids[2]},,,,,0", f"{uids[3]},1,1,1,1,1"]
    Path("rsna/stage_2_train_labels.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *rows]))
    images, quarantine = scan(load("rsna", "rsna"))
    assert images["label"].tolist() == ["normal", "pneumonia", "normal", "pneumonia"]
    assert (images["patient"] == images["id"]).all()
    assert set(images["view"]) == {"PA"}
    assert set(images["sex"]) == {"F"}
    assert set(images["age"]) == {"51"}
    assert quarantine["reason"].tolist() == ["another row of the same file"]


def test_rsna_without_what_is_not_normal():
    write_files("rsna/stage_2_train_images", {f"{name}.dcm": dicom(draw_image(1)) for name in "abc"})
    rows = ["a,Normal", "b,Lung Opacity", "c,No Lung Opacity / Not Normal"]
    Path("rsna/info.csv").write_text("\n".join(["patientId,class", *rows]))
    label = {"column": "class", "positive": ["Lung Opacity"], "negative": ["Normal"]}
    images, _ = scan(load("rsna", "rsna", table="info.csv", label=label))
    assert images["label"].tolist() == ["normal", "pneumonia"]


def test_nih_layout():
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    findings = [
        "No Finding",
        "Pneumonia",
        "Infiltration|Pneumonia",
        "Cardiomegaly",
        "No Finding",
        "Pneumonia",
    ]
    names = [f"0000000{i // 2 + 1}_00{i % 2}.png" for i in range(6)]
    ages = ["58", "58", "060Y", "60", "414", "7"]
    rows = [
        f"{name},{finding},{i},{i // 2 + 1},{age},M,PA,2682,2749,0.143,0.143,"
        for i, (name, finding, age) in enumerate(zip(names, findings, ages, strict=True))
    ]
    png = encode(draw_image(1), "PNG")
    write_files("nih", {f"images_{i % 2 + 1:03}/images/{name}": png for i, name in enumerate(names)})
    Path("nih/Data_Entry_2017.csv").write_text("\n".join([header, *rows]) + "\n")
    Path("nih/train_val_list.txt").write_text("\n".join(names[:4]))
    Path("nih/test_list.txt").write_text("\n".join(names[4:]) + "\n")
    images, quarantine = scan(load("nih", "nih"))
    images = images.assign(name=[Path(path).name for path in images["id"]]).sort_values("name")
    assert images["label"].tolist() == ["normal", "pneumonia", "pneumonia", "normal", "pneumonia"]
    assert images["official_split"].tolist() == ["train"] * 3 + ["test"] * 2
    assert images["patient"].tolist() == ["1", "1", "2", "3", "3"]
    assert images["age"].tolist() == ["58", "58", "60", "", "7"]
    assert set(images["view"] + images["sex"]) == {"PAM"}
    assert quarantine["path"].tolist() == [names[3]]


def test_vindr_pcxr_layout():
    diseases = ["No finding", "Bronchitis", "Brocho-pneumonia", "Other disease", "Bronchiolitis"]
    diseases += ["Situs inversus", "Pneumonia", "Pleuro-pneumonia", "Diagphramatic hernia", "Tuberculosis"]
    diseases += [
        "Congenital emphysema",
        "CPAM",
        "Hyaline membrane disease",
        "Mediastinal tumor",
        "Lung tumor",
    ]

    def row(name, disease):
        return ",".join([name, "R1", *("1.0" if each == disease else "0.0" for each in diseases)])

    found = {
        "train": {"a": "No finding", "b": "Pneumonia", "c": "Bronchitis", "d": "Tuberculosis"},
        "test": {"e": "Brocho-pneumonia", "f": "No finding", "g": "Pleuro-pneumonia"},
    }
    for split, images in found.items():
        files = {
            f"{split}/{name}.dicom": dicom(draw_image(1), PatientID="", ViewPosition="", PatientAge="003Y")
            for name in images
        }
        write_files("vindr", files)
        lines = [",".join(["image_id", "rad_ID", *diseases]), *(row(*each) for each in images.items())]
        Path(f"vindr/image_labels_{split}.csv").write_text("\n".join(lines))
    images, quarantine = scan(load("vindr_pcxr", "vindr"))
    assert images.set_index("id")[["label", "official_split", "age"]].to_dict("index") == {
        f"{split}/{name}.dicom": {
            "label": "normal" if disease == "No finding" else "pneumonia",
            "official_split": split,
            "age": "3",
        }
        for split, of_split in found.items()
        for name, disease in of_split.items()
        if disease not in ("Bronchitis", "Tuberculosis")
    }
    assert sorted(quarantine["path"]) == ["c", "d"]


def test_ready_made_files_say_that_they_were_not_tried():
    for name in ("rsna", "nih", "vindr_pcxr"):
        assert "not tried on the real data" in (ROOT / "conf/data" / f"{name}.yaml").read_text()


def test_own_images_as_a_hospital_has_them():
    images = plan_images()
    write_images(Path("originals/hospital"), images)
    write_table(Path("originals/hospital/images.csv"), images)
    found, quarantine = scan(load())
    assert quarantine.empty
    by_id = found.set_index("id")
    for image in images:
        assert by_id.loc[image.path, ["label", "patient", "view", "age", "sex", "site"]].tolist() == [
            image.label,
            image.patient,
            image.view,
            image.age,
            image.sex,
            image.site,
        ]
    assert found["patient"].nunique() == 60
    assert load().patients is Patients.from_table
