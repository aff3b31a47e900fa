"""How the best model does in groups of test patients, by view, age, sex and site; whether groups differ."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.config import RunKey
from pneumo.evaluation import estimates, resampling
from pneumo.evaluation.comparison import Decided, Draws
from pneumo.evaluation.experiment import Results, group_seeds
from pneumo.evaluation.resampling import draw_weights, score_draws

ATTRIBUTES = ("view", "age", "sex", "site")
METRICS = ("roc_auc", "sensitivity", "specificity")
MIN_PATIENTS = (
    20  # a group with fewer in the test set has no row: they could be recognised, and the scores say little
)
COLUMNS = (
    "attribute",
    "group",
    "n_patients",
    "n_images",
    "metric",
    "value",
    "low",
    "high",
    "interval_over",
    "against",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
)
_AGES = {1: "under 1", 5: "1 to 4", 18: "5 to 17", 40: "18 to 39", 65: "40 to 64", np.inf: "65 and over"}
_SEED = 0  # of the draws of patients

Mask = npt.NDArray[np.bool_]
Groups = dict[str, Mask]  # name -> bool array of shape (n,), its images


def score_subgroups(
    results: Results, manifest: pd.DataFrame, predictions: Mapping[RunKey, pd.DataFrame]
) -> pd.DataFrame:
    """Score the leaderboard's first combo and model in each group of test patients.

    Args:
        results: of all runs.
        manifest: with `id`, and with `view`, `age` (years), `sex` and `site` as far as they are known.
        predictions: content of predictions.csv of each run.

    Returns:
        As `tabulate_subgroups`.
    """
    best = results.best_run
    known = [name for name in ATTRIBUTES if name in manifest]
    if not known:
        return pd.DataFrame(columns=list(COLUMNS))
    table = predictions[best]
    ids = table.loc[table["split"] == "test", "id"]
    rows = manifest.set_index("id").reindex(ids)
    groups = {name: group_ages(rows[name]) if name == "age" else rows[name] for name in known}
    of_model = {key: each.decide(each.test) for key, each in results.outcomes.items() if key[1] == best[1]}
    chosen = group_seeds(list(of_model))[best[:2]]
    return tabulate_subgroups(of_model, chosen, pd.DataFrame(groups))


def group_ages(ages: pd.Series) -> pd.Series:
    """Return the group of each age in years, such as `1 to 4`, which holds 4.9; nan where it is not known."""
    bounds = np.array(list(_AGES))
    names = np.array(list(_AGES.values()), object)
    known = ages.notna().to_numpy()
    found = np.full(len(ages), np.nan, object)
    found[known] = names[np.searchsorted(bounds, ages.to_numpy(float)[known], side="right")]
    return pd.Series(found, index=ages.index)


def tabulate_subgroups(
    runs: Mapping[RunKey, Decided],
    chosen: list[RunKey],
    attributes: pd.DataFrame,
    n_draws: int = resampling.N_DRAWS,
) -> pd.DataFrame:
    """Score groups of patients, and test each group against the one of the same attribute with most patients.

    Patients are drawn from the whole test set, the same draws for all groups, so that a patient with images
    in two groups counts in both. Intervals and p are those of `estimates`, over patients, and over seeds
    where their spread is known; without it there is no p. p is corrected over the whole table (Holm 1979).

    Args:
        runs: all runs of one model, for the spread over seeds.
        chosen: those to score, seeds of one combo.
        attributes: n rows as the test images, a column an attribute, nan where it is not known.
        n_draws: how many draws.

    Returns:
        Frame with COLUMNS, one row an attribute, group and metric; none where no attribute has a group of
        MIN_PATIENTS. `against` is "" in the rows of the group that the others are compared with, and
        `difference` is nan there. A metric that a group leaves undefined, as without images of a class, is
        nan.
    """
    first = runs[chosen[0]]
    weights = np.vstack(
        [np.ones(len(first.y_true)), draw_weights(first.patients, first.y_true, n_draws, _SEED)]
    )
    rows = []
    for attribute in attributes:
        masks = find_groups(attributes[attribute], first.patients)
        drawn = {name: _draw_group(runs, mask, weights) for name, mask in masks.items()}
        for name, mask in masks.items():
            reference = next(iter(masks))
            shown = {
                "attribute": attribute,
                "group": name,
                "n_patients": _count_patients(first.patients, mask),
                "n_images": int(mask.sum()),
                "against": "" if name == reference else reference,
            }
            for metric in METRICS:
                row = shown | {"metric": metric} | _score_group(drawn[name], chosen, metric)
                if name != reference:
                    row |= _compare_groups(drawn[name], drawn[reference], chosen, metric)
                rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["difference", "difference_low", "difference_high", "p"]
    table[numbers] = table[numbers].astype(float)
    table["p_holm"] = estimates.correct_holm(table["p"].to_numpy(float))
    return table


def find_groups(names: pd.Series, patients: npt.NDArray[np.object_]) -> Groups:
    """Return the groups that have MIN_PATIENTS or more, the one with most patients first.

    Args:
        names: group of each of n images; nan or "" where it is not known.
        patients: str array of shape (n,).
    """
    masks = {str(name): (names == name).to_numpy() for name in names.dropna().unique() if str(name)}
    counts = {name: _count_patients(patients, mask) for name, mask in masks.items()}
    order = sorted((name for name in masks if counts[name] >= MIN_PATIENTS), key=lambda n: (-counts[n], n))
    return {name: masks[name] for name in order}


def _count_patients(patients: npt.NDArray[np.object_], mask: Mask) -> int:
    return len(set(patients[mask].tolist()))


def _draw_group(runs: Mapping[RunKey, Decided], mask: Mask, weights: npt.NDArray[np.float64]) -> Draws:
    scores = {
        key: score_draws(
            run.y_true[mask],
            run.probabilities[mask],
            run.y_pred[mask],
            weights[:, mask],
            None if run.folds is None else run.folds[mask],
        )
        for key, run in runs.items()
    }
    first = next(iter(runs.values()))
    return Draws(scores, resampling.count_patient_freedom(first.patients[mask], first.y_true[mask]))


def _score_group(draws: Draws, chosen: list[RunKey], metric: str) -> dict[str, object]:
    weights = dict.fromkeys(chosen, 1 / len(chosen))
    result = draws.estimate(weights, metric, draws.pool(metric))
    low, high = result.find_score_interval(0, 1)
    return {"value": result.value, "low": low, "high": high, "interval_over": result.interval_over}


def _compare_groups(group: Draws, reference: Draws, chosen: list[RunKey], metric: str) -> dict[str, object]:
    scores = {
        key: {metric: of_run[metric] - reference.scores[key][metric]} for key, of_run in group.scores.items()
    }
    draws = Draws(scores, min(group.patient_freedom, reference.patient_freedom))
    result = draws.estimate(dict.fromkeys(chosen, 1 / len(chosen)), metric, draws.pool(metric))
    low, high = result.find_interval()
    return {"difference": result.value, "difference_low": low, "difference_high": high, "p": result.p}
