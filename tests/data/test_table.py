import unicodedata

import pandas as pd
import pytest

from pneumo.base.errors import PneumoError
from pneumo.data.table import (
    Columns,
    LabelColumn,
    PathColumn,
    SplitColumn,
    SubtypeColumn,
    map_rows,
    read_table,
    write_age,
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (folder / name).write_bytes(b"")
    return folder


def map_table(folder, columns=None, **cells):
    return map_rows(pd.DataFrame(cells, dtype=str), columns or Columns(), folder)


def read_reasons(rows):
    return dict(zip(rows.set_aside["path"], rows.set_aside["reason"], strict=True))


def test_columns_of_the_usual_names_are_taken_and_others_ignored(folder):
    rows = map_table(
        folder,
        path=["a.png", "b.png"],
        label=["normal", "pneumonia"],
        patient=["P1", "P 2"],
        split=["train", "test"],
        subtype=["", "viral"],
        view=["PA", "AP"],
        age=["7", "064Y"],
        sex=["F", "M"],
        site=["north", "n/a"],
        remark=["x", "y"],
    )
    assert rows.images.to_dict("list") == {
        "id": ["a.png", "b.png"],
        "file": [str(folder / "a.png"), str(folder / "b.png")],
        "label": ["normal", "pneumonia"],
        "subtype": ["normal", "viral"],
        "patient": ["P1", "P 2"],
        "official_split": ["train", "test"],
        "view": ["PA", "AP"],
        "age": ["7", "64"],
        "sex": ["F", "M"],
        "site": ["north", ""],
    }
    assert rows.set_aside.empty


def test_columns_and_values_are_mapped(folder):
    columns = Columns(
        path=PathColumn("File", "{}.png"),
        label=LabelColumn("Target", positive=["1", "2"], negative=["0"]),
        split=SplitColumn("Set", train=["A"], val=[], test=["B"]),
        subtype=SubtypeColumn("Cause", bacterial=["b"], viral=["v"]),
        patient="Subject",
        view="Projection",
    )
    cells = {"File": ["a", "b", "c"], "Target": ["0", "1", "2"], "Set": ["A", "B", "A"]}
    cells |= {"Cause": ["b", "b", "?"], "Subject": ["1", "2", "3"], "Projection": ["PA", "AP", "LL"]}
    images = map_table(folder, columns, **cells).images
    assert images["label"].tolist() == ["normal", "pneumonia", "pneumonia"]
    assert images["subtype"].tolist() == ["normal", "bacterial", "unknown"]
    assert images["official_split"].tolist() == ["train", "test", "train"]
    assert images["patient"].tolist() == ["1", "2", "3"]
    assert images["view"].tolist() == ["PA", "AP", "LL"]


def test_missing_columns_are_named_with_those_that_are_there(folder):
    with pytest.raises(PneumoError, match=r"Expected a column 'label' in the table\. Received: path, Target"):
        map_table(folder, path=["a.png"], Target=["1"])
    with pytest.raises(PneumoError, match=r"Expected a column 'View' in the table"):
        map_table(folder, Columns(view="View"), path=["a.png"], label=["normal"])
    many = {f"column {number}": ["x"] for number in range(20)}
    with pytest.raises(PneumoError, match=r"column 7 and 12 more\. Name the columns"):
        map_table(folder, **many)


def test_unknown_labels_and_splits_are_set_aside_with_their_values(folder):
    rows = map_table(
        folder,
        path=["a.png", "b.png", "c.png"],
        label=["normal", "effusion", "normal"],
        split=["train", "train", "holdout"],
    )
    assert rows.images["id"].tolist() == ["a.png"]
    assert rows.set_aside.values.tolist() == [  # noqa: PD011
        ["b.png", "its label is neither positive nor negative", "effusion"],
        ["c.png", "its split is none of train, val and test", "holdout"],
    ]


def test_several_findings_in_a_cell(folder):
    label = LabelColumn(separator="|", positive=["Pneumonia"], negative=["No Finding"])
    found = ["Edema|Pneumonia", "No Finding", "Edema", "No Finding|Edema"]
    rows = map_table(folder, Columns(label=label), path=["a.png", "b.png", "c.png", "d.png"], label=found)
    assert rows.images["label"].tolist() == ["pneumonia", "normal"]
    assert rows.set_aside["path"].tolist() == ["c.png", "d.png"]


def test_a_column_a_finding(folder):
    label = LabelColumn(columns=["None", "Pneumonia", "Edema"], positive=["Pneumonia"], negative=["None"])
    cells = {
        "None": ["1.0", "0", "", "1"],
        "Pneumonia": ["0", "True", "-1.0", "0"],
        "Edema": ["", "1", "1", "1"],
    }
    rows = map_table(folder, Columns(label=label), path=["a.png", "b.png", "c.png", "d.png"], **cells)
    assert rows.images["label"].tolist() == ["normal", "pneumonia"]
    assert rows.set_aside["value"].tolist() == ["Edema", "Edema|None"]


def test_files_that_cannot_be_used_are_set_aside(folder, tmp_path):
    (tmp_path / "outside.png").write_bytes(b"")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "notes.txt").write_bytes(b"")
    (folder / "folder.png").mkdir()
    reasons = {
        "missing.png": "no such file",
        "../outside.png": "its path leads out of the folder",
        str(tmp_path / "outside.png"): "its path leads out of the folder",
        "C:\\x.png": "its path leads out of the folder",
        "a\0.png": "its path leads out of the folder",
        "link.png": "a link out of the folder",
        "notes.txt": "not an image file by its name",
        "folder.png": "no such file",
        "n" * 300 + ".png": "no such file",
        "": "no path",
    }
    rows = map_table(folder, path=["a.png", *reasons], label=["normal"] * (len(reasons) + 1))
    assert rows.images["id"].tolist() == ["a.png"]
    expected = {path or f"row {len(reasons) + 1}": reason for path, reason in reasons.items()}
    assert read_reasons(rows) == expected


