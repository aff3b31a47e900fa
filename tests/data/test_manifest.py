import hashlib
import re
from pathlib import Path, PurePath

import pandas as pd
import pytest

from hostile import PROCESSED, QUARANTINED, draw_image, good_files, jpeg, write_hostile_folder
from pneumo.base.errors import PneumoError
from pneumo.base.labels import Subtype
from pneumo.base.tables import read_manifest
from pneumo.data.manifest import (
    COLUMNS,
    REJECTED_NAME,
    Name,
    Patients,
    count_unknown_patients,
    find_oddities,
    list_files,
    parse_name,
    scan_class_folders,
    scan_folder,
    tabulate_class_names,
    tabulate_names,
)
from pneumo.data.split import find_leaks, group_images
from pneumo.data.table import GROUP_COLUMNS

OUTSIDE = "README.md"  # of the splits; hostile.py leaves it out of what it expects


@pytest.mark.parametrize(
    ("stem", "patient", "subtype"),
    [
        ("person1_bacteria_1", "person1_bacteria", Subtype.BACTERIAL),
        ("person1946_bacteria_4875", "person1946_bacteria", Subtype.BACTERIAL),
        ("person1_virus_6", "person1_virus", Subtype.VIRAL),
        ("IM-0115-0001", "IM-0115", Subtype.NORMAL),
        ("IM-0666-0001-0002", "IM-0666", Subtype.NORMAL),
        ("NORMAL2-IM-1427-0001", "NORMAL2-IM-1427", Subtype.NORMAL),
        ("NORMAL2-IM-0499-0001-0002", "NORMAL2-IM-0499", Subtype.NORMAL),
        ("NORMAL-1003233-0001", "1003233", Subtype.NORMAL),
        ("BACTERIA-1008087-0001", "1008087", Subtype.BACTERIAL),
        ("VIRUS-0100-0002", "0100", Subtype.VIRAL),
    ],
)
def test_names_of_every_form_are_parsed(stem, patient, subtype):
    assert parse_name(stem) == Name(patient, subtype)


@pytest.mark.parametrize(
    "stem",
    [
        "",
        "unknown_cause",
        "person1_fungus_1",
        "person_virus_1",
        "person1_virus",
        "a person1_virus_1",
        "IM-0115",
        "IM-x-0001",
        "NORMAL3-IM-0115-0001",
        "1IM-0115-0001",
        "virus-100-0002",
        "FUNGUS-100-0002",
        "VIRUS-100",
    ],
)
def test_other_names_are_not_parsed(stem):
    assert parse_name(stem) is None


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "raw"
    root.mkdir()
    expected = write_hostile_folder(root)
    images, quarantine = scan_folder(root, Patients.per_image)
    return root, expected, images, quarantine.set_index("path")["reason"]


def write_files(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_every_hostile_file_is_processed_or_set_aside(hostile):
    _, expected, images, quarantine = hostile
    leaks = find_leaks(group_images(images["patient"], images["sha256"]), images["official_split"])
    set_aside = [*quarantine.index, *images.loc[leaks, "id"]]
    assert sorted([*images.loc[~leaks, "id"], *set_aside]) == sorted([*expected, OUTSIDE])
    received = dict.fromkeys(images["id"], PROCESSED) | dict.fromkeys(set_aside, QUARANTINED)
    assert received == expected | {OUTSIDE: QUARANTINED}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("train/NORMAL/person77_virus_900.jpeg", "its name says viral, its folder NORMAL"),
        ("train/COVID/covid_1.jpeg", "unknown class folder COVID"),
        ("train/no_class_folder.jpeg", "not in a split's class folder"),
        (OUTSIDE, "not in a split's class folder"),
        ("train/NORMAL/notes.txt", "not an image file by its name"),
        ("train/NORMAL/._IM-0001-0001.jpeg", "not an image file by its name"),
        ("train/NORMAL/link_outside.jpeg", "not a regular file"),
        ("train/NORMAL/pipe.jpeg", "not a regular file"),
        ("test/PNEUMONIA/empty.jpeg", "empty file"),
    ],
)
def test_reasons_are_told(hostile, path, reason):
    *_, quarantine = hostile
    assert quarantine[path] == reason


