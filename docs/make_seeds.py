"""Write docs/seeds.md from docs/seeds.yaml and the reports of the presets.

    python docs/make_seeds.py

Run it from the project's root (`make seeds`). What has not been run says so.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import yaml

HEAD = """\
# Five earlier systems under one protocol

This page is written by `make seeds` from the reports of the presets; do not edit it. Each row is a model of a
system that this project grew from: what its authors claim, and what the same model comes to here, on the
official test split, with validation carved out by patient, everything chosen on validation, as a mean over
seeds and its 95 % interval over patients and seeds.
"""
NOT_RUN = "not run yet"
LEAK = """
## The label leak of system 000

`examples/label_leak.py`: the same network, on images whose steps came in an order that depended on the
class, and on images with one order for both; beside it a rule that only counts the grey values which an image
does not use. On the real images at 224 px:

| order of steps | network: accuracy | ROC AUC | rule: accuracy | ROC AUC |
|---|---|---|---|---|
"""
RESPLIT = """
## What a re-split and validating on the test set add

`examples/resplit.py`: the head of a frozen MobileNet on the real images, means over {n_seeds} seeds:

| protocol | accuracy | ROC AUC | test images whose patient is in training |
|---|---|---|---|
"""
NOT_THE_PATIENTS = """
Here it is not the shared patients that lift the score: a re-split by patient scores as high as one by image.
What a re-split takes away is that the official test set comes from another distribution (the audit's
`shift_normal`), so its score says little of images from elsewhere. A network that is trained throughout can
remember patients better than a head on frozen features can.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    parser.add_argument("--rows", type=Path, default=Path("docs/seeds.yaml"))
    parser.add_argument("--output", type=Path, default=Path("docs/seeds.md"))
    options = parser.parse_args()
    rows = yaml.safe_load(options.rows.read_text(encoding="utf-8"))
    text = [HEAD, *tabulate_systems(rows, options.reports), *tabulate_classes(rows, options.reports)]
    text += tabulate_leak(options.reports / "examples/label_leak.json")
    text += tabulate_resplit(options.reports / "examples/resplit.json")
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")


def tabulate_systems(rows: list[dict[str, str]], reports: Path) -> list[str]:
    """Return the table of claims and measurements, as lines of Markdown."""
    lines = [
        "| system | model | claim | accuracy here | ROC AUC here | seeds | cut here | why they differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        found = find_run(row, reports)
        accuracy = write_interval(found, "accuracy", 100, " %") if found is not None else NOT_RUN
        area = write_interval(found, "roc_auc", 1, "") if found is not None else ""
        seeds = found["n_seeds"] if found is not None else ""
        lines.append(
            f"| {row['system']} | {row['row']} | {row['claim']} | {accuracy} | {area} | {seeds} "
            f"| {row.get('cut', '')} | {row['why'] if found is not None else ''} |"
        )
    return lines


def tabulate_classes(rows: list[dict[str, str]], reports: Path) -> list[str]:
    """Return sensitivity and precision by class of the models that tell three classes apart."""
    lines = []
    for row in rows:
        path = reports / row["experiment"] / "plots" / "confusion" / f"{row['model']}_{row['combo']}.csv"
        if not path.is_file():
            continue
        decisions = pd.read_csv(path)
        counts = pd.crosstab(decisions["actual"], decisions["predicted"])
        if len(counts) < 3:
            continue
        counts = counts.reindex(columns=counts.index, fill_value=0)
        cells = []
        for name in ("normal", "bacterial", "viral"):
            right = counts.loc[name, name]
            called = counts[name].sum()
            precision = f"{right / called:.3f}" if called else "-"
            cells.append(f"{right / counts.loc[name].sum():.3f} / {precision}")
        lines.append(f"| {row['system']} | {row['row']} | {' | '.join(cells)} |")
    if not lines:
        return []
    head = [
        "",
        "## By class",
        "",
        "Sensitivity / precision, over all seeds:",
        "",
        "| system | model | normal | bacterial | viral |",
        "|---|---|---|---|---|",
    ]
    return head + lines


def tabulate_leak(path: Path) -> list[str]:
    """Return what examples/label_leak.py found, as lines of Markdown; none where it has not been run."""
    if not path.is_file():
        return []
    lines = LEAK.splitlines()
    for name, row in json.loads(path.read_text(encoding="utf-8")).items():
        cells = (f"{row[by]['accuracy']:.1%} | {row[by]['roc_auc']:.3f}" for by in ("network", "rule"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def tabulate_resplit(path: Path) -> list[str]:
    """Return what examples/resplit.py found, as lines of Markdown; none where it has not been run."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    n_seeds = len(next(iter(found["runs"].values())))
    lines = RESPLIT.format(n_seeds=n_seeds).splitlines()
    for name, row in found["means"].items():
        accuracy, shared = f"{row['accuracy']:.1%}", f"{row['shared_patients']:.0%}"
        lines.append(f"| {name} | {accuracy} | {row['roc_auc']:.3f} | {shared} |")
    means = found["means"]
    if means["random patients"]["accuracy"] >= means["random images"]["accuracy"]:
        lines += NOT_THE_PATIENTS.splitlines()
    return lines


def find_run(row: dict[str, str], reports: Path) -> pd.Series | None:
    """Return a row's line of its leaderboard, or None where there is none."""
    path = reports / row["experiment"] / "leaderboard.csv"
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    found = table[(table["combo"] == row["combo"]) & (table["model"] == row["model"])]
    return found.iloc[0] if len(found) else None


def write_interval(found: pd.Series, metric: str, factor: float, unit: str) -> str:
    """Write a mean with its interval."""
    digits = 1 if factor == 100 else 3
    value, low, high = (found[name] * factor for name in (metric, f"{metric}_low", f"{metric}_high"))
    return f"{value:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
