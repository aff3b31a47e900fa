import shutil
from pathlib import Path

import pandas as pd
import pytest

from pneumo.base.config import Run, load_params
from pneumo.cli import main
from pneumo.stages import audit, compare, evaluate
from workspace import edit_params


class TestExternal:
    @pytest.fixture
    def elsewhere(self, trained, tmp_path, monkeypatch):
        """Work in a copy of the trained project; return a set of the test images and one training image."""
        root = tmp_path / "project"
        shutil.copytree(trained, root)
        monkeypatch.chdir(root)
        source = root / "data/raw/phantom"
        folder = tmp_path / "elsewhere"
        for class_folder in ("NORMAL", "PNEUMONIA"):
            shutil.copytree(source / "test" / class_folder, folder / "hospital" / class_folder.lower())
        manifest = pd.read_csv("data/phantom/manifest.csv")
        learnt = manifest[(manifest["split"] == "train") & (manifest["label"] == "normal")]["path"].iloc[0]
        shutil.copyfile(learnt, folder / "hospital/normal/another_name.png")
        (folder / "hospital/normal/notes.txt").write_text("no image")
        edit_params(root, "external: {}", f"external: {{elsewhere: {folder}}}")
        return folder

    @pytest.mark.usefixtures("elsewhere")
    def test_predictions_are_those_of_the_model(self):
        assert main(["external", "--combo", "raw"]) == 0
        found = pd.read_csv("reports/tiny/external/raw/elsewhere/cnn_0.csv")
        own = pd.read_csv("models/tiny/raw/cnn/0/predictions.csv")
        own = own[own["split"] == "test"]
        assert sorted(found["p_pneumonia"]) == pytest.approx(sorted(own["p_pneumonia"]), abs=1e-5)
        assert sorted(found["patient"]) == sorted(own["patient"])

    @pytest.mark.usefixtures("elsewhere")
    def test_what_was_learnt_from_is_set_aside(self):
        assert main(["external", "--combo", "raw"]) == 0
        set_aside = pd.read_csv("reports/tiny/external/raw/elsewhere/set_aside.csv")
        assert dict(zip(set_aside["path"], set_aside["reason"], strict=True)) == {
            "hospital/normal/another_name.png": "its content is among the training or validation images",
            "hospital/normal/notes.txt": "not an image file by its name",
        }

    @pytest.mark.usefixtures("elsewhere")
    def test_the_page_shows_it_beside_the_official_test_set(self):
        params = load_params()
        run = Run("tiny", "raw", "cnn", 0)
        evaluate.run(params, run)
        audit.run(params)
        for name in ("explain", "external"):
            assert main([name, "--combo", "raw"]) == 0
        compare.run(params)
        external = pd.read_csv("reports/tiny/external.csv")
        leaderboard = pd.read_csv("reports/tiny/leaderboard.csv")
        assert external[["name", "combo", "model", "n_images"]].to_numpy().tolist() == [
            ["elsewhere", "raw", "cnn", 16]
        ]
        # The set holds the same images, so the scores are the same too.
        for metric in ("roc_auc", "accuracy", "sensitivity", "specificity"):
            assert external[metric][0] == pytest.approx(leaderboard[metric][0], abs=1e-4)
        page = Path("reports/tiny/index.html").read_text()
        assert '<th scope="row">elsewhere</th><td>16</td>' in page

    def test_a_set_without_one_class_is_an_error(self, elsewhere, capsys):
        shutil.rmtree(elsewhere / "hospital/pneumonia")
        assert main(["external", "--combo", "raw"]) == 1
        assert "external.elsewhere: Expected images in a folder PNEUMONIA" in capsys.readouterr().err

    def test_without_sets_the_folder_says_so_and_is_not_empty(self, trained, monkeypatch):
        # DVC warns of an empty folder.
        monkeypatch.chdir(trained)
        assert main(["external", "--combo", "raw"]) == 0
        (path,) = Path("reports/tiny/external/raw").iterdir()
        assert path.read_text() == "name\n"
