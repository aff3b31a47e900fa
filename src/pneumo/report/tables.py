"""The tables at the end of the page: frames in, cells with a text and a value to sort by out."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pneumo.report import wording

MAX_ROWS = 400  # of a table on the page; the CSV file has all
Row = Mapping[Hashable, Any]


@dataclass(frozen=True)
class Cell:
    """One field.

    Attributes:
        text: what is written.
        small: a second, smaller line; may be empty.
        value: what to sort by; a text sorts behind all numbers.
        kind: mark of its colour; may be empty.
    """

    text: str
    small: str = ""
    value: float | str = ""
    kind: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: its name for readers.
        write: row of the frame -> cell.
        is_number: numbers stand on the right.
    """

    heading: str
    write: Callable[[Row], Cell]
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """A table for readers.

    Attributes:
        name: of the CSV file beside the page, without .csv; unique on the page.
        title: what it holds.
        note: how to read it.
        columns: from left to right.
        rows: cells of each row.
        n_rows: of the CSV file; more than `rows` where the page shows the first only.
    """

    name: str
    title: str
    note: str
    columns: list[Column]
    rows: list[list[Cell]]
    n_rows: int


def tabulate(name: str, title: str, note: str, columns: list[Column], frame: pd.DataFrame) -> Table:
    """Write a frame's rows into the cells of a table, the first MAX_ROWS of them."""
    shown = frame.head(MAX_ROWS).to_dict("records")
    return Table(
        name, title, note, columns, [[column.write(row) for column in columns] for row in shown], len(frame)
    )


def text(heading: str, key: str) -> Column:
    """Return a column of texts."""
    return Column(heading, lambda row: Cell(str(row[key]), value=str(row[key])), is_number=False)


def number(heading: str, key: str, digits: int = 3, signed: bool = False) -> Column:
    """Return a column of numbers."""
    write = wording.write_signed if signed else wording.write_digits
    return Column(heading, lambda row: Cell(write(row[key], digits), value=_sort(row[key])))


def interval(heading: str, key: str) -> Column:
    """Return a column of numbers with their intervals, in `<key>_low` and `<key>_high`."""
    return Column(
        heading,
        lambda row: Cell(
            wording.write_digits(row[key]),
            wording.write_interval(row[f"{key}_low"], row[f"{key}_high"]),
            _sort(row[key]),
        ),
    )


def difference(heading: str = "difference") -> Column:
    """Return a column of differences with their intervals, in `difference`, `low` and `high`."""
    return Column(
        heading,
        lambda row: Cell(
            wording.write_signed(row["difference"]),
            wording.write_interval(row["low"], row["high"], signed=True),
            _sort(row["difference"]),
        ),
    )


def p_value(heading: str, key: str) -> Column:
    """Return a column of p-values."""
    return Column(heading, lambda row: Cell(wording.write_p(row[key]), value=_sort(row[key])))


def verdict(heading: str, key: str = "verdict") -> Column:
    """Return a column of verdicts in words."""
    return Column(
        heading,
        lambda row: Cell(
            wording.name_verdict(str(row[key])), value=str(row[key]), kind=wording.mark_verdict(str(row[key]))
        ),
        is_number=False,
    )


def metric(heading: str = "metric") -> Column:
    """Return the column of metrics."""
    return Column(
        heading,
        lambda row: Cell(wording.name_metric(str(row["metric"])), value=str(row["metric"])),
        is_number=False,
    )


