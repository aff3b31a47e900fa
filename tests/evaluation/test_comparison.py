import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.base.labels import CLASSES, Task
from pneumo.base.tables import number_classes, read_predictions, tabulate_predictions, write_predictions
from pneumo.evaluation.comparison import (
    METRICS,
    SUMMARY_METRICS,
    Decided,
    Verdict,
    add_mean_intervals,
    add_run_intervals,
    average_roc,
    compare_combos,
    draw_scores,
    join_predictions,
    judge_combos,
    rank_runs,
    score_set,
    tabulate_classes,
    tabulate_runs,
)
from pneumo.evaluation.metrics import score_binary, tabulate_roc
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.selection import NO_STRESS, add_stress


def result(val_roc_auc=0.9, at_half=True, **test):
    """Return a metrics.json with 0.5 for every metric that is not named."""
    scores = dict.fromkeys(METRICS, 0.5)
    content = {"threshold": 0.3, "test": scores | test, "val": scores | {"roc_auc": val_roc_auc}}
    content |= {"temperature": 1.5, "calibration": {"calibration_error": 0.1}}
    content["calibration_scaled"] = {"calibration_error": 0.05}
    return content | ({"test_at_0.5": scores} if at_half else {})


def rank(results, stress=NO_STRESS):
    return rank_runs(add_stress(tabulate_runs(results), stress))


# Runs


def test_runs_have_a_row_each():
    runs = tabulate_runs({("raw", "cnn", 0): result(0.8, accuracy=0.7), ("raw", "cnn", 1): result(0.9)})
    assert runs[["combo", "model", "seed"]].to_numpy().tolist() == [["raw", "cnn", 0], ["raw", "cnn", 1]]
    first = runs.loc[0]
    assert (first["threshold"], first["val_roc_auc"]) == (0.3, 0.8)
    assert (first["accuracy"], first["accuracy_at_0.5"]) == (0.7, 0.5)
    assert set(METRICS) | {f"{metric}_at_0.5" for metric in METRICS} < set(runs.columns)


def test_of_more_classes_there_is_nothing_at_one_half():
    runs = tabulate_runs({("raw", "cnn", 0): result(at_half=False) | {"threshold": None}})
    assert not [column for column in runs.columns if column.endswith("_at_0.5")]
    assert runs["threshold"].isna().all()


def test_validation_decides_the_order_not_the_test_set():
    table = rank(
        {
            ("best_on_test", "cnn", 0): result(0.80, roc_auc=0.99, accuracy=0.99),
            ("best_on_val", "cnn", 0): result(0.95, roc_auc=0.70, accuracy=0.70),
            ("between", "cnn", 0): result(0.90, roc_auc=0.85, accuracy=0.85),
        }
    )
    assert table["combo"].tolist() == ["best_on_val", "between", "best_on_test"]
    assert table["roc_auc"].tolist() == [0.70, 0.85, 0.99]


def tabulate_stress(scores):
    rows = [(*key, "mean", value) for key, value in scores.items()]
    return pd.DataFrame(rows, columns=["combo", "model", "seed", "change", "roc_auc"])


def test_changed_validation_images_decide_the_order_once_all_runs_were_tried_on_them():
    results = {
        (combo, "cnn", seed): result(val)
        for combo, val in (("a", 0.9), ("b", 0.8), ("c", 0.7))
        for seed in (0, 1)
    }
    stress = tabulate_stress({key: {"a": 0.5, "b": 0.6, "c": 0.9}[key[0]] + key[2] / 10 for key in results})
    table = rank(results, stress)
    assert table["combo"].tolist() == ["c", "b", "a"]
    assert table["stress_roc_auc"].tolist() == pytest.approx([0.95, 0.65, 0.55])
    one_missing = rank(results, stress.iloc[:-1])
    assert one_missing["combo"].tolist() == ["a", "b", "c"]
    assert one_missing["stress_roc_auc"].tolist() == pytest.approx([0.55, 0.65, np.nan], nan_ok=True)


