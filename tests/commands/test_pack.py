"""A report made again from what was packed beside it."""

import contextlib
import io
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.base.errors import PneumoError
from pneumo.base.tables import write_predictions
from pneumo.cli import main
from pneumo.commands.pack import divide_columns, join_columns, read_pack, write_pack
from pneumo.commands.remake import list_packed, remake
from workspace import edit_params

REPORT = Path("reports/tiny")
READ = ("explanations", "external", "runs")


def read_report(folder):
    """Return the content of every file that `compare` writes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "inputs.tar.xz" and path.relative_to(folder).parts[0] not in READ
    }


def list_names(pack):
    with tarfile.open(pack) as archive:
        return archive.getnames()


@pytest.fixture(scope="module")
def packed(finished_project, tmp_path_factory):
    """Return a finished project that is packed; for reading only."""
    root = finished_project.copy(tmp_path_factory.mktemp("packed") / "project").root
    with contextlib.chdir(root):
        assert main(["pack"]) == 0
    return root


@pytest.fixture
def bare(packed, tmp_path, monkeypatch):
    """Work in a copy that has reports/ and conf/, and no data and no models."""
    for name in ("conf", "reports"):
        shutil.copytree(packed / name, tmp_path / name)
    shutil.rmtree(tmp_path / REPORT / "explanations")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_report_is_made_again_to_the_byte(bare):
    before = read_report(REPORT)
    assert {"index.html", "leaderboard.csv", "summary.json", "plots/roc.csv", "audit/findings.csv"} <= set(
        before
    )
    for name in before:
        if name != "seconds.csv":
            (REPORT / name).write_text("old")
    assert main(["remake"]) == 0
    assert read_report(REPORT) == before
    assert sorted(path.name for path in bare.iterdir()) == ["conf", "reports"]


def test_a_pack_has_the_same_bytes_each_time_and_no_network(packed, capsys, monkeypatch):
    packs = [packed / REPORT / "inputs.tar.xz", *(packed / "reports/data-sets").iterdir()]
    assert len(packs) == 2
    before = [pack.read_bytes() for pack in packs]
    monkeypatch.chdir(packed)
    assert main(["pack"]) == 0
    assert [pack.read_bytes() for pack in packs] == before
    assert re.findall(r"^(reports/\S+): \d+\.\d MB$", capsys.readouterr().out, re.M) == [
        pack.relative_to(packed).as_posix() for pack in packs
    ]
    names = [list_names(pack) for pack in packs]
    assert not [name for name in names[0] + names[1] if name.endswith((".keras", "images.npy"))]


def test_tables_of_a_data_set_are_packed_once_for_all_experiments_on_it(packed, tmp_path, monkeypatch):
    root = shutil.copytree(packed, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(root)
    (data_pack,) = Path("reports/data-sets").iterdir()
    tables = list_names(data_pack)
    assert {"data/phantom/manifest.csv", "data/phantom/audit/findings.csv"} <= set(tables)
    assert not set(tables) & set(list_names(REPORT / "inputs.tar.xz"))
    edit_params(root, "experiment: tiny", "experiment: other")
    for folder in ("models", "reports"):
        shutil.copytree(f"{folder}/tiny", f"{folder}/other")
    assert main(["pack"]) == 0
    assert list(Path("reports/data-sets").iterdir()) == [data_pack]
    with Path("data/phantom/audit/findings.csv").open("a") as file:
        file.write("more\n")
    assert main(["pack"]) == 0
    assert len(list(Path("reports/data-sets").iterdir())) == 2
    assert main(["remake", "tiny"]) == 0


@pytest.mark.usefixtures("bare")
def test_the_tables_of_the_data_set_must_be_there():
    (data_pack,) = Path("reports/data-sets").iterdir()
    data_pack.unlink()
    with pytest.raises(
        PneumoError, match=rf"Expected \S+/reports/data-sets/{data_pack.name}, which \S+ is of"
    ):
        remake("tiny", REPORT)


@pytest.mark.usefixtures("bare")
def test_tables_of_another_data_set_under_the_same_name_are_refused():
    (data_pack,) = Path("reports/data-sets").iterdir()
    before = read_report(REPORT)
    write_pack([], data_pack, {"data/phantom/manifest.csv": "other\n"})
    with pytest.raises(PneumoError, match=rf"{data_pack.name} is named by\. Received: that of phantom-"):
        remake("tiny", REPORT)
    assert read_report(REPORT) == before


@pytest.mark.usefixtures("bare")
def test_a_pack_without_its_data_set_is_refused():
    write_pack([], REPORT / "inputs.tar.xz", {"params.yaml": "experiment: tiny"})
    with pytest.raises(PneumoError, match=r"Expected data_pack\.txt in \S+\. Received: none"):
        remake("tiny", REPORT)


@pytest.mark.usefixtures("workspace")
def test_an_experiment_must_have_been_compared_to_be_packed(capsys):
    assert main(["pack"]) == 1
    assert "Expected reports/tiny/leaderboard.csv. Received: no such file" in capsys.readouterr().err


def test_a_private_data_set_is_not_packed(packed, tmp_path, monkeypatch, capsys):
    shutil.copytree(packed, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    edit_params(
        tmp_path / "project",
        "{source: phantom, name: phantom,",
        "{source: phantom, name: phantom, private: true,",
    )
    assert main(["pack"]) == 1
    assert "Expected a data set that is not private. Received: phantom" in capsys.readouterr().err


def test_experiments_are_found_by_their_packs(bare):
    (bare / "reports/other").mkdir()
    assert list_packed() == ["tiny"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"Expected reports/tiny/inputs\.tar\.xz\. Received: no such file"),
        (b"text", "`pneumo pack` wrote"),
    ],
)
@pytest.mark.usefixtures("bare")
def test_a_pack_must_be_there_and_whole(content, message):
    pack = REPORT / "inputs.tar.xz"
    pack.unlink()
    if content is not None:
        pack.write_bytes(content)
    before = read_report(REPORT)
    with pytest.raises(PneumoError, match=message):
        remake("tiny", REPORT)
    assert read_report(REPORT) == before


@pytest.mark.usefixtures("bare")
def test_a_pack_of_another_experiment_is_refused():
    shutil.copytree(REPORT, "reports/other")
    with pytest.raises(PneumoError, match=r"Expected experiment other\. Received: tiny"):
        remake("other", Path("reports/other"))


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt"])
def test_nothing_is_extracted_outside_the_folder(tmp_path, name):
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"text"))
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    with contextlib.suppress(PneumoError):
        read_pack(tmp_path / "x.tar.xz", folder)
    assert not (tmp_path / "in" / "outside.txt").exists()
    assert not (tmp_path / "outside.txt").exists()
    assert not Path("/outside.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_files_are_extracted(tmp_path, kind):
    """Links could replace files of the pack that was read before."""
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as archive:
        for name in ("first", "second"):
            entry = tarfile.TarInfo(name)
            archive.addfile(entry)
        entry.name, entry.type, entry.linkname = "third", kind, "first"
        archive.addfile(entry)
    with pytest.raises(PneumoError, match="third in it is no file under a relative path"):
        read_pack(tmp_path / "x.tar.xz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_absolute_path_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as archive:
        archive.addfile(tarfile.TarInfo("/outside.txt"))
    with pytest.raises(PneumoError, match=r"/outside\.txt in it is no file under a relative path"):
        read_pack(tmp_path / "x.tar.xz", tmp_path / "out")


def draw_predictions(path, n_classes=2, seed=0, n=200):
    """Write predictions as training does, of images with difficult names; return the bytes."""
    names = ("normal", "pneumonia") if n_classes == 2 else ("normal", "bacterial", "viral")
    outputs = np.random.default_rng(seed).beta(0.1, 0.1, (n, n_classes)).astype(np.float32)
    outputs[0] = 1e-12
    first = 1 - outputs[:, 1] if n_classes == 2 else outputs[:, 0]
    ids = [f'test/"Müller, {i}".jpeg' for i in range(n)]
    table = pd.DataFrame({"id": ids, "split": "test", "patient": "p, 1", "fold": 0, "y_true": 1})
    for k, name in enumerate(names):
        table[f"p_{name}"] = first if k == 0 else outputs[:, k]
    write_predictions(table, path)
    return path.read_bytes()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_come_back_to_the_byte(tmp_path, n_classes):
    content = draw_predictions(tmp_path / "predictions.csv", n_classes)
    columns = divide_columns(content)
    names = [line.split(b",")[0].decode() for line in columns.splitlines()]
    expected = {2: ["p_pneumonia"], 3: ["p_normal", "p_bacterial", "p_viral"]}[n_classes]
    assert names == ["id", "split", "patient", "fold", "y_true", *expected]
    assert join_columns(columns) == content


@pytest.mark.parametrize(
    "content",
    [
        b"id,p_normal,p_pneumonia\na,0.3,0.8\n",  # do not add up to 1
        b"id,p_normal,p_pneumonia\na,0.50,0.5\n",  # as nobody writes it
        b"id,p_pneumonia\na,0.25\n",  # the other was never there
        b"id,p_normal,p_pneumonia\na,low,high\n",
        b"id,p_normal,p_pneumonia\r\na,0.5,0.5\r\n",
        b"id,p_normal,p_pneumonia\na,0.5\n",
        b"id,p_pneumonia,p_normal\na,0.25,0.75\n",  # in another order
        b"",
        b"no table",
    ],
)
def test_other_tables_are_packed_as_they_are(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    path = Path("run/predictions.csv")
    path.write_bytes(content)
    write_pack([path], Path("x.tar.xz"))
    read_pack(Path("x.tar.xz"), Path("out"))
    assert [each.name for each in Path("out/run").iterdir()] == ["predictions.csv"]
    assert (Path("out") / path).read_bytes() == content


def test_runs_of_the_same_images_take_the_space_of_their_probabilities(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [Path(f"{seed}/predictions.csv") for seed in range(5)]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        draw_predictions(path, seed=seed, n=2000)
    write_pack(paths, Path("x.tar.xz"))
    assert Path("x.tar.xz").stat().st_size < 5 * 2000 * 4


@pytest.mark.parametrize(
    "content", [b"\n", b"id,a\nsplit\n", b"\xff", b"p_x,fffffffff\n", b"p_x,-1\n", b"p_x,1\n", b"p_x,0.25\n"]
)
def test_damaged_columns_are_refused(tmp_path, content):
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz") as archive:
        entry = tarfile.TarInfo("predictions.csv.columns")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(PneumoError, match="`pneumo pack` wrote"):
        read_pack(tmp_path / "x.tar.xz", tmp_path / "out")
