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
from pneumo.evaluation import estimates, metrics, resampling
from pneumo.evaluation.selection import STRESSED, find_criterion

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
SIGNIFICANCE = 0.05  # a difference is shown when its p, corrected over the whole table, is at most this
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
    "interval_over",
    "p",
    "p_holm",
    "smallest_detectable",
    "p_delong",
    "p_sign_flip",
)


class Verdict(StrEnum):
    """What tests say of a combo against the reference, or of one model against another.

    Attributes:
        reference: it is the reference.
        better: a difference in its favour is shown.
        worse: a difference to its disadvantage is shown.
        equivalent: no difference is shown, and it is shown that there is none as large as the margin.
        not_shown: no difference is shown, which does not show that there is none.
        unknown_spread: the spread over patients or over seeds is not known, so nothing can be shown.
        not_compared: it has no seed in common with the reference, or the metric is undefined.
    """

    reference = "reference"
    better = "better"
    worse = "worse"
    equivalent = "equivalent"
    not_shown = "not_shown"
    unknown_spread = "unknown_spread"
    not_compared = "not_compared"


@dataclass(frozen=True)
class Decided:
    """A run's predictions for the test set, with decisions.

    Attributes:
        y_true: int array of shape (n,), class numbers; the same images in the same order for every run.
        probabilities: float array of shape (n, n_classes).
        y_pred: int array of shape (n,), at the threshold chosen on validation.
        patients: str array of shape (n,).
        folds: int array of shape (n,), whose network predicted each image; None where there is one network.
    """

    y_true: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    y_pred: npt.NDArray[np.int64]
    patients: npt.NDArray[np.object_]
    folds: npt.NDArray[np.int64] | None = None


RunKey = tuple[str, str, int]  # combo, model, seed
Spreads = dict[str, estimates.SeedSpread]  # by model


@dataclass(frozen=True)
class Draws:
    """What runs score on the test set and on draws of its patients, the same draws for every run.

    Attributes:
        scores: for each run, metric -> float array of shape (1 + n_draws,); the first is the whole test set.
        patient_freedom: degrees of freedom of a variance over patients.
    """

    scores: dict[RunKey, dict[str, npt.NDArray[np.float64]]]
    patient_freedom: int

    def group(self, metric: str) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
        """Return the scores of each combo and model: float array of shape (n_seeds, 1 + n_draws)."""
        groups: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {}
        for (combo, model, _), of_run in self.scores.items():
            groups.setdefault((combo, model), []).append(of_run[metric])
        return {key: np.array(of_combo) for key, of_combo in groups.items()}

    def pool(self, metric: str) -> Spreads:
        """Return the spread over seeds of each model, pooled within its combos."""
        groups = self.group(metric)
        return {
            model: estimates.pool_seeds([scores for (_, name), scores in groups.items() if name == model])
            for model in dict.fromkeys(name for _, name in groups)
        }

    def estimate(self, weights: Mapping[RunKey, float], metric: str, spreads: Spreads) -> estimates.Estimate:
        """Estimate a weighted sum of run scores.

        Args:
            weights: of the runs in the sum.
            metric: which score.
            spreads: of the metric, from `pool`.
        """
        total = np.sum([weight * self.scores[key][metric] for key, weight in weights.items()], axis=0)
        total = np.round(total, 12)  # of combos that score the same, what rounding leaves is no difference
        squares: dict[str, float] = {}
        for (_, model, _), weight in weights.items():
            squares[model] = squares.get(model, 0.0) + weight**2
        parts = [(spreads[model], square) for model, square in squares.items()]
        return estimates.estimate(total, self.patient_freedom, parts)


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
    """Score every run on the test set and on draws of its patients.

    Args:
        runs: predictions for one test set, at least one run.
        n_draws: how many draws.
    """
    first = next(iter(runs.values()))
    weights = np.vstack(
        [
            np.ones(len(first.y_true)),
            resampling.draw_weights(first.patients, first.y_true, n_draws, _SEED),
        ]
    )
    scores = {
        key: resampling.score_draws(run.y_true, run.probabilities, run.y_pred, weights, run.folds)
        for key, run in runs.items()
    }
    return Draws(scores, resampling.count_patient_freedom(first.patients, first.y_true))