def test_seeds_are_averaged():
    table = rank(
        {
            ("raw", "cnn", 0): result(0.6, f1=0.2),
            ("raw", "dense", 0): result(0.75, f1=0.9),
            ("raw", "cnn", 1): result(1.0, f1=0.7),
        }
    )
    cnn, dense = table.to_dict("records")
    assert (cnn["model"], cnn["n_seeds"], dense["n_seeds"]) == ("cnn", 2, 1)
    assert cnn["val_roc_auc"] == pytest.approx(0.8)
    assert (cnn["f1"], dense["f1"]) == (pytest.approx(0.45), 0.9)


def test_ties_keep_the_order_of_params():
    names = [f"combo_{i}" for i in range(40)]
    table = rank({(name, "cnn", 0): result(0.9 - i % 2 / 10) for i, name in enumerate(names)})
    assert table["combo"].tolist() == names[::2] + names[1::2]


@pytest.mark.parametrize(("values", "expected"), [([None, 0.6], 0.6), ([None, None], None)])
def test_undefined_metrics_are_left_out(values, expected):
    row = rank({("raw", "cnn", seed): result(precision=value) for seed, value in enumerate(values)}).loc[0]
    assert row["n_seeds"] == 2
    assert pd.isna(row["precision"]) if expected is None else row["precision"] == expected


def test_without_a_validation_score_comes_last():
    table = rank({("a", "cnn", 0): result(None), ("b", "cnn", 0): result(0.5)})
    assert table["combo"].tolist() == ["b", "a"]


def make_runs(qualities, n=120, noise=1.0):
    """Return predictions of runs whose scores separate the classes the better the greater their quality."""
    y_true = np.arange(n) % 3 % 2
    patients = np.array([f"{i // 6}-{y}" for i, y in enumerate(y_true)], dtype=object)
    shared = np.random.default_rng(0).normal(size=n)
    runs = {}
    for i, (key, quality) in enumerate(qualities.items()):
        own = noise * np.random.default_rng(i + 1).normal(size=n)
        positive = 1 / (1 + np.exp(-(shared + own + quality * (2 * y_true - 1))))
        probabilities = np.stack([1 - positive, positive], axis=1)
        runs[key] = Decided(y_true, probabilities, (positive >= 0.5).astype(int), patients)
    return runs


def compare(qualities, noise=1.0):
    runs = make_runs(qualities, noise=noise)
    return compare_combos(runs, draw_scores(runs, n_draws=300))


def test_classes_are_scored_as_counted_by_hand():
    y_true = np.array([0, 0, 0, 1, 1, 2])
    patients = np.arange(6).astype(object)

    def decide_as(*y_pred):
        return Decided(y_true, np.eye(3)[list(y_pred)], np.array(y_pred), patients)

    runs = {("raw", "cnn", 0): decide_as(0, 0, 1, 1, 1, 1), ("raw", "cnn", 1): decide_as(0, 0, 0, 1, 0, 2)}
    table = tabulate_classes(runs, ("normal", "bacterial", "viral")).set_index("class")
    assert table["n_images"].tolist() == [3, 2, 1]
    assert table["sensitivity"].tolist() == pytest.approx([(2 / 3 + 1) / 2, (1 + 1 / 2) / 2, 1 / 2])
    # The first seed never calls viral, so the precision of viral is that of the second.
    assert table["precision"].tolist() == pytest.approx([(1 + 3 / 4) / 2, (2 / 4 + 1) / 2, 1])
    assert table["f1"].tolist() == pytest.approx([(4 / 5 + 6 / 7) / 2, (4 / 6 + 2 / 3) / 2, 1 / 2])


