"""Whether what models are chosen by orders them as the test set does; it describes and chooses nothing."""

import pandas as pd

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


def correlate_with_test(runs: pd.DataFrame, stress: pd.DataFrame) -> pd.DataFrame:
    """Correlate each criterion's order of runs with that of the ROC AUC on the test set.

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
