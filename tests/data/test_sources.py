import csv
import io
import os
import shutil
import socket
import time
import zipfile
from pathlib import Path

import pytest
import requests
from kagglesdk import kaggle_env

from hostile import PROCESSED, QUARANTINED, good_files, jpeg, write_hostile_folder, write_hostile_zip
from kaggle_server import replace_kaggle
from pneumo.base.errors import PneumoError
from pneumo.data import sources
from pneumo.data.manifest import Patients
from pneumo.data.sources import kaggle, local
from tiny_project import ROOT

SMALL = {
    "train/NORMAL/IM-0001-0001.jpeg": jpeg(1),
    "train/PNEUMONIA/person1_bacteria_1.jpeg": jpeg(2),
    "train/PNEUMONIA/person1_virus_2.jpeg": jpeg(3),
    "val/NORMAL/IM-0002-0001.jpeg": jpeg(4),
    "test/NORMAL/IM-0003-0001.jpeg": jpeg(5),
    "test/PNEUMONIA/person2_virus_3.jpeg": jpeg(6),
}
MIB = 2**20
SMALL_COUNTS = {
    "train": {"NORMAL": 1, "PNEUMONIA": 2},
    "val": {"NORMAL": 1},
    "test": {"NORMAL": 1, "PNEUMONIA": 1},
}
VERSION_3 = {
    "CellData/chest_xray/train/NORMAL/NORMAL-1003233-0001.jpeg": jpeg(1),
    "CellData/chest_xray/train/PNEUMONIA/BACTERIA-1008087-0001.jpeg": jpeg(2),
    "CellData/chest_xray/test/NORMAL/NORMAL-11419-0001.jpeg": jpeg(3),
    "CellData/chest_xray/test/PNEUMONIA/VIRUS-1001-0001.jpeg": jpeg(4),
    "CellData/OCT/train/CNV/CNV-1-1.jpeg": jpeg(5),
    "CellData/OCT/test/CNV/CNV-2-1.jpeg": jpeg(6),
    "ATTRIBUTION.md": b"Kermany",
}


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "deep" / "inside" / "target"
    folder.mkdir(parents=True)
    return folder


