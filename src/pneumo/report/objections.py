"""What to hold against the best model, from what validation, audit, probes and provenance say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pneumo.report import wording

MARKED_LOSS = 0.05  # of sensitivity or specificity from validation to the test set
MARKED_ERROR = 0.05  # of calibration
NEAR_BEST = 0.002  # of the ROC AUC that it was chosen by
_SHORTCUTS = {
    "metadata": "the files alone",
    "border": "the borders",
    "brightness": "brightness",
    "thumbnail": "thumbnails",
}
_PROBES = {
    "without_thorax": (
        "It answers without seeing lungs.",
        "With the thorax painted over, its ROC AUC is still {value}; 0.5 would be chance.",
    ),
    "thorax_only": (
        "It leans on what surrounds the thorax.",
        "With everything else painted over, its ROC AUC falls to {value}.",
    ),
    "without_markers": (
        "It leans on burnt-in letters.",
        "With them painted over, its ROC AUC falls to {value}.",
    ),
    "attention_outside": (
        "It looks outside the thorax.",
        "{percent} of its attention lies there; spread evenly it would be 39 %.",
    ),
    "map_correlation": (
        "Its attention maps are not to be believed.",
        "They resemble those of the same network with shuffled weights (correlation {value}).",
    ),
}


@dataclass(frozen=True)
class Objection:
    """One thing to hold against a model.

    Attributes:
        lead: in a sentence.
        text: the number behind it.
    """

    lead: str
    text: str


def find_objections(
    best: Mapping[str, Any],
    criterion: str,
    tables: Mapping[str, pd.DataFrame],
    details: Mapping[str, pd.DataFrame],
    seed: str,
    method: str,
    findings: pd.DataFrame,
    recipe: Mapping[str, Any],
    n_unknown_patients: int,
) -> list[Objection]:
    """List what to hold against the best model, the most serious first.

    Args:
        best: first row of the leaderboard.
        criterion: the column that orders it.
        tables: `leaderboard`, `probes` and `stress`, the report's CSV files.
        details: tables of the best run; `operating_points` is missing for more than two classes.
        seed: of that run.
        method: how the threshold was chosen, a row of `operating_points`.
        findings: of the audit, with `verdict`.
        recipe: of the best run, as run.json holds it.
        n_unknown_patients: how many images count as a patient of their own.
    """
    return [
        *_compare_with_validation(best, details, seed, method),
        *_read_findings(findings),
        *_read_stress(best, tables["stress"]),
        *_read_probes(best, tables["probes"]),
        *_read_calibration(best),
        *_read_choice(best, criterion, tables["leaderboard"]),
        *_read_recipe(best, recipe),
        *_read_patients(n_unknown_patients),
    ]


def find_point(operating_points: pd.DataFrame, method: str) -> dict[str, Any]:
    """Return the row of a way to choose the threshold."""
    rows = operating_points[operating_points["method"] == method].to_dict("records")
    return {str(key): value for key, value in rows[0].items()}


def _compare_with_validation(
    best: Mapping[str, Any], details: Mapping[str, pd.DataFrame], seed: str, method: str
) -> list[Objection]:
    found = []
    if best["val_roc_auc"] > best["roc_auc_high"]:
        found.append(
            Objection(
                "Validation promises more than the test set keeps.",
                f"ROC AUC {wording.write_digits(best['val_roc_auc'])} on validation, "
                f"{wording.write_digits(best['roc_auc'])} "
                f"({wording.write_interval(best['roc_auc_low'], best['roc_auc_high'])}) on the test set. "
                "Images from elsewhere can be expected to score lower still.",
            )
        )
    if "operating_points" in details:
        points = find_point(details["operating_points"], method)
        for metric in ("sensitivity", "specificity"):
            on_validation, on_test = points[f"{metric}_val"], points[metric]
            if on_validation - on_test > MARKED_LOSS:
                found.append(
                    Objection(
                        f"Its {metric} does not hold.",
                        f"With seed {seed}, at the threshold chosen on validation, it falls from "
                        f"{wording.write_digits(on_validation)} on validation to "
                        f"{wording.write_digits(on_test)} on the test set.",
                    )
                )
    return found


def _read_findings(findings: pd.DataFrame) -> list[Objection]:
    problems = findings[findings["verdict"] == "problem"]
    is_shift = problems["check"].str.startswith("shift")
    is_shortcut = problems["check"].isin(_SHORTCUTS)
    found = []
    if is_shift.any():
        found.append(
            Objection(
                "Test images are of another kind than training images.",
                f"A linear model tells them apart with a ROC AUC of {_find_most(problems[is_shift])}, so a "
                "threshold or an epoch that suits validation need not suit other images.",
            )
        )
    if is_shortcut.any():
        names = wording.list_words([_SHORTCUTS[check] for check in problems.loc[is_shortcut, "check"]])
        found.append(
            Objection(
                "The class shows without lungs.",
                f"Small classifiers tell the classes apart by {names}, with a ROC AUC of up to "
                f"{_find_most(problems[is_shortcut])}. A network can learn this in place of pneumonia.",
            )
        )
    others = problems[~is_shift & ~is_shortcut].to_dict("records")
    return [*found, *(Objection(str(row["question"]), str(row["text"])) for row in others)]


def _find_most(problems: pd.DataFrame) -> str:
    return wording.write_digits(float(problems["value"].max()), 2)


def _read_probes(best: Mapping[str, Any], probes: pd.DataFrame) -> list[Objection]:
    if probes.empty:
        return []
    own = probes[(probes["combo"] == best["combo"]) & (probes["model"] == best["model"])]
    found = []
    for row in own[own["n_problems"] > 0].to_dict("records"):
        if row["check"] in _PROBES:
            lead, text = _PROBES[str(row["check"])]
            seeds = (
                f" This holds for {row['n_problems']} of {wording.count(row['n_seeds'], 'seed')}."
                if row["n_seeds"] > 1
                else ""
            )
            value, percent = wording.write_digits(row["value"], 2), f"{100 * row['value']:.0f} %"
            found.append(Objection(lead, text.format(value=value, percent=percent) + seeds))
    return found


def _read_stress(best: Mapping[str, Any], stress: pd.DataFrame) -> list[Objection]:
    own = stress[(stress["combo"] == best["combo"]) & (stress["model"] == best["model"])]
    means = own.groupby("change", sort=False)[["sensitivity", "specificity", "balanced_accuracy"]].mean()
    changed = means.drop(index=["none", "mean", "worst"], errors="ignore")
    if "none" not in means.index or changed.empty or changed["balanced_accuracy"].isna().all():
        return []
    worst, as_is = changed.loc[changed["balanced_accuracy"].idxmin()], means.loc["none"]
    if as_is["balanced_accuracy"] - worst["balanced_accuracy"] <= MARKED_LOSS:
        return []
    change = str(worst.name).replace("_", " ")
    return [
        Objection(
            "It depends on how an image was taken.",
            f"Of the changes tried on validation images, one ({change}) takes its sensitivity from "
            f"{_write_change(as_is['sensitivity'], worst['sensitivity'])} and its specificity from "
            f"{_write_change(as_is['specificity'], worst['specificity'])}.",
        )
    ]


def _read_calibration(best: Mapping[str, Any]) -> list[Objection]:
    if not best["calibration_error_scaled"] > MARKED_ERROR:
        return []
    return [
        Objection(
            "Its probabilities are off.",
            f"They differ from observed fractions by {wording.write_digits(best['calibration_error'], 2)} on "
            f"average, by {wording.write_digits(best['calibration_error_scaled'], 2)} after temperature "
            "scaling. Use its ranking and its decisions, not its percentages.",
        )
    ]


def _read_choice(best: Mapping[str, Any], criterion: str, leaderboard: pd.DataFrame) -> list[Objection]:
    near = int((leaderboard[criterion] >= best[criterion] - NEAR_BEST).sum()) - 1
    if near < 1:
        return []
    return [
        Objection(
            "It won by little.",
            f"{wording.count(near, 'other row')} of the leaderboard {'is' if near == 1 else 'are'} within "
            f"{NEAR_BEST} of its {wording.name_criterion(criterion)}.",
        )
    ]


def _read_recipe(best: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[Objection]:
    found = []
    if best["n_seeds"] == 1:
        found.append(
            Objection(
                "It was trained once.",
                "Another seed would give another network. How far their scores lie apart is not known here.",
            )
        )
    if recipe.get("test_seen"):
        found.append(Objection("The test set is not unseen.", wording.describe_test_seen(recipe)))
    return found


def _read_patients(n_unknown_patients: int) -> list[Objection]:
    if n_unknown_patients == 0:
        return []
    return [
        Objection(
            "Patients are not known.",
            f"{wording.count(n_unknown_patients, 'image')} count as a patient each. Images of one patient "
            "can lie in training and in the test set, and intervals are then too narrow.",
        )
    ]


def _write_change(before: float, after: float) -> str:
    return f"{wording.write_digits(before)} to {wording.write_digits(after)}"