def test_every_pair_of_combos_under_a_model_has_a_row_a_metric():
    table = compare(
        {(c, m, s): 1 for c in ("raw", "clahe", "crop") for m in ("cnn", "dense") for s in (0, 1)}
    )
    assert len(table) == 3 * 2 * len(SUMMARY_METRICS)
    assert (table["n_seeds"] == 2).all()
    pairs = table[["combo_a", "combo_b"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["raw", "clahe"], ["raw", "crop"], ["clahe", "crop"]]
    assert table["p_delong"].notna().equals(table["metric"] == "roc_auc")
    assert table["p_sign_flip"].notna().equals(table["metric"] == "accuracy")
    assert (table["interval_over"] == "patients and seeds").all()
    assert (table["p_holm"] >= table["p"]).all()
    assert ((table["low"] <= table["difference"]) & (table["difference"] <= table["high"])).all()


def test_combos_are_compared_on_the_seeds_they_share():
    table = compare(
        {("raw", "cnn", 0): 1, ("raw", "cnn", 1): 1, ("clahe", "cnn", 1): 1, ("crop", "cnn", 2): 1}
    )
    assert table[["combo_a", "combo_b", "n_seeds"]].drop_duplicates().to_numpy().tolist() == [
        ["raw", "clahe", 1]
    ]


def test_differences_are_those_of_the_scores():
    runs = make_runs(
        {("raw", "cnn", 0): 0.2, ("raw", "cnn", 1): 0.4, ("clahe", "cnn", 0): 1, ("clahe", "cnn", 1): 2}
    )
    table = compare_combos(runs, draw_scores(runs, n_draws=300)).set_index("metric")
    areas = [score_binary(run.y_true, run.probabilities[:, 1])["roc_auc"] for run in runs.values()]
    assert table["difference"]["roc_auc"] == pytest.approx(np.mean(areas[:2]) - np.mean(areas[2:]))
    right = [np.mean(run.y_pred == run.y_true) for run in runs.values()]
    assert table["difference"]["accuracy"] == pytest.approx(np.mean(right[:2]) - np.mean(right[2:]))


QUALITIES = {
    (combo, "cnn", seed): quality
    for combo, quality in (("raw", 0.5), ("good", 3.0), ("bad", 0.0), ("copy", 0.5))
    for seed in range(3)
}


def test_verdicts_on_what_is_better_worse_and_the_same():
    table = compare(QUALITIES, noise=0.1)
    leaderboard = pd.DataFrame({"combo": ["raw", "good", "bad", "copy", "new"], "model": "cnn"})
    judged = judge_combos(leaderboard, table, "raw")
    assert judged["verdict"].tolist() == [
        Verdict.reference,
        Verdict.better,
        Verdict.worse,
        Verdict.not_shown,
        Verdict.not_compared,
    ]
    assert judged["smallest_detectable"].notna().tolist() == [False, True, True, True, False]
    flipped = judge_combos(leaderboard, table, "good")["verdict"].tolist()
    assert flipped[:3] == [Verdict.worse, Verdict.reference, Verdict.worse]
    assert judge_combos(leaderboard, compare_combos({}, {}), "raw")["verdict"].tolist() == [
        Verdict.reference,
        *[Verdict.not_compared] * 4,
    ]


def test_verdicts_are_written_as_codes(tmp_path):
    leaderboard = pd.DataFrame({"combo": ["raw", "good"], "model": "cnn"})
    judge_combos(leaderboard, compare(QUALITIES), "raw").to_csv(tmp_path / "leaderboard.csv", index=False)
    assert pd.read_csv(tmp_path / "leaderboard.csv")["verdict"].tolist() == ["reference", "better"]


ONE_SEED = {("raw", "cnn", 0): 0.5, ("good", "cnn", 0): 3, ("copy", "cnn", 0): 0.5}


@pytest.mark.parametrize(
    "qualities",
    [
        ONE_SEED,
        ONE_SEED | {("good", "cnn", 1): 3},  # one degree of freedom
        ONE_SEED | {(combo, "dense", seed): 1 for combo in ("raw", "good") for seed in range(3)},
    ],
    ids=["one seed", "two seeds of one combo", "another model has several seeds"],
)
def test_where_the_spread_over_seeds_is_unknown_nothing_is_tested(qualities):
    table = compare(qualities, noise=0.1)
    cnn = table[table["model"] == "cnn"]
    assert len(cnn) == 3 * len(SUMMARY_METRICS)
    assert cnn[["p", "p_holm", "smallest_detectable"]].isna().all(axis=None)
    assert (cnn["interval_over"] == "patients").all()
    assert ((cnn["low"] <= cnn["difference"]) & (cnn["difference"] <= cnn["high"])).all()
    assert (cnn["high"] - cnn["low"]).max() < 0.5
    leaderboard = pd.DataFrame({"combo": ["raw", "good", "copy"], "model": "cnn"})
    assert judge_combos(leaderboard, table, "raw")["verdict"].tolist() == [
        Verdict.reference,
        Verdict.unknown_spread,
        Verdict.unknown_spread,
    ]
    others = table[table["model"] == "dense"]
    assert others["p"].notna().all()
    assert (others["interval_over"] == "patients and seeds").all()


def test_unknown_p_do_not_count_in_the_correction():
    known = {(combo, "dense", seed): 1 for combo in ("raw", "good", "copy") for seed in range(3)}
    both = compare(known | ONE_SEED)
    alone = compare(known)
    pd.testing.assert_series_equal(
        both[both["model"] == "dense"]["p_holm"].reset_index(drop=True), alone["p_holm"]
    )


def test_a_combo_of_one_seed_takes_the_spread_of_its_model():
    qualities = {("raw", "cnn", seed): 0.5 for seed in range(3)} | {("good", "cnn", 0): 3.0}
    table = compare(qualities, noise=0.3).set_index("metric")
    assert table.loc["roc_auc", "n_seeds"] == 1
    assert table.loc["roc_auc", "interval_over"] == "patients and seeds"
    assert table["p"].notna().all()
    more = compare(qualities | {("good", "cnn", seed): 3.0 for seed in (1, 2)}, noise=0.3).set_index("metric")
    assert np.ptp(table.loc["roc_auc", ["low", "high"]]) > np.ptp(more.loc["roc_auc", ["low", "high"]])


def test_p_is_below_5_percent_exactly_where_the_interval_excludes_0():
    n_excluded = 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        n_seeds = {("raw", "cnn"): 2, ("crop", "cnn"): 2, ("clahe", "cnn"): 1}
        n_seeds |= {("raw", "dense"): 3, ("crop", "dense"): 3}
        qualities = {
            (*key, seed): generator.normal(1, 0.6) for key, n in n_seeds.items() for seed in range(n)
        }
        table = compare(qualities, noise=generator.uniform(0.05, 0.5))
        excludes = (table["low"] > 0) | (table["high"] < 0)
        assert ((table["p"] < 0.05) == excludes).all()
        n_excluded += excludes.sum()
    assert 10 < n_excluded < 100


def test_identical_copies_do_not_differ():
    runs = make_runs({("raw", "cnn", seed): 1 for seed in range(3)})
    runs |= {("copy", model, seed): run for (_, model, seed), run in runs.items()}
    table = compare_combos(runs, draw_scores(runs, n_draws=100))
    assert (table["difference"] == 0).all()
    for column in ("p", "p_holm", "p_delong", "p_sign_flip"):
        assert (table[column].dropna() == 1).all()


def test_a_class_of_one_patient_is_no_ground_for_a_verdict():
    runs = {
        key: replace(run, patients=np.where(run.y_true == 1, "only", run.patients))
        for key, run in make_runs(QUALITIES, noise=0.1).items()
    }
    table = compare_combos(runs, draw_scores(runs, n_draws=100))
    assert table[["p", "low", "high"]].isna().all(axis=None)
    verdicts = judge_combos(pd.DataFrame({"combo": ["raw", "good"], "model": "cnn"}), table, "raw")["verdict"]
    assert verdicts.tolist() == [Verdict.reference, Verdict.unknown_spread]


@pytest.mark.parametrize("number", [0, 1])
def test_a_test_set_of_one_class_is_compared_by_what_is_defined(number):
    runs = {
        key: Decided(
            *(
                part[run.y_true == number]
                for part in (run.y_true, run.probabilities, run.y_pred, run.patients)
            )
        )
        for key, run in make_runs(QUALITIES).items()
    }
    draws = draw_scores(runs, n_draws=100)
    table = compare_combos(runs, draws)
    defined = {"accuracy", "sensitivity" if number else "specificity"}
    assert set(table[table["p"].notna()]["metric"]) == defined
    assert set(table[table["difference"].notna()]["metric"]) == defined
    verdicts = judge_combos(pd.DataFrame({"combo": ["raw", "good"], "model": "cnn"}), table, "raw")["verdict"]
    assert verdicts.tolist() == [Verdict.reference, Verdict.not_compared]
    means = add_mean_intervals(pd.DataFrame({"combo": ["raw"], "model": "cnn"}), draws)
    assert np.isnan(means["roc_auc_low"][0])
    assert means["accuracy_low"][0] < means["accuracy_high"][0]


def test_intervals_of_runs_and_means():
    runs = make_runs(QUALITIES)
    draws = draw_scores(runs, n_draws=300)
    table = tabulate_runs({key: result() for key in runs})
    for key, run in runs.items():
        row = (table["combo"] == key[0]) & (table["seed"] == key[2])
        table.loc[row, "roc_auc"] = score_binary(run.y_true, run.probabilities[:, 1])["roc_auc"]
    of_runs, of_means = (
        add_run_intervals(table, draws),
        add_mean_intervals(rank_runs(add_stress(table, NO_STRESS)), draws),
    )
    for frame in (of_runs, of_means):
        assert (frame["roc_auc_low"] <= frame["roc_auc"]).all()
        assert (frame["roc_auc"] <= frame["roc_auc_high"]).all()
        assert (frame["roc_auc_high"] <= 1).all()
        assert {f"{metric}_low" for metric in METRICS} < set(frame.columns)
    assert (of_means["interval_over"] == "patients and seeds").all()


def find_mean_intervals(runs, metric, n_draws=300):
    """Return combo -> (low, high), and combo -> what the interval is over."""
    keys = list(dict.fromkeys((combo, model) for combo, model, _ in runs))
    table = add_mean_intervals(pd.DataFrame(keys, columns=["combo", "model"]), draw_scores(runs, n_draws))
    table = table.set_index("combo")
    return dict(zip(table.index, table[[f"{metric}_low", f"{metric}_high"]].to_numpy(), strict=True)), dict(
        table["interval_over"]
    )


def test_one_undefined_score_does_not_take_other_intervals_away():
    runs = make_runs(QUALITIES)
    expected, _ = find_mean_intervals(runs, "precision")
    calls_nobody = replace(runs["bad", "cnn", 0], y_pred=np.zeros(120, int))  # its precision is undefined
    received, over = find_mean_intervals(runs | {("bad", "cnn", 0): calls_nobody}, "precision")
    assert set(over.values()) == {"patients and seeds"}
    assert not np.isnan(list(received.values())).any()
    for combo in ("raw", "good", "copy"):
        assert received[combo] == pytest.approx(expected[combo], abs=0.06)
    without, _ = find_mean_intervals(
        {key: run for key, run in runs.items() if key != ("bad", "cnn", 0)}, "precision"
    )
    for combo, interval in without.items():
        assert received[combo] == pytest.approx(interval)


def test_a_metric_that_few_seeds_define_has_no_interval_over_seeds():
    runs = make_runs(QUALITIES)
    nobody = {key: replace(run, y_pred=np.zeros(120, int)) for key, run in runs.items() if key[2] > 0}
    precision, over = find_mean_intervals(runs | nobody, "precision")
    assert set(over.values()) == {"patients and seeds"}
    assert np.isnan(list(precision.values())).all()
    accuracy, _ = find_mean_intervals(runs | nobody, "accuracy")
    assert not np.isnan(list(accuracy.values())).any()


def test_a_mean_of_one_seed_takes_the_spread_of_its_model():
    spread = make_runs({("raw", "cnn", seed): quality for seed, quality in enumerate((0.2, 1.0, 1.8))})
    one = {("good", "cnn", 0): make_runs({("good", "cnn", 0): 1.0})["good", "cnn", 0]}
    alone, over_alone = find_mean_intervals(one, "roc_auc")
    beside, over_beside = find_mean_intervals(spread | one, "roc_auc")
    assert (over_alone["good"], over_beside["good"]) == ("patients", "patients and seeds")
    assert np.ptp(beside["good"]) > 1.5 * np.ptp(alone["good"])
    two = {key: run for key, run in spread.items() if key[2] < 2}  # one degree of freedom
    beside_two, over_two = find_mean_intervals(two | one, "roc_auc")
    assert set(over_two.values()) == {"patients"}
    assert beside_two["good"] == pytest.approx(alone["good"])


def test_more_classes_have_no_delong():
    y_true = np.arange(60) % 3
    generator = np.random.default_rng(0)
    patients = np.arange(60).astype(str).astype(object)
    runs = {
        (combo, "cnn", seed): Decided(y_true, p, p.argmax(axis=1), patients)
        for combo in ("raw", "clahe")
        for seed in range(3)
        for p in [generator.dirichlet([1, 1, 1], 60)]
    }
    table = compare_combos(runs, draw_scores(runs, n_draws=100))
    assert table["p_delong"].isna().all()
    assert table["p"].notna().all()


# ROC curves


def curve(*points):
    return pd.DataFrame(points, columns=["false_positive_rate", "sensitivity"])


def follow(points, at):
    """Return a curve's highest sensitivity at a false-positive rate."""
    heights = [height for x, height in points if x == at]
    if heights:
        return max(heights)
    left, right = (max(p for p in points if p[0] < at), min(p for p in points if p[0] > at))
    return left[1] + (right[1] - left[1]) * (at - left[0]) / (right[0] - left[0])


CURVES = {
    "diagonal": [(0, 0), (1, 1)],
    "perfect": [(0, 0), (0, 1), (1, 1)],
    "worst": [(0, 0), (1, 0), (1, 1)],
    "steps": [(0, 0), (0, 0.25), (0.3, 0.25), (0.3, 0.5), (0.72, 0.5), (0.72, 1), (1, 1)],
    "slopes": [(0, 0), (0.1, 0.6), (0.41, 0.8), (1, 1)],
}


@pytest.mark.parametrize(
    "names",
    [*([name] for name in CURVES), ["diagonal", "perfect"], ["steps", "slopes"], ["worst", "steps", "steps"]],
    ids=str,
)
def test_curves_are_averaged_vertically(names):
    average = average_roc([curve(*CURVES[name]) for name in names])
    assert len(average) == 202
    assert average.iloc[0].tolist() == [0, 0]
    assert average.iloc[-1].tolist() == [1, 1]
    for row in average[1:].itertuples():
        expected = np.mean([follow(CURVES[name], row.false_positive_rate) for name in names])
        assert row.sensitivity == pytest.approx(expected)


def test_curves_that_are_not_defined_are_left_out():
    undefined = pd.DataFrame({"false_positive_rate": [], "sensitivity": []})
    steps = curve(*CURVES["steps"])
    pd.testing.assert_frame_equal(average_roc([undefined, steps]), average_roc([steps]))
    assert len(average_roc([undefined])) == 0


@pytest.mark.parametrize("seed", range(3))
def test_area_below_is_the_mean_of_the_areas(seed):
    generator = np.random.default_rng(seed)
    y_true = np.arange(100) % 2
    scores = [generator.normal(0.4 + 0.2 * y_true, 0.1).round(2) for _ in range(3)]
    average = average_roc([tabulate_roc(y_true, y_score) for y_score in scores])
    area = np.trapezoid(average["sensitivity"], average["false_positive_rate"])
    assert area == pytest.approx(np.mean([score_binary(y_true, s)["roc_auc"] for s in scores]), abs=0.005)


# Predictions

MANIFEST = pd.DataFrame(
    {
        "id": ["a", 'b, "c"', "d", "e"],
        "label": ["normal", "pneumonia", "pneumonia", "pneumonia"],
        "subtype": ["normal", "viral", "unknown", "bacterial"],
        "patient": ["0100", "2", "3", "0100"],
        "split": ["val", "test", "test", "val"],
    }
)


def draw_probabilities(n_classes, seed=0):
    weights = np.random.default_rng(seed).random((len(MANIFEST), n_classes), np.float32)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("task", "numbers"), [(Task.binary, [0, 1, 1, 1]), (Task.subtype, [0, 2, -1, 1])])