def test_equal_rows_count_once(folder):
    rows = map_table(folder, path=["a.png", "a.png", "b.png"], label=["normal", "normal", "pneumonia"])
    assert rows.images["id"].tolist() == ["a.png", "b.png"]
    assert rows.set_aside["reason"].tolist() == ["another row of the same file"]


@pytest.mark.parametrize(
    ("column", "values"),
    [("label", ["normal", "pneumonia"]), ("patient", ["1", "2"]), ("split", ["train", "test"])],
)
def test_rows_that_disagree_are_all_set_aside(folder, column, values):
    cells = {"path": ["a.png", "a.png", "b.png"], "label": ["normal"] * 3, "patient": ["1"] * 3}
    cells |= {"split": ["train"] * 3} | {column: [*values, values[0]]}
    rows = map_table(folder, **cells)
    assert rows.images["id"].tolist() == ["b.png"]
    assert rows.set_aside["reason"].tolist() == [f"rows of this file differ in {column}"] * 2


def test_spellings_of_one_path_are_one_file(folder):
    rows = map_table(folder, path=["a.png", "./a.png", ".//a.png"], label=["normal", "normal", "pneumonia"])
    assert rows.images.empty
    assert set(rows.set_aside["reason"]) == {"rows of this file differ in label"}


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_accents_may_be_composed_differently(folder, on_disk, in_table):
    name = "Röntgen 胸部.png"
    (folder / unicodedata.normalize(on_disk, name)).write_bytes(b"")
    rows = map_table(folder, path=[unicodedata.normalize(in_table, name)], label=["normal"])
    assert rows.images["file"].tolist() == [str(folder / unicodedata.normalize(on_disk, name))]


def test_missing_patients_are_set_aside(folder):
    rows = map_table(folder, path=["a.png", "b.png", "c.png"], label=["normal"] * 3, patient=["", "NA", "x"])
    assert rows.images["patient"].tolist() == ["x"]
    assert rows.set_aside["reason"].tolist() == ["no patient"] * 2


def test_patterns_look_in_several_folders(folder):
    for place in ("one/images", "two/images", "other"):
        (folder / place).mkdir(parents=True)
    (folder / "one/images/x.png").write_bytes(b"")
    (folder / "two/images/y.png").write_bytes(b"")
    (folder / "other/z.png").write_bytes(b"")
    for place in ("one", "two"):
        (folder / place / "images/both.png").write_bytes(b"")
    cells = {"path": ["x", "y", "z", "both"], "label": ["normal"] * 4}
    rows = map_table(folder, Columns(path=PathColumn(pattern="*/images/{}.png")), **cells)
    assert rows.images["id"].tolist() == ["one/images/x.png", "two/images/y.png"]
    assert read_reasons(rows) == {"z": "no such file", "both": "several files of this name"}
    rows = map_table(folder, Columns(path=PathColumn(pattern="**/{}.png")), **cells)
    assert "other/z.png" in set(rows.images["id"])


