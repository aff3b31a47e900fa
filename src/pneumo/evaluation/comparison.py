"""Runs side by side: frames over all runs of an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.errors import PneumoError
from pneumo.evaluation import metrics, resampling

METRICS = (
    "roc_auc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "npv",
    "f1",
    "mcc",
    "average_precision",
    "brier_score",
    "log_loss",
)
VAL_METRICS = ("roc_auc", "accuracy")
CLASS_METRICS = ("sensitivity", "precision", "f1")
SUMMARY_METRICS = ("roc_auc", "accuracy", "sensitivity", "specificity")
SIGNIFICANCE = 0.05  # a difference is called one when its p, corrected over the whole table, is at most this
_SEED = 0  # of every random draw here
_RANGES = {"mcc": (-1, 1), "brier_score": (0, 2), "log_loss": (0, np.inf)}  # of the others: 0 to 1
_GRID = np.linspace(0, 1, 201)
_COMPARISON_COLUMNS = (
    "model",
    "combo_a",
    "combo_b",
    "metric",
    "n_seeds",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "smallest_detectable",
    "p_delong",
    "p_mcnemar",
)


@dataclass(frozen=True)
class Decided:
    """A run's predictions for the test set, with decisions.

    Attributes:
        y_true: int array of shape (n,), class numbers; the same images in the same order for every run.
        probabilities: float array of shape (n, n_classes).
        y_pred: int array of shape (n,), at the threshold chosen on validation.
        patients: str array of shape (n,).
    """

    y_true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    y_pred: npt.NDArray[np.int64]
    patients: npt.NDArray[np.object_]


class Verdict(StrEnum):
    """What a test says of a combo against the reference.

    Attributes:
        reference: it is the reference.
        better: a difference in its favour is shown.
        worse: a difference to its disadvantage is shown.
        not_shown: no difference is shown, which does not show that there is none.
        unknown_spread: the spread over seeds is not known, so nothing can be shown.
        not_compared: it has no seed in common with the reference.
    """

    reference = "reference"
    better = "better"
    worse = "worse"
    not_shown = "not_shown"
    unknown_spread = "unknown_spread"
    not_compared = "not_compared"


RunKey = tuple[str, str, int]  # combo, model, seed
Draws = dict[RunKey, dict[str, npt.NDArray[np.float64]]]


def tabulate_runs(results: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> pd.DataFrame:
    """Put every run's metrics into one row.

    Args:
        results: (combo, model, seed) -> content of its metrics.json.

    Returns:
        Frame with `combo`, `model`, `seed`, `threshold`, METRICS on the test set at the validation threshold,
        the same with the suffix `_at_0.5` (two classes only), VAL_METRICS with the prefix `val_`,
        `temperature`, `calibration_error` on the test set, and `calibration_error_scaled` by the temperature.
    """
    rows = []
    for (combo, model, seed), result in results.items():
        row: dict[str, Any] = {"combo": combo, "model": model, "seed": seed, "threshold": result["threshold"]}
        row |= {metric: result["test"][metric] for metric in METRICS}
        if "test_at_0.5" in result:
            row |= {f"{metric}_at_0.5": result["test_at_0.5"][metric] for metric in METRICS}
        row |= {f"val_{metric}": result["val"][metric] for metric in VAL_METRICS}
        row["temperature"] = result["temperature"]
        row["calibration_error"] = result["calibration"]["calibration_error"]
        row["calibration_error_scaled"] = result["calibration_scaled"]["calibration_error"]
        rows.append(row)
    return pd.DataFrame(rows).astype(dict.fromkeys(METRICS, float))  # None, an undefined metric, becomes nan


def draw_scores(runs: Mapping[RunKey, Decided], n_draws: int = resampling.N_DRAWS) -> Draws:
    """Score every run on the test set and on draws of its patients, the same draws for every run.

    Returns:
        For each run, metric -> float array of shape (1 + n_draws,); the first is the whole test set.
    """
    first = next(iter(runs.values()))
    weights = np.vstack(
        [
            np.ones(len(first.y_true)),
            resampling.draw_weights(first.patients, first.y_true, n_draws, _SEED),
        ]
    )
    return {
        key: resampling.score_draws(run.y_true, run.probabilities, run.y_pred, weights)
        for key, run in runs.items()
    }


def rank_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds and order by validation, never by the test set.

    Args:
        runs: as `tabulate_runs` returns them, at least one.

    Returns:
        One row a combo and model: `n_seeds`, and the means of `val_roc_auc`, `val_accuracy`,
        `calibration_error`, `calibration_error_scaled` and each of METRICS on the test set.
        Seeds for which a metric is not defined are left out of it.
    """
    groups = runs.groupby(["combo", "model"], sort=False)
    averaged = [f"val_{metric}" for metric in VAL_METRICS]
    averaged += ["calibration_error", "calibration_error_scaled", *METRICS]
    table = groups.agg(n_seeds=("seed", "size")).join(groups[averaged].mean()).reset_index()
    return table.sort_values("val_roc_auc", ascending=False, kind="stable", ignore_index=True)