def test_classes_are_numbered(task, numbers):
    assert number_classes(MANIFEST, task).tolist() == numbers


@pytest.mark.parametrize("task", Task)
def test_predictions_come_back_exactly(tmp_path, task):
    probabilities = draw_probabilities(len(CLASSES[task]))
    y_true = np.array([0, 1, 1, 0])
    table = tabulate_predictions(MANIFEST, CLASSES[task], y_true, probabilities)
    write_predictions(table, tmp_path / "predictions.csv")
    read = read_predictions(tmp_path / "predictions.csv")
    assert read[["id", "split", "patient"]].equals(MANIFEST[["id", "split", "patient"]])

    for split, rows in (("val", [0, 3]), ("test", [1, 2])):
        scores = select_scores(read, split)
        assert scores.classes == CLASSES[task]
        assert scores.y_true.tolist() == y_true[rows].tolist()
        assert scores.patients.tolist() == MANIFEST["patient"][rows].tolist()
        np.testing.assert_array_equal(scores.probabilities.astype(np.float32), probabilities[rows])


@pytest.mark.parametrize(
    ("task", "names"),
    [(Task.binary, ["pneumonia"]), (Task.subtype, ["normal", "bacterial", "viral"])],
)
def test_joined_predictions_hold_every_run(tmp_path, task, names):
    y_true = np.array([0, 1, 1, 0])
    tables = {}
    for seed, run in enumerate(("raw/cnn/0", "clahe/cnn/0")):
        probabilities = draw_probabilities(len(CLASSES[task]), seed)
        tables[run] = tabulate_predictions(MANIFEST, CLASSES[task], y_true, probabilities)
    join_predictions(tables).to_csv(tmp_path / "predictions.csv", index=False)
    read = read_predictions(tmp_path / "predictions.csv")
    columns = {f"{run}:{name}": (run, name) for run in tables for name in names}
    assert list(read.columns) == ["id", "split", "patient", "y_true", *columns]
    assert read["patient"].tolist() == MANIFEST["patient"].tolist()
    assert read["y_true"].tolist() == y_true.tolist()
    for column, (run, name) in columns.items():
        np.testing.assert_allclose(read[column], tables[run][f"p_{name}"], rtol=5e-6)


