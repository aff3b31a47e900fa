import hashlib
from pathlib import Path

import pandas as pd
import pytest

from hostile import PROCESSED, QUARANTINED, jpeg, write_hostile_folder
from pneumo.base.labels import Subtype
from pneumo.base.tables import read_manifest
from pneumo.data.manifest import COLUMNS, REJECTED_NAME, Name, find_oddities, parse_name, scan_folder
from pneumo.data.split import find_leaks, group_images

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
    images, quarantine = scan_folder(root)
    return root, expected, images, quarantine.set_index("path")["reason"]


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
    assert set(images.columns) == {*COLUMNS, "parsed", "oddity"} - {"split"}

    path = root / "test/PNEUMONIA/person204_virus_2042.jpeg"
    row = rows.loc["test/PNEUMONIA/person204_virus_2042.jpeg"]
    assert row.drop(["oddity"]).to_dict() == {
        "path": path.as_posix(),
        "label": "pneumonia",
        "subtype": "viral",
        "patient": "person204_virus",
        "official_split": "test",
        "width": 96,
        "height": 80,
        "bytes": path.stat().st_size,
        "mode": "L",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parsed": True,
    }
    assert rows.loc["train/NORMAL/rgb.jpeg", "mode"] == "RGB"
    assert rows.loc["train/NORMAL/rotated.jpeg", ["width", "height"]].tolist() == [80, 96]
    assert rows.loc["train/NORMAL/below/and below/IM-0902-0001.jpeg", "patient"] == "IM-0902"


@pytest.mark.parametrize(
    ("id_", "subtype"),
    [
        ("train/PNEUMONIA/unknown_cause.jpeg", "unknown"),
        ("train/NORMAL/16bit.png", "normal"),
    ],
)
def test_an_image_whose_name_says_nothing_is_its_own_patient(hostile, id_, subtype):
    images = hostile[2].set_index("id")
    assert not images.loc[id_, "parsed"]
    assert images.loc[id_, ["patient", "subtype"]].tolist() == [id_, subtype]


def test_manifest_comes_back_from_its_file(hostile, tmp_path):
    images = hostile[2].assign(split="train", patient="0100")[list(COLUMNS)]
    images.to_csv(tmp_path / "manifest.csv", index=False)
    read = read_manifest(tmp_path / "manifest.csv")
    assert read.to_dict("list") == images.to_dict("list")


def test_what_download_rejected_is_listed_too(tmp_path):
    (tmp_path / "train" / "NORMAL").mkdir(parents=True)
    (tmp_path / "train/NORMAL/IM-0001-0001.jpeg").write_bytes(jpeg(1))
    (tmp_path / "train/NORMAL/empty.jpeg").touch()
    (tmp_path / REJECTED_NAME).write_text("path,reason\n../evil.jpeg,outside\n")
    images, quarantine = scan_folder(tmp_path)
    assert images["id"].tolist() == ["train/NORMAL/IM-0001-0001.jpeg"]
    assert quarantine.to_dict("split")["data"] == [
        ["../evil.jpeg", "outside"],
        ["train/NORMAL/empty.jpeg", "empty file"],
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
