import numpy as np
import pandas as pd
from small_report import make_report

from pneumo.report import tables


def build(**changes):
    report = make_report(**changes)
    return {
        table.name: table for table in tables.build_tables(report.tables, report.reference, report.criterion)
    }


def column(table, heading):
    (place,) = (i for i, each in enumerate(table.columns) if each.heading == heading)
    return [row[place] for row in table.rows]


def test_tables_without_rows_are_left_out():
    assert "external" not in build()
    assert "external" in build(external=True)


def test_the_leaderboard_keeps_its_order_and_its_numbers():
    report = make_report()
    leaderboard = report.tables["leaderboard"]
    table = build()["leaderboard"]
    assert [cell.text for cell in column(table, "combination")] == leaderboard["combo"].tolist()
    cell = column(table, "ROC AUC")[0]
    assert cell.text == f"{leaderboard['roc_auc'][0]:.3f}"
    assert cell.small == f"{leaderboard['roc_auc_low'][0]:.3f} to {leaderboard['roc_auc_high'][0]:.3f}"
    assert cell.value == float(f"{leaderboard['roc_auc'][0]:.6g}")
    assert {cell.text for cell in column(table, "training, s")} == {"57"}


def test_the_leaderboard_says_what_orders_it():
    assert "ordered by ROC AUC on validation;" in build()["leaderboard"].note
    stressed = build(criterion="stress_roc_auc")["leaderboard"]
    assert "ordered by mean ROC AUC on changed validation images;" in stressed.note


def test_verdicts_are_words_with_a_mark():
    cells = column(build()["effects"], "verdict")
    assert {(cell.text, cell.kind) for cell in cells} == {
        ("worse", "harms"),
        ("better", "helps"),
        ("no difference shown", "open"),
    }


def test_a_long_table_is_cut_and_says_so():
    long = pd.DataFrame({"a": np.arange(1000)})
    table = tables.tabulate("name", "title", "note", [tables.number("a", "a", 0)], long)
    assert (len(table.rows), table.n_rows) == (tables.MAX_ROWS, 1000)


def test_an_undefined_number_is_a_dash_that_sorts_last():
    frame = pd.DataFrame({"a": [np.nan], "difference": [np.nan], "low": [np.nan], "high": [np.nan]})
    columns = [tables.number("a", "a"), tables.difference(), tables.p_value("p", "a")]
    (row,) = tables.tabulate("name", "title", "note", columns, frame).rows
    assert {(cell.text, cell.value) for cell in row} == {("\N{EN DASH}", "")}
