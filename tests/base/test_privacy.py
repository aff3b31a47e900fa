import pandas as pd
import pytest

from pneumo.base.privacy import HIDDEN, hide_name, hide_names, hide_paths, is_private, read_salt

SALT = bytes(32)


@pytest.mark.parametrize(
    ("kind", "stated", "expected"),
    [
        ("local", None, True),
        ("table", None, True),
        ("kaggle", None, False),
        ("phantom", None, False),
        ("local", False, False),
        ("kaggle", True, True),
    ],
)
def test_what_is_private(kind, stated, expected):
    assert is_private(kind, stated) is expected


def test_the_salt_is_drawn_once(tmp_path):
    salts = [read_salt(tmp_path / name / "salt") for name in ("a", "a", "b")]
    assert salts[0] == salts[1] != salts[2]
    assert len(salts[0]) == 32


def test_pseudonyms_depend_on_name_and_salt():
    names = [hide_name(name, SALT) for name in ("Müller_1", "Müller_2", "")]
    assert len(set(names)) == 3
    assert all(len(name) == 16 for name in names)
    assert hide_name("Müller_1", SALT) == names[0]
    assert hide_name("Müller_1", b"x" * 32) != names[0]
    assert hide_name("\udcff", SALT)


def test_names_are_replaced_wherever_they_stand():
    table = pd.DataFrame(
        {
            "id": ["a.dcm", "b.dcm"],
            "patient": ["P1", "P1"],
            "reason": ["same file as Müller.dcm, under another label", "unknown class folder Müller"],
            "p": [0.25, 0.5],
        }
    )
    hidden = hide_names(table, SALT)
    assert hidden["id"].tolist() == [hide_name("a.dcm", SALT), hide_name("b.dcm", SALT)]
    assert hidden["patient"].tolist() == [hide_name("P1", SALT)] * 2
    assert hidden["reason"].tolist() == [
        f"same file as {hide_name('Müller.dcm', SALT)}, under another label",
        "unknown class folder",
    ]
    assert hidden["p"].tolist() == [0.25, 0.5]
    assert table["id"][0] == "a.dcm"
    copies = pd.DataFrame({"test_id": ["a.dcm"], "other_id": ["b.dcm"], "path": ["c"]})
    assert hide_names(copies, SALT).to_numpy().tolist() == [
        [hide_name("a.dcm", SALT), hide_name("b.dcm", SALT), hide_name("c", SALT)]
    ]


def test_places_are_not_shown():
    data = {"source": "table", "name": "x", "folder": "/archive", "table": "t.csv", "patients": "from_table"}
    hidden = hide_paths({"data": data, "external": {"north": "/archive/north"}, "seeds": [0]})
    assert hidden == {
        "data": data | {"folder": HIDDEN, "table": HIDDEN},
        "external": {"north": HIDDEN},
        "seeds": [0],
    }
    assert data["folder"] == "/archive"