@pytest.mark.parametrize("pattern", ["", "x.png", "{}{}", "{}*.png", "*{}", "../{}", "/{}"])
def test_patterns_are_checked(pattern):
    with pytest.raises(PneumoError, match=r"path\.pattern"):
        PathColumn(pattern=pattern)


def test_lists_of_paths_state_the_split(folder):
    (folder / "train.txt").write_text("a.png\nb.png\n")
    (folder / "test.txt").write_text("c.png\r\n")
    columns = Columns(split=SplitColumn(lists={"train": "train.txt", "test": "test.txt"}))
    rows = map_table(folder, columns, path=["a.png", "b.png", "c.png", "d.png"], label=["normal"] * 4)
    assert rows.images["official_split"].tolist() == ["train", "train", "test"]
    assert read_reasons(rows) == {"d.png": "its split is none of train, val and test"}
    with pytest.raises(PneumoError, match=r"split\.lists: Expected a text file"):
        map_table(
            folder, Columns(split=SplitColumn(lists={"test": "nowhere"})), path=["a.png"], label=["normal"]
        )
    with pytest.raises(PneumoError, match=r"split\.lists: Expected train, val, test\. Received: exam"):
        SplitColumn(lists={"exam": "test.txt"})


def test_values_must_mean_one_class():
    with pytest.raises(PneumoError, match="both of 1"):
        LabelColumn(positive=["1"], negative=["0", "1"])
    with pytest.raises(PneumoError, match=r"in label\.negative\. Received: none"):
        LabelColumn(negative=[])


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("7", "7"),
        ("058Y", "58"),
        ("018M", "1.5"),
        ("026W", "0.5"),
        ("010D", "0.03"),
        ("4.5", "4.5"),
        ("100", "100"),
        ("414", ""),
        ("", ""),
        ("old", ""),
        ("-3", ""),
    ],
)
def test_ages(text, age):
    assert write_age(text) == age


@pytest.mark.parametrize("divider", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_is_read_as_text(tmp_path, divider, encoding):
    path = tmp_path / "table.csv"
    lines = [["path", " patient "], ["Röntgen.png", " 007"], ["b.png", "NA"]]
    path.write_text("\n".join(divider.join(line) for line in lines), encoding=encoding)
    assert read_table(path).to_dict("list") == {"path": ["Röntgen.png", "b.png"], "patient": ["007", "NA"]}


def test_csv_with_a_trailing_comma_in_each_row(tmp_path):
    (tmp_path / "table.csv").write_text('path,"size[a,b]",\na.png,1,\n')
    table = read_table(tmp_path / "table.csv")
    assert table[["path", "size[a,b]"]].to_numpy().tolist() == [["a.png", "1"]]


def test_parquet_is_read_as_csv_would_be(tmp_path):
    polars = pytest.importorskip("polars")
    cells = {
        "path": ["a", "b"],
        "n": [7, None],
        "x": [1.5, 2.0],
        "is": [True, None],
        "gaps": [float("nan"), 3.0],
    }
    polars.DataFrame(cells).write_parquet(tmp_path / "table.parquet")
    assert read_table(tmp_path / "table.parquet").to_dict("list") == {
        "path": ["a", "b"],
        "n": ["7", ""],
        "x": ["1.5", "2"],
        "is": ["True", ""],
        "gaps": ["", "3"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", b"", "an empty file"),
        ("table.csv", b"path,label\n", "with 0 rows"),
        ("table.csv", "path,label\nRöntgen.png,normal\n".encode("latin-1"), "in another encoding"),
        ("table.csv", b'path,label\n"a.png,normal\n', "Cannot read the table"),
        ("table.csv", b"path,label\na.png,normal,x\n", "Cannot read the table"),
        ("table.csv", b"path,label\na.png,normal\nb.png,normal,x\n", "Cannot read the table"),
        ("table.parquet", b"no parquet", "Cannot read the table"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PneumoError, match=message) as error:
        read_table(tmp_path / name)
    assert name in str(error.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(PneumoError, match=r"which is no file\. Correct data\.table"):
        read_table(tmp_path / "nowhere.csv")