def test_joined_predictions_tell_saturated_scores_apart(tmp_path):
    positive = np.array([0, 1e-30, 1.5e-9, 1.6e-9, 0.1234567, 0.5, 0.99999, 0.999997, 0.9999985, 1 - 1e-7, 1])
    stored = np.array([float(f"{value:.9g}") for value in positive.astype(np.float32)])
    frame = pd.DataFrame({"id": range(11), "split": "test", "patient": "a", "y_true": 0})
    frame = frame.assign(p_normal=1 - stored, p_pneumonia=stored)
    join_predictions({"raw/cnn/0": frame}).to_csv(tmp_path / "predictions.csv", index=False)
    text = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    read = pd.read_csv(tmp_path / "predictions.csv")["raw/cnn/0:pneumonia"].to_numpy()
    assert (np.diff(read) > 0).all()
    np.testing.assert_allclose(read, stored, rtol=5e-6)
    np.testing.assert_allclose(1 - read, 1 - stored, rtol=5e-6)
    assert max(len(line.split(",")[-1]) for line in text) <= 12


def test_predictions_on_other_images_are_not_joined():
    table = tabulate_predictions(MANIFEST, CLASSES[Task.binary], np.zeros(4, int), draw_probabilities(2))
    other = table.iloc[::-1].reset_index(drop=True)
    with pytest.raises(ValueError, match="Expected b to hold the same images"):
        join_predictions({"a": table, "b": other})


