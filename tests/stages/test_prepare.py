import contextlib
import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from hostile import PROCESSED, QUARANTINED, write_hostile_folder, write_hostile_zip
from pneumo.base.config import load_params
from pneumo.base.errors import PneumoError
from pneumo.stages import download, prepare
from workspace import (
    edit_params,
    find_partials,
    make_workspace,
    use_local,
)


def make_printable(name):
    return name.replace("\n", "\\n")


@dataclass(frozen=True)
class Prepared:
    """What download and prepare made of a hostile source; `fates` says what must become of each file."""

    data: Path
    fates: dict[str, str]

    @property
    def manifest(self):
        return pd.read_csv(self.data / "manifest.csv")

    def names(self, fate):
        return {make_printable(name) for name, of_name in self.fates.items() if of_name == fate}


@pytest.fixture(scope="module", params=[write_hostile_folder, write_hostile_zip], ids=["folder", "zip"])
def prepared(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    make_workspace(root)
    source = root / "outside" / "source"
    (source if request.param is write_hostile_folder else source.parent).mkdir(parents=True)
    fates = request.param(source)
    use_local(root, source)
    with contextlib.chdir(root):
        params = load_params()
        download.run(params)
        prepare.run(params)
    return Prepared(root / "data" / "local", fates)


class TestHostileSource:
    def test_every_file_is_processed_or_named(self, prepared):
        with (prepared.data / "exploration/quarantine.csv").open(newline="") as file:
            reasons = {make_printable(row["path"]): row["reason"] for row in csv.DictReader(file)}
        assert set(map(make_printable, prepared.manifest["id"])) == prepared.names(PROCESSED)
        assert set(reasons) == prepared.names(QUARANTINED)
        assert all(reasons.values())
        assert find_partials(prepared.data.parent) == []

    def test_no_patient_and_no_content_is_on_both_sides(self, prepared):
        manifest = prepared.manifest
        assert set(manifest["split"]) == {"train", "val", "test"}
        for key in ("patient", "sha256"):
            assert not manifest[[key, "split"]].drop_duplicates().duplicated(key).any()
        assert ((manifest["split"] == "test") == (manifest["official_split"] == "test")).all()

    def test_odd_files_are_listed(self, prepared):
        exploration = prepared.data / "exploration"
        oddities = pd.read_csv(exploration / "oddities.csv").set_index("id")["reason"]
        assert oddities["train/NORMAL/IM-0905-0001.jpeg"] == "same file as train/NORMAL/IM-0904-0001.jpeg"
        assert "train/NORMAL/black.png" in oddities
        unparsed = pd.read_csv(exploration / "unparsed_names.csv")["id"]
        assert "train/NORMAL/no pattern in this name.jpeg" in set(unparsed)
        assert not unparsed.str.contains("IM-0001").any()


def test_download_says_how_many_files_came(workspace, capsys):
    edit_params(workspace, "n_train: 40, n_val: 8, n_test: 16", "n_train: 6, n_val: 4, n_test: 5")
    download.run(load_params())
    assert capsys.readouterr().out == "Synthetic chest phantoms: 15 files in data/raw/phantom\n"


def test_download_of_a_missing_folder_leaves_what_was_there(workspace):
    old = workspace / "data/raw/local/old.txt"
    old.parent.mkdir(parents=True)
    old.touch()
    use_local(workspace, "nowhere")
    with pytest.raises(PneumoError, match=r"Expected data\.path to exist"):
        download.run(load_params())
    assert old.exists()
    assert find_partials(workspace) == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_prepare_stops_where_a_class_has_no_readable_image(workspace, split):
    source = workspace / "source"
    write_hostile_folder(source)
    for path in (source / split / "PNEUMONIA").iterdir():
        path.write_bytes(b"")
    use_local(workspace, source)
    params = load_params()
    download.run(params)
    with pytest.raises(PneumoError, match=f"readable images in {split}/PNEUMONIA. Received: none"):
        prepare.run(params)
    assert not (workspace / "data/local").exists()
