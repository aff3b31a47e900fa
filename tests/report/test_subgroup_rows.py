import numpy as np
import pandas as pd
import pytest
from small_report import make_report

from pneumo.evaluation.subgroups import COLUMNS
from pneumo.report.page import write_report
from pneumo.report.subgroups import METRICS, arrange_subgroups, describe_differences
from pneumo.report.wording import MINUS


def make_table(p=(0.5, 0.01, np.nan), n_groups=2):
    rows = []
    for number, group in enumerate(["F", "M <b>"][:n_groups]):
        for metric, p_holm in zip(METRICS, p, strict=True):
            is_reference = number == 0
            rows.append(
                {
                    "attribute": "sex",
                    "group": group,
                    "n_patients": 1240 - number,
                    "n_images": 1300,
                    "metric": metric,
                    "value": 0.91234,
                    "low": 0.9,
                    "high": 0.92,
                    "against": "" if is_reference else "F",
                    "difference": np.nan if is_reference else -0.05,
                    "difference_low": np.nan if is_reference else -0.08,
                    "difference_high": np.nan if is_reference else -0.02,
                    "p_holm": np.nan if is_reference else p_holm,
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_one_row_a_group():
    rows = arrange_subgroups(make_table())
    assert [(row.attribute, row.name, row.is_reference) for row in rows] == [
        ("sex", "F", True),
        ("sex", "M <b>", False),
    ]
    assert [score.text for score in rows[0].scores] == ["0.912"] * 3
    assert [score.differs for row in rows for score in row.scores] == [False] * 4 + [True, False]
    assert arrange_subgroups(make_table().iloc[:0]) == []


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (
            make_table(),
            f"sensitivity for sex M <b> differs from F by {MINUS}0.050 ({MINUS}0.080 to {MINUS}0.020).",
        ),
        (make_table(p=(0.5, 0.06, np.nan)), "which does not show that there is none."),
        (make_table(p=(np.nan,) * 3), "Differences were not judged"),
        (make_table(n_groups=1), "none were compared"),
    ],
)
def test_what_the_tests_show(table, text):
    assert text in describe_differences(table)


def test_groups_are_on_the_page_and_in_the_card(tmp_path):
    write_report(make_report(subgroups=make_table()), tmp_path)
    page, card = ((tmp_path / name).read_text() for name in ("index.html", "model_card.md"))
    assert "In groups of patients" in page
    assert "sex: M &lt;b&gt;" in page
    assert "M <b>" not in page
    assert '<span class="harms">0.912</span>' in page
    assert "| sex: F | 1240 | 1300 | 0.912 (0.900 to 0.920) |" in card
    assert "| sex: M <b> | 1239 |" in card


def test_without_groups_nothing_is_said(tmp_path):
    write_report(make_report(), tmp_path)
    for name in ("index.html", "model_card.md"):
        assert "groups of patients" not in (tmp_path / name).read_text().lower()