def build_tables(tables: Mapping[str, pd.DataFrame], reference: str, criterion: str) -> list[Table]:
    """Build all tables of the page; those without rows are left out.

    Args:
        tables: the report's CSV files by name.
        reference: the combo that verdicts of the leaderboard compare with.
        criterion: the column that orders the leaderboard.
    """
    seconds = tables["seconds"].groupby(["combo", "model"], as_index=False, sort=False)["train_s"].mean()
    leaderboard = tables["leaderboard"].merge(seconds, how="left")
    run = [text("combination", "combo"), text("model", "model")]
    four = [interval(wording.name_metric(name), name) for name in _FOUR]
    built = [
        tabulate(
            "leaderboard",
            "Leaderboard",
            f"One row a combination and model, ordered by {wording.name_criterion(criterion)}; nothing was "
            "chosen on the test set. Means over seeds; small: 95 % intervals.",
            [
                *run,
                number("seeds", "n_seeds", 0),
                number("ROC AUC, validation", "val_roc_auc", 4),
                number("the same, images changed", "stress_roc_auc", 4),
                *four,
                verdict(f"against {reference}"),
                Column("calibration error", _write_calibration),
                number("training, s", "train_s", 0),
            ],
            leaderboard,
        ),
        tabulate(
            "ensembles",
            "Ensembles",
            "Runs that decide together by their mean logit: the seeds of a combination and model, and those "
            "that params.yaml names. Threshold and temperature are fitted on validation.",
            [
                text("runs of", "ensemble"),
                number("runs", "n_runs", 0),
                number("ROC AUC, validation", "val_roc_auc", 4),
                *four,
                number("ROC AUC, mean of its runs", "mean_roc_auc"),
            ],
            tables["ensembles"],
        ),
        tabulate(
            "effects",
            "Effects",
            "Every test of the experiment; each family is corrected after Holm by itself. primary: a "
            "combination over all models. by_model: under one model. heterogeneity: one model less the "
            "others. p within the margin: two one-sided tests that the difference is smaller than it.",
            [
                text("family", "family"),
                text("of", "subject"),
                text("against", "against"),
                text("over", "over"),
                metric(),
                difference(),
                p_value("p", "p"),
                p_value("p, corrected", "p_holm"),
                p_value("p, within the margin", "p_within_holm"),
                verdict("verdict"),
                number("smallest to be found", "smallest_detectable"),
            ],
            tables["effects"],
        ),
        tabulate(
            "comparisons",
            "Every two combinations under the same model",
            "Differences on the same patients and seeds. The p is corrected after Holm over the whole table. "
            "The last column is the difference that would be shown in 80 % of such experiments: smaller ones "
            "can be real and stay unseen.",
            [
                text("model", "model"),
                text("combination", "combo_a"),
                text("less", "combo_b"),
                metric(),
                number("seeds", "n_seeds", 0),
                difference(),
                p_value("p", "p"),
                p_value("p, corrected", "p_holm"),
                number("smallest to be found", "smallest_detectable"),
            ],
            tables["comparisons"],
        ),
        tabulate(
            "external",
            "Further test sets",
            "The same models with the thresholds that validation gave, on images from elsewhere.",
            [text("set", "name"), *run, number("images", "n_images", 0), *four],
            tables["external"],
        ),
        tabulate(
            "classes",
            "By class",
            "Each class against the rest, means over seeds. A dash stands where no seed calls the class.",
            [
                *run,
                text("class", "class"),
                number("images", "n_images", 0),
                *(number(wording.name_metric(name), name) for name in ("sensitivity", "precision", "f1")),
            ],
            tables["classes"],
        ),
        tabulate(
            "probes",
            "Probes of the models",
            "Means over seeds, and the number of seeds in which the interval shows a problem.",
            [
                *run,
                text("probe", "check"),
                number("value", "value"),
                number("seeds", "n_seeds", 0),
                number("with a problem", "n_problems", 0),
            ],
            tables["probes"],
        ),
        tabulate(
            "runs",
            "Runs",
            "One row a trained network; intervals are over patients.",
            [
                *run,
                number("seed", "seed", 0),
                number("threshold", "threshold"),
                number("ROC AUC, validation", "val_roc_auc", 4),
                *four,
                number("temperature", "temperature", 2),
            ],
            tables["runs"],
        ),
    ]
    return [table for table in built if table.rows]


_FOUR = ("roc_auc", "accuracy", "sensitivity", "specificity")


def _write_calibration(row: Row) -> Cell:
    scaled = wording.write_digits(row["calibration_error_scaled"])
    return Cell(
        wording.write_digits(row["calibration_error"]), f"{scaled} scaled", _sort(row["calibration_error"])
    )


def _sort(value: Any) -> float | str:
    return "" if value is None or pd.isna(value) else float(f"{value:.6g}")
