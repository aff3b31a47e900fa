"""From a trained run to predictions of image files: export, bundle, predict."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.base.config import load_params
from pneumo.base.decision import scale_temperature
from pneumo.base.errors import PneumoError
from pneumo.cli import main
from pneumo.commands.predict import format_prediction
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import fit_rule
from pneumo.prediction.bundle import load_bundle
from pneumo.prediction.predictor import BATCH_SIZE, Prediction, Predictor

RUN = "raw/cnn/0"


@pytest.fixture(scope="module")
def project(trained, tmp_path_factory):
    """Return a copy of the trained project with its model exported to model.pneumo; for reading only."""
    root = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(trained, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["export", "model.pneumo", "--run", RUN]) == 0
    return root


@pytest.fixture
def _here(project, monkeypatch):
    monkeypatch.chdir(project)


@pytest.fixture
def predictions(project):
    return pd.read_csv(project / "models/tiny/raw/cnn/0/predictions.csv")


@pytest.fixture
def rule(predictions, project, monkeypatch):
    monkeypatch.chdir(project)
    return fit_rule(select_scores(predictions, "val"), load_params().threshold)


@pytest.mark.usefixtures("_here")
class TestExport:
    def test_the_card_holds_what_a_prediction_needs(self, rule):
        _, card = load_bundle(Path("model.pneumo"))
        assert card.classes == ["normal", "pneumonia"]
        assert [step.name for step in card.steps] == ["resize"]
        assert (card.threshold, card.temperature) == (rule.threshold, rule.temperature)
        assert card.trained_on == "Synthetic chest phantoms"
        assert card.run == "tiny/raw/cnn/0"
        assert card.provenance == json.loads(Path("models/tiny/raw/cnn/0/run.json").read_text())

    def test_twice_gives_the_same_bytes(self, tmp_path):
        assert main(["export", str(tmp_path / "again.pneumo"), "--run", RUN]) == 0
        assert (tmp_path / "again.pneumo").read_bytes() == Path("model.pneumo").read_bytes()

    def test_without_a_name_it_is_the_first_of_the_leaderboard(self, tmp_path):
        leaderboard = Path("reports/tiny/leaderboard.csv")
        leaderboard.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"combo": ["raw", "clahe"], "model": ["cnn", "cnn"]}).to_csv(leaderboard, index=False)
        assert main(["export", str(tmp_path / "best.pneumo")]) == 0
        assert load_bundle(tmp_path / "best.pneumo")[1].run == "tiny/raw/cnn/0"
        leaderboard.unlink()

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--run", "raw/cnn/1"], "such as raw/cnn/0, clahe/cnn/0. Received: raw/cnn/1"),
            (["--run", "clahe/cnn/0"], "Expected models/tiny/clahe/cnn/0/model.keras"),
            ([], "Expected reports/tiny/leaderboard.csv"),
        ],
    )
    def test_what_is_not_there_is_named(self, options, part, capsys, tmp_path):
        assert main(["export", str(tmp_path / "x.pneumo"), *options]) == 1
        assert part in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def break_nothing(path):
    path.unlink()


def write_text(path):
    path.write_text("no archive")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def drop_network(path):
    with zipfile.ZipFile(path) as archive:
        card = archive.read("card.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", card)


def spoil_card(path):
    with zipfile.ZipFile(path) as archive:
        network = archive.read("network.keras")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", '{"classes": []}')
        archive.writestr("network.keras", network)


def spoil_network(path):
    with zipfile.ZipFile(path) as archive:
        card = archive.read("card.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", card)
        archive.writestr("network.keras", b"no network")


@pytest.mark.parametrize(
    "spoil", [break_nothing, write_text, cut_short, drop_network, spoil_card, spoil_network]
)
def test_what_is_no_bundle_is_refused_in_one_line(project, tmp_path, spoil):
    path = tmp_path / "model.pneumo"
    shutil.copyfile(project / "model.pneumo", path)
    spoil(path)
    with pytest.raises(PneumoError, match="Expected a model that `pneumo export` wrote") as error:
        load_bundle(path)
    assert "\n" not in str(error.value)


def test_a_bundle_of_another_format_is_refused(project, tmp_path):
    path = tmp_path / "model.pneumo"
    with zipfile.ZipFile(project / "model.pneumo") as source, zipfile.ZipFile(path, "w") as target:
        card = json.loads(source.read("card.json")) | {"format_version": 99}
        target.writestr("card.json", json.dumps(card))
        target.writestr("network.keras", source.read("network.keras"))
    with pytest.raises(PneumoError, match=r"Expected format 1\. Received: 99"):
        load_bundle(path)


@pytest.mark.usefixtures("_here")
class TestPredict:
    def test_probabilities_are_those_of_training_calibrated(self, predictions, rule):
        test = predictions[predictions["split"] == "test"]
        paths = [Path("data/raw/phantom", each) for each in test["id"]] * 3
        assert len(paths) > BATCH_SIZE
        found = list(Predictor(Path("model.pneumo")).predict(paths))
        assert [each.path for each in found] == paths
        raw = test[["p_normal", "p_pneumonia"]].to_numpy()
        expected = np.tile(scale_temperature(raw, rule.temperature)[:, 1], 3)
        probabilities = np.array([each.probabilities["pneumonia"] for each in found])
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        decided = np.where(raw[:, 1] >= rule.threshold, "pneumonia", "normal")
        assert [each.label for each in found] == list(decided) * 3
        # The decision shown is the one that the shown threshold gives.
        threshold = found[0].threshold
        clear = np.abs(probabilities - threshold) > 1e-6
        shown = np.where(probabilities >= threshold, "pneumonia", "normal")
        assert (shown == np.tile(decided, 3))[clear].all()

    def test_a_folder_and_files_are_read_and_bad_ones_named(self, tmp_path, capsys):
        good = Path(next(Path("data/raw/phantom/test/NORMAL").iterdir()))
        (tmp_path / "in").mkdir()
        for name in ("b.jpeg", "a.JPEG"):
            shutil.copyfile(good, tmp_path / "in" / name)
        (tmp_path / "in" / "broken.png").write_bytes(b"no image")
        (tmp_path / "in" / "notes.txt").write_text("left out")
        assert main(["predict", "model.pneumo", str(tmp_path / "in"), str(tmp_path / "gone.png")]) == 1
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        assert [line.partition(":")[0].rpartition("/")[2] for line in lines] == [
            "a.JPEG",
            "b.jpeg",
            "broken.png",
            "gone.png",
        ]
        assert "(probability of pneumonia 0." in lines[0]
        assert ", threshold 0." in lines[0]
        assert lines[2].endswith("not read: not a readable JPEG, PNG, BMP, TIFF, WebP or DICOM image")
        assert lines[3].endswith("not read: No such file or directory")
        assert captured.err == "pneumo: 2 of 4 files could not be read.\n"

    def test_a_folder_without_images_is_an_error(self, tmp_path, capsys):
        assert main(["predict", "model.pneumo", str(tmp_path)]) == 1
        assert "Received: a folder without any" in capsys.readouterr().err


def test_more_classes_have_no_threshold():
    probabilities = {"normal": 0.1, "bacterial": 0.7, "viral": 0.2}
    line = format_prediction(Prediction(Path("a.png"), "bacterial", probabilities, None))
    assert line == "a.png: bacterial (probabilities: normal 0.100, bacterial 0.700, viral 0.200)"