def write_folder(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read_all(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def read_rejected(target):
    with (target / "rejected.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def fetch_local(path, target):
    local.fetch(local.Settings(str(path)), target)
    return read_all(target)


@pytest.fixture(params=["folder", "zip"])
def write_source(request, tmp_path):
    """Write files as a folder or as an archive, so that both are held to the same."""

    def write(files):
        if request.param == "zip":
            return write_zip(tmp_path / "source.zip", files)
        return write_folder(tmp_path / "source", files)

    return write


def test_layout_comes_over_as_it_is(write_source, target):
    assert fetch_local(write_source(SMALL), target) == SMALL


@pytest.mark.parametrize("prefix", ["chest_xray", "a/b/c", "train/of/thought"])
def test_layout_is_found_wherever_it_begins(write_source, target, prefix):
    nested = {f"{prefix}/{name}": content for name, content in SMALL.items()}
    strays = {
        "README.md": b"x",
        f"{prefix}/notes.txt": b"x",
        "train.csv": b"x",
        f"{prefix}/other/x.jpeg": b"x",
    }
    assert fetch_local(write_source(nested | strays), target) == SMALL


def test_kaggles_own_archive_holds_the_set_twice(write_source, target):
    files = {f"chest_xray/{name}": content for name, content in SMALL.items()}
    files |= {f"chest_xray/chest_xray/{name}": b"second copy" for name in SMALL}
    files |= {f"chest_xray/__MACOSX/chest_xray/{name}": b"resource fork" for name in SMALL}
    assert fetch_local(write_source(files), target) == SMALL


def test_version_3_layout(write_source, target):
    expected = {
        name.removeprefix("CellData/chest_xray/"): content
        for name, content in VERSION_3.items()
        if "chest_xray" in name
    }
    assert fetch_local(write_source(VERSION_3), target) == expected


def test_splits_and_classes_get_their_own_case(write_source, target):
    files = {
        "Train/Normal/A.jpeg": b"1",
        "Train/pneumonia/B.jpeg": b"2",
        "TEST/normal/C.jpeg": b"3",
        "TEST/Covid/D.jpeg": b"4",
    }
    assert fetch_local(write_source(files), target) == {
        "train/NORMAL/A.jpeg": b"1",
        "train/PNEUMONIA/B.jpeg": b"2",
        "test/NORMAL/C.jpeg": b"3",
        "test/Covid/D.jpeg": b"4",
    }


def test_files_of_any_kind_come_along(write_source, target):
    odd = {
        "train/.DS_Store": b"1",
        "train/loose.jpeg": b"2",
        "train/COVID/covid.jpeg": b"3",
        "train/NORMAL/below/further/x.txt": b"4",
        "train/NORMAL/Röntgen 胸部.jpeg": b"5",
        "train/NORMAL/normal": b"",
    }
    assert fetch_local(write_source(SMALL | odd), target) == SMALL | odd


def test_places_are_given_once(write_source, target):
    files = SMALL | {"TRAIN/normal/IM-0001-0001.jpeg": b"a second one"}
    received = fetch_local(write_source(files), target)
    assert list(read_rejected(target).values()) == ["its place is taken by another file"]
    assert received.keys() == SMALL.keys() | {"rejected.csv"}


def test_several_layouts_are_refused(write_source, target):
    files = {f"{folder}/{name}": content for name, content in SMALL.items() for folder in ("a", "b")}
    with pytest.raises(PneumoError, match=r"Received: several such folders: a, b\."):
        fetch_local(write_source(files), target)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"images/IM-0001-0001.jpeg": b""},
        {"train/a.jpeg": b"", "test/b.jpeg": b""},
        {"train/CATS/a.jpeg": b"", "test/DOGS/b.jpeg": b""},
    ],
)
def test_a_source_without_the_layout_is_refused(write_source, target, files, tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(PneumoError, match="Expected one folder with train/ and test/") as error:
        fetch_local(write_source(files), target)
    assert f"Received: {len(files)} files elsewhere" in str(error.value)


def test_a_source_without_a_test_set_is_refused(write_source, target):
    files = {name: content for name, content in SMALL.items() if not name.startswith("test/")}
    with pytest.raises(PneumoError, match=r"Received: train, val alone in xrays/\."):
        fetch_local(write_source({f"xrays/{name}": content for name, content in files.items()}), target)


def test_windows_archives_may_divide_by_backslash(tmp_path, target):
    files = {f"chest_xray\\{name}".replace("/", "\\"): content for name, content in SMALL.items()}
    assert fetch_local(write_zip(tmp_path / "archive.zip", files), target) == SMALL


def test_path_must_be_given_and_exist(tmp_path, target):
    with pytest.raises(
        PneumoError, match=r"Set data: {source: local, name: local, path: \.\.\.} in params\.yaml"
    ):
        local.Settings()
    with pytest.raises(PneumoError, match=r"Expected data\.path to exist"):
        fetch_local(tmp_path / "missing", target)
    whole = write_zip(tmp_path / "whole.zip", SMALL).read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(PneumoError, match=r"is neither\. An archive of which only a part"):
            fetch_local(tmp_path / "file", target)


def test_damaged_directory_of_an_archive(tmp_path, target):
    path = write_zip(tmp_path / "archive.zip", SMALL)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x03"))
    with pytest.raises(PneumoError, match="Cannot read the archive"):
        fetch_local(path, target)


def test_home_folder_is_known(tmp_path, target, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "xrays", SMALL)
    assert fetch_local("~/xrays", target) == SMALL


def test_the_originals_are_only_read(tmp_path, target):
    source = write_folder(tmp_path / "source", SMALL)
    fetch_local(source, target)
    for name in SMALL:
        (target / name).write_bytes(b"changed")
    assert read_all(source) == SMALL


def test_hostile_folder_comes_over_or_is_named(tmp_path, target):
    source = tmp_path / "source"
    expected = write_hostile_folder(source)
    fetch_local(source, target)
    rejected = read_rejected(target)
    special = ("link_outside.jpeg", "link_nowhere.jpeg", "link_to_itself.jpeg", "link_to_parent", "pipe.jpeg")
    assert set(rejected) == {f"train/NORMAL/{name}" for name in special}
    assert rejected["train/NORMAL/link_outside.jpeg"] == "a link out of the folder"
    assert all(expected[name] == QUARANTINED for name in rejected)
    regular = expected.keys() - rejected.keys()
    assert {name for name in read_all(target) if name != "rejected.csv"} == regular
    assert not any(path.is_symlink() for path in target.rglob("*"))


def test_links_within_the_folder_are_followed(tmp_path, target):
    source = write_folder(tmp_path / "source", SMALL)
    (source / "train/NORMAL/again.jpeg").symlink_to("IM-0001-0001.jpeg")
    received = fetch_local(source, target)
    assert received["train/NORMAL/again.jpeg"] == SMALL["train/NORMAL/IM-0001-0001.jpeg"]
    assert not (target / "train/NORMAL/again.jpeg").is_symlink()


def test_names_that_are_not_utf8_are_rejected(tmp_path, target):
    source = write_folder(tmp_path / "source", SMALL)
    Path(os.fsdecode(os.fsencode(source) + b"/train/NORMAL/\xff.jpeg")).write_bytes(b"")
    fetch_local(source, target)
    assert read_rejected(target) == {"train/NORMAL/\\udcff.jpeg": "name is not UTF-8"}


@pytest.mark.parametrize("method", ["is_file", "read_bytes"])
def test_files_that_cannot_be_read_are_rejected(tmp_path, target, monkeypatch, method):
    source = write_folder(tmp_path / "source", SMALL)
    name = "train/NORMAL/IM-0001-0001.jpeg"
    original = getattr(Path, method)

    def refuse(path):
        if path == source / name:
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(Path, method, refuse)
    local.fetch(local.Settings(str(source)), target)
    assert read_rejected(target) == {name: "cannot be read: Permission denied"}
    assert (target / "train/PNEUMONIA/person1_virus_2.jpeg").is_file()


def test_large_files_are_rejected(tmp_path, target, monkeypatch):
    monkeypatch.setattr(local, "_MAX_FILE_BYTES", 2**20)
    large = {"train/NORMAL/large.jpeg": bytes(2**20 + 1), "train/NORMAL/fits.jpeg": bytes(2**20)}
    for path in (write_folder(tmp_path / "s", SMALL | large), write_zip(tmp_path / "s.zip", SMALL | large)):
        folder = target / path.name
        folder.mkdir()
        assert "train/NORMAL/fits.jpeg" in fetch_local(path, folder)
        assert read_rejected(folder) == {"train/NORMAL/large.jpeg": "larger than 1 MB"}


def test_hostile_zip_leaves_nothing_outside_the_target(tmp_path, target):
    path = tmp_path / "hostile.zip"
    expected = write_hostile_zip(path)
    before = {found for found in tmp_path.rglob("*") if not found.is_relative_to(target)}
    received = fetch_local(path, target)

    assert {found for found in tmp_path.rglob("*") if not found.is_relative_to(target)} == before
    assert not any(found.is_symlink() for found in target.rglob("*"))
    rejected = read_rejected(target)
    assert all(expected[name] == QUARANTINED for name in rejected)
    # Whatever becomes of a file, it is known about: it has come over, or it is named.
    assert expected.keys() == (received.keys() - {"rejected.csv"}) | rejected.keys()
    assert {name for name, fate in expected.items() if fate == PROCESSED} <= received.keys()
    assert all(received[name] == content for name, content in good_files().items())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.jpeg", "path leads out of the data set"),
        ("/evil.jpeg", "path leads out of the data set"),
        ("C:/evil.jpeg", "path leads out of the data set"),
        ("//server/share/evil.jpeg", "path leads out of the data set"),
        ("train/NORMAL/link.jpeg", "a link or a device, not a file"),
        ("train/NORMAL/device.jpeg", "a link or a device, not a file"),
        ("train/NORMAL/encrypted.jpeg", "encrypted"),
        ("train/NORMAL/bomb.bmp", "compressed more than 100 to 1"),
        ("train/NORMAL/wrong_checksum.jpeg", "damaged in the archive: Bad CRC-32"),
        ("train/NORMAL/says_less.jpeg", "damaged in the archive: Bad CRC-32"),
        ("train/NORMAL/says_more.jpeg", "damaged in the archive: "),
        ("train/NORMAL/unknown_method.jpeg", "damaged in the archive: "),
        ("TRAIN/normal/IM-0001-0001.jpeg", "its place is taken by another file"),
        ("train/NORMAL/IM-0001-0001.jpeg/inside_a_file.jpeg", "its place is taken by another file"),
    ],
)
def test_reasons_in_a_hostile_zip(hostile_zip_rejected, name, reason):
    assert hostile_zip_rejected[name].startswith(reason)


