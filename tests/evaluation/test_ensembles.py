"""Ensembles: runs that decide by their mean logit."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.evaluation.comparison import tabulate_runs
from pneumo.evaluation.ensembles import COLUMNS, join_outcomes, list_ensembles, score_ensembles
from pneumo.evaluation.experiment import open_run
from pneumo.evaluation.scoring import score_run

YOUDEN = Threshold(ThresholdMethod.youden)


def predict(seed, n=120, separation=0.6, classes=("normal", "pneumonia")):
    """Return predictions of a run whose errors are its own, on images that all runs share."""
    labels = np.random.default_rng(0).integers(0, len(classes), n)
    logits = np.random.default_rng(seed + 1).standard_normal((n, len(classes)))
    logits[np.arange(n), labels] += separation
    powers = np.exp(logits)
    table = pd.DataFrame(
        powers / powers.sum(axis=1, keepdims=True), columns=[f"p_{name}" for name in classes]
    )
    table.insert(0, "y_true", labels)
    table.insert(0, "split", np.where(np.arange(n) % 2, "test", "val"))
    table.insert(0, "patient", [f"p{i // 4}" for i in range(n)])  # of both splits; nothing here depends on it
    table.insert(0, "id", [f"i{i}" for i in range(n)])
    return table


def open_all(**seeds):
    """Open runs of combo `raw`: model -> its seeds."""
    return {
        ("raw", model, seed): open_run(predict(10 * len(model) + seed), YOUDEN)
        for model, numbers in seeds.items()
        for seed in numbers
    }


def tabulate(outcomes):
    return tabulate_runs({key: score_run(each.val, each.test, each.rule) for key, each in outcomes.items()})


def test_the_mean_logit_decides():
    outcomes = open_all(cnn=[0, 1, 2])
    joint = join_outcomes(list(outcomes.values()), YOUDEN)
    for split in ("val", "test"):
        ours = getattr(joint, split).probabilities[:, 1]
        each = np.array([getattr(outcome, split).probabilities[:, 1] for outcome in outcomes.values()])
        logit = np.log(each / (1 - each)).mean(axis=0)
        np.testing.assert_allclose(ours, 1 / (1 + np.exp(-logit)), rtol=1e-9)


def test_threshold_and_temperature_are_fitted_on_validation():
    outcomes = list(open_all(cnn=[0, 1]).values())
    joint = join_outcomes(outcomes, YOUDEN)
    values = joint.val.probabilities[:, 1]

    def score(threshold):
        called = values >= threshold
        truth = joint.val.y_true == 1
        return called[truth].mean() - called[~truth].mean()

    assert score(joint.rule.threshold) == pytest.approx(max(score(each) for each in values))
    assert joint.rule.temperature not in {each.rule.temperature for each in outcomes}


def test_equal_runs_make_an_ensemble_equal_to_them():
    run = open_run(predict(0), YOUDEN)
    outcomes = {("raw", "cnn", seed): run for seed in (0, 1)}
    runs = tabulate(outcomes)
    (row,) = score_ensembles(outcomes, runs, {}, YOUDEN).to_dict("records")
    assert row["roc_auc"] == pytest.approx(runs["roc_auc"][0])
    assert row["roc_auc"] == pytest.approx(row["mean_roc_auc"])
    assert row["accuracy"] == pytest.approx(runs["accuracy"][0])


def test_ensembles_are_scored_like_runs_and_ordered_by_validation():
    outcomes = open_all(cnn=[0, 1, 2], dense=[0, 1], alone=[0])
    runs = tabulate(outcomes)
    table = score_ensembles(
        outcomes, runs, {"all": [("raw", "cnn"), ("raw", "dense"), ("raw", "alone")]}, YOUDEN
    )
    assert set(COLUMNS) <= set(table.columns)
    assert dict(zip(table["ensemble"], table["n_runs"], strict=True)) == {
        "raw/cnn": 3,
        "raw/dense": 2,
        "all": 6,
    }
    assert table["val_roc_auc"].is_monotonic_decreasing
    row = table.set_index("ensemble").loc["raw/cnn"]
    each = [outcomes["raw", "cnn", seed].test for seed in range(3)]
    logits = sum(np.log(test.probabilities[:, 1] / test.probabilities[:, 0]) for test in each)
    assert row["roc_auc"] == pytest.approx(roc_auc_score(each[0].y_true, logits))
    alone = [roc_auc_score(test.y_true, test.probabilities[:, 1]) for test in each]
    assert row["mean_roc_auc"] == pytest.approx(np.mean(alone))
    assert row["roc_auc"] > row["mean_roc_auc"]  # the errors of these runs are independent
    assert row["roc_auc_low"] < row["roc_auc"] < row["roc_auc_high"]


def test_three_classes():
    classes = ("normal", "bacterial", "viral")
    outcomes = {("raw", "cnn", seed): open_run(predict(seed, classes=classes), YOUDEN) for seed in (0, 1)}
    (row,) = score_ensembles(outcomes, tabulate(outcomes), {}, YOUDEN).to_dict("records")
    assert 0.6 < row["roc_auc"] < 1
    assert pd.isna(row["threshold"])


def test_one_run_is_no_ensemble():
    outcomes = open_all(cnn=[0], dense=[3])
    table = score_ensembles(outcomes, tabulate(outcomes), {}, YOUDEN)
    assert list(table.columns) == list(COLUMNS)
    assert table.empty


def test_named_ensembles_take_the_runs_that_are_there():
    keys = [("raw", "cnn", 0), ("raw", "cnn", 1), ("clahe", "cnn", 0)]
    named = {"both": [("raw", "cnn"), ("clahe", "cnn")], "few": [("clahe", "cnn"), ("clahe", "dense")]}
    assert list_ensembles(keys, named) == {"raw/cnn": keys[:2], "both": keys}
