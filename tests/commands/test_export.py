"""From trained runs to one file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pneumo.base.config import Run, load_params
from pneumo.base.paths import run_dir
from pneumo.base.tables import read_manifest, read_predictions, write_predictions
from pneumo.cli import main
from pneumo.commands.export import join_predictions, score_test
from pneumo.evaluation.experiment import compile_results
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import fit_rule
from pneumo.prediction.bundle import KERAS, ONNX, Bundle
from pneumo.prediction.predictor import Predictor
from workspace import TEST, VAL, tabulate

RUN = ("--run", "raw/cnn/0")
FIRST = Run("tiny", "raw", "cnn", 0)


@pytest.fixture
def project(exported, tmp_path, monkeypatch):
    """Work in a copy of the exported project."""
    root = tmp_path / "project"
    shutil.copytree(exported, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def _here(exported, monkeypatch):
    monkeypatch.chdir(exported)


@pytest.mark.usefixtures("_here")
class TestCard:
    @pytest.fixture
    def card(self, exported):
        return Bundle(exported / "model.pneumo").card

    @pytest.fixture
    def rule(self, _here):
        return fit_rule(
            select_scores(read_predictions(run_dir(FIRST) / "predictions.csv"), "val"),
            load_params().threshold,
        )

    def test_it_holds_what_a_prediction_needs(self, card, rule):
        assert card.classes == ["normal", "pneumonia"]
        assert [step.name for step in card.steps] == ["resize"]
        assert card.size_px == 32
        assert card.rule == rule
        assert card.trained_on == "Synthetic chest phantoms"
        assert card.runs == ["tiny/raw/cnn/0"]
        assert card.provenance == [json.loads((run_dir(FIRST) / "run.json").read_text())]

    def test_its_metrics_are_those_of_the_report(self, card):
        table = read_predictions(run_dir(FIRST) / "predictions.csv")
        (row,) = compile_results({FIRST.key: table}, load_params().threshold, 0.2, "raw", 0.01).runs.to_dict(
            "records"
        )
        assert card.n_test == 16
        for name, metric in card.metrics.items():
            found = [np.nan if value is None else value for value in (metric.value, metric.low, metric.high)]
            np.testing.assert_allclose(found, [row[name], row[f"{name}_low"], row[f"{name}_high"]], rtol=1e-6)
        assert {"roc_auc", "accuracy", "sensitivity", "specificity"} <= set(card.metrics)

    def test_its_metrics_are_of_the_network_that_is_exported(self, exported, tmp_path, card, monkeypatch):
        """Where training predicted the test images otherwise, as a GPU does, the card does not say so."""
        monkeypatch.chdir(shutil.copytree(exported, tmp_path / "project"))
        path = run_dir(FIRST) / "predictions.csv"
        table = read_predictions(path)
        table.loc[table["split"] == "test", ["p_normal", "p_pneumonia"]] = 0.5
        write_predictions(table, path)
        assert main(["export", "again.pneumo", *RUN]) == 0
        again = Bundle(Path("again.pneumo")).card
        assert (again.metrics, again.rule) == (card.metrics, card.rule)


@pytest.mark.usefixtures("_here")
class TestExport:
    def test_twice_gives_the_same_bytes(self, tmp_path):
        assert main(["export", str(tmp_path / "again.pneumo"), *RUN]) == 0
        assert (tmp_path / "again.pneumo").read_bytes() == Path("model.pneumo").read_bytes()

    @pytest.mark.parametrize(
        ("name", "formats"), [("model", [KERAS]), ("both", [KERAS, ONNX]), ("onnx", [ONNX])]
    )
    def test_formats(self, name, formats):
        assert Bundle(Path(f"{name}.pneumo")).formats == formats

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--run", "raw/cnn/1"], "such as raw/cnn/0, clahe/cnn/0. Received: raw/cnn/1"),
            (["--run", "clahe/cnn/0"], "Expected models/tiny/clahe/cnn/0/model.keras"),
            ([], "Expected reports/tiny/leaderboard.csv"),
            ([*RUN, "--no-keras"], "--no-keras: Expected --onnx beside it"),
            ([*RUN, "--ensemble"], "Expected two trained seeds or more of raw/cnn. Received: 1"),
        ],
    )
    def test_what_is_not_there_is_named(self, options, part, capsys, tmp_path):
        assert main(["export", str(tmp_path / "x.pneumo"), *options]) == 1
        assert part in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


class TestFirstOfTheLeaderboard:
    @pytest.mark.parametrize("models", [["cnn", "cnn"], ["dense", "cnn"]])
    def test_it_is_the_default(self, project, models, capsys):
        leaderboard = project / "reports/tiny/leaderboard.csv"
        leaderboard.parent.mkdir(parents=True)
        pd.DataFrame({"combo": ["raw", "clahe"], "model": models}).to_csv(leaderboard, index=False)
        status = main(["export", "best.pneumo"])
        if models[0] == "cnn":
            assert status == 0
            assert Bundle(project / "best.pneumo").card.runs == ["tiny/raw/cnn/0"]
        else:
            assert status == 1
            assert "Expected raw and dense, the first of" in capsys.readouterr().err


def test_images_other_than_those_of_training_are_refused(project, capsys):
    path = project / "data/phantom/raw/images.npy"
    images = np.load(path)
    images[0, 0, 0] ^= 1
    np.save(path, images)
    assert main(["export", "x.pneumo", *RUN]) == 1
    assert "Received: other images" in capsys.readouterr().err
    path.unlink()
    assert main(["export", "x.pneumo", *RUN]) == 1
    assert "to describe the training images. Received: no such file" in capsys.readouterr().err


def test_one_of_a_hundred_validation_images_may_lie_beyond_the_unit_of_novelty(exported):
    manifest = read_manifest(exported / "data/phantom/manifest.csv")
    images = np.load(exported / "data/phantom/raw/images.npy")[
        (manifest["split"] == "val").to_numpy(), ..., 0
    ]
    distances = [each.novelty for each in Predictor(Bundle(exported / "both.pneumo")).judge(images)]
    assert np.quantile(distances, 0.99) == pytest.approx(1, abs=1e-4)


class TestEnsemble:
    def test_predictions_are_the_mean_logit(self):
        tables = [
            tabulate(VAL, TEST),
            tabulate(VAL, {key: [1 - p for p in of_class] for key, of_class in TEST.items()}),
        ]
        joint = join_predictions(tables)
        p, q = (table["p_pneumonia"].to_numpy() for table in tables)
        logit = (np.log(p / (1 - p)) + np.log(q / (1 - q))) / 2
        np.testing.assert_allclose(joint["p_pneumonia"], 1 / (1 + np.exp(-logit)))
        np.testing.assert_allclose(joint["p_normal"], 1 - joint["p_pneumonia"])
        assert joint["id"].equals(tables[0]["id"])

    def test_all_seeds_together_decide_by_their_mean_logit(self, project):
        params = yaml.safe_load((project / "params.yaml").read_text())
        (project / "params.yaml").write_text(yaml.safe_dump(params | {"seeds": [0, 1, 2]}))
        assert main(["train", "--combo", "raw", "--model", "cnn", "--seed", "2"]) == 0
        assert main(["export", "two.pneumo", *RUN, "--ensemble", "--onnx"]) == 0
        bundle = Bundle(project / "two.pneumo")
        assert bundle.card.runs == ["tiny/raw/cnn/0", "tiny/raw/cnn/2"]
        assert len(bundle.card.provenance) == 2
        tables = [
            read_predictions(run_dir(Run("tiny", "raw", "cnn", seed)) / "predictions.csv") for seed in (0, 2)
        ]
        assert np.abs(tables[0]["p_pneumonia"] - tables[1]["p_pneumonia"]).max() > 0.01
        joint = join_predictions(tables)
        assert bundle.card.rule == fit_rule(select_scores(joint, "val"), load_params().threshold)
        scores = (select_scores(joint, split) for split in ("val", "test"))
        for name, metric in score_test(*scores, bundle.card.rule).items():
            values = [
                np.nan if each.value is None else each.value for each in (metric, bundle.card.metrics[name])
            ]
            np.testing.assert_allclose(*values, rtol=1e-5)
        test = joint[joint["split"] == "test"]
        paths = [Path("data/raw/phantom", each) for each in test["id"]]
        expected = bundle.card.rule.calibrate(test[["p_normal", "p_pneumonia"]].to_numpy())[:, 1]
        for suffix in (KERAS, ONNX):
            found = [
                each.verdict.probabilities["pneumonia"] for each in Predictor(bundle, suffix).predict(paths)
            ]
            np.testing.assert_allclose(found, expected, atol=1e-4)
        (project / "models/tiny/raw/cnn/2/predictions.csv").write_text(
            (project / "models/tiny/raw/cnn/2/predictions.csv").read_text().replace("test/", "other/")
        )
        assert main(["export", "x.pneumo", *RUN, "--ensemble"]) == 1
