import contextlib
import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pneumo.base.config import Run, load_params
from pneumo.base.errors import PneumoError
from pneumo.stages import audit, compare, evaluate
from tiny_project import ROOT
from workspace import (
    PERFECT_TEST,
    TEST,
    VAL,
    WORSE_VAL,
    edit_params,
    find_partials,
    make_workspace,
    tabulate,
    write_run,
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, phantom_data):
    """Compare three of four runs (raw is better on validation, clahe on the test set).

    Returns:
        The project's folder, and what compare printed.
    """
    root = tmp_path_factory.mktemp("compared")
    make_workspace(root)
    shutil.copytree(phantom_data, root / "data")
    edit_params(root, "seeds: [0]", "seeds: [0, 1]")
    with contextlib.chdir(root):
        params = load_params()
        for combo, seed, predictions in (
            ("raw", 0, tabulate(VAL, TEST)),
            ("raw", 1, tabulate(VAL, PERFECT_TEST)),
            ("clahe", 0, tabulate(WORSE_VAL, PERFECT_TEST)),
            ("removed", 0, tabulate(VAL, PERFECT_TEST)),
        ):
            run = Run("tiny", combo, "dense", seed)
            write_run(run, predictions)
            evaluate.run(params, run)
        audit.run(params)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            compare.run(params)
    return root, output.getvalue()


class TestCompare:
    @pytest.fixture
    def report(self, compared, monkeypatch):
        root, _ = compared
        monkeypatch.chdir(root)
        return root / "reports" / "tiny"

    def test_missing_runs_are_named(self, compared, report):
        _, output = compared
        assert output == "3 of 4 runs compared: reports/tiny/index.html\nno result: clahe/dense/1\n"
        page = (report / "index.html").read_text()
        assert "1 run has no result and is in no number here: clahe/dense/1." in page

    def test_leaderboard_is_ordered_by_validation(self, report):
        leaderboard = pd.read_csv(report / "leaderboard.csv")
        assert leaderboard["combo"].tolist() == ["raw", "clahe"]
        assert leaderboard["n_seeds"].tolist() == [2, 1]
        assert leaderboard["roc_auc"].tolist() == pytest.approx([(10 / 12 + 1) / 2, 1], abs=1e-5)
        assert (leaderboard["roc_auc_low"] < leaderboard["roc_auc"] + 1e-9).all()
        assert leaderboard["verdict"][0] == "reference"
        assert leaderboard["val_roc_auc"].tolist() == pytest.approx([1, 7 / 9], abs=1e-5)

    def test_runs_have_a_row_each(self, report):
        runs = pd.read_csv(report / "runs.csv")
        assert runs[["combo", "model", "seed"]].to_numpy().tolist() == [
            ["raw", "dense", 0],
            ["raw", "dense", 1],
            ["clahe", "dense", 0],
        ]
        assert runs["threshold"][0] == 0.4
        assert runs["specificity"][0] == pytest.approx(3 / 4)
        assert runs["specificity_at_0.5"][0] == 1

    def test_classes_have_a_row_each(self, report):
        table = pd.read_csv(report / "classes.csv").set_index(["combo", "class"])
        leaderboard = pd.read_csv(report / "leaderboard.csv").set_index("combo")
        for combo in ("raw", "clahe"):
            sensitivity = table.loc[(combo, "pneumonia"), "sensitivity"]
            assert sensitivity == pytest.approx(leaderboard.loc[combo, "sensitivity"], abs=1e-5)
            specificity = table.loc[(combo, "normal"), "sensitivity"]
            assert specificity == pytest.approx(leaderboard.loc[combo, "specificity"], abs=1e-5)

    def test_histories_of_all_runs_stand_below_each_other(self, report):
        history = pd.read_csv(report / "history.csv")
        assert history.columns[:5].tolist() == ["combo", "model", "seed", "phase", "epoch"]
        assert history[["combo", "seed"]].drop_duplicates().to_numpy().tolist() == [
            ["raw", 0],
            ["raw", 1],
            ["clahe", 0],
        ]

    def test_summary(self, report):
        summary = json.loads((report / "summary.json").read_text())
        assert list(summary) == ["effects", "best", "roc_auc"]
        assert summary["roc_auc"] == {"clahe": {"dense": 1.0}, "raw": {"dense": round((10 / 12 + 1) / 2, 4)}}
        assert summary["best"]["roc_auc"] == summary["roc_auc"]["raw"]["dense"]

    def test_predictions_of_all_runs_stand_side_by_side(self, report):
        table = pd.read_csv(report / "predictions.csv")
        columns = ["raw/dense/0:pneumonia", "raw/dense/1:pneumonia", "clahe/dense/0:pneumonia"]
        assert list(table) == ["id", "split", "patient", "y_true", *columns]
        assert table[columns[0]].tolist() == [
            score for part in (VAL, TEST) for y in part for score in part[y]
        ]

    def test_page_holds_its_pictures(self, report):
        page = (report / "index.html").read_text()
        assert page.count('<img src="data:image/webp;base64,') == page.count("<img ") > 20
        assert "Synthetic data." in page
        assert "removed" not in page
        assert "clahe changes nothing on these images." in page  # the records have the same hash
        assert "dense sees the images as they are" in " ".join(page.split())
        assert find_partials(report) == []

    def test_the_page_is_about_the_best_on_validation(self, report):
        page = (report / "index.html").read_text()
        assert "Best model: dense on raw" in page
        assert (report / "model_card.md").read_text().startswith("# Model card: dense on raw\n")
        assert (report / "checklist.md").read_text().startswith("# Reporting checklist: tiny\n")

    def test_what_one_seed_cannot_show_is_not_judged(self, report):
        leaderboard = pd.read_csv(report / "leaderboard.csv")
        assert leaderboard["verdict"].tolist() == ["reference", "unknown_spread"]

    def test_plots_hold_every_combo(self, report):
        names = {path.name for path in (report / "plots").iterdir()}
        assert names == {"effects.csv", "roc.csv", "confusion.csv"}
        for name in ("roc", "confusion"):
            assert set(pd.read_csv(report / f"plots/{name}.csv")["combo"]) == {"raw", "clahe"}

    def test_every_output_of_the_pipeline_is_written(self, report):
        stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["compare"]
        declared = {Path(next(iter(out))).name for out in [*stage["outs"], *stage["metrics"]]}
        written = {path.name for path in report.iterdir()}
        assert declared <= written
        assert written - declared == {"runs", "seconds.csv"}

    def test_twice_gives_the_same_bytes(self, report):
        def read_all():
            return {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}

        first = read_all()
        compare.run(load_params())
        assert read_all() == first

    def test_no_run_at_all_is_an_error(self, workspace, phantom_data):
        shutil.copytree(phantom_data, workspace / "data")
        with pytest.raises(PneumoError, match=r"predictions of at least one run\. Received: none"):
            compare.run(load_params())