def add_run_intervals(runs: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Add `<metric>_low` and `<metric>_high` to each run: a 95 % interval over patients.

    Args:
        runs: as `tabulate_runs` returns them.
        draws: of the same runs.
    """
    keys = list(runs[["combo", "model", "seed"]].itertuples(index=False, name=None))
    return _add_bounds(
        runs,
        {metric: [resampling.find_interval(draws[key][metric][1:]) for key in keys] for metric in METRICS},
    )


def add_mean_intervals(leaderboard: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Add `<metric>_low` and `<metric>_high` to each mean: a 95 % interval over patients and seeds.

    Args:
        leaderboard: as `rank_runs` returns it.
        draws: of the same runs.
    """
    keys = list(leaderboard[["combo", "model"]].itertuples(index=False, name=None))
    intervals = {metric: _find_mean_intervals(draws, metric) for metric in METRICS}
    return _add_bounds(
        leaderboard, {metric: [of_metric[key] for key in keys] for metric, of_metric in intervals.items()}
    )


def compare_combos(runs: Mapping[RunKey, Decided], draws: Draws) -> pd.DataFrame:
    """Compare every two combos under the same model, on the seeds that both have.

    Args:
        runs: the predictions.
        draws: of the same runs.

    Returns:
        One row a model, pair and metric of SUMMARY_METRICS, none for a single combo: `model`, `combo_a`,
        `combo_b`, `metric`, `n_seeds`, `difference` (a minus b), its 95 % interval in `low` and `high`, `p`,
        `p_holm` (corrected over the whole table), `smallest_detectable` (the difference that would be called
        one in 80 % of all such tests), `p_delong` (of roc_auc, two classes) and `p_mcnemar` (of accuracy,
        decisions by majority over seeds), which both take images for independent.
    """
    models = dict.fromkeys(model for _, model, _ in runs)
    rows = [row for model in models for row in _compare_under(model, runs, draws)]
    if not rows:
        return pd.DataFrame(columns=list(_COMPARISON_COLUMNS))
    table = pd.DataFrame(rows)
    table["p_holm"] = resampling.correct_holm(table["p"].to_numpy(float))
    strictest = SIGNIFICANCE / max(1, int(table["p"].notna().sum()))
    table["smallest_detectable"] = [result.smallest_detectable(strictest) for result in table.pop("result")]
    return table[list(_COMPARISON_COLUMNS)]


def judge_combos(leaderboard: pd.DataFrame, comparisons: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Say of each row of the leaderboard how its test ROC AUC compares with the reference's.

    Args:
        leaderboard: with `combo` and `model`.
        comparisons: as `compare_combos` returns them.
        reference: a combo.

    Returns:
        The leaderboard with `verdict`, a Verdict, and `smallest_detectable`.
    """
    auc = comparisons[comparisons["metric"] == "roc_auc"]
    verdicts, detectable = [], []
    for row in leaderboard.itertuples():
        pair = auc[
            (auc["model"] == row.model)
            & (
                ((auc["combo_a"] == row.combo) & (auc["combo_b"] == reference))
                | ((auc["combo_b"] == row.combo) & (auc["combo_a"] == reference))
            )
        ]
        if row.combo == reference or pair.empty:
            verdicts.append(Verdict.reference if row.combo == reference else Verdict.not_compared)
            detectable.append(np.nan)
            continue
        found = pair.iloc[0]
        sign = 1 if found["combo_a"] == row.combo else -1
        verdicts.append(_judge(sign * found["difference"], found["p_holm"], found["n_seeds"]))
        detectable.append(found["smallest_detectable"])
    return leaderboard.assign(verdict=verdicts, smallest_detectable=detectable)


def tabulate_classes(runs: Mapping[RunKey, Decided], classes: Sequence[str]) -> pd.DataFrame:
    """Score the decisions of runs class by class, each against the rest, as a classification report does.

    Args:
        runs: of one test set.
        classes: names, in the order of class numbers.

    Returns:
        One row a combo, model and class: `n_images` of the test set, and means over seeds of `sensitivity`
        (nan without images of the class), `precision` (nan where no seed calls the class) and `f1`. Seeds for
        which one is not defined are left out of it.
    """
    rows = []
    for (combo, model, _), run in runs.items():
        for number, name in enumerate(classes):
            is_class = (run.y_true == number).astype(np.int64)
            scores = metrics.score_decisions(is_class, (run.y_pred == number).astype(np.int64))
            row = {"combo": combo, "model": model, "class": name, "n_images": is_class.sum()}
            rows.append(row | {metric: scores[metric] for metric in CLASS_METRICS})
    table = pd.DataFrame(rows).astype(dict.fromkeys(CLASS_METRICS, float))
    groups = table.groupby(["combo", "model", "class"], sort=False)
    return groups.mean().astype({"n_images": int}).reset_index()


def summarize(leaderboard: pd.DataFrame) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return a few means as combo -> model -> metric, rounded to 4 digits, for DVC to show and compare."""
    summary: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in leaderboard.sort_values(["combo", "model"]).to_dict("records"):
        values = {name: None if pd.isna(row[name]) else round(row[name], 4) for name in SUMMARY_METRICS}
        summary.setdefault(str(row["combo"]), {})[str(row["model"])] = values
    return summary


def average_roc(curves: list[pd.DataFrame]) -> pd.DataFrame:
    """Average ROC curves vertically: mean sensitivity at equally spaced false-positive rates.

    Args:
        curves: frames with `false_positive_rate` and `sensitivity`, neither falling. Where a curve rises
            straight up, its highest point counts. Frames without rows, curves that are not defined, are left
            out.

    Returns:
        Frame with the same two columns and 202 rows, none if no curve is defined; it begins at (0, 0).
    """
    defined = [curve for curve in curves if len(curve)]
    if not defined:
        return pd.DataFrame({"false_positive_rate": [], "sensitivity": []})
    mean = np.mean(
        [np.interp(_GRID, curve["false_positive_rate"], curve["sensitivity"]) for curve in defined], axis=0
    )
    return pd.DataFrame({"false_positive_rate": np.append(0.0, _GRID), "sensitivity": np.append(0.0, mean)})


def score_set(name: str, runs: Mapping[RunKey, Decided]) -> pd.DataFrame:
    """Score all runs on a further test set.

    Args:
        name: of the set.
        runs: predictions for it, with decisions at the thresholds that validation gave.

    Returns:
        One row a combo and model: `name`, `combo`, `model`, `n_seeds`, `n_images`, the mean over seeds of
        each of METRICS, and its 95 % interval over patients and seeds in `<metric>_low` and `<metric>_high`.
    """
    draws = draw_scores(runs)
    rows = [
        {"combo": combo, "model": model, "n_images": len(runs[combo, model, seed].y_true)}
        | {metric: scores[metric][0] for metric in METRICS}
        for (combo, model, seed), scores in draws.items()
    ]
    groups = pd.DataFrame(rows).groupby(["combo", "model"], sort=False)
    means = groups.agg(n_seeds=("n_images", "size"), n_images=("n_images", "first"))
    table = means.join(groups[list(METRICS)].mean()).reset_index()
    table.insert(0, "name", name)
    return add_mean_intervals(table, draws)


def check_same_images(name: str, tables: Mapping[RunKey, pd.DataFrame]) -> None:
    """Check that all runs have predicted the same images of a set, in the same order.

    Args:
        name: of the set, for the error.
        tables: run -> content of its predictions.

    Raises:
        PneumoError: two runs differ.
    """
    ids = {key: table["id"].tolist() for key, table in tables.items()}
    for first, second in pairwise(ids):
        if ids[first] != ids[second]:
            runs = " and ".join("/".join(map(str, key)) for key in (first, second))
            raise PneumoError(
                f"external.{name}: Expected predictions for the same images from every run. Received: other "
                f"images from {runs}. The folder has changed in between. Give the set another name in "
                "params.yaml, so that all runs predict it again."
            )


def join_predictions(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put the predictions of all runs into one small table, from which every statistic can be made anew.

    Args:
        tables: run name -> content of its predictions.csv; all on the same images.

    Returns:
        One row an image: `id`, `split`, `patient`, `y_true`, and a column a run and class,
        `<run name>:<class>`, rounded to 5 digits; of two classes only the second.
    """
    joined = next(iter(tables.values()))[["id", "split", "patient", "y_true"]].copy()
    columns = {}
    for name, table in tables.items():
        if not table["id"].equals(joined["id"]):
            raise ValueError(f"Expected {name} to hold the same images as the first run.")
        scores = [column for column in table.columns if column.startswith("p_")]
        for column in scores[1:] if len(scores) == 2 else scores:
            columns[f"{name}:{column.removeprefix('p_')}"] = table[column].round(5)
    return pd.concat([joined, pd.DataFrame(columns)], axis=1)


def _compare_under(model: str, runs: Mapping[RunKey, Decided], draws: Draws) -> list[dict[str, Any]]:
    """Return `compare_combos`' rows of one model; `result` holds the Difference."""
    seeds: dict[str, list[int]] = {}
    for combo, name, seed in runs:
        if name == model:
            seeds.setdefault(combo, []).append(seed)
    pairs = [
        (a, b, shared)
        for a, b in combinations(seeds, 2)
        if (shared := [seed for seed in seeds[a] if seed in seeds[b]])
    ]
    rows = []
    for metric in SUMMARY_METRICS:
        differences = [
            np.array([draws[a, model, seed][metric] - draws[b, model, seed][metric] for seed in shared])
            for a, b, shared in pairs
        ]
        spread = _pool_pairs(differences, len(seeds))
        for (a, b, shared), values in zip(pairs, differences, strict=True):
            result = resampling.compare_draws(values[:, 0], values[:, 1:], spread, _SEED)
            row = {"model": model, "combo_a": a, "combo_b": b, "metric": metric, "n_seeds": len(shared)}
            row |= {"difference": result.value, "low": result.low, "high": result.high, "p": result.p}
            row |= {"result": result, "p_delong": np.nan, "p_mcnemar": np.nan}
            both = [[runs[combo, model, seed] for seed in shared] for combo in (a, b)]
            if metric == "roc_auc":
                row["p_delong"] = _compare_rankings(*both)
            elif metric == "accuracy":
                row["p_mcnemar"] = _compare_majorities(*both)
            rows.append(row)
    return rows


def _find_mean_intervals(draws: Draws, metric: str) -> dict[tuple[str, str], tuple[float, float]]:
    groups: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {}
    for (combo, model, _), scores in draws.items():
        groups.setdefault((combo, model), []).append(scores[metric])
    intervals = {}
    for model in dict.fromkeys(model for _, model in groups):
        of_model = {key: np.array(values) for key, values in groups.items() if key[1] == model}
        spread = resampling.pool_seeds([values[:, 0] for values in of_model.values()])
        for key, values in of_model.items():
            joined = resampling.join_seeds(values[:, 1:], spread, _SEED)
            intervals[key] = resampling.find_interval(np.clip(joined, *_RANGES.get(metric, (0, 1))))
    return intervals


def _add_bounds(table: pd.DataFrame, intervals: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    bounds = {
        f"{metric}_{name}": [interval[i] for interval in of_metric]
        for metric, of_metric in intervals.items()
        for i, name in enumerate(("low", "high"))
    }
    return pd.concat([table, pd.DataFrame(bounds, index=table.index)], axis=1)


def _pool_pairs(differences: Sequence[npt.NDArray[np.float64]], n_combos: int) -> resampling.SeedSpread:
    # With c combos there are c (c - 1) / 2 differences, but only c - 1 independent ones.
    spread = resampling.pool_seeds([values[:, 0] for values in differences])
    if spread.degrees_of_freedom == 0:
        return spread
    return resampling.SeedSpread(spread.variance, max(1, round(spread.degrees_of_freedom * 2 / n_combos)))


def _compare_rankings(runs_a: Sequence[Decided], runs_b: Sequence[Decided]) -> float:
    y_true = runs_a[0].y_true
    if runs_a[0].probabilities.shape[1] > 2 or len(np.unique(y_true)) < 2:
        return float("nan")
    scores = (np.array([run.probabilities[:, 1] for run in runs]) for runs in (runs_a, runs_b))
    return resampling.compare_rankings(y_true, *scores)[2]


def _compare_majorities(runs_a: Sequence[Decided], runs_b: Sequence[Decided]) -> float:
    correct = (
        np.mean([run.y_pred == run.y_true for run in runs], axis=0) >= 0.5 for runs in (runs_a, runs_b)
    )
    return resampling.compare_decisions(*correct)


def _judge(difference: float, p: float, n_seeds: int) -> Verdict:
    if n_seeds == 1:
        return Verdict.unknown_spread
    if not p <= SIGNIFICANCE:
        return Verdict.not_shown
    return Verdict.better if difference > 0 else Verdict.worse
