import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import recall_score, roc_auc_score

from pneumo.evaluation.comparison import Decided
from pneumo.evaluation.resampling import draw_weights, score_draws
from pneumo.evaluation.subgroups import (
    COLUMNS,
    MIN_PATIENTS,
    find_groups,
    group_ages,
    tabulate_subgroups,
)

N_DRAWS = 400


def make_runs(n_patients=200, n_seeds=3, skills=(2.0, 2.0), seed=0, images_each=2):
    """Simulate one model on two groups of patients: what it scores is drawn anew for each seed.

    Returns:
        Its runs, and the group of each image, a or b.
    """
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), images_each)
    y_true = patient % 2
    group = np.where(patient // 2 % 2 == 0, "a", "b")
    skill = np.where(group == "a", *skills)
    common = generator.normal(size=n_patients)[patient]
    runs = {}
    for number in range(n_seeds):
        logit = skill * (y_true - 0.5) + common + generator.normal(0, 0.5, len(patient))
        share = 1 / (1 + np.exp(-logit))
        runs["raw", "cnn", number] = Decided(
            y_true.astype(np.int64),
            np.stack([1 - share, share], axis=1),
            (share >= 0.5).astype(np.int64),
            np.array([f"P{each}" for each in patient], object),
        )
    return runs, pd.Series(group)


def tabulate(runs, **attributes):
    return tabulate_subgroups(runs, list(runs), pd.DataFrame(attributes), N_DRAWS)


def test_values_are_those_of_scikit_learn_averaged_over_seeds():
    runs, group = make_runs(skills=(2.0, 1.0))
    table = tabulate(runs, site=group).set_index(["group", "metric"])
    assert tuple(tabulate(runs, site=group).columns) == COLUMNS
    for name in ("a", "b"):
        rows = (group == name).to_numpy()
        expected = {
            "roc_auc": [roc_auc_score(run.y_true[rows], run.probabilities[rows, 1]) for run in runs.values()],
            "sensitivity": [recall_score(run.y_true[rows], run.y_pred[rows]) for run in runs.values()],
            "specificity": [
                recall_score(run.y_true[rows], run.y_pred[rows], pos_label=0) for run in runs.values()
            ],
        }
        for metric, values in expected.items():
            row = table.loc[(name, metric)]
            assert row["value"] == pytest.approx(np.mean(values))
            assert row["low"] < row["value"] < row["high"]
            assert row["n_images"] == rows.sum()
            assert row["n_patients"] == 100
    for metric in ("roc_auc", "sensitivity", "specificity"):
        row = table.loc[("b", metric)]
        assert row["difference"] == pytest.approx(row["value"] - table.loc[("a", metric), "value"])
        assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_one_group_is_what_the_others_are_compared_with():
    runs, group = make_runs()
    group[:20] = "a"
    table = tabulate(runs, site=group)
    reference = table[table["group"] == "a"]
    assert (reference["against"] == "").all()
    assert reference[["difference", "p", "p_holm"]].isna().all(axis=None)
    assert (table.loc[table["group"] == "b", "against"] == "a").all()


def test_a_great_difference_is_shown_and_p_agrees_with_the_interval():
    runs, group = make_runs(n_patients=400, skills=(4.0, 0.5))
    rows = tabulate(runs, site=group).query("against != ''").set_index("metric")
    assert rows.loc["roc_auc", "p_holm"] < 0.01
    assert (rows["p_holm"] >= rows["p"]).all()
    for _, row in rows.iterrows():
        assert (row["p"] < 0.05) == (row["difference_high"] < 0 or row["difference_low"] > 0)


def test_one_seed_gives_intervals_over_patients_and_no_p():
    runs, group = make_runs(n_seeds=1)
    table = tabulate(runs, site=group)
    assert set(table["interval_over"]) == {"patients"}
    assert table["low"].notna().all()
    assert table["difference_low"].notna().sum() == 3
    assert table["p"].isna().all()


def test_the_smaller_group_decides_how_sure_a_difference_is():
    """Student's t has the degrees of freedom of the smallest class of either group."""
    runs, _ = make_runs(n_patients=200, n_seeds=1, images_each=1)
    is_small = np.arange(200) < 24
    row = tabulate(runs, site=pd.Series(np.where(is_small, "b", "a"))).query("against != ''").iloc[0]
    run = next(iter(runs.values()))
    weights = np.vstack([np.ones(200), draw_weights(run.patients, run.y_true, N_DRAWS, 0)])
    areas = [
        score_draws(run.y_true[m], run.probabilities[m], run.y_pred[m], weights[:, m])["roc_auc"]
        for m in (is_small, ~is_small)
    ]
    differences = (areas[0] - areas[1])[1:]
    freedom = 12 - 1
    error = np.nanstd(differences, ddof=1) * np.sqrt((freedom + 1) / freedom)
    half = stats.t.ppf(0.975, freedom) * error
    assert row["difference"] == pytest.approx(areas[0][0] - areas[1][0])
    assert row["difference_high"] - row["difference"] == pytest.approx(half, rel=1e-6)


def test_small_groups_and_unknown_values_have_no_row():
    runs, group = make_runs(n_patients=100, images_each=1)
    group = pd.Series(
        ["a"] * 50 + ["b"] * (MIN_PATIENTS - 1) + ["c"] * MIN_PATIENTS + [np.nan] * 5 + [""] * 6
    )
    table = tabulate(runs, site=group)
    assert table["group"].unique().tolist() == ["a", "c"]
    assert table["n_patients"].tolist() == [50] * 3 + [MIN_PATIENTS] * 3
    none = tabulate(runs, site=pd.Series([np.nan] * 100, dtype=object))
    assert len(none) == 0
    assert tuple(none.columns) == COLUMNS


def test_patients_are_counted_not_images():
    patients = np.array([f"P{i % 15}" for i in range(60)] + [f"Q{i}" for i in range(20)], object)
    groups = find_groups(pd.Series(["many images"] * 60 + ["many patients"] * 20), patients)
    assert list(groups) == ["many patients"]


def test_a_group_of_one_class_has_no_auc_and_no_test():
    runs, group = make_runs()
    y_true = next(iter(runs.values())).y_true
    table = tabulate(runs, site=group.where(y_true == 1, "b"))
    rows = table.set_index(["group", "metric"])
    assert np.isnan(rows.loc[("a", "roc_auc"), "value"])
    assert np.isnan(rows.loc[("a", "specificity"), "value"])
    assert 0 < rows.loc[("a", "sensitivity"), "value"] <= 1
    assert np.isnan(rows.loc[("a", "roc_auc"), "p"])


def test_groups_of_the_same_patients_vary_together():
    """Two views of the same patients: the difference is surer than of two sets of patients."""
    runs, _ = make_runs(n_patients=200)
    same = tabulate(runs, view=pd.Series(["PA", "AP"] * 200))
    others = tabulate(runs, view=pd.Series(np.repeat(["PA", "PA", "AP", "AP"] * 50, 2)))
    widths = [(table["difference_high"] - table["difference_low"])[3:].to_numpy() for table in (same, others)]
    assert widths[0][0] < 0.8 * widths[1][0]  # of the ROC AUC


def test_intervals_of_a_difference_cover_it():
    """Of 120 experiments without a difference, the 95 % interval leaves 0 out in few."""
    missed = 0
    n_experiments = 120
    for seed in range(n_experiments):
        runs, group = make_runs(n_patients=120, seed=seed)
        row = tabulate(runs, site=group).query("against != '' and metric == 'roc_auc'").iloc[0]
        missed += row["p"] < 0.05
    # Binomial: 120 trials at 0.05 exceed 13 with a chance of 0.003. Too wide an interval is no error here.
    assert stats.binom.sf(13, n_experiments, 0.05) < 0.005
    assert missed <= 13


@pytest.mark.parametrize(
    ("age", "group"),
    [
        (0.0, "under 1"),
        (0.99, "under 1"),
        (1.0, "1 to 4"),
        (4.99, "1 to 4"),
        (5.0, "5 to 17"),
        (18.0, "18 to 39"),
        (40.0, "40 to 64"),
        (65.0, "65 and over"),
        (119.0, "65 and over"),
    ],
)
def test_age_groups(age, group):
    assert group_ages(pd.Series([age, np.nan], index=[7, 9])).fillna("-").to_dict() == {7: group, 9: "-"}
