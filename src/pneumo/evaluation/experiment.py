"""What all runs of an experiment come to, from their predictions alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pneumo.base.config import RunKey, Threshold
from pneumo.evaluation import comparison, metrics
from pneumo.evaluation.comparison import Decided
from pneumo.evaluation.effects import tabulate_effects
from pneumo.evaluation.predictions import Scores, select_scores
from pneumo.evaluation.scoring import Rule, decide, fit_run_rule, score_run, tabulate_roc, tabulate_run
from pneumo.evaluation.selection import NO_STRESS, add_stress, find_criterion

GroupKey = tuple[str, str]  # combo, model


@dataclass(frozen=True)
class Outcome:
    """One run: its predictions, and how it decides.

    Attributes:
        val: predictions for the validation set.
        test: predictions for the test set.
        rule: fitted on `val`.
    """

    val: Scores
    test: Scores
    rule: Rule

    def decide(self, scores: Scores) -> Decided:
        """Put the run's decisions beside probabilities."""
        y_pred = decide(scores, self.rule)
        return Decided(scores.y_true, scores.probabilities, y_pred, scores.patients, scores.folds)


@dataclass(frozen=True)
class Results:
    """Tables over all runs.

    Attributes:
        outcomes: of each run.
        runs: as `comparison.tabulate_runs` returns them, with intervals over patients.
        leaderboard: as `comparison.rank_runs` returns it, with intervals and verdicts.
        criterion: the column that orders it.
        by_class: as `comparison.tabulate_classes` returns it.
        effects: as `effects.tabulate_effects` returns them.
        comparisons: as `comparison.compare_combos` returns them.
        curves: ROC curve of each combo and model, mean over seeds (and over classes, if more than two).
        matrices: confusion matrix of each combo and model, mean over seeds.
        best_run: the first seed of the leaderboard's first row, which validation has put there.
        details: tables of `scoring.tabulate_run` for this run.
    """

    outcomes: dict[RunKey, Outcome]
    runs: pd.DataFrame
    leaderboard: pd.DataFrame
    criterion: str
    by_class: pd.DataFrame
    effects: pd.DataFrame
    comparisons: pd.DataFrame
    curves: dict[GroupKey, pd.DataFrame]
    matrices: dict[GroupKey, pd.DataFrame]
    best_run: RunKey
    details: dict[str, pd.DataFrame]


def open_run(predictions: pd.DataFrame, threshold: Threshold) -> Outcome:
    """Fit a run's decision rule on its validation predictions.

    Args:
        predictions: content of predictions.csv.
        threshold: how to choose one.
    """
    val, test = select_scores(predictions, "val"), select_scores(predictions, "test")
    return Outcome(val, test, fit_run_rule(val, threshold))


def compile_results(
    predictions: Mapping[RunKey, pd.DataFrame],
    threshold: Threshold,
    prevalence: float,
    reference: str,
    margin: float,
    stress: pd.DataFrame = NO_STRESS,
) -> Results:
    """Score, rank and compare all runs.

    Args:
        predictions: content of predictions.csv of each run, at least one; all on the same images.
        threshold: how to choose one on validation.
        prevalence: of the second of two classes where a model is to be used; for the net benefit.
        reference: the combo that the others are compared with.
        margin: a difference that is shown to be smaller counts as none that matters.
        stress: scores of runs on changed validation images, as `selection.add_stress` takes them.
    """
    outcomes = {key: open_run(table, threshold) for key, table in predictions.items()}
    decided = {key: outcome.decide(outcome.test) for key, outcome in outcomes.items()}
    draws = comparison.draw_scores(decided)
    runs = comparison.tabulate_runs(
        {key: score_run(each.val, each.test, each.rule) for key, each in outcomes.items()}
    )
    runs = add_stress(runs, stress)
    leaderboard = comparison.add_mean_intervals(comparison.rank_runs(runs), draws)
    comparisons = comparison.compare_combos(decided, draws)
    leaderboard = comparison.judge_combos(leaderboard, comparisons, reference)
    classes = next(iter(outcomes.values())).test.classes
    groups = group_seeds(list(predictions))
    first = leaderboard.iloc[0]
    best_run = groups[first["combo"], first["model"]][0]
    best = outcomes[best_run]
    return Results(
        outcomes=outcomes,
        runs=comparison.add_run_intervals(runs, draws),
        leaderboard=leaderboard,
        criterion=find_criterion(leaderboard),
        by_class=comparison.tabulate_classes(decided, classes),
        effects=tabulate_effects(draws, reference, margin),
        comparisons=comparisons,
        curves={
            group: average_curves([tabulate_roc(outcomes[key].test) for key in keys])
            for group, keys in groups.items()
        },
        matrices={
            group: average_confusion([decided[key] for key in keys], classes)
            for group, keys in groups.items()
        },
        best_run=best_run,
        details=tabulate_run(best.val, best.test, best.rule, threshold, prevalence),
    )


def group_seeds(keys: list[RunKey]) -> dict[GroupKey, list[RunKey]]:
    """Group runs that differ by their seed alone."""
    groups: dict[GroupKey, list[RunKey]] = {}
    for combo, model, seed in keys:
        groups.setdefault((combo, model), []).append((combo, model, seed))
    return groups


def average_curves(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Average ROC curves, over seeds and over the classes of each (`name`)."""
    curves = [curve for table in tables for _, curve in table.groupby("name", sort=False)]
    return comparison.average_roc(curves)


def average_confusion(runs: Sequence[Decided], classes: Sequence[str]) -> pd.DataFrame:
    """Average the confusion matrices of runs on one test set: rows actual, columns predicted, to a tenth."""
    tables = [metrics.tabulate_confusion(run.y_true, run.y_pred, tuple(classes)) for run in runs]
    return (metrics.count_confusion(pd.concat(tables), tuple(classes)) / len(runs)).round(1)


def score_external(
    predictions: Mapping[str, Mapping[RunKey, pd.DataFrame]], outcomes: Mapping[RunKey, Outcome]
) -> pd.DataFrame:
    """Score runs on further test sets, with the rules that validation gave.

    Args:
        predictions: name of a set -> predictions of each run for it.
        outcomes: of these runs.

    Returns:
        As `comparison.score_set`, one set below the other.

    Raises:
        PneumoError: the runs of a set have predicted different images.
    """
    tables = []
    for name, of_set in predictions.items():
        comparison.check_same_images(name, of_set)
        decided = {key: outcomes[key].decide(select_scores(table, "test")) for key, table in of_set.items()}
        if decided:
            tables.append(comparison.score_set(name, decided))
    return pd.concat(tables) if tables else pd.DataFrame(columns=["name", "combo", "model"])
