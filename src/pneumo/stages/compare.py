"""compare: all runs of an experiment -> reports/<experiment>/."""

import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from pneumo.base.artifacts import hash_file, read_json, write_file, write_folder, write_json
from pneumo.base.config import PARAMS_PATH, Params, Run, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.labels import CLASSES, Subtype
from pneumo.base.paths import (
    audit_dir,
    explanations_dir,
    exploration_dir,
    external_dir,
    images_path,
    manifest_path,
    report_dir,
)
from pneumo.data.manifest import read_manifest
from pneumo.evaluation import comparison
from pneumo.evaluation.metrics import count_confusion
from pneumo.evaluation.predictions import decide, read_predictions, select_scores
from pneumo.report import figures
from pneumo.report.page import Report, write_report

N_CONTACT_IMAGES = 2
VERSIONS = ("pneumo", "keras", "numpy", "opencv-python-headless", "scikit-learn")


def run(params: Params) -> None:
    """Write the leaderboard, the tables and figures over all runs, and the page."""
    data = load_group("data", params.source, params.data_overrides)
    title, is_synthetic = str(data["title"]), bool(data["synthetic"])
    report = report_dir(params.experiment)
    manifest = read_manifest(manifest_path(params.source))
    done = [run for run in params.runs if (run.report_dir / "metrics.json").is_file()]
    missing = [run.name for run in params.runs if run not in done]
    if not done:
        raise PneumoError("Expected results of at least one run. Received: none. `dvc repro` makes them.")

    runs = comparison.tabulate_runs(
        {(run.combo, run.model, run.seed): read_json(run.report_dir / "metrics.json") for run in done}
    )
    tables = {run: read_predictions(run.model_dir / "predictions.csv") for run in done}
    predictions = comparison.join_predictions({run.name: table for run, table in tables.items()})
    thresholds = runs["threshold"].to_numpy(float)
    decided = {
        (run.combo, run.model, run.seed): decide_run(tables[run], threshold)
        for run, threshold in zip(done, thresholds, strict=True)
    }
    draws = comparison.draw_scores(decided)
    comparisons = comparison.compare_combos(decided, draws)
    reference = find_reference(params)
    leaderboard = comparison.add_mean_intervals(comparison.rank_runs(runs), draws)
    leaderboard = comparison.judge_combos(leaderboard, comparisons, reference)
    runs = comparison.add_run_intervals(runs, draws)
    probes = comparison.average_probes(read_probes(params))
    external = score_external(params, dict(zip(done, thresholds, strict=True)))
    by_class = comparison.tabulate_classes(decided, CLASSES[params.task])
    for name, table in (
        ("runs", runs),
        ("leaderboard", leaderboard),
        ("classes", by_class),
        ("history", join_histories(done)),
        ("comparisons", comparisons),
        ("predictions", predictions),
        ("probes", probes),
        ("external", external),
    ):
        with write_file(report / f"{name}.csv") as partial:
            # Six digits would turn probabilities near 1 into ties.
            table.to_csv(partial, index=False, float_format=None if name == "predictions" else "%.6g")
    summary = comparison.summarize(leaderboard)
    write_json(report / "summary.json", {params.source: summary})

    with write_folder(report / "data") as folder:
        shutil.copytree(exploration_dir(params.source), folder, dirs_exist_ok=True)
    curves = {name: average_curves(group) for name, group in group_runs(done).items()}
    matrices = {name: average_confusion(group, params) for name, group in group_runs(done).items()}
    with write_folder(report / "plots") as folder:
        write_plots(leaderboard, curves, done, folder)
    winner = leaderboard.iloc[0]
    best = next(run for run in done if (run.combo, run.model) == (winner["combo"], winner["model"]))
    with write_folder(report / "figures") as folder:
        pictures = draw_figures(leaderboard, curves, matrices, params, title, folder)
        pictures["Are the probabilities right?"] = copy_pictures(best, folder)
        galleries = copy_galleries(leaderboard, done, folder)
        figures.save_figure(draw_contact_sheet(params, manifest, title), folder / "contact_sheet.png")
    seconds = [read_json(run.model_dir / "timing.json")["train_s"] for run in done]
    durations = runs.assign(train_s=seconds).groupby(["combo", "model"], as_index=False)["train_s"].mean()
    write_report(
        Report(
            experiment=params.experiment,
            data_title=title,
            is_synthetic=is_synthetic,
            classes=CLASSES[params.task],
            counts=figures.count_images(manifest),
            leaderboard=leaderboard.merge(durations, on=["combo", "model"], how="left"),
            by_class=by_class,
            comparisons=comparisons,
            reference=reference,
            operating_points=read_operating_points(best),
            findings=pd.read_csv(audit_dir(params.experiment) / "findings.csv"),
            external=external,
            probes=probes,
            galleries=galleries,
            missing_runs=missing,
            set_aside=pd.read_csv(report / "data" / "quarantine.csv"),
            figures=pictures,
            params=OmegaConf.to_yaml(OmegaConf.load(PARAMS_PATH)),
            provenance={
                "manifest.csv, SHA-256": hash_file(manifest_path(params.source)),
                **{f"{name} version": version(name) for name in VERSIONS},
            },
        ),
        report / "index.html",
    )
    print(f"{len(done)} of {len(params.runs)} runs compared: {report / 'index.html'}")
    if missing:
        print(f"no result: {', '.join(missing)}")


