import numpy as np
import pandas as pd
import pytest

from pneumo.base.config import Run, load_params
from pneumo.base.paths import run_report_dir
from pneumo.stages import evaluate
from workspace import PERFECT_TEST, TEST, VAL, edit_params, read_metrics, tabulate, write_run


@pytest.mark.usefixtures("workspace")
class TestEvaluate:
    @pytest.fixture
    def run(self):
        run = Run("tiny", "raw", "dense", 0)
        write_run(run, tabulate(VAL, TEST))
        return run

    def test_threshold_comes_from_validation(self, run):
        evaluate.run(load_params(), run)
        result = read_metrics(run)
        assert result["threshold"] == 0.4
        assert (result["n_val"], result["n_test"]) == (6, 7)
        assert result["val"]["accuracy"] == 1
        assert result["test"]["roc_auc"] == pytest.approx(10 / 12)
        at_threshold, at_half = result["test"], result["test_at_0.5"]
        assert at_threshold["sensitivity"] == pytest.approx(2 / 3)
        assert at_threshold["specificity"] == pytest.approx(3 / 4)
        assert at_threshold["accuracy"] == pytest.approx(5 / 7)
        assert at_half["sensitivity"] == pytest.approx(1 / 3)
        assert at_half["specificity"] == 1
        assert at_half["roc_auc"] == at_threshold["roc_auc"]

    def test_test_scores_do_not_move_the_threshold(self, run):
        other = Run("tiny", "clahe", "dense", 0)
        write_run(other, tabulate(VAL, PERFECT_TEST))
        for each in (run, other):
            evaluate.run(load_params(), each)
        assert read_metrics(run)["threshold"] == read_metrics(other)["threshold"]
        assert read_metrics(other)["test"]["accuracy"] == 1
        for key in ("temperature", "val"):
            assert read_metrics(run)[key] == read_metrics(other)[key]
        points = [pd.read_csv(run_report_dir(each) / "operating_points.csv") for each in (run, other)]
        on_val = ["method", "threshold", "sensitivity_val", "specificity_val"]
        pd.testing.assert_frame_equal(points[0][on_val], points[1][on_val])
        assert points[0]["method"].tolist() == ["youden", "sensitivity", "cost", "0.5"]
        assert points[0]["threshold"].tolist() == [0.4, 0.4, 0.4, 0.5]
        assert points[0]["sensitivity"].tolist() == pytest.approx([2 / 3] * 3 + [1 / 3], abs=1e-5)

    def test_threshold_method(self, run, workspace):
        edit_params(workspace, "{method: youden}", "{method: sensitivity, sensitivity: 0.6}")
        evaluate.run(load_params(), run)
        assert read_metrics(run)["threshold"] == 0.6

    def test_files(self, run):
        evaluate.run(load_params(), run)
        confusion = pd.read_csv(run_report_dir(run) / "confusion.csv")
        counts = confusion.value_counts().to_dict()
        assert counts == {
            ("normal", "normal"): 3,
            ("normal", "pneumonia"): 1,
            ("pneumonia", "pneumonia"): 2,
            ("pneumonia", "normal"): 1,
        }
        roc = pd.read_csv(run_report_dir(run) / "roc.csv")
        assert np.trapezoid(roc["sensitivity"], roc["false_positive_rate"]) == pytest.approx(
            10 / 12, abs=1e-4
        )
        assert set(roc["name"]) == {"pneumonia"}
        assert {path.name for path in run_report_dir(run).iterdir()} == {
            "metrics.json",
            "confusion.csv",
            "roc.csv",
            "precision_recall.csv",
            "calibration.csv",
            "operating_points.csv",
            "net_benefit.csv",
        }

    def test_twice_gives_the_same_bytes(self, run):
        def run_once():
            evaluate.run(load_params(), run)
            return {path.name: path.read_bytes() for path in run_report_dir(run).iterdir()}

        assert run_once() == run_once()

    def test_three_classes_have_no_threshold(self, workspace):
        edit_params(workspace, "task: binary", "task: subtype")
        run = Run("tiny", "raw", "dense", 0)
        table = tabulate(VAL, TEST).drop(columns=["p_normal", "p_pneumonia"])
        table["y_true"] = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 2]
        scores = np.eye(3)[table["y_true"]] * 0.6 + 0.4 / 3
        scores[-1] = [0.5, 0.3, 0.2]
        table[["p_normal", "p_bacterial", "p_viral"]] = scores
        write_run(run, table)
        evaluate.run(load_params(), run)
        result = read_metrics(run)
        assert result["threshold"] is None
        assert "test_at_0.5" not in result
        assert result["test"]["accuracy"] == pytest.approx(6 / 7)
        assert result["test"]["per_class"]["viral"]["sensitivity"] == pytest.approx(2 / 3)
        assert result["test"]["per_class"]["bacterial"]["sensitivity"] == 1
        assert set(pd.read_csv(run_report_dir(run) / "roc.csv")["name"]) == {"normal", "bacterial", "viral"}

    @pytest.mark.usefixtures("workspace")
    def test_a_class_without_test_images_leaves_scores_undefined(self, capsys):
        run = Run("tiny", "raw", "dense", 0)
        write_run(run, tabulate(VAL, {0: [], 1: [0.2, 0.8]}))
        evaluate.run(load_params(), run)
        assert capsys.readouterr().out == "raw/dense/0: test ROC AUC undefined, accuracy 0.500\n"
        assert read_metrics(run)["test"]["specificity"] is None
