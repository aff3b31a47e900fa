"""Whole tables, from predictions to verdicts, made again and again on other patients and seeds.

The short forms run in seconds. They allow for chance, and fail where a spread is left out or counts twice.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from simulated_experiment import Experiment

from pneumo.evaluation.comparison import add_mean_intervals, compare_combos, draw_scores

EXPERIMENTS = {
    "no spread over seeds": Experiment(dict.fromkeys("abcd", 3), seed_sd=0, combo_sd=0),
    "little spread over seeds": Experiment(dict.fromkeys("abcd", 3), seed_sd=0.1, combo_sd=0.3),
    "much spread over seeds": Experiment(dict.fromkeys("abcd", 3), seed_sd=0.4),
    "networks that rank nearly all rightly": Experiment(dict.fromkeys("abc", 3), separation=4, seed_sd=0.3),
    "unequal seeds": Experiment({"a": 3, "b": 3, "c": 2, "d": 1}, seed_sd=0.2),
    "two combos": Experiment({"a": 3, "b": 3}, seed_sd=0.2),
}
# With 2 degrees of freedom over seeds, intervals are wider than they need be.
FEW_SEEDS = {
    "two seeds of two combos": Experiment({"a": 2, "b": 2}, seed_sd=0.2),
    "one combo with several seeds": Experiment({"a": 3, "b": 1, "c": 1, "d": 1}, seed_sd=0.2),
}
SHORT = Experiment({"a": 4, "b": 4, "c": 1}, n_patients=120, seed_sd=0.25, combo_sd=0.1)


def make_table(experiment, generator, n_draws):
    """Return the comparisons of one page and its mean intervals."""
    runs = experiment.draw_runs(generator)
    draws = draw_scores(runs, n_draws)
    keys = list(dict.fromkeys((combo, model) for combo, model, _ in runs))
    means = add_mean_intervals(pd.DataFrame(keys, columns=["combo", "model"]), draws)
    return compare_combos(runs, draws), means


def judge_tables(experiment, n_tables, n_draws, seed=0):
    """Return how many tables have a false alarm and how many intervals hit, where combos do not differ."""
    generator = np.random.default_rng(seed)
    truth = experiment.find_truth()
    alarms, differences, means = [], [], []
    for _ in range(n_tables):
        table, mean = make_table(experiment, generator, n_draws)
        assert table["p"].notna().all()
        alarms.append((table["p_holm"] <= 0.05).any())
        differences.append(((table["low"] <= 0) & (table["high"] >= 0)).mean())
        hits = [mean[f"{m}_low"].le(value) & mean[f"{m}_high"].ge(value) for m, value in truth.items()]
        means.append(np.mean(hits))
    return np.mean(alarms), np.mean(differences), np.mean(means)


def find_power(experiment, n_tables, n_draws, seed=0):
    """Return how often a is found worse than b in ROC AUC where it is so by what tables call detectable."""
    generator = np.random.default_rng(seed)

    def compare_again(experiment):
        for _ in range(n_tables):
            table, _ = make_table(experiment, generator, n_draws)
            yield table.set_index(["metric", "combo_a", "combo_b"]).loc["roc_auc", "a", "b"]

    def shift(amount):
        return replace(experiment, shifts={("a", "cnn"): -amount, ("b", "cnn"): amount})

    def find_difference(amount):
        shifted = shift(amount)
        return shifted.find_truth("b", "cnn")["roc_auc"] - shifted.find_truth("a", "cnn")["roc_auc"]

    detectable = np.mean([row["smallest_detectable"] for row in compare_again(experiment)])
    amount = optimize.brentq(lambda amount: find_difference(amount) - detectable, 0, 5)
    found = [row["p_holm"] <= 0.05 and row["difference"] < 0 for row in compare_again(shift(amount))]
    return np.mean(found)


def test_a_short_simulation_finds_intervals_right_and_few_false_alarms():
    alarms, differences, means = judge_tables(SHORT, n_tables=40, n_draws=100)
    assert alarms <= 0.1
    assert 0.93 < differences < 0.985
    assert 0.92 < means < 0.985


def test_a_short_simulation_finds_what_is_detectable():
    experiment = Experiment({"a": 3, "b": 3}, n_patients=120, separation=1.2)
    assert 0.6 < find_power(experiment, n_tables=40, n_draws=100) < 0.95


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_combos_that_do_not_differ(experiment):
    alarms, differences, means = judge_tables(experiment, n_tables=300, n_draws=200)
    assert alarms <= 0.05
    assert 0.93 <= differences <= 0.97
    assert 0.93 <= means <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("experiment", FEW_SEEDS.values(), ids=FEW_SEEDS.keys())
def test_combos_that_do_not_differ_with_few_seeds(experiment):
    alarms, differences, means = judge_tables(experiment, n_tables=300, n_draws=200)
    assert alarms <= 0.05
    assert 0.93 <= differences <= 0.99
    assert 0.93 <= means <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    "seeds", [{"a": 3, "b": 3}, {"a": 3, "b": 2, "c": 1}, {"a": 5, "b": 5, "c": 5}], ids=str
)
def test_a_real_difference_is_found_as_often_as_stated(seeds):
    experiment = Experiment(seeds, n_patients=120, separation=1.2)
    assert 0.74 <= find_power(experiment, n_tables=300, n_draws=100) <= 0.87