def rank_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds and order by validation, never by the test set.

    Args:
        runs: as `tabulate_runs` and `selection.add_stress` return them, at least one.

    Returns:
        One row a combo and model, in the order of `selection.find_criterion`: `n_seeds`, and the means of
        `val_roc_auc`, `val_accuracy`, `stress_roc_auc` (nan where a seed has none), `calibration_error`,
        `calibration_error_scaled` and each of METRICS on the test set. Seeds for which one of METRICS is not
        defined are left out of it.
    """
    groups = runs.groupby(["combo", "model"], sort=False)
    averaged = [f"val_{metric}" for metric in VAL_METRICS]
    averaged += [STRESSED, "calibration_error", "calibration_error_scaled", *METRICS]
    table = groups.agg(n_seeds=("seed", "size")).join(groups[averaged].mean()).reset_index()
    table.loc[groups[STRESSED].count().to_numpy() < table["n_seeds"], STRESSED] = float("nan")
    return table.sort_values(find_criterion(table), ascending=False, kind="stable", ignore_index=True)


def add_run_intervals(runs: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Add `<metric>_low` and `<metric>_high` to each run: a 95 % interval over patients, for this network.

    Args:
        runs: as `tabulate_runs` returns them.
        draws: of the same runs.
    """
    keys = list(runs[["combo", "model", "seed"]].itertuples(index=False, name=None))
    return _add_bounds(
        runs,
        {
            metric: [
                estimates.estimate(draws.scores[key][metric], draws.patient_freedom).find_score_interval(
                    *_RANGES.get(metric, (0, 1))
                )
                for key in keys
            ]
            for metric in METRICS
        },
    )