def decide_run(table: pd.DataFrame, threshold: float) -> comparison.Decided:
    """Turn a run's stored probabilities for the test set into decisions.

    Args:
        table: predictions.csv.
        threshold: chosen on validation; nan takes the class of most probability.
    """
    test = select_scores(table, "test")
    y_pred = decide(test.probabilities, None if np.isnan(threshold) else threshold)
    return comparison.Decided(test.y_true, test.probabilities, y_pred, test.patients)


def join_histories(runs: list[Run]) -> pd.DataFrame:
    """Return every epoch of every run: combo, model, seed, and the columns of its history.csv."""
    histories = []
    for run in runs:
        history = pd.read_csv(run.model_dir / "history.csv")
        for column, value in (("seed", run.seed), ("model", run.model), ("combo", run.combo)):
            history.insert(0, column, value)
        histories.append(history)
    return pd.concat(histories)


def find_reference(params: Params) -> str:
    """Return the combo that the others are compared with: the first without steps, else the first."""
    return next((combo for combo, steps in params.combos.items() if not steps), next(iter(params.combos)))


def group_runs(runs: list[Run]) -> dict[tuple[str, str], list[Run]]:
    """Group runs that differ by their seed alone, under (combo, model)."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.combo, run.model), []).append(run)
    return groups


def average_curves(runs: list[Run]) -> pd.DataFrame:
    """Average the ROC curves of runs, over seeds and, for more than two classes, over classes."""
    curves = [
        curve
        for run in runs
        for _, curve in pd.read_csv(run.report_dir / "roc.csv").groupby("name", sort=False)
    ]
    return comparison.average_roc(curves)


def average_confusion(runs: list[Run], params: Params) -> pd.DataFrame:
    """Average the confusion matrices of runs, to one digit behind the point."""
    classes = CLASSES[params.task]
    matrices = [count_confusion(pd.read_csv(run.report_dir / "confusion.csv"), classes) for run in runs]
    return (sum(matrices[1:], matrices[0]) / len(matrices)).round(1)


def write_plots(
    leaderboard: pd.DataFrame,
    curves: dict[tuple[str, str], pd.DataFrame],
    runs: list[Run],
    folder: Path,
) -> None:
    """Write the files that dvc.yaml declares as plots."""
    bars = leaderboard[["combo", "model", "roc_auc", "accuracy"]].sort_values(["model", "combo"])
    bars.insert(0, "run", bars.pop("model") + " / " + bars.pop("combo"))
    bars.to_csv(folder / "bars.csv", index=False, float_format="%.4f")
    (folder / "roc").mkdir()
    (folder / "confusion").mkdir()
    for (combo, model), curve in curves.items():
        curve.to_csv(folder / "roc" / f"{model}_{combo}.csv", index=False, float_format="%.4f")
    for (combo, model), group in group_runs(runs).items():
        decisions = pd.concat(pd.read_csv(run.report_dir / "confusion.csv") for run in group)
        decisions.to_csv(folder / "confusion" / f"{model}_{combo}.csv", index=False)


def draw_figures(
    leaderboard: pd.DataFrame,
    curves: dict[tuple[str, str], pd.DataFrame],
    matrices: dict[tuple[str, str], pd.DataFrame],
    params: Params,
    title: str,
    folder: Path,
) -> dict[str, list[tuple[str, str]]]:
    """Draw the figures over all runs and return heading -> (path from the page, caption)."""
    bars = []
    ordered = leaderboard.set_index(["combo", "model"]).reindex(list(curves)).reset_index()
    for metric, label in (("roc_auc", "ROC AUC"), ("accuracy", "accuracy")):
        figure = figures.plot_metric_bars(ordered, metric, label, f"{title}: test {label}")
        figures.save_figure(figure, folder / f"{metric}.png")
        bars.append((f"figures/{metric}.png", f"{label}: mean over seeds and 95 % interval"))
    rocs, confusions = [], []
    for model in params.models:
        heading = f"{title}\n{model}, test"
        of_model = {combo: curve for (combo, name), curve in curves.items() if name == model}
        if not of_model:
            continue
        figures.save_figure(figures.plot_roc_curves(of_model, heading), folder / f"roc_{model}.png")
        rocs.append((f"figures/roc_{model}.png", f"{model}: mean over seeds of the sensitivity"))
        grid = {combo: matrix for (combo, name), matrix in matrices.items() if name == model}
        figures.save_figure(
            figures.plot_confusion_matrices(grid, heading, n_columns=5), folder / f"confusion_{model}.png"
        )
        confusions.append((f"figures/confusion_{model}.png", f"{model}: mean counts over seeds"))
    return {
        "How the combinations compare": bars,
        "Confusion matrices": confusions,
        "ROC curves": rocs,
        "The same images under every combo": [
            ("figures/contact_sheet.png", "Training images after preprocessing, one row a combo")
        ],
        "What the data look like": [
            ("data/samples.png", "Training images as they come"),
            ("data/class_counts.png", "Images by split and subtype"),
            (
                "data/image_sizes.png",
                "Sizes and aspect ratios by class: where they differ, models can cheat",
            ),
        ],
    }


def copy_pictures(run: Run, folder: Path) -> list[tuple[str, str]]:
    """Copy one run's pictures that the page shows and return (path from the page, caption)."""
    captions = {
        "calibration.png": f"{run.name}: observed fraction by predicted probability, in equal bins",
        "net_benefit.png": f"{run.name}: net benefit (true alarms less false ones, weighed by the threshold)",
    }
    shown = []
    for name, caption in captions.items():
        if (run.report_dir / name).is_file():
            shutil.copyfile(run.report_dir / name, folder / name)
            shown.append((f"figures/{name}", caption))
    return shown