@pytest.fixture(scope="module")
def hostile_zip_rejected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    write_hostile_zip(folder / "hostile.zip")
    (folder / "target").mkdir()
    fetch_local(folder / "hostile.zip", folder / "target")
    return read_rejected(folder / "target")


def test_a_name_that_comes_twice_in_a_zip(tmp_path, target):
    path = write_zip(tmp_path / "archive.zip", SMALL)
    name = "train/NORMAL/IM-0001-0001.jpeg"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"a second one")
    assert fetch_local(path, target)[name] == SMALL[name]
    assert read_rejected(target) == {name: "its place is taken by another file"}


def test_a_zero_byte_in_a_name_of_a_zip(tmp_path, target):
    path = tmp_path / "archive.zip"
    name = "train/NORMAL/zero?.jpeg"
    content = write_zip(path, SMALL | {name: b"x"}).read_bytes()
    path.write_bytes(content.replace(name.encode(), name.replace("?", "\0").encode()))
    assert "train/NORMAL/zero" not in fetch_local(path, target)
    assert read_rejected(target) == {"train/NORMAL/zero\\x00.jpeg": "name holds a zero byte"}


def test_an_archive_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path, target, monkeypatch):
    path = write_zip(tmp_path / "archive.zip", SMALL)
    usage = type("Usage", (), {"free": sum(map(len, SMALL.values())) - 1})
    monkeypatch.setattr(local.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PneumoError, match="of free disk space"):
        fetch_local(path, target)
    assert read_all(target) == {}
    usage.free += 1
    assert fetch_local(path, target) == SMALL