def test_rows_say_what_the_file_and_its_name_say(hostile):
    root, _, images, _ = hostile
    rows = images.set_index("id")
    assert images["id"].is_monotonic_increasing
    assert set(images.columns) == {*COLUMNS, *GROUP_COLUMNS, "parsed", "oddity", "patient_id"} - {"split"}

    path = root / "test/PNEUMONIA/person204_virus_2042.jpeg"
    row = rows.loc["test/PNEUMONIA/person204_virus_2042.jpeg"]
    assert row.drop(["oddity"]).to_dict() == {
        "path": path.as_posix(),
        "label": "pneumonia",
        "subtype": "viral",
        "patient": "test/PNEUMONIA/person204_virus_2042.jpeg",
        "official_split": "test",
        "width": 96,
        "height": 80,
        "bytes": path.stat().st_size,
        "mode": "L",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parsed": True,
        "patient_id": "",
        **dict.fromkeys(GROUP_COLUMNS, ""),
    }
    assert rows.loc["train/NORMAL/rgb.jpeg", "mode"] == "RGB"
    assert rows.loc["train/NORMAL/rotated.jpeg", ["width", "height"]].tolist() == [80, 96]


@pytest.mark.parametrize(
    ("id_", "subtype"),
    [
        ("train/PNEUMONIA/unknown_cause.jpeg", "unknown"),
        ("train/NORMAL/16bit.png", "normal"),
    ],
)
def test_names_of_another_form_say_nothing(hostile, id_, subtype):
    images = hostile[2].set_index("id")
    assert not images.loc[id_, "parsed"]
    assert images.loc[id_, "subtype"] == subtype


# Where patients come from


def test_patients_are_read_from_names(tmp_path):
    write_files(tmp_path, good_files() | {"train/NORMAL/below/and below/IM-0902-0001.jpeg": jpeg(1)})
    images, _ = scan_folder(tmp_path)
    rows = images.set_index("id")
    assert images["parsed"].all()
    assert rows.loc["test/PNEUMONIA/person204_virus_2042.jpeg", "patient"] == "person204_virus"
    assert rows.loc["train/NORMAL/below/and below/IM-0902-0001.jpeg", "patient"] == "IM-0902"
    assert images["patient"].nunique() == 3 * (10 + 2 + 5) + 1
    assert count_unknown_patients(images) == 0


def test_every_image_is_a_patient_of_its_own_where_params_say_so(tmp_path):
    write_files(tmp_path, good_files() | {"test/PNEUMONIA/scan 7.png": jpeg(1)})
    images, _ = scan_folder(tmp_path, Patients.per_image)
    assert images["patient"].tolist() == images["id"].tolist()
    assert count_unknown_patients(images) == len(images) == len(good_files()) + 1
    # Names of a known form keep their other content.
    rows = images.set_index("id")
    assert rows.loc["test/PNEUMONIA/person204_virus_2042.jpeg", "subtype"] == "viral"
    assert rows.loc["test/PNEUMONIA/scan 7.png", "subtype"] == "unknown"


def test_an_experiment_stops_where_names_have_another_form(tmp_path):
    n = 58
    write_files(tmp_path, {f"train/NORMAL/scan_{i:02}.jpeg": jpeg(i) for i in range(n)})
    with pytest.raises(PneumoError) as error:
        scan_folder(tmp_path)
    message = str(error.value)
    assert "Received: 58 of 58 names of another form" in message
    for i in range(3):
        assert f"train/NORMAL/scan_{i:02}.jpeg" in message
    assert "scan_03" not in message
    assert "patients: per_image" in message
    assert "person12_bacteria_34.jpeg" in message


