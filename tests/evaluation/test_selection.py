"""Whether what models are chosen by orders them as the test set does."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from pneumo.evaluation.selection import (
    COLUMNS,
    CRITERIA,
    MIN_RUNS,
    NO_STRESS,
    PLAIN,
    STRESSED,
    add_stress,
    correlate_with_test,
    find_criterion,
)

N = 9


def make_runs(n=N):
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "combo": ["raw"] * n,
            "model": [f"m{i}" for i in range(n)],
            "seed": 0,
            "val_roc_auc": generator.random(n),
            "roc_auc": generator.random(n),
        }
    )


def make_stress(runs, mean, worst):
    tables = [
        runs[["combo", "model", "seed"]].assign(change=change, roc_auc=values, balanced_accuracy=-values)
        for change, values in (
            ("none", runs["roc_auc"]),
            ("darker", runs["roc_auc"]),
            ("mean", mean),
            ("worst", worst),
        )
    ]
    return pd.concat(tables).sample(frac=1, random_state=0)  # their order must not matter


def read(table):
    return dict(zip(table["criterion"], table["rank_correlation"], strict=True))


def test_correlations_are_spearman_s():
    runs = make_runs()
    found = correlate_with_test(runs, make_stress(runs, runs["roc_auc"] ** 3, -runs["roc_auc"]))
    assert list(found.columns) == list(COLUMNS)
    assert (found["n_runs"] == N).all()
    assert read(found) == {
        "plain": pytest.approx(spearmanr(runs["val_roc_auc"], runs["roc_auc"]).statistic),
        "stressed, mean": pytest.approx(1),
        "stressed, worst": pytest.approx(-1),
        "stressed, mean balanced accuracy": pytest.approx(-1),
    }


def test_all_criteria_are_compared_on_the_same_runs():
    runs = make_runs()
    few = runs.iloc[2:]
    found = correlate_with_test(runs, make_stress(few, few["roc_auc"], few["roc_auc"]))
    assert (found["n_runs"] == N - 2).all()
    assert read(found)["plain"] == pytest.approx(spearmanr(few["val_roc_auc"], few["roc_auc"]).statistic)


@pytest.mark.parametrize("n", [0, 1, MIN_RUNS - 1])
def test_few_runs_say_nothing(n):
    runs = make_runs()
    known = runs.iloc[:n]
    found = correlate_with_test(runs, make_stress(known, known["roc_auc"], known["roc_auc"]))
    assert found["criterion"].tolist() == list(CRITERIA)
    assert (found["n_runs"] == n).all()
    assert found["rank_correlation"].isna().all()


@pytest.mark.parametrize("side", ["val_roc_auc", "roc_auc"])
def test_what_is_constant_has_no_order(side):
    runs = make_runs().assign(**{side: 0.9})
    found = read(correlate_with_test(runs, make_stress(runs, runs["roc_auc"], runs["roc_auc"])))
    assert np.isnan(found["plain"])
    assert np.isnan(found["stressed, mean"]) == (side == "roc_auc")


def test_a_run_gets_its_mean_over_changes():
    runs = make_runs()
    known = runs.iloc[2:]
    found = add_stress(runs, make_stress(known, known["roc_auc"] / 2, known["roc_auc"] / 4))
    assert found.drop(columns=STRESSED).equals(runs)
    expected = [np.nan, np.nan, *known["roc_auc"] / 2]
    assert found[STRESSED].tolist() == pytest.approx(expected, nan_ok=True)


def test_without_scores_on_changed_images_plain_validation_orders():
    found = add_stress(make_runs(), NO_STRESS)
    assert found[STRESSED].isna().all()
    assert len(found) == N
    assert find_criterion(found) == PLAIN
    assert find_criterion(found.assign(**{STRESSED: 0.5})) == STRESSED
    assert find_criterion(found.assign(**{STRESSED: [0.5, *[np.nan] * (N - 1)]})) == PLAIN