@pytest.mark.parametrize("name", ["kaggle", "kaggle_labeled", "local", "phantom"])
def test_every_source_loads(name):
    source = sources.load_source(name, {"path": "somewhere"} if name == "local" else {})
    assert source.title
    assert source.synthetic == (name == "phantom")


@pytest.mark.parametrize(
    ("name", "n_train", "n_val", "n_test"), [("kaggle", 5216, 16, 624), ("kaggle_labeled", 5232, 0, 624)]
)
def test_known_counts(name, n_train, n_val, n_test):
    counts = sources.load_source(name, {}).settings.counts
    totals = {split: sum(classes.values()) for split, classes in counts.items()}
    assert {"val": 0} | totals == {"train": n_train, "val": n_val, "test": n_test}


def test_fetch_goes_to_the_kind_of_source(tmp_path, target):
    path = write_zip(tmp_path / "archive.zip", SMALL)
    sources.fetch(sources.load_source("local", {"path": str(path)}), target)
    assert read_all(target) == SMALL


@pytest.mark.parametrize("name", ["kaggle", "kaggle_labeled", "local", "phantom"])
def test_patients_are_read_from_names_unless_params_say_otherwise(name):
    required = {"path": "somewhere"} if name == "local" else {}
    assert sources.load_source(name, required).patients is Patients.from_name
    changed = sources.load_source(name, required | {"patients": "per_image"})
    assert changed.patients is Patients.per_image
    with pytest.raises(PneumoError, match=rf"conf/data/{name}\.yaml: patients: .*'per_folder'.*from_name"):
        sources.load_source(name, required | {"patients": "per_folder"})