def score_external(params: Params, thresholds: dict[Run, float]) -> pd.DataFrame:
    """Score runs on every external test set that they have predicted, at the thresholds from validation."""
    tables = []
    for name in params.external:
        paths = {
            run: external_dir(run.experiment, run.combo) / name / f"{run.model}_{run.seed}.csv"
            for run in thresholds
        }
        decided = {
            (run.combo, run.model, run.seed): decide_run(read_predictions(path), thresholds[run])
            for run, path in paths.items()
            if path.is_file()
        }
        if decided:
            tables.append(comparison.score_set(name, decided))
    return pd.concat(tables) if tables else pd.DataFrame(columns=["name", "combo", "model"])


def read_probes(params: Params) -> dict[str, pd.DataFrame]:
    """Read what `explain` found, combo by combo; a combo without models has nothing."""
    paths = {combo: explanations_dir(params.experiment, combo) / "probes.csv" for combo in params.combos}
    return {combo: pd.read_csv(path) for combo, path in paths.items() if path.is_file()}


def copy_galleries(leaderboard: pd.DataFrame, runs: list[Run], folder: Path) -> list[tuple[str, str]]:
    """Copy a gallery of each model, of its best combo on validation, as (path from the page, caption)."""
    shown: dict[str, tuple[str, str]] = {}
    for row in leaderboard.itertuples():
        for run in runs:
            source = explanations_dir(run.experiment, run.combo) / f"{run.model}_{run.seed}.png"
            is_row = (run.combo, run.model) == (row.combo, row.model)
            if is_row and run.model not in shown and source.is_file():
                name = f"gallery_{run.model}.png"
                shutil.copyfile(source, folder / name)
                shown[run.model] = (
                    f"figures/{name}",
                    f"{run.name}: test images and what spoke for each decision",
                )
    return list(shown.values())


def read_operating_points(run: Run) -> pd.DataFrame | None:
    """Read one run's operating points; None for more than two classes, which have none."""
    path = run.report_dir / "operating_points.csv"
    return pd.read_csv(path, dtype={"method": str}) if path.is_file() else None


def draw_contact_sheet(params: Params, manifest: pd.DataFrame, title: str) -> figures.Figure:
    """Draw the same training images under every combo."""
    train = manifest[manifest["split"] == "train"].sort_values("sha256")
    chosen = pd.concat(train[train["subtype"] == subtype].head(N_CONTACT_IMAGES) for subtype in Subtype)
    size_px = params.image_size_px
    grid = np.zeros((len(params.combos), len(chosen), size_px, size_px), np.uint8)
    for row, combo in enumerate(params.combos):
        images = np.load(images_path(params.source, combo), mmap_mode="r")
        for column, index in enumerate(chosen.index):
            grid[row, column] = images[index, :size_px, :size_px, 0]
    return figures.plot_image_grid(grid, list(params.combos), chosen["subtype"].tolist(), title)
