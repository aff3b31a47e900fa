import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_report import EFFECTS

from pneumo.report.plots import write_plots

ROOT = Path(__file__).parents[2]
CURVE = pd.DataFrame({"false_positive_rate": [0.0, 0.0, 0.5, 1.0], "sensitivity": [0.0, 0.5, 0.9, 1.0]})
MATRIX = pd.DataFrame([[8.0, 2.0], [0.0, 10.0]], ["normal", "pneumonia"], ["normal", "pneumonia"])


@pytest.fixture
def folder(tmp_path):
    groups = [("raw", "cnn"), ("clahe", "cnn"), ("raw", "dense")]
    write_plots(EFFECTS, dict.fromkeys(groups, CURVE), dict.fromkeys(groups, MATRIX), "cnn", tmp_path)
    return tmp_path


def test_the_forest_plot_has_the_primary_effects(folder):
    table = pd.read_csv(folder / "effects.csv")
    assert table["combo"].tolist() == ["equalize", "crop_clahe"]
    assert table["difference"].tolist() == [0.003, -0.0312]


def test_all_curves_are_in_one_table(folder):
    table = pd.read_csv(folder / "roc.csv")
    assert set(zip(table["combo"], table["model"], strict=True)) == {
        ("raw", "cnn"),
        ("clahe", "cnn"),
        ("raw", "dense"),
    }
    ends = table.groupby(["combo", "model"])["sensitivity"].agg(["min", "max"]).to_numpy()
    assert (ends == [0, 1]).all()


def test_a_long_curve_keeps_its_ends_and_few_points(tmp_path):
    points = [i / 1000 for i in range(1001)]
    curve = pd.DataFrame({"false_positive_rate": points, "sensitivity": points})
    write_plots(EFFECTS, {("raw", "cnn"): curve}, {("raw", "cnn"): MATRIX}, "cnn", tmp_path)
    table = pd.read_csv(tmp_path / "roc.csv")
    assert len(table) <= 51
    assert table["false_positive_rate"].iloc[[0, -1]].tolist() == [0, 1]


def test_an_undefined_curve_has_no_rows(tmp_path):
    write_plots(EFFECTS, {("raw", "cnn"): CURVE.iloc[:0]}, {("raw", "cnn"): MATRIX}, "cnn", tmp_path)
    assert pd.read_csv(tmp_path / "roc.csv").empty


def test_matrices_are_of_the_best_model(folder):
    table = pd.read_csv(folder / "confusion.csv")
    assert set(table["combo"]) == {"raw", "clahe"}
    row = table[
        (table["combo"] == "raw") & (table["actual"] == "normal") & (table["predicted"] == "pneumonia")
    ]
    assert row[["images", "share"]].to_numpy().tolist() == [[2.0, 0.2]]


def find_fields(value):
    if isinstance(value, dict):
        own = {value["field"]} if isinstance(value.get("field"), str) else set()
        return own.union(*map(find_fields, value.values()))
    return set().union(*map(find_fields, value)) if isinstance(value, list) else set()


def test_templates_draw_columns_that_are_there(folder):
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    assert len(plots) == 3
    for plot in plots:
        ((path, settings),) = plot.items()
        template = json.loads((ROOT / f".dvc/plots/{settings['template']}.json").read_text())
        columns = set(pd.read_csv(folder / Path(path).name).columns)
        assert find_fields(template) - {"rev"} <= columns
        assert {settings["x"], settings["y"]} <= columns
        assert "<DVC_METRIC_DATA>" in json.dumps(template)
