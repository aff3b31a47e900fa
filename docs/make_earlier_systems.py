"""Write docs/earlier_systems.md from docs/earlier_systems.yaml and the reports of the presets.

    python docs/make_earlier_systems.py

Run it from the project's root (`make earlier-systems`). What has not been run says so.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

HEAD = """\
# Five earlier systems under one protocol

This page is written by `make earlier-systems` from the reports of the presets; do not edit it. Each row is a
model of a system that this project grew from, or one that mends it: what its authors claim, and what it comes
to here, on the official test set and on validation, which is carved out of the official training set by
patient. All choices are made on validation; decisions between two classes are made at Youden's threshold.
*Cut here* says where a run was cheaper than its recipe, and where another network stands for the authors'.
Numbers are means over seeds, those of the test set with 95 % intervals over patients and seeds.
"""
NOT_RUN = "not run yet"
SUBTYPES = ("normal", "bacterial", "viral")
COLUMNS = (
    "system",
    "model",
    "claim",
    "accuracy, test",
    "lowest and highest seed",
    "accuracy, validation",
    "ROC AUC, test",
    "ROC AUC, validation",
    "seeds",
    "cut here",
    "why they differ",
)
UNFROZEN = """
## What unfreezing does to system 001, epoch by epoch

Validation accuracy after each epoch of the phase that trains the backbone, as a mean over seeds, and the
lowest of any seed in brackets. On the test set {n_shown} of {n_pairs} pairs of models of that report are
shown to differ in ROC AUC.
"""
LEAK = """
## The label leak of system 000

`examples/label_leak.py` trains the same network on images whose steps came in an order that depended on the
class, on images with one order for both, and on images whose classes were drawn at random, with the order of
steps depending on these. Beside it stands a rule that knows nothing of an image but how many grey values it
does not use. On the real images, 224 px shrunk to 56, {n_epochs} epochs:

| order of steps | network: accuracy | ROC AUC | rule: accuracy | ROC AUC |
|---|---|---|---|---|
"""
LEAK_MEANING = """
From the order alone the rule tells {rule:.1%} of the classes, and the network {drawn:.1%} where the classes
mean nothing. On the real classes, which the images show too, the leak adds {gain:.1f} points to the network,
with one network each.
So what the claim of 100 % rests on is shown; that this network reaches 100 % by it is not.
"""
COMBOS = """
## What each combo of system 000 does

`examples/combos.py`, means over {n_images} training images: grey values that an image uses, black pixels,
bits that a grey value carries, and *kept*, the share of the variance of the grey values of `base` that can be
told from the value at the same place. Then what comes of the same network,
and the difference in ROC AUC from `base`, with the verdict of the report's first answer, which is corrected
for one question a combo. The report's table of all pairs and metrics corrects for more, and shows less:

| combo | grey values | black | bits | kept | ROC AUC, test | against base |
|---|---|---|---|---|---|---|
"""
CONTACT_SHEET = (
    "The same images under every combo: [Data and audit](../reports/system_000/index.html#data) of the "
    "report."
)
RATE = """
## The learning-rate range test of system 002

`pneumo find-rate system_002_resnet --combo raw`, with ResNet50 up to conv4_block6_out: the rate rises step by
step until the loss explodes; suggested is a tenth of the rate at which it was least.

![Loss by learning rate](../reports/system_002/learning_rate/system_002_resnet_finetune/rates.png)
"""
TUNING = """
## The search of system 004

`pneumo tune cnn --combo raw`: {n_trials} recipes within the ranges of `conf/tune/cnn.yaml`, {n_pruned} of
them given up early, on a validation set that was drawn otherwise than today's. The best is
`conf/model/system_004_tuned.yaml`. It had a `val_auc` of {best:.4f} there: the greatest of those that
were not given up, so a lucky one. On today's validation set the mean ROC AUC of its seeds is {tuned[0]:.4f},
and {tuned[1]:.3f} on the test set; of `cnn`, the recipe that the search varies, {before[0]:.4f} and
{before[1]:.3f}.

