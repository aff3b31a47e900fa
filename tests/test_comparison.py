import json

import numpy as np
import pandas as pd
import pytest

from pneumo.base.labels import CLASSES, Task
from pneumo.domain.comparison import (
    METRICS,
    SUMMARY_METRICS,
    average_roc,
    join_predictions,
    rank_runs,
    summarize,
    tabulate_runs,
)
from pneumo.domain.metrics import score_binary, tabulate_roc
from pneumo.domain.predictions import (
    number_classes,
    read_predictions,
    select_scores,
    tabulate_predictions,
    write_predictions,
)
from pneumo.domain.report import Report, write_report


def result(val_roc_auc=0.9, at_half=True, **test):
    """Return a metrics.json with 0.5 for every metric that is not named."""
    scores = dict.fromkeys(METRICS, 0.5)
    content = {"threshold": 0.3, "test": scores | test, "val": scores | {"roc_auc": val_roc_auc}}
    return content | ({"test_at_0.5": scores} if at_half else {})


def rank(results):
    return rank_runs(tabulate_runs(results))


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
    assert (cnn["f1"], cnn["f1_min"], cnn["f1_max"]) == (pytest.approx(0.45), 0.2, 0.7)
    assert (dense["f1"], dense["f1_min"], dense["f1_max"]) == (0.9, 0.9, 0.9)


def test_ties_keep_the_order_of_params():
    names = [f"combo_{i}" for i in range(40)]
    table = rank({(name, "cnn", 0): result(0.9 - i % 2 / 10) for i, name in enumerate(names)})
    assert table["combo"].tolist() == names[::2] + names[1::2]


@pytest.mark.parametrize("value", [0.1, 0.7, 0.8888888888888888])
@pytest.mark.parametrize("n_seeds", [3, 6, 7])
def test_mean_of_equal_values_is_that_value(value, n_seeds):
    row = rank({("raw", "cnn", seed): result(roc_auc=value) for seed in range(n_seeds)}).loc[0]
    assert row["roc_auc"] == row["roc_auc_min"] == row["roc_auc_max"] == value


@pytest.mark.parametrize(("values", "expected"), [([None, 0.6], 0.6), ([None, None], None)])
def test_undefined_metrics_are_left_out(values, expected):
    row = rank({("raw", "cnn", seed): result(precision=value) for seed, value in enumerate(values)}).loc[0]
    assert row["n_seeds"] == 2
    for name in ("precision", "precision_min", "precision_max"):
        assert pd.isna(row[name]) if expected is None else row[name] == expected


def test_without_a_validation_score_comes_last():
    table = rank({("a", "cnn", 0): result(None), ("b", "cnn", 0): result(0.5)})
    assert table["combo"].tolist() == ["b", "a"]


def test_summary_is_rounded_and_sorted():
    summary = summarize(
        rank(
            {
                ("raw", "cnn", 0): result(0.9, roc_auc=0.123456, sensitivity=None),
                ("clahe", "dense", 0): result(0.7),
                ("clahe", "cnn", 0): result(0.8),
            }
        )
    )
    assert [(combo, list(models)) for combo, models in summary.items()] == [
        ("clahe", ["cnn", "dense"]),
        ("raw", ["cnn"]),
    ]
    assert tuple(summary["raw"]["cnn"]) == SUMMARY_METRICS
    assert summary["raw"]["cnn"]["roc_auc"] == 0.1235
    assert summary["raw"]["cnn"]["sensitivity"] is None
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


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
        np.testing.assert_allclose(read[column], tables[run][f"p_{name}"], atol=0.5001e-5, rtol=0)


def test_predictions_on_other_images_are_not_joined():
    table = tabulate_predictions(MANIFEST, CLASSES[Task.binary], np.zeros(4, int), draw_probabilities(2))
    other = table.iloc[::-1].reset_index(drop=True)
    with pytest.raises(ValueError, match="Expected b to hold the same images"):
        join_predictions({"a": table, "b": other})


# The page


def write_page(path, **changes):
    leaderboard = rank({("raw", "cnn", 0): result(roc_auc=0.8125), ("raw", "cnn", 1): result(roc_auc=None)})
    content = {
        "experiment": "demo",
        "data_title": "X-rays <b>& more</b>",
        "is_synthetic": False,
        "classes": ("normal", "pneumonia"),
        "counts": pd.DataFrame({"normal": [12], "viral": [34]}, index=["train"]),
        "leaderboard": leaderboard.assign(train_s=56.7),
        "missing_runs": [],
        "set_aside": pd.DataFrame({"path": ["train/<i>.jpeg"], "reason": ["empty file"]}),
        "figures": {"How they compare": [("figures/roc_auc.png", "mean & range")]},
        "params": "combos: {raw: []}",
        "provenance": {"keras version": "3.15"},
    }
    write_report(Report(**content | changes), path)
    return path.read_text()


def test_page_shows_all_there_is(tmp_path):
    page = write_page(tmp_path / "index.html")
    for text in (
        "X-rays &lt;b&gt;&amp; more&lt;/b&gt;",
        "<td>raw</td>",
        "0.812",
        "<td>57</td>",
        "<td>12</td><td>34</td>",
        "train/&lt;i&gt;.jpeg",
        "empty file",
        "How they compare",
        'src="figures/roc_auc.png"',
        "mean &amp; range",
        "combos: {raw: []}",
        "3.15",
    ):
        assert text in page
    assert "<b>" not in page


def test_undefined_metrics_are_a_dash(tmp_path):
    leaderboard = rank({("raw", "cnn", 0): result(roc_auc=None)}).assign(train_s=1.0)
    assert "<td>-</td>" in write_page(tmp_path / "index.html", leaderboard=leaderboard)
    assert "<td>-</td>" not in write_page(tmp_path / "index.html")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"is_synthetic": True}, "Synthetic data"),
        ({"missing_runs": ["raw/cnn/7", "raw/cnn/8"]}, "2 runs have no result"),
    ],
)
def test_warnings_stand_on_the_page_where_they_are_due(tmp_path, change, text):
    assert text in write_page(tmp_path / "index.html", **change)
    assert text not in write_page(tmp_path / "index.html")
