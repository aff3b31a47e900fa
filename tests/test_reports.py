"""Committed reports are what the code writes from what is packed beside them."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from import_graph import ROOT
from pneumo.base.paths import pack_path
from pneumo.commands.pack import DATA_PACK_NAME, DATA_PACKS_DIR
from pneumo.commands.remake import remake

PACKED = sorted(path.parent.name for path in (ROOT / "reports").glob(f"*/{pack_path('x').name}"))
NUMBER = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?")
TEXT_SUFFIXES = (".html", ".md", ".json")


def list_files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def is_ignored(path):
    """Say whether git leaves a file out."""
    return subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False).returncode == 0


@pytest.mark.promise
@pytest.mark.parametrize("experiment", PACKED)
def test_a_committed_report_is_what_the_code_writes(experiment, tmp_path, monkeypatch):
    """Another processor gives other last digits: numbers of tables may differ a bit, those of texts too."""
    monkeypatch.chdir(ROOT)
    committed, made = ROOT / "reports" / experiment, tmp_path / experiment
    made.mkdir()
    shutil.copy(committed / "seconds.csv", made)
    remake(experiment, made)
    # Not written by `compare`.
    own = {"runs", "explanations", "external", "tuning", "learning_rate", "inputs.tar.xz", "report.pdf"}
    # Git ignores the predictions that a pack holds.
    left_out = {path for path in list_files(made) if is_ignored(committed / path)}
    assert left_out <= {Path("predictions.csv")}
    expected = [path for path in list_files(committed) if path.parts[0] not in own and path not in left_out]
    assert [path for path in list_files(made) if path not in left_out] == expected
    for path in expected:
        if path.suffix == ".csv":
            pd.testing.assert_frame_equal(
                pd.read_csv(made / path), pd.read_csv(committed / path), rtol=1e-3, atol=1e-4, obj=str(path)
            )
        elif path.suffix in TEXT_SUFFIXES:
            texts = [NUMBER.sub("0", (folder / path).read_text()) for folder in (made, committed)]
            assert texts[0] == texts[1], f"{path} is older than the code that writes it: run `make reports`"


def test_every_report_can_be_made_again():
    """The demo's from its images, by `make repro`, the others from their packs."""
    for name in ("index.html", "leaderboard.csv"):
        assert {path.parent.name for path in (ROOT / "reports").glob(f"*/{name}")} == {"demo", *PACKED}
    assert "chest_xray" in PACKED


def test_reports_stay_small():
    """Everybody who clones the repository loads them, with all that they were before."""
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "reports")
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in names if name}
    assert sum(sizes.values()) < 15e6
    assert max(size for name, size in sizes.items() if name.endswith(".html")) < 2e6


@pytest.mark.parametrize("experiment", ["demo", *PACKED])
def test_every_row_rests_on_three_seeds_with_an_interval_and_names_its_machine(experiment):
    report = ROOT / "reports" / experiment
    leaderboard, runs = pd.read_csv(report / "leaderboard.csv"), pd.read_csv(report / "runs.csv")
    assert (leaderboard["n_seeds"] >= 3).all()
    assert leaderboard[["roc_auc_low", "roc_auc_high"]].notna().all(axis=None)
    environments = pd.read_csv(report / "environments.csv")
    assert environments[["backend", "device", "processor", "versions", "lock"]].notna().all(axis=None)
    named = {name for names in environments["runs"] for name in names.split(", ")}
    assert named == {f"{row.combo}/{row.model}/{row.seed}" for row in runs.itertuples()}


def test_every_data_set_packed_is_of_a_report():
    names = set()
    for experiment in PACKED:
        with tarfile.open(ROOT / pack_path(experiment)) as archive:
            names.add(archive.extractfile(DATA_PACK_NAME).read().decode())
    assert names == {path.name for path in (ROOT / DATA_PACKS_DIR).iterdir()}
