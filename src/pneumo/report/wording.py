"""Numbers and codes in words. No sentence of a verdict is written anywhere else."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

SIGNIFICANCE = 0.05  # a difference is shown where its corrected p is at most this
METRICS = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision (PPV)",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "brier_score": "Brier score",
    "log_loss": "log loss",
}
_CRITERIA = {
    "val_roc_auc": "ROC AUC on validation",
    "stress_roc_auc": "mean ROC AUC on changed validation images",
}
# Of selection.csv.
_CORRELATED = {
    "plain": "the ROC AUC on validation",
    "stressed, mean": "the mean ROC AUC on changed validation images",
    "stressed, worst": "the worst of these",
    "stressed, mean balanced accuracy": "the mean balanced accuracy on them",
}
# Verdict code -> (what it means for the metric, one word of the sign, kind of mark). Codes are those of
# `comparison.Verdict` and of the effects.
_VERDICTS = {
    "better": ("raises {metric}", "better", "helps"),
    "worse": ("lowers {metric}", "worse", "harms"),
    "equivalent": ("makes no difference that matters", "equivalent", "same"),
    "not_shown": ("no difference shown", "no difference shown", "open"),
    "unknown_spread": ("not judged: {reason}", "not judged", "open"),
    "not_compared": ("not compared: no seed in common with {reference}", "not compared", "open"),
    "reference": ("what the others are compared with", "reference", "open"),
}
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def name_metric(metric: str) -> str:
    """Return a metric's name for readers."""
    return METRICS.get(metric, metric.replace("_", " "))


def name_criterion(criterion: str) -> str:
    """Return what the leaderboard is ordered by, for readers; `criterion` is its column."""
    return _CRITERIA[criterion]


def name_correlated(criterion: str) -> str:
    """Return what was correlated with the test score, for readers, in the order of selection.csv."""
    return _CORRELATED[criterion]


def write_digits(value: float, n: int = 3) -> str:
    """Write a number with n digits after the point; a dash where it is not defined."""
    return DASH if pd.isna(value) else f"{value:.{n}f}".replace("-", MINUS)


def write_signed(value: float, n: int = 3) -> str:
    """Write a difference with its sign; what rounds to 0 has none."""
    if pd.isna(value):
        return DASH
    text = f"{value:+.{n}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", MINUS)


def write_interval(low: float, high: float, signed: bool = False) -> str:
    """Write an interval as `low to high`; a dash where it is not known."""
    if pd.isna(low) or pd.isna(high):
        return DASH
    write = write_signed if signed else write_digits
    return f"{write(low)} to {write(high)}"


