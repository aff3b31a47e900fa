import contextlib

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.cli import main
from workspace import (
    read_all,
)


@pytest.fixture(scope="module")
def explained(trained):
    """Return the folder that `explain` wrote."""
    with contextlib.chdir(trained):
        assert main(["explain", "--combo", "raw"]) == 0
    return trained / "reports/tiny/explanations/raw"


class TestExplain:
    def test_every_question_is_answered(self, explained):
        table = pd.read_csv(explained / "probes.csv")
        assert table["check"].tolist() == [
            "as_is",
            "without_thorax",
            "thorax_only",
            "without_markers",
            "attention_outside",
            "map_correlation",
        ]
        assert table["value"].between(-1, 1).all()
        assert set(table["model"]) == {"cnn"}

    def test_the_score_as_it_is_is_that_of_the_predictions(self, explained, trained):
        predictions = pd.read_csv(trained / "models/tiny/raw/cnn/0/predictions.csv")
        test = predictions[predictions["split"] == "test"]
        as_is = pd.read_csv(explained / "probes.csv")["value"][0]
        assert as_is == pytest.approx(roc_auc_score(test["y_true"], test["p_pneumonia"]), abs=1e-5)

    def test_the_gallery_is_of_test_images_and_says_what_was_decided(self, explained, trained):
        gallery = pd.read_csv(explained / "gallery.csv")
        predictions = pd.read_csv(trained / "models/tiny/raw/cnn/0/predictions.csv").set_index("id")
        assert (predictions.loc[gallery["id"], "split"] == "test").all()
        is_right = gallery["actual"] == gallery["predicted"]
        assert is_right[gallery["group"] == "certain and right"].all()
        assert not is_right[gallery["group"] == "certain and wrong"].any()
        assert (explained / "cnn_0.png").read_bytes().startswith(b"\x89PNG")

    def test_a_combo_without_models_is_named(self, trained, monkeypatch, capsys):
        monkeypatch.chdir(trained)
        assert main(["explain", "--combo", "clahe"]) == 1
        assert "Expected a trained model of clahe. Received: none." in capsys.readouterr().err

    def test_twice_gives_the_same_bytes(self, explained, trained, monkeypatch):
        monkeypatch.chdir(trained)
        first = read_all(explained)
        assert main(["explain", "--combo", "raw"]) == 0
        assert read_all(explained) == first
