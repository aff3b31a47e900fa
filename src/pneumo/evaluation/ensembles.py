"""Several runs that decide together by their mean logit, from their predictions alone."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pneumo.base.config import RunKey, Threshold
from pneumo.base.decision import average_logits
from pneumo.evaluation import comparison
from pneumo.evaluation.experiment import GroupKey, Outcome, group_seeds
from pneumo.evaluation.predictions import Scores
from pneumo.evaluation.scoring import fit_rule, score_run

COLUMNS = ("ensemble", "n_runs", "threshold", *comparison.METRICS, "val_roc_auc", "mean_roc_auc")


def list_ensembles(
    keys: Sequence[RunKey], named: Mapping[str, Sequence[GroupKey]]
) -> dict[str, list[RunKey]]:
    """Return the runs of each ensemble that has two or more.

    Args:
        keys: all runs.
        named: name -> combos and models, whose seeds all take part.

    Returns:
        `<combo>/<model>`, over its seeds, for each of them; then the named ones.
    """
    groups = group_seeds(list(keys))
    ensembles = {f"{combo}/{model}": runs for (combo, model), runs in groups.items()}
    ensembles |= {name: [key for group in of for key in groups.get(group, [])] for name, of in named.items()}
    return {name: runs for name, runs in ensembles.items() if len(runs) > 1}


def join_outcomes(outcomes: Sequence[Outcome], threshold: Threshold) -> Outcome:
    """Join runs by their mean logit. Threshold and temperature are the ensemble's own, fitted on validation.

    Args:
        outcomes: of the runs, all on the same images.
        threshold: how to choose one.
    """
    val, test = (_join([getattr(each, split) for each in outcomes]) for split in ("val", "test"))
    return Outcome(val, test, fit_rule(val, threshold))


def score_ensembles(
    outcomes: Mapping[RunKey, Outcome],
    runs: pd.DataFrame,
    named: Mapping[str, Sequence[GroupKey]],
    threshold: Threshold,
) -> pd.DataFrame:
    """Score ensembles as runs are scored.

    Args:
        outcomes: of each run, all on the same images.
        runs: as `comparison.tabulate_runs` returns them, of these runs.
        named: see `list_ensembles`.
        threshold: how to choose one on validation.

    Cross-validated runs are not joined: seeds divide the images into other folds, so that no threshold can be
    fitted on images that none of their networks has learnt from.

    Returns:
        One row an ensemble, the highest ROC AUC on validation first: `ensemble`, `n_runs`, the columns of
        `comparison.add_run_intervals` from `threshold` on, and `mean_roc_auc`, the mean over its runs.
    """
    ensembles = list_ensembles(list(outcomes), named)
    if not ensembles or any(each.test.folds is not None for each in outcomes.values()):
        return pd.DataFrame(columns=list(COLUMNS))
    joint = {
        (name, "", 0): join_outcomes([outcomes[key] for key in keys], threshold)
        for name, keys in ensembles.items()
    }
    draws = comparison.draw_scores({key: each.decide(each.test) for key, each in joint.items()})
    table = comparison.tabulate_runs(
        {key: score_run(each.val, each.test, each.rule) for key, each in joint.items()}
    )
    table = comparison.add_run_intervals(table, draws).rename(columns={"combo": "ensemble"})
    table.insert(1, "n_runs", [len(keys) for keys in ensembles.values()])
    alone = runs.set_index(["combo", "model", "seed"])["roc_auc"]
    table["mean_roc_auc"] = [alone.loc[keys].mean() for keys in ensembles.values()]
    table = table.drop(columns=["model", "seed"])
    return table.sort_values("val_roc_auc", ascending=False, kind="stable", ignore_index=True)


def _join(scores: Sequence[Scores]) -> Scores:
    first = scores[0]
    return Scores(
        first.classes, first.y_true, average_logits([each.probabilities for each in scores]), first.patients
    )
