import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.base.tables import read_predictions, write_predictions
from pneumo.evaluation.calibration import tabulate_net_benefit
from pneumo.evaluation.experiment import compile_results, open_run, score_external
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import AS_PREDICTED, SCALED, fit_rule, score_run, tabulate_run
from workspace import PERFECT_TEST, TEST, VAL, WORSE_VAL, tabulate

YOUDEN = Threshold(ThresholdMethod.youden)


def open_scores(table):
    return select_scores(table, "val"), select_scores(table, "test")


def test_the_rule_is_of_validation_alone():
    rules = [fit_rule(open_scores(tabulate(VAL, test))[0], YOUDEN) for test in (TEST, PERFECT_TEST)]
    assert rules[0] == rules[1]
    assert rules[0].threshold == 0.4


def test_metrics_are_those_of_the_test_set_at_the_rule():
    val, test = open_scores(tabulate(VAL, TEST))
    scores = score_run(val, test, fit_rule(val, YOUDEN))
    assert (scores["n_val"], scores["n_test"]) == (6, 7)
    assert scores["test"]["roc_auc"] == pytest.approx(10 / 12)
    assert scores["test"]["sensitivity"] == pytest.approx(2 / 3)
    assert scores["test_at_0.5"]["sensitivity"] == pytest.approx(1 / 3)
    assert scores["val"]["accuracy"] == 1
    json.dumps(scores, allow_nan=False)


def test_scaling_changes_calibration_and_nothing_that_is_decided():
    val, test = open_scores(tabulate(VAL, TEST))
    rule = fit_rule(val, YOUDEN)
    assert rule.temperature != pytest.approx(1, abs=0.01)
    table = tabulate_run(val, test, rule, YOUDEN, 0.2)["calibration"]
    bins = dict(list(table.groupby("name")))
    assert set(bins) == {AS_PREDICTED, SCALED}
    np.testing.assert_array_equal(bins[AS_PREDICTED]["observed"], bins[SCALED]["observed"])
    assert not np.allclose(bins[AS_PREDICTED]["predicted"], bins[SCALED]["predicted"])


def test_net_benefit_is_of_calibrated_probabilities_at_the_stated_prevalence():
    val, test = open_scores(tabulate(VAL, TEST))
    rule = fit_rule(val, YOUDEN)
    table = tabulate_run(val, test, rule, YOUDEN, 0.3)["net_benefit"]
    as_given, calibrated = (
        tabulate_net_benefit(test.y_true, scores[:, 1], val.y_true.mean(), 0.3)
        for scores in (test.probabilities, rule.calibrate(test.probabilities))
    )
    pd.testing.assert_frame_equal(table, calibrated)
    assert not table["model"].equals(as_given["model"])
    assert (table["prevalence"] == 0.3).all()


def test_three_classes_have_curves_each_and_no_threshold():
    generator = np.random.default_rng(0)
    rows = []
    for split in ("val", "test"):
        for i, y in enumerate([0, 1, 2] * 8):
            p = generator.dirichlet(1 + 4 * np.eye(3)[y])
            rows.append({"id": f"{split}{i}", "split": split, "patient": f"{split}{i}", "y_true": y})
            rows[-1] |= dict(zip(("p_normal", "p_bacterial", "p_viral"), p, strict=True))
    val, test = open_scores(pd.DataFrame(rows))
    rule = fit_rule(val, YOUDEN)
    assert rule.threshold is None
    tables = tabulate_run(val, test, rule, YOUDEN, 0.2)
    assert set(tables["roc"]["name"]) == {"normal", "bacterial", "viral"}
    assert "operating_points" not in tables
    scores = score_run(val, test, rule)
    expected = np.mean([roc_auc_score(test.y_true == k, test.probabilities[:, k]) for k in range(3)])
    assert scores["test"]["roc_auc"] == pytest.approx(expected)


# All runs of an experiment


@pytest.fixture(scope="module")
def predictions():
    return {
        ("raw", "cnn", 0): tabulate(VAL, TEST),
        ("raw", "cnn", 1): tabulate(VAL, PERFECT_TEST),
        ("clahe", "cnn", 0): tabulate(WORSE_VAL, PERFECT_TEST),
        ("clahe", "cnn", 1): tabulate(WORSE_VAL, TEST),
    }


@pytest.fixture(scope="module")
def results(predictions):
    return compile_results(predictions, YOUDEN, 0.2, "raw", 0.01)


def test_points_and_intervals_are_of_the_same_predictions(predictions, results):
    for row in results.runs.to_dict("records"):
        table = predictions[row["combo"], row["model"], row["seed"]]
        test = table[table["split"] == "test"]
        assert row["roc_auc"] == pytest.approx(roc_auc_score(test["y_true"], test["p_pneumonia"]))
        assert row["roc_auc_low"] <= row["roc_auc"] <= row["roc_auc_high"]


def test_the_best_run_is_the_best_on_validation(results):
    assert results.best_run == ("raw", "cnn", 0)
    assert results.leaderboard["combo"].tolist() == ["raw", "clahe"]


def test_matrices_and_curves_are_means_over_seeds(results):
    matrix = results.matrices["raw", "cnn"]
    assert matrix.loc["normal"].tolist() == [3.5, 0.5]
    assert matrix.loc["pneumonia"].tolist() == [0.5, 2.5]
    curve = results.curves["raw", "cnn"]
    area = np.trapezoid(curve["sensitivity"], curve["false_positive_rate"])
    assert area == pytest.approx((10 / 12 + 1) / 2, abs=0.01)


def test_a_threshold_is_the_same_after_its_way_through_files(tmp_path):
    generator = np.random.default_rng(3)
    table = tabulate(VAL, TEST)
    for dtype in (np.float32, np.float64):
        p = generator.uniform(1e-9, 1 - 1e-9, len(table)).astype(dtype)
        changed = table.assign(p_normal=1 - p, p_pneumonia=p)
        write_predictions(changed, tmp_path / "predictions.csv")
        read = read_predictions(tmp_path / "predictions.csv")
        outcome = open_run(read, YOUDEN)
        again = json.loads(json.dumps(outcome.rule.threshold))
        sensitivity = np.mean(outcome.val.probabilities[outcome.val.y_true == 1, 1] >= again)
        decided = outcome.rule.decide(outcome.val.probabilities)
        assert sensitivity == decided[outcome.val.y_true == 1].mean()


def test_external_sets_are_decided_by_the_rules_of_validation(predictions, results):
    table = score_external({"elsewhere": predictions}, results.outcomes)
    expected = results.leaderboard.set_index("combo")
    for row in table.to_dict("records"):
        for metric in ("roc_auc", "sensitivity", "specificity"):
            assert row[metric] == pytest.approx(expected.loc[row["combo"], metric])


def test_runs_that_predicted_other_images_of_a_set_are_named(predictions, results):
    from pneumo.base.errors import PneumoError

    other = dict(predictions)
    other["clahe", "cnn", 0] = other["clahe", "cnn", 0].iloc[:-1]
    with pytest.raises(PneumoError, match=r"external\.elsewhere: .*raw/cnn/1 and clahe/cnn/0"):
        score_external({"elsewhere": other}, results.outcomes)


def test_no_set_gives_an_empty_table(results):
    assert score_external({}, results.outcomes).empty