def write_p(p: float, named: bool = False) -> str:
    """Write a p-value; a dash where it is not known, nothing if it is to be named there."""
    if pd.isna(p):
        return "" if named else DASH
    text = "< 0.001" if p < 0.001 else f"{p:.3f}"
    if not named:
        return text
    return f"p {text}" if p < 0.001 else f"p = {text}"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return `1 seed`, `2 seeds`, `5,856 images`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def list_words(words: Sequence[str]) -> str:
    """Join words as in a sentence: `a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def describe_verdict(
    verdict: str, metric: str, reference: str, n_seeds: int, below: float | None = None
) -> str:
    """Say what a verdict means for the combo or model it is about, in a phrase without a subject.

    Args:
        verdict: a code.
        metric: what was compared.
        reference: what it was compared with.
        n_seeds: the seeds behind it.
        below: the margin of equivalence, where the difference is shown to be smaller.
    """
    phrase, _, _ = _VERDICTS[verdict]
    described = phrase.format(
        metric=name_metric(metric), reference=reference, reason=explain_unknown(n_seeds)
    )
    return described if below is None else f"{described}, by less than {below:g}"


def explain_unknown(n_seeds: int) -> str:
    """Say why a spread is not known."""
    return "one seed" if n_seeds == 1 else "the spread over seeds or patients is not known"


def name_verdict(verdict: str) -> str:
    """Return a verdict as a word or two, for a table."""
    return _VERDICTS[verdict][1]


def mark_verdict(verdict: str) -> str:
    """Return the kind of mark of a verdict: `helps`, `harms`, `same` or `open`."""
    return _VERDICTS[verdict][2]


def describe_steps(steps: Any) -> str:
    """Describe a combo's steps in their order, e.g. `crop (margin 0.08), clahe (clip limit 2.0, tiles 8)`.

    Args:
        steps: as params.yaml has them: a list of names and of {name: parameters}, or nothing.
    """
    if not steps:
        return "the image as it is"
    described = []
    for step in steps:
        name, settings = (step, None) if isinstance(step, str) else next(iter(dict(step).items()))
        values = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in (settings or {}).items())
        described.append(f"{name} ({values})" if values else str(name))
    return ", then ".join(described)


def answer(
    verdicts: Mapping[str, str],
    metric: str,
    reference: str,
    mark: Callable[[str], str] = str,
    below: Mapping[str, float] | None = None,
) -> str:
    """Answer the question of an experiment in a few sentences.

    Args:
        verdicts: combo -> code, of every combo but the reference.
        metric: the primary one.
        reference: the combo that the others were compared with.
        mark: is applied to each name.
        below: combo -> margin of equivalence, of those whose difference is shown to be smaller.
    """
    if not verdicts:
        return "One way of preprocessing was run, so there is nothing to compare it with."
    groups: dict[str, list[str]] = {}
    found: dict[tuple[str, float | None], list[str]] = {}
    for combo, verdict in verdicts.items():
        groups.setdefault(verdict, []).append(mark(combo))
        found.setdefault((verdict, (below or {}).get(combo)), []).append(mark(combo))
    name = name_metric(metric)
    sentences = []
    for verdict, one, several in (
        ("better", "raises", "raise"),
        ("worse", "lowers", "lower"),
    ):
        for (found_verdict, margin), names in found.items():
            if found_verdict != verdict:
                continue
            verb = one if len(names) == 1 else several
            amount = "" if margin is None else f", by less than {margin:g}"
            sentences.append(f"{list_words(names)} {verb} {name} against {mark(reference)}{amount}.")
    if combos := groups.get("equivalent"):
        verb = "makes" if len(combos) == 1 else "make"
        sentences.append(f"{list_words(combos)} {verb} no difference that matters.")
    if combos := groups.get("not_shown"):
        sentences.append(f"For {list_words(combos)} no difference is shown.")
    if combos := [*groups.get("unknown_spread", []), *groups.get("not_compared", [])]:
        verb = "is" if len(combos) == 1 else "are"
        sentences.append(f"{list_words(combos)} {verb} not judged.")
    return " ".join(sentences)


def describe_same_images(groups: Sequence[Sequence[str]], reference: str) -> str:
    """Say which combos gave the same images; empty where all differ.

    Args:
        groups: combos whose images are the same.
        reference: the combo that the others are compared with.
    """
    sentences = []
    for combos in groups:
        if reference in combos:
            others = [combo for combo in combos if combo != reference]
            verb = "changes" if len(others) == 1 else "change"
            sentences.append(f"{list_words(others)} {verb} nothing on these images.")
        else:
            sentences.append(f"{list_words(combos)} give the same images.")
    return " ".join(sentences)


def name_task(classes: Sequence[str]) -> str:
    """Return what is told apart: `pneumonia from normal`, or `normal, bacterial and viral apart`."""
    if len(classes) == 2:
        return f"{classes[1]} from {classes[0]}"
    return f"{list_words(classes)} apart"


def describe_seeds(n_seeds: Sequence[int]) -> str:
    """Say how many seeds runs have: `1 seed`, `1 to 3 seeds`."""
    if not n_seeds:
        return ""
    low, high = min(n_seeds), max(n_seeds)
    return count(low, "seed") if low == high else f"{low} to {count(high, 'seed')}"


def describe_test_seen(recipe: Mapping[str, Any]) -> str:
    """Say whether test scores were known when a recipe was written.

    Args:
        recipe: as run.json holds it; `test_seen` counts the test scores that were looked at before, and may
            be missing.
    """
    seen = recipe.get("test_seen")
    if seen is None:
        return "The recipe does not state whether test scores were looked at before it was written."
    if seen == 0:
        return "The recipe states that no test score was looked at before it was written."
    return (
        f"The recipe states that {count(seen, 'test score')} {'was' if seen == 1 else 'were'} looked at "
        "before it was written: its own test score is too good by an amount that is not known."
    )
