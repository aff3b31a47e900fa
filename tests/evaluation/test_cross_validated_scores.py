"""Scores of cross-validated runs: ranked within folds, decided by each fold's rule, counted together."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pneumo.base.config import Threshold, ThresholdMethod
from pneumo.evaluation import comparison, curves, ensembles, metrics, resampling
from pneumo.evaluation.comparison import Decided
from pneumo.evaluation.experiment import compile_results, open_run
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import FoldRule, fit_rule, fit_run_rule, score_run, tabulate_run

YOUDEN = Threshold(ThresholdMethod.youden)
N_FOLDS = 3


def make_table(seed=0, n=90, offsets=(0.0, 2.0, -2.0), partition=None):
    """Return predictions.csv of a run whose folds give the same image other scores, by an offset a fold."""
    generator = np.random.default_rng(seed)
    y_true = np.arange(n) % 2
    fold = np.random.default_rng(seed if partition is None else partition).permutation(n) % N_FOLDS
    logit = np.random.default_rng(99).normal(size=n) + 1.5 * y_true + 0.3 * generator.normal(size=n)
    rows = []
    for number, offset in enumerate(offsets):
        for split, chosen in (("val", (fold == (number + 1) % N_FOLDS)), ("test", fold == number)):
            for i in np.flatnonzero(chosen):
                p = 1 / (1 + np.exp(-logit[i] - offset))
                rows.append((f"{i}.png", split, f"p{i // 2}", number, y_true[i], 1 - p, p))
    columns = ["id", "split", "patient", "fold", "y_true", "p_normal", "p_pneumonia"]
    table = pd.DataFrame(rows, columns=columns)
    is_test = table["split"] == "test"
    test = table[is_test].sort_values("id")
    return pd.concat([table[~is_test], test], ignore_index=True)


def open_table(table):
    return select_scores(table, "val"), select_scores(table, "test")


def count_pairs(y_true, y_score, folds):
    """Return the share of pairs of one fold that are ranked rightly, one pair after another."""
    right = n = 0.0
    for i in np.flatnonzero(y_true == 1):
        for j in np.flatnonzero((y_true == 0) & (folds == folds[i])):
            right += (y_score[i] > y_score[j]) + 0.5 * (y_score[i] == y_score[j])
            n += 1
    return right / n


def test_images_are_ranked_within_their_folds_alone():
    # Each fold ranks its images without a mistake, on another scale.
    y_true = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    y_score = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
    folds = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert metrics.score_binary(y_true, y_score)["roc_auc"] == 0.75
    within = metrics.score_binary(y_true, y_score, folds)
    assert within["roc_auc"] == within["average_precision"] == 1.0
    drawn = resampling.score_draws(
        y_true, np.stack([1 - y_score, y_score], 1), y_true, np.ones((1, 8)), folds
    )
    assert drawn["roc_auc"] == drawn["average_precision"] == 1.0


def test_folds_count_by_their_pairs_and_one_without_a_class_does_not_count():
    y_true = np.array([0, 1, 0, 0, 0, 1, 1, 1, 1])
    y_score = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.8, 0.35, 0.5, 0.6])
    folds = np.array([0, 0, 1, 1, 1, 1, 1, 2, 2])
    scores = metrics.score_binary(y_true, y_score, folds)
    assert scores["roc_auc"] == pytest.approx((0 * 1 + 5 / 6 * 6) / 7)
    assert scores["roc_auc"] == pytest.approx(count_pairs(y_true, y_score, folds))
    areas = [average_precision_score(y_true[folds == k], y_score[folds == k]) for k in (0, 1)]
    assert scores["average_precision"] == pytest.approx((areas[0] + 2 * areas[1]) / 3)
    assert metrics.score_binary(y_true[7:], y_score[7:], folds[7:])["roc_auc"] is None


@pytest.mark.parametrize("n_classes", [2, 3])
def test_draws_score_as_metrics_do_on_images_that_are_repeated(n_classes):
    generator = np.random.default_rng(1)
    n = 60
    y_true, folds = generator.integers(0, n_classes, n), generator.integers(0, 4, n)
    probabilities = generator.dirichlet(np.ones(n_classes), n).round(1)  # with ties
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(axis=1)
    y_pred = probabilities.argmax(axis=1)
    weights = generator.integers(0, 3, (20, n)).astype(float)
    drawn = resampling.score_draws(y_true, probabilities, y_pred, weights, folds)
    for draw, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(n), counts)
        numbers = [1] if n_classes == 2 else range(n_classes)
        is_class = [(y_true[rows] == k).astype(int) for k in numbers]
        area = np.mean(
            [
                count_pairs(of_class, probabilities[rows, k], folds[rows])
                for of_class, k in zip(is_class, numbers, strict=True)
            ]
        )
        assert drawn["roc_auc"][draw] == pytest.approx(area, abs=1e-12)
        scores = [
            metrics.score_binary(of_class, probabilities[rows, k], folds[rows])
            for of_class, k in zip(is_class, numbers, strict=True)
        ]
        for metric in ("roc_auc", "average_precision"):
            assert drawn[metric][draw] == pytest.approx(np.mean([each[metric] for each in scores]), abs=1e-12)


def test_one_fold_scores_as_no_folds_do():
    generator = np.random.default_rng(2)
    y_true, y_score = generator.integers(0, 2, 50), generator.random(50)
    zeros = np.zeros(50, int)
    assert metrics.score_binary(y_true, y_score, zeros) == metrics.score_binary(y_true, y_score)
    both = [
        resampling.score_draws(y_true, np.stack([1 - y_score, y_score], 1), zeros, np.ones((3, 50)), folds)
        for folds in (None, zeros)
    ]
    for metric in both[0]:
        np.testing.assert_array_equal(both[0][metric], both[1][metric])


def test_each_fold_decides_by_a_rule_fitted_on_its_own_validation_images():
    table = make_table()
    val, test = open_table(table)
    rule = fit_run_rule(val, YOUDEN)
    assert isinstance(rule, FoldRule)
    y_pred = open_run(table, YOUDEN).decide(test).y_pred
    for fold in range(N_FOLDS):
        own = table[table["fold"] == fold]
        alone = fit_rule(select_scores(own.drop(columns="fold"), "val"), YOUDEN)
        assert rule.rules[fold] == alone
        expected = own.loc[own["split"] == "test", "p_pneumonia"].to_numpy() >= alone.threshold
        np.testing.assert_array_equal(y_pred[test.folds == fold], expected)
    thresholds = [each.threshold for each in rule.rules.values()]
    assert np.ptp(thresholds) > 0.3  # the folds' scales differ
    assert rule.threshold == pytest.approx(np.mean(thresholds))


def test_a_run_is_scored_as_its_folds_are_put_together_by_hand():
    table = make_table()
    val, test = open_table(table)
    rule = fit_run_rule(val, YOUDEN)
    scores = score_run(val, test, rule)
    assert (scores["n_test"], scores["n_val"]) == (90, 90)
    right, areas, n_pairs = 0, [], []
    for fold in range(N_FOLDS):
        own = table[(table["fold"] == fold) & (table["split"] == "test")]
        right += ((own["p_pneumonia"] >= rule.rules[fold].threshold) == own["y_true"]).sum()
        areas.append(roc_auc_score(own["y_true"], own["p_pneumonia"]))
        n_pairs.append(own["y_true"].sum() * (1 - own["y_true"]).sum())
    assert scores["test"]["accuracy"] == pytest.approx(right / 90)
    assert scores["test"]["roc_auc"] == pytest.approx(np.average(areas, weights=n_pairs))
    pooled = roc_auc_score(test.y_true, test.probabilities[:, 1])
    assert scores["test"]["roc_auc"] > pooled + 0.05  # the folds' scales spoil it
    tables = tabulate_run(val, test, rule, YOUDEN, 0.2)
    points = tables["operating_points"].set_index("method")
    assert points.loc["youden", "sensitivity"] == scores["test"]["sensitivity"]
    assert points.loc["0.5", "specificity"] == scores["test_at_0.5"]["specificity"]
    assert len(tables["confusion"]) == 90
    assert set(tables["roc"]["name"]) == {f"pneumonia, fold {fold}" for fold in range(N_FOLDS)}


def test_the_roc_band_is_drawn_around_the_mean_over_folds():
    table = make_table()
    run = open_run(table, YOUDEN)
    band = curves.band_roc([run.decide(run.test)])
    curve = comparison.average_roc(
        [each for _, each in tabulate_run(run.val, run.test, run.rule, YOUDEN, 0.2)["roc"].groupby("name")]
    )
    at = np.interp(band["false_positive_rate"], curve["false_positive_rate"], curve["sensitivity"])
    inside = (band["low"] <= at + 1e-9) & (at <= band["high"] + 1e-9)
    assert inside.mean() > 0.95


def test_results_of_seeds_with_folds_of_their_own():
    predictions = {
        (combo, "cnn", seed): make_table(seed=10 * number + seed, partition=seed)
        for number, combo in enumerate(("raw", "clahe"))
        for seed in range(3)
    }
    results = compile_results(predictions, YOUDEN, 0.2, "raw", 0.01)
    for key, run in results.outcomes.items():
        row = results.runs.set_index(["combo", "model", "seed"]).loc[key]
        expected = count_pairs(run.test.y_true, run.test.probabilities[:, 1], run.test.folds)
        assert row["roc_auc"] == pytest.approx(expected)
        assert row["roc_auc_low"] < row["roc_auc"] < row["roc_auc_high"]
    areas = results.comparisons[results.comparisons["metric"] == "roc_auc"]
    assert areas["p"].notna().all()
    assert areas["p_delong"].isna().all()
    assert results.comparisons.loc[results.comparisons["metric"] == "accuracy", "p_sign_flip"].notna().all()
    assert ensembles.score_ensembles(results.outcomes, results.runs, {}, YOUDEN).empty


def test_joined_predictions_hold_every_row_of_every_run():
    tables = {f"raw/cnn/{seed}": make_table(seed=seed, partition=seed) for seed in range(2)}
    joined = comparison.join_predictions(tables)
    assert list(joined.columns) == [
        "id",
        "split",
        "patient",
        "fold",
        "y_true",
        "raw/cnn/0:pneumonia",
        "raw/cnn/1:pneumonia",
    ]
    assert not joined.duplicated(["id", "split", "fold"]).any()
    for name, table in tables.items():
        column = f"{name}:pneumonia"
        found = joined.set_index(["id", "split", "fold"])[column].dropna()
        assert len(found) == len(table)
        for row in table.itertuples():
            assert found[row.id, row.split, row.fold] == pytest.approx(row.p_pneumonia, rel=1e-5)


def test_a_run_decides_test_images_in_the_order_of_its_table():
    run = open_run(make_table(), YOUDEN)
    decided = run.decide(run.test)
    assert isinstance(decided, Decided)
    assert decided.folds is run.test.folds
