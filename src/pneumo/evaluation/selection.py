"""What models are chosen by, and whether it orders them as the test set does."""

import pandas as pd

PLAIN = "val_roc_auc"  # ROC AUC on validation images
STRESSED = "stress_roc_auc"  # mean ROC AUC over changed validation images
MIN_RUNS = 5  # fewer say nothing
# What a run could be chosen by: plain validation, or the mean or the worst over changed validation images.
CRITERIA = {
    "plain": None,
    "stressed, mean": ("mean", "roc_auc"),
    "stressed, worst": ("worst", "roc_auc"),
    "stressed, mean balanced accuracy": ("mean", "balanced_accuracy"),
}
COLUMNS = ("criterion", "n_runs", "rank_correlation")
_KEY = ["combo", "model", "seed"]
NO_STRESS = pd.DataFrame(columns=[*_KEY, "change", "roc_auc"])


def add_stress(runs: pd.DataFrame, stress: pd.DataFrame) -> pd.DataFrame:
    """Add the column STRESSED to runs, nan where it is not known.

    Args:
        runs: `combo`, `model` and `seed`, a row a run.
        stress: the same, `change` and `roc_auc`; the rows of the change "mean" are read.
    """
    means = stress.loc[stress["change"] == "mean", [*_KEY, "roc_auc"]].rename(columns={"roc_auc": STRESSED})
    return runs.merge(means.astype({"seed": runs["seed"].dtype}), on=_KEY, how="left", validate="one_to_one")


def find_criterion(leaderboard: pd.DataFrame) -> str:
    """Return the column that orders a leaderboard: STRESSED where it is known for all rows, else PLAIN.

    No test score decides which of the two it is: docs/decisions/0019.
    """
    return STRESSED if leaderboard[STRESSED].notna().all() else PLAIN


def correlate_with_test(runs: pd.DataFrame, stress: pd.DataFrame) -> pd.DataFrame:
    """Correlate each criterion's order of runs with that of the ROC AUC on the test set.

    This describes; nothing is chosen by it.

    Args:
        runs: `combo`, `model`, `seed`, `val_roc_auc` and `roc_auc`, a row a run.
        stress: `combo`, `model`, `seed`, `change`, `roc_auc` and `balanced_accuracy` on changed validation
            images.

    Returns:
        One row for each of CRITERIA: `criterion`; `n_runs`, those whose scores on changed images are known,
        the same for all; and `rank_correlation`, Spearman's, nan for fewer than MIN_RUNS runs or where one
        side is constant.
    """
    known = runs.set_index(_KEY)[["val_roc_auc", "roc_auc"]].rename(columns={"val_roc_auc": "plain"})
    for criterion, source in CRITERIA.items():
        if source is not None:
            change, metric = source
            of_change = stress[stress["change"] == change].set_index(_KEY)[metric]
            known = known.join(of_change.rename(criterion), how="inner")
    rows = [
        (criterion, len(known), _correlate_ranks(known[criterion], known["roc_auc"]))
        for criterion in CRITERIA
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _correlate_ranks(a: "pd.Series[float]", b: "pd.Series[float]") -> float:
    if len(a) < MIN_RUNS or a.nunique() < 2 or b.nunique() < 2:
        return float("nan")
    return float(a.corr(b, method="spearman"))
