"""Subgroups on the page and in the model card: one row a group."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pneumo.report import wording

METRICS = ("roc_auc", "sensitivity", "specificity")


@dataclass(frozen=True)
class Score:
    """One metric of a group.

    Attributes:
        text: the value.
        interval: its 95 % interval.
        differs: it is shown to differ from the group that the others are compared with.
    """

    text: str
    interval: str
    differs: bool


@dataclass(frozen=True)
class Subgroup:
    """One row.

    Attributes:
        attribute: what patients are grouped by.
        name: of the group.
        n_patients, n_images: in the test set.
        is_reference: the other groups of the attribute are compared with it.
        scores: of METRICS, in their order.
    """

    attribute: str
    name: str
    n_patients: int
    n_images: int
    is_reference: bool
    scores: list[Score]


def arrange_subgroups(table: pd.DataFrame) -> list[Subgroup]:
    """Arrange the rows of subgroups.csv, one row a group; empty where no group is known."""
    rows = []
    for _, of_group in table.groupby(["attribute", "group"], sort=False):
        first = of_group.iloc[0]
        by_metric = {str(row["metric"]): row for row in of_group.to_dict("records")}
        rows.append(
            Subgroup(
                str(first["attribute"]),
                str(first["group"]),
                int(first["n_patients"]),
                int(first["n_images"]),
                bool(first["against"] == ""),
                [_write_score(by_metric[metric]) for metric in METRICS],
            )
        )
    return rows


def describe_differences(table: pd.DataFrame) -> str:
    """Say in a sentence or two what the tests show."""
    compared = table[table["against"] != ""]
    if compared.empty:
        return "No attribute has two groups of 20 patients, so none were compared."
    if compared["p_holm"].isna().all():
        return "Differences were not judged: the spread over seeds or patients is not known."
    shown = compared[compared["p_holm"] <= wording.SIGNIFICANCE]
    if shown.empty:
        return "No difference between groups is shown, which does not show that there is none."
    parts = [
        f"{wording.name_metric(row['metric'])} for {row['attribute']} {row['group']} differs from "
        f"{row['against']} by {wording.write_signed(row['difference'])} "
        f"({wording.write_interval(row['difference_low'], row['difference_high'], signed=True)})"
        for row in shown.to_dict("records")
    ]
    return f"Shown to differ: {'; '.join(parts)}."


def _write_score(row: Mapping[Hashable, Any]) -> Score:
    return Score(
        wording.write_digits(row["value"]),
        wording.write_interval(row["low"], row["high"]),
        bool(row["p_holm"] <= wording.SIGNIFICANCE),
    )