def test_a_further_set_is_scored_as_the_test_set_is():
    runs = make_runs({("raw", "cnn", 0): 1, ("raw", "cnn", 1): 1, ("clahe", "cnn", 0): 2})
    table = score_set("elsewhere", runs)
    assert table[["name", "combo", "model", "n_seeds", "n_images"]].to_numpy().tolist() == [
        ["elsewhere", "raw", "cnn", 2, 120],
        ["elsewhere", "clahe", "cnn", 1, 120],
    ]
    expected = np.mean(
        [roc_auc_score(run.y_true, run.probabilities[:, 1]) for run in list(runs.values())[:2]]
    )
    assert table["roc_auc"][0] == pytest.approx(expected)
    assert (table["roc_auc_low"] < table["roc_auc"]).all()
    assert (table["roc_auc"] < table["roc_auc_high"]).all()


@pytest.mark.slow
def test_sixty_runs_are_compared_in_a_minute():
    keys = [(f"combo{c}", f"model{m}", s) for c in range(5) for m in range(4) for s in range(3)]
    runs = make_runs(dict.fromkeys(keys, 1.0), n=624)
    start = time.monotonic()
    draws = draw_scores(runs)
    assert len(compare_combos(runs, draws)) == 4 * 10 * len(SUMMARY_METRICS)
    add_mean_intervals(rank({key: result() for key in keys}), draws)
    assert time.monotonic() - start < 60  # 8 s on 2 idle cores