def add_mean_intervals(leaderboard: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Add `interval_over`, and `<metric>_low` and `<metric>_high` to each mean: a 95 % interval.

    The spread over seeds is pooled over the combos of a model. So a mean of one seed has an interval over
    seeds too where other combos of its model have several. Seeds that leave a metric undefined are left out
    of it, as `rank_runs` leaves them out of the mean.

    Args:
        leaderboard: as `rank_runs` returns it.
        draws: of the same runs.

    Returns:
        The leaderboard with the bounds and with `interval_over`: "patients and seeds", or "patients" where
        the spread over seeds is not known (fewer than 2 degrees of freedom over the combos of the model);
        then intervals are about these trained networks. A metric that seeds leave undefined so often that
        its own spread is not known has no interval in a row that is over patients and seeds.
    """
    keys = list(leaderboard[["combo", "model"]].itertuples(index=False, name=None))
    freedom: dict[str, int] = {}
    for (_, model), scores in draws.group(METRICS[0]).items():
        freedom[model] = freedom.get(model, 0) + len(scores) - 1
    is_known = {model: degrees >= estimates.MIN_SEED_FREEDOM for model, degrees in freedom.items()}
    over = {model: "patients and seeds" if known else "patients" for model, known in is_known.items()}
    intervals = {metric: _find_mean_intervals(draws, metric, over) for metric in METRICS}
    return _add_bounds(
        leaderboard.assign(interval_over=[over[model] for _, model in keys]),
        {metric: [of_metric[key] for key in keys] for metric, of_metric in intervals.items()},
    )


def subtract(a: Sequence[RunKey], b: Sequence[RunKey]) -> dict[RunKey, float]:
    """Return the weights of the mean over runs a less the mean over runs b."""
    return dict.fromkeys(a, 1 / len(a)) | dict.fromkeys(b, -1 / len(b))


def compare_combos(runs: Mapping[RunKey, Decided], draws: Draws) -> pd.DataFrame:
    """Compare every two combos under the same model, on the seeds that both have.

    Where the spread over seeds of a model is not known (fewer than 2 degrees of freedom over all of its
    combos), or that over patients (a class with fewer than 10), there is no p and no smallest detectable
    difference.

    Args:
        runs: the predictions.
        draws: of the same runs.

    Returns:
        One row a model, pair and metric of SUMMARY_METRICS, none for a single combo: `model`, `combo_a`,
        `combo_b`, `metric`, `n_seeds`, `difference` (a minus b), its 95 % interval in `low` and `high`,
        `interval_over` ("patients and seeds", or "patients" for these trained networks alone), `p`, `p_holm`
        (corrected over all defined p of the table), `smallest_detectable` (the difference that would be
        shown in 80 % of all such tables), `p_delong` (of roc_auc, two classes; takes images for independent;
        nan with cross-validation) and `p_sign_flip` (of accuracy, by patient). The last two are about these
        trained networks: they leave out what another training would change, and no verdict rests on them.
    """
    models = dict.fromkeys(model for _, model, _ in runs)
    rows = [row for model in models for row in _compare_under(model, runs, draws)]
    if not rows:
        return pd.DataFrame(columns=list(_COMPARISON_COLUMNS))
    return add_corrected(pd.DataFrame(rows))[list(_COMPARISON_COLUMNS)]


def add_corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Add `p_holm` and `smallest_detectable` to the tests of one family.

    Args:
        table: with `p`, and `result`, which holds an Estimate and is taken out.
    """
    strictest = SIGNIFICANCE / max(1, int(table["p"].notna().sum()))
    return table.drop(columns="result").assign(
        p_holm=estimates.correct_holm(table["p"].to_numpy(float)),
        smallest_detectable=[result.find_detectable(strictest) for result in table["result"]],
    )


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
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    for row in auc.to_dict("records"):
        for combo, other, sign in (("combo_a", "combo_b", 1), ("combo_b", "combo_a", -1)):
            if row[other] == reference:
                result = (sign * row["difference"], row["p_holm"], row["smallest_detectable"])
                found[row[combo], row["model"]] = result
    keys = leaderboard[["combo", "model"]].itertuples(index=False, name=None)
    rows = [found.get(key, (np.nan, np.nan, np.nan)) for key in keys]
    verdicts = [
        Verdict.reference if combo == reference else judge(difference, p)
        for combo, (difference, p, _) in zip(leaderboard["combo"], rows, strict=True)
    ]
    return leaderboard.assign(verdict=verdicts, smallest_detectable=[row[2] for row in rows])


def judge(difference: float, p_holm: float, p_within_holm: float = float("nan")) -> Verdict:
    """Return the verdict of a difference from the reference.

    Args:
        difference: to the combo's favour if above 0; nan where there is none.
        p_holm: its corrected p; nan where a spread is not known.
        p_within_holm: the corrected p that it is not smaller than the margin; nan where there is no margin.
    """
    if np.isnan(difference):
        return Verdict.not_compared
    if np.isnan(p_holm):
        return Verdict.unknown_spread
    if p_holm <= SIGNIFICANCE:
        return Verdict.better if difference > 0 else Verdict.worse
    return Verdict.equivalent if p_within_holm <= SIGNIFICANCE else Verdict.not_shown


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
        for (combo, model, seed), scores in draws.scores.items()
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
        tables: run name -> content of its predictions.csv; all on the same images, or all cross-validated.

    Returns:
        One row an image: `id`, `split`, `patient`, `y_true`, and a column a run and class,
        `<run name>:<class>`; of two classes only the second. Probabilities p are rounded so that the rarer
        of p and 1 - p keeps 6 significant digits: at 5 decimals, all above 0.999995 would be one. Write them
        with all their digits. With cross-validation, one row an image, split and `fold`; runs whose seed puts
        the image into another fold, or into training, have nan there.
    """
    first = next(iter(tables.values()))
    if "fold" in first:
        index = ["split", "fold", "id", "patient", "y_true"]
        parts = [
            _name_scores(name, table).set_index(pd.MultiIndex.from_frame(table[index]))
            for name, table in tables.items()
        ]
        joined = pd.concat(parts, axis=1).sort_index(level=["split", "fold", "id"]).reset_index()
        return joined[["id", "split", "patient", "fold", "y_true", *joined.columns[len(index) :]]]
    joined = first[["id", "split", "patient", "y_true"]].copy()
    columns = []
    for name, table in tables.items():
        if not table["id"].equals(joined["id"]):
            raise ValueError(f"Expected {name} to hold the same images as the first run.")
        columns.append(_name_scores(name, table))
    return pd.concat([joined, *columns], axis=1)


def _compare_under(model: str, runs: Mapping[RunKey, Decided], draws: Draws) -> list[dict[str, Any]]:
    """Return `compare_combos`' rows of one model; `result` holds the Estimate."""
    seeds: dict[str, list[int]] = {}
    for combo, name, seed in runs:
        if name == model:
            seeds.setdefault(combo, []).append(seed)
    rows = []
    for metric in SUMMARY_METRICS:
        spreads = draws.pool(metric)
        for a, b in combinations(seeds, 2):
            shared = [seed for seed in seeds[a] if seed in seeds[b]]
            if not shared:
                continue
            keys = [[(combo, model, seed) for seed in shared] for combo in (a, b)]
            result = draws.estimate(subtract(*keys), metric, spreads)
            row = {"model": model, "combo_a": a, "combo_b": b, "metric": metric, "n_seeds": len(shared)}
            row |= describe(result) | {"p_delong": np.nan, "p_sign_flip": np.nan}
            both = [[runs[key] for key in of_combo] for of_combo in keys]
            if metric == "roc_auc":
                row["p_delong"] = _compare_rankings(*both)
            elif metric == "accuracy":
                row["p_sign_flip"] = _compare_decisions(*both)
            rows.append(row)
    return rows


def describe(result: estimates.Estimate) -> dict[str, Any]:
    """Return a difference as columns: `difference`, `low`, `high`, `interval_over`, `p`, `result`."""
    low, high = result.find_interval()
    return {
        "difference": result.value,
        "low": low,
        "high": high,
        "interval_over": result.interval_over,
        "p": result.p,
        "result": result,
    }


def _name_scores(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return a run's rounded probabilities, columns `<run name>:<class>`."""
    scores = [column for column in table.columns if column.startswith("p_")]
    return pd.DataFrame(
        {
            f"{name}:{column.removeprefix('p_')}": _round_probabilities(table[column])
            for column in (scores[1:] if len(scores) == 2 else scores)
        }
    )


def _round_probabilities(probabilities: "pd.Series[float]") -> npt.NDArray[np.float64]:
    values = probabilities.to_numpy(np.float64)
    rarer = np.minimum(values, 1 - values)
    scale = 10.0 ** (5 - np.floor(np.log10(np.where(rarer > 0, rarer, 1))))
    return np.round(values * scale) / scale


def _find_mean_intervals(
    draws: Draws, metric: str, over: Mapping[str, str]
) -> dict[tuple[str, str], tuple[float, float]]:
    spreads = draws.pool(metric)
    intervals = {}
    for (combo, model), scores in draws.group(metric).items():
        defined = scores[~np.isnan(scores[:, 0])]
        intervals[combo, model] = (np.nan, np.nan)
        if len(defined):
            mean = estimates.estimate(
                defined.mean(axis=0), draws.patient_freedom, [(spreads[model], 1 / len(defined))]
            )
            if mean.interval_over == over[model]:
                intervals[combo, model] = mean.find_score_interval(*_RANGES.get(metric, (0, 1)))
    return intervals


def _add_bounds(table: pd.DataFrame, intervals: dict[str, list[tuple[float, float]]]) -> pd.DataFrame:
    bounds = {
        f"{metric}_{name}": [interval[i] for interval in of_metric]
        for metric, of_metric in intervals.items()
        for i, name in enumerate(("low", "high"))
    }
    return pd.concat([table, pd.DataFrame(bounds, index=table.index)], axis=1)


def _compare_rankings(runs_a: Sequence[Decided], runs_b: Sequence[Decided]) -> float:
    y_true, has_folds = runs_a[0].y_true, runs_a[0].folds is not None
    if has_folds or runs_a[0].probabilities.shape[1] > 2 or np.bincount(y_true, minlength=2).min() < 2:
        return float("nan")
    scores = (np.array([run.probabilities[:, 1] for run in runs]) for runs in (runs_a, runs_b))
    return resampling.compare_rankings(y_true, *scores)[2]


def _compare_decisions(runs_a: Sequence[Decided], runs_b: Sequence[Decided]) -> float:
    correct = (np.array([run.y_pred == run.y_true for run in runs]) for runs in (runs_a, runs_b))
    correct_a, correct_b = correct
    return resampling.compare_decisions(correct_a, correct_b, runs_a[0].patients)