def test_patients_have_a_default(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    text = "kind: local\ntitle: mine\nsynthetic: false\npath: somewhere\n"
    (tmp_path / "conf/data/mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert sources.load_source("mine", {}).patients is Patients.from_name


def test_types_of_common_keys_are_checked():
    with pytest.raises(PneumoError, match=r"conf/data/phantom\.yaml: synthetic"):
        sources.load_source("phantom", {"synthetic": "perhaps"})


# Places without reading files


@pytest.mark.parametrize("prefix", ["", "a/b/"])
def test_places_are_those_that_fetch_gives(write_source, target, prefix):
    files = {f"{prefix}{name}": content for name, content in (SMALL | {"Test/normal/x.txt": b"x"}).items()}
    path = write_source(files | {"README.md": b"x"})
    source = sources.load_source("local", {"path": str(path)})
    places = sources.list_places(source)
    assert sorted(map(str, places)) == sorted(fetch_local(path, target))


def test_places_are_listed_once(write_source):
    path = write_source(SMALL | {"TRAIN/normal/IM-0001-0001.jpeg": b"a second one"})
    places = sources.list_places(sources.load_source("local", {"path": str(path)}))
    assert sorted(map(str, places)) == sorted(SMALL)


def test_places_read_no_file(tmp_path, monkeypatch):
    for path in (write_folder(tmp_path / "source", SMALL), write_zip(tmp_path / "source.zip", SMALL)):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_bytes", pytest.fail)
            patched.setattr(zipfile.ZipFile, "open", pytest.fail)
            places = sources.list_places(sources.load_source("local", {"path": str(path)}))
        assert len(places) == len(SMALL)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_places_of_nothing_are_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    source = sources.load_source("local", {"path": str(tmp_path / name)})
    with pytest.raises(PneumoError, match=r"Expected data\.path to exist|Expected one folder with train/"):
        sources.list_places(source)


def test_places_of_phantoms_are_those_drawn(target):
    source = sources.load_source("phantom", {"n_train": 10, "n_val": 4, "n_test": 6})
    sources.fetch(source, target)
    assert sorted(map(str, sources.list_places(source))) == sorted(read_all(target))


def test_places_on_kaggle_are_not_known_before_the_download():
    assert sources.list_places(sources.load_source("kaggle", {})) is None


def test_unknown_kinds_are_refused():
    with pytest.raises(
        PneumoError, match=r"Expected `kind` to be one of phantom, kaggle, local, table\. Received: ftp"
    ):
        sources.load_source("kaggle", {"kind": "ftp"})


def test_a_file_without_what_every_source_has_is_refused(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/data/mine.yaml").write_text("kind: local\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PneumoError, match=r"conf/data/mine\.yaml: missing title, synthetic"):
        sources.load_source("mine", {"path": "here"})


def test_local_source_asks_for_a_path():
    with pytest.raises(PneumoError, match=r"Expected data\.path"):
        sources.load_source("local", {})


@pytest.mark.parametrize(
    "handle", ["", "owner", "a/b/c", "a/b/versions/x", "https://www.kaggle.com/a/b", "../a"]
)
def test_wrong_handles_are_refused(handle):
    with pytest.raises(PneumoError, match="Expected handle as"):
        kaggle.Settings(handle, {})


@pytest.mark.parametrize("counts", [{"training": {"NORMAL": 1}}, {"train": {"normal": 1}}])
def test_wrong_counts_are_refused(counts):
    with pytest.raises(PneumoError, match="Expected counts of train, val, test, each of NORMAL, PNEUMONIA"):
        kaggle.Settings("owner/xrays", counts)


@pytest.fixture
def fake_kaggle(tmp_path, monkeypatch):
    files = {f"chest_xray/{name}": content for name, content in SMALL.items()}
    files["chest_xray/train/.DS_Store"] = b"\x00\x00\x00\x01Bud1"
    files["chest_xray/padding"] = bytes(3 * MIB)  # kagglehub keeps whole MiB of a broken download
    archive = io.BytesIO()
    write_zip(archive, files)
    with replace_kaggle(archive.getvalue(), monkeypatch, tmp_path) as server:
        yield server


def fetch_kaggle(target, handle="owner/xrays", counts=SMALL_COUNTS):
    kaggle.fetch(kaggle.Settings(handle, counts), target)
    return {name: content for name, content in read_all(target).items() if name != "train/.DS_Store"}


def test_kaggle_without_an_account(fake_kaggle, target, capsys):
    assert fetch_kaggle(target) == SMALL
    assert fake_kaggle.calls == ["GetDataset", "DownloadDataset"]
    assert fake_kaggle.requests[1] == {
        "ownerSlug": "owner",
        "datasetSlug": "xrays",
        "datasetVersionNumber": 2,
    }
    assert fake_kaggle.credentials == ["", ""]
    assert capsys.readouterr().out == ""


def test_kaggle_credentials_are_used_where_there_are_some(fake_kaggle, target, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    fetch_kaggle(target)
    assert fake_kaggle.credentials == ["Bearer secret"] * 2


def test_kaggle_downloads_once(fake_kaggle, target, tmp_path):
    fetch_kaggle(target, "owner/xrays/versions/2")
    assert fake_kaggle.calls == ["DownloadDataset"]
    second = tmp_path / "second"
    second.mkdir()
    assert fetch_kaggle(second, "owner/xrays/versions/2") == SMALL
    assert fake_kaggle.calls == ["DownloadDataset"]


@pytest.mark.usefixtures("fake_kaggle")
def test_kaggle_files_take_no_space_twice_on_one_disk(target):
    fetch_kaggle(target)
    assert (target / "train/NORMAL/IM-0001-0001.jpeg").stat().st_nlink == 2


@pytest.mark.usefixtures("fake_kaggle")
def test_kaggle_files_are_copied_across_disks(target, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert fetch_kaggle(target) == SMALL
    assert (target / "train/NORMAL/IM-0001-0001.jpeg").stat().st_nlink == 1


def test_kaggle_download_continues_where_it_broke(fake_kaggle, target):
    fake_kaggle.break_after_bytes = MIB + 1000
    with pytest.raises(PneumoError, match="run again; an interrupted download continues") as error:
        fetch_kaggle(target)
    assert "https://www.kaggle.com/datasets/owner/xrays and set data: {source: local" in str(error.value)
    assert read_all(target) == {}
    assert fetch_kaggle(target) == SMALL
    assert fake_kaggle.ranges[-1] == f"bytes={MIB}-"


def test_kaggle_download_with_a_wrong_checksum_begins_anew(fake_kaggle, target):
    whole = fake_kaggle.archive
    fake_kaggle.break_after_bytes = MIB + 1000
    with pytest.raises(PneumoError):
        fetch_kaggle(target)
    fake_kaggle.archive = bytes(1000) + whole[1000:]
    with pytest.raises(PneumoError, match=r"Cannot use owner/xrays from Kaggle.*MD5"):
        fetch_kaggle(target)
    fake_kaggle.archive = whole
    assert fetch_kaggle(target) == SMALL


def test_kaggle_download_that_is_no_archive(fake_kaggle, target):
    fake_kaggle.archive = b"<html>Please sign in to the hotel's network</html>"
    with pytest.raises(PneumoError, match=r"If the download is damaged, delete .*xrays and run again"):
        fetch_kaggle(target)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "no access (401)"),
        (403, "no access (403)"),
        (404, "no such data set (404). Correct `handle` in conf/data/"),
        (418, "as the test wants it"),
        (429, "too many requests (429)"),
        (500, "an error of its server (500)"),
        (503, "an error of its server (503)"),
    ],
)
@pytest.mark.parametrize("handle", ["owner/xrays", "owner/xrays/versions/2"])
def test_kaggle_refusals_are_explained(fake_kaggle, target, status, reason, handle):
    fake_kaggle.status = status
    with pytest.raises(PneumoError) as error:
        fetch_kaggle(target, handle)
    assert str(error.value).startswith(f"Kaggle refused {handle}: {reason}")
    assert "data: {source: local, name: local, path: <archive>}" in str(error.value)


@pytest.mark.usefixtures("fake_kaggle")
def test_kaggle_out_of_reach(target, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"  # nothing listens there
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, endpoint)
        with pytest.raises(PneumoError, match=r"The connection to Kaggle failed.*refused"):
            fetch_kaggle(target)


@pytest.mark.usefixtures("fake_kaggle")
@pytest.mark.parametrize("handle", ["owner/xrays", "owner/xrays/versions/2"])
def test_kaggle_that_does_not_answer(target, monkeypatch, handle):
    monkeypatch.setattr(kaggle, "_READ_TIMEOUT_S", 0.2)
    send = requests.Session.send
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, endpoint)
        start = time.monotonic()
        with pytest.raises(PneumoError, match=r"The connection to Kaggle failed.*timed out"):
            fetch_kaggle(target, handle)
    assert time.monotonic() - start < 10
    assert requests.Session.send is send