![Trials](../reports/system_004/tuning/cnn/history.png)
![Importance of the parameters](../reports/system_004/tuning/cnn/importance.png)
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
    parser.add_argument("--rows", type=Path, default=Path("docs/earlier_systems.yaml"))
    parser.add_argument("--output", type=Path, default=Path("docs/earlier_systems.md"))
    options = parser.parse_args()
    rows = yaml.safe_load(options.rows.read_text(encoding="utf-8"))
    reports = options.reports
    text = [
        HEAD,
        *tabulate_systems(rows, reports),
        *tabulate_classes(rows, reports),
        *tabulate_unfrozen(rows, reports),
        *tabulate_leak(reports / "examples/label_leak.json"),
        *tabulate_combos(reports / "examples/combos.json", reports),
        *tabulate_resplit(reports / "examples/resplit.json"),
        *describe_rate_test(reports / "system_002/learning_rate/system_002_resnet_finetune"),
        *describe_search(reports),
    ]
    options.output.write_text("\n".join(text) + "\n", encoding="utf-8")


def write_row(cells: Iterable[object]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def tabulate_systems(rows: list[dict[str, str]], reports: Path) -> list[str]:
    """Return the table of claims and measurements, as lines of Markdown."""
    lines = [write_row(COLUMNS), "|---" * len(COLUMNS) + "|"]
    for row in rows:
        known = (row["system"], row["row"], row["claim"])
        leaderboard = select_rows(row, reports, "leaderboard")
        if leaderboard.empty:
            measured: tuple[object, ...] = (NOT_RUN, *[""] * (len(COLUMNS) - len(known) - 1))
        else:
            found, accuracy = leaderboard.iloc[0], select_rows(row, reports, "runs")["accuracy"]
            measured = (
                write_interval(found, "accuracy", 100, " %"),
                f"{100 * accuracy.min():.1f} to {100 * accuracy.max():.1f}",
                f"{100 * found['val_accuracy']:.1f} %",
                write_interval(found, "roc_auc", 1, ""),
                f"{found['val_roc_auc']:.3f}",
                found["n_seeds"],
                row.get("cut", ""),
                row["why"],
            )
        lines.append(write_row([*known, *measured]))
    return lines


def tabulate_classes(rows: list[dict[str, str]], reports: Path) -> list[str]:
    """Return sensitivity and precision by class of the models that tell three classes apart."""
    lines = []
    for row in rows:
        table = select_rows(row, reports, "classes")
        if len(table) == len(SUBTYPES):
            found = (table.set_index("class").loc[name] for name in SUBTYPES)
            cells = (f"{each['sensitivity']:.3f} / {write_number(each['precision'])}" for each in found)
            lines.append(write_row([row["system"], row["row"], *cells]))
    head = [
        "",
        "## By class",
        "",
        "Sensitivity / precision on the test set, means over seeds.",
        "",
        write_row(["system", "model", *SUBTYPES]),
        "|---|---|---|---|---|",
    ]
    return head + lines if lines else []


def tabulate_unfrozen(rows: list[dict[str, str]], reports: Path) -> list[str]:
    """Return the validation accuracy of the rows that say `unfreezes`, epoch by epoch."""
    tables: dict[str, pd.DataFrame] = {}
    for row in rows:
        history = select_rows(row, reports, "history")
        if not row.get("unfreezes") or history.empty:
            continue
        last = history[history["phase"] == history["phase"].iloc[-1]]
        epoch = last["epoch"] - last.groupby("seed")["epoch"].transform("min") + 1
        tables[row["row"]] = last["val_accuracy"].groupby(epoch).agg(["mean", "min"])
    if not tables:
        return []
    n_epochs = max(map(len, tables.values()))
    head = write_row(["model", *(f"epoch {number + 1}" for number in range(n_epochs))])
    unfrozen = UNFROZEN.format(**count_shown(reports / "system_001/effects.csv"))
    lines = [*unfrozen.splitlines(), "", head, "|---" * (n_epochs + 1) + "|"]
    for name, accuracy in tables.items():
        cells = [f"{each['mean']:.3f} ({each['min']:.3f})" for _, each in accuracy.iterrows()]
        lines.append(write_row([name, *cells, *[""] * (n_epochs - len(cells))]))
    return lines


def count_shown(path: Path) -> dict[str, int]:
    """Return how many pairs of models a report compares on the test set, and how many are shown to differ."""
    pairs = pd.read_csv(path).query("family == 'models'")
    return {"n_pairs": len(pairs), "n_shown": int(pairs["verdict"].isin(["better", "worse"]).sum())}


def tabulate_leak(path: Path) -> list[str]:
    """Return what examples/label_leak.py found, as lines of Markdown; none where it has not been run."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = LEAK.format(n_epochs=found["n_epochs"]).splitlines()
    for name, row in found["rows"].items():
        cells = (f"{row[by]['accuracy']:.1%} | {row[by]['roc_auc']:.3f}" for by in ("network", "rule"))
        lines.append(write_row([name, *cells]))
    leaky, clean, drawn = found["rows"].values()
    meaning = LEAK_MEANING.format(
        rule=leaky["rule"]["accuracy"],
        drawn=drawn["network"]["accuracy"],
        gain=100 * (leaky["network"]["accuracy"] - clean["network"]["accuracy"]),
    )
    return [*lines, *meaning.splitlines()]


def tabulate_combos(path: Path, reports: Path) -> list[str]:
    """Return what examples/combos.py found, and the scores of the combos; none where either is missing."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for name, row in found["combos"].items():
        run = {"experiment": "system_000", "combo": name, "model": "system_000_cnn"}
        for _, score in select_rows(run, reports, "leaderboard").iterrows():
            cells = [f"{row['grey_values']:.0f}", f"{row['black']:.0%}", f"{row['bits']:.1f}"]
            cells += [f"{row['kept']:.2f}", write_interval(score, "roc_auc", 1, "")]
            cells += [describe_effect(name, reports / "system_000/effects.csv")]
            lines.append(write_row([name, *cells]))
    head = COMBOS.format(n_images=found["n_images"]).splitlines()
    return [*head, *lines, "", CONTACT_SHEET] if lines else []


def describe_effect(combo: str, path: Path) -> str:
    """Write the difference of a combo from the reference with its verdict; - for the reference itself."""
    table = pd.read_csv(path)
    found = table[(table["family"] == "primary") & (table["subject"] == combo)]
    if found.empty:
        return "-"
    effect = found.iloc[0]
    difference = f"{effect['difference']:+.3f} ({effect['low']:+.3f} to {effect['high']:+.3f})"
    return f"{difference}: {effect['verdict'].replace('_', ' ')}"


def describe_rate_test(folder: Path) -> list[str]:
    """Return the picture of a learning-rate range test; none where it has not been run."""
    return RATE.splitlines() if (folder / "rates.png").is_file() else []


def describe_search(reports: Path) -> list[str]:
    """Return what a search came to; none where it has not been run."""
    path = reports / "system_004/tuning/cnn/trials.csv"
    row = {"experiment": "system_004", "combo": "raw"}
    before, tuned = (
        select_rows(row | {"model": model}, reports, "leaderboard") for model in ("cnn", "system_004_tuned")
    )
    if not path.is_file() or before.empty or tuned.empty:
        return []
    trials = pd.read_csv(path)
    text = TUNING.format(
        n_trials=len(trials),
        n_pruned=int((trials["state"] == "pruned").sum()),
        best=trials.loc[trials["state"] == "complete", "value"].max(),
        before=before[["val_roc_auc", "roc_auc"]].iloc[0].tolist(),
        tuned=tuned[["val_roc_auc", "roc_auc"]].iloc[0].tolist(),
    )
    return text.splitlines()


def tabulate_resplit(path: Path) -> list[str]:
    """Return what examples/resplit.py found, as lines of Markdown; none where it has not been run."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    n_seeds = len(next(iter(found["runs"].values())))
    lines = RESPLIT.format(n_seeds=n_seeds).splitlines()
    for name, row in found["means"].items():
        accuracy, shared = f"{row['accuracy']:.1%}", f"{row['shared_patients']:.0%}"
        lines.append(write_row([name, accuracy, f"{row['roc_auc']:.3f}", shared]))
    means = found["means"]
    if means["random patients"]["accuracy"] >= means["random images"]["accuracy"]:
        lines += NOT_THE_PATIENTS.splitlines()
    return lines


def select_rows(row: dict[str, str], reports: Path, name: str) -> pd.DataFrame:
    """Return what a table of a report has of a row's combo and model; nothing where there is none."""
    path = reports / row["experiment"] / f"{name}.csv"
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path)
    return table[(table["combo"] == row["combo"]) & (table["model"] == row["model"])]


def write_number(value: float) -> str:
    """Write a fraction, or - where it is not defined."""
    return "-" if pd.isna(value) else f"{value:.3f}"


def write_interval(found: pd.Series, metric: str, factor: float, unit: str) -> str:
    """Write a mean with its interval."""
    digits = 1 if factor == 100 else 3
    value, low, high = (found[name] * factor for name in (metric, f"{metric}_low", f"{metric}_high"))
    return f"{value:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