def test_an_experiment_stops_where_some_names_have_another_form(tmp_path):
    other = "train/NORMAL/Röntgen\n胸部.jpeg"
    write_files(tmp_path, good_files() | {other: jpeg(1), "train/NORMAL/notes.txt": b"no image"})
    expected = f"Received: 1 of {len(good_files()) + 1} names of another form, such as {other!a}."
    with pytest.raises(PneumoError, match=re.escape(expected)) as error:
        scan_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_names_of_files_that_are_no_images_do_not_matter(tmp_path):
    strays = ("README.jpeg", "train/loose.jpeg", "train/COVID/covid_1.jpeg", "train/NORMAL/.hidden.jpeg")
    write_files(tmp_path, good_files() | dict.fromkeys(strays, jpeg(1)))
    images, quarantine = scan_folder(tmp_path)
    assert len(images) == len(good_files())
    assert sorted(quarantine["path"]) == sorted(strays)


def test_patients_are_read_from_dicom_files(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import dicom

    pixels = draw_image(1)
    files = {
        "train/NORMAL/1.dcm": dicom(pixels, PatientID="0007", ViewPosition="PA"),
        "train/NORMAL/2.dcm": dicom(pixels // 2, PatientID="0007", ViewPosition="AP"),
        "train/PNEUMONIA/person1_virus_1.dcm": dicom(pixels // 3, PatientID="8"),
    }
    write_files(tmp_path, files)
    images, quarantine = scan_folder(tmp_path, Patients.from_dicom)
    assert quarantine.empty
    assert images["patient"].tolist() == ["0007", "0007", "8"]
    assert images["view"].tolist() == ["PA", "AP", "PA"]
    assert images["mode"].tolist() == ["MONOCHROME2 8-bit"] * 3
    assert count_unknown_patients(images) == 0
    with pytest.raises(PneumoError, match=r"2 of 3 names of another form.*from_dicom"):
        scan_folder(tmp_path)
    assert count_unknown_patients(scan_folder(tmp_path, Patients.per_image)[0]) == 3

    write_files(tmp_path, {"test/NORMAL/3.dcm": dicom(pixels, PatientID=" "), "test/NORMAL/4.jpeg": jpeg(4)})
    with pytest.raises(PneumoError, match=r"2 of 5 images without one, such as 'test/NORMAL/3\.dcm', 'test"):
        scan_folder(tmp_path, Patients.from_dicom)


def test_an_external_set_may_have_names_of_any_form(tmp_path):
    files = {
        "a/normal/scan_1.jpeg": jpeg(1),
        "a/normal/IM-0001-0001.jpeg": jpeg(2),
        "Pneumonia/b/scan_1.jpeg": jpeg(3),
        "Pneumonia/b/person1_virus_2.jpeg": jpeg(4),
    }
    write_files(tmp_path, files)
    images, quarantine = scan_class_folders(tmp_path)
    assert quarantine.empty
    patients = dict(zip(images["id"], images["patient"], strict=True))
    assert patients == {
        "a/normal/scan_1.jpeg": "a/normal/scan_1.jpeg",
        "a/normal/IM-0001-0001.jpeg": "IM-0001",
        "Pneumonia/b/scan_1.jpeg": "Pneumonia/b/scan_1.jpeg",
        "Pneumonia/b/person1_virus_2.jpeg": "person1_virus",
    }
    assert count_unknown_patients(images) == 2
    assert set(images["official_split"]) == {"test"}
    assert images["label"].tolist() == ["pneumonia", "pneumonia", "normal", "normal"]


def test_ids_of_an_external_set_differ(tmp_path):
    write_files(
        tmp_path, {"NORMAL/a/b/1.jpeg": jpeg(1), "a/NORMAL/b/1.jpeg": jpeg(2), "normal/1.jpeg": jpeg(3)}
    )
    images, _ = scan_class_folders(tmp_path)
    assert images["id"].tolist() == ["NORMAL/a/b/1.jpeg", "a/NORMAL/b/1.jpeg", "normal/1.jpeg"]


def test_external_files_without_one_class_are_named(tmp_path):
    write_files(tmp_path, {"1.jpeg": jpeg(1), "a/2.jpeg": jpeg(2), "normal/PNEUMONIA/3.jpeg": jpeg(3)})
    images, quarantine = scan_class_folders(tmp_path)
    assert images.empty
    assert dict(zip(quarantine["path"], quarantine["reason"], strict=True)) == {
        "1.jpeg": "in no folder NORMAL or PNEUMONIA",
        "a/2.jpeg": "in no folder NORMAL or PNEUMONIA",
        "normal/PNEUMONIA/3.jpeg": "in folders of both classes",
    }


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    write_files(tmp_path, good_files())
    name = "train/NORMAL/IM-0001-0001.jpeg"
    read_bytes = Path.read_bytes

    def refuse(path):
        if path == tmp_path / name:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    images, quarantine = scan_folder(tmp_path)
    assert quarantine.to_numpy().tolist() == [[name, "cannot be read: Permission denied"]]
    assert len(images) == len(good_files()) - 1


@pytest.mark.parametrize("patients", [Patients.from_name, Patients.per_image])
def test_names_alone_give_the_same_rows_as_files(tmp_path, patients):
    write_files(tmp_path, good_files() | {"train/NORMAL/person1_virus_1.jpeg": jpeg(1), "README.md": b""})
    images, _ = scan_folder(tmp_path, patients)
    names = tabulate_names([path.relative_to(tmp_path) for path in list_files(tmp_path)], patients)
    pd.testing.assert_frame_equal(names, images[list(names.columns)])


def test_names_alone_need_no_files():
    names = tabulate_class_names(
        map(PurePath, ["x/NORMAL/a.png", "x/b.png", "PNEUMONIA/person1_virus_1.png"])
    )
    assert names["label"].tolist() == ["normal", "pneumonia"]
    assert names["parsed"].tolist() == [False, True]
    empty = tabulate_names([], Patients.from_name)
    assert len(empty) == (~empty["parsed"]).sum() == 0


def test_manifest_comes_back_from_its_file(hostile, tmp_path):
    images = hostile[2].assign(split="train", patient="0100")[list(COLUMNS)]
    images.to_csv(tmp_path / "manifest.csv", index=False)
    read = read_manifest(tmp_path / "manifest.csv")
    assert read.to_dict("list") == images.to_dict("list")


def test_what_download_rejected_is_listed_too(tmp_path):
    (tmp_path / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "train/NORMAL/IM-0001-0001.jpeg").write_bytes(jpeg(1))
    (tmp_path / "train/NORMAL/IM-0002-0001.jpeg").touch()
    (tmp_path / REJECTED_NAME).write_text("path,reason\n../evil.jpeg,outside\nNA,no value\n")
    images, quarantine = scan_folder(tmp_path)
    assert images["id"].tolist() == ["train/NORMAL/IM-0001-0001.jpeg"]
    assert quarantine.to_dict("split")["data"] == [
        ["../evil.jpeg", "outside"],
        ["NA", "no value"],
        ["train/NORMAL/IM-0002-0001.jpeg", "empty file"],
    ]


def test_empty_folder(tmp_path):
    images, quarantine = scan_folder(tmp_path)
    assert len(images) == len(quarantine) == len(find_oddities(images)) == 0


def test_oddities_of_hostile_files(hostile):
    oddities = find_oddities(hostile[2])
    assert set(oddities.itertuples(index=False, name=None)) == {
        ("train/NORMAL/black.png", "nearly constant: grey levels 0 to 0"),
        ("train/NORMAL/one_pixel.png", "small: 1 x 1 px"),
        ("train/NORMAL/ribbon.jpeg", "small: 2000 x 20 px"),
        ("train/NORMAL/IM-0905-0001.jpeg", "same file as train/NORMAL/IM-0904-0001.jpeg"),
        ("train/NORMAL/IM-0906-0001.jpeg", "same file as test/NORMAL/IM-0907-0001.jpeg"),
    }


def test_copies_are_listed_also_under_another_label():
    images = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d", "e"],
            "sha256": ["same", "other", "same", "twice", "twice"],
            "label": ["normal", "normal", "pneumonia", "normal", "normal"],
            "oddity": [None, "small", None, None, "small"],
        }
    )
    assert find_oddities(images).to_dict("split")["data"] == [
        ["b", "small"],
        ["c", "same file as a, under another label"],
        ["e", "same file as d"],
        ["e", "small"],
    ]


def test_paths_lead_to_the_files(hostile):
    assert all(Path(path).is_file() for path in hostile[2]["path"])