def test_kaggle_says_what_it_downloads(fake_kaggle, target, capsys, tmp_path):
    fetch_kaggle(target)
    assert fake_kaggle.calls
    cache = tmp_path / "KAGGLEHUB_CACHE/datasets/owner/xrays"
    assert f"owner/xrays from Kaggle, in {cache}" in capsys.readouterr().err


@pytest.mark.usefixtures("fake_kaggle")
def test_kaggle_cache_that_cannot_be_written(target, tmp_path):
    (tmp_path / "KAGGLEHUB_CACHE").write_text("a file where the folder should be")
    with pytest.raises(PneumoError, match=r"Cannot store the download in .*set KAGGLEHUB_CACHE"):
        fetch_kaggle(target)


@pytest.mark.usefixtures("fake_kaggle")
def test_kaggle_credentials_that_cannot_be_read(target, tmp_path):
    (tmp_path / "KAGGLE_CONFIG_DIR").mkdir()
    (tmp_path / "KAGGLE_CONFIG_DIR" / "kaggle.json").write_text("no JSON")
    with pytest.raises(PneumoError, match="Invalid Kaggle credentials file"):
        fetch_kaggle(target)


@pytest.mark.usefixtures("fake_kaggle")
def test_kaggle_counts_are_checked(target):
    counts = {"train": {"NORMAL": 1, "PNEUMONIA": 3}, "test": {"NORMAL": 1, "PNEUMONIA": 1}}
    with pytest.raises(PneumoError) as error:
        fetch_kaggle(target, counts=counts)
    assert "Expected 6 images in owner/xrays" in str(error.value)
    assert "Received: train/PNEUMONIA 2 instead of 3, val/NORMAL 1 instead of 0." in str(error.value)
