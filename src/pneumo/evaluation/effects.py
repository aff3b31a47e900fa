"""What a combo does over all models: one question, few others beside it, each a family of tests of its own.

Differences are means over models and over the seeds that both sides have, each model with the same weight.
Patients are drawn in pairs, the spread over seeds is pooled within models, and both enter one error
(`estimates.py`). The answer holds for these models; another choice of models is not part of the error.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from pneumo.evaluation import estimates
from pneumo.evaluation.comparison import Draws, RunKey, add_corrected, describe, judge, subtract

PRIMARY_METRIC = "roc_auc"
OPERATING_METRICS = ("sensitivity", "specificity")
COLUMNS = (
    "family",
    "subject",
    "against",
    "metric",
    "over",
    "left_out",
    "n_runs",
    "difference",
    "low",
    "high",
    "interval_over",
    "p",
    "p_holm",
    "p_within",
    "p_within_holm",
    "verdict",
    "smallest_detectable",
)

Weights = dict[RunKey, float]


class Family(StrEnum):
    """A question, and the tests that are corrected together to answer it.

    Attributes:
        primary: does a combo change ROC AUC, over all models? One test a combo.
        by_model: does it under each model? One test a combo and model.
        heterogeneity: does it do under one model what it does not do under the others? One test a combo and
            model; of two models one test, as the other is its mirror image.
        operating_point: does a combo change sensitivity or specificity at the threshold chosen on validation,
            over all models? Two tests a combo.
        models: do two models differ in ROC AUC, over the combos that both have? One test a pair.
    """

    primary = "primary"
    by_model = "by_model"
    heterogeneity = "heterogeneity"
    operating_point = "operating_point"
    models = "models"


def tabulate_effects(draws: Draws, reference: str, margin: float) -> pd.DataFrame:
    """Test each combo against the reference, and the models against each other.

    A model whose spread over seeds is not known is left out of a mean over models, and named; where that is
    so of all, the mean is over all of them, without p.

    Args:
        draws: of the runs of an experiment, at any seeds; runs can be missing.
        reference: the combo that the others are compared with.
        margin: above 0; a difference that is shown to be smaller counts as none that matters.

    Returns:
        One row a test, in the order of the families, none where there is nothing to compare:
        `family`, a Family;
        `subject` and `against`: two combos, or two models for the family `models`;
        `metric`;
        `over`: the models of the mean, or the combos for the family `models`, separated by spaces;
        `left_out`: likewise, the models without a known spread over seeds;
        `n_runs` in the sum;
        `difference`: subject minus against; for the family `heterogeneity`, the difference under the model in
        `over` minus the mean of that under the others;
        `low`, `high`: its 95 % interval, not corrected;
        `interval_over`: "patients and seeds", or "patients" for these trained networks alone;
        `p`, and `p_holm` after Holm over the family;
        `p_within`: that the difference is as large as the margin or larger, to either side (two one-sided
        tests), and `p_within_holm` after Holm over the family;
        `verdict`, a Verdict; both tests hold at the level of 5 % over the family;
        `smallest_detectable`: the difference that would be shown in 80 % of all such experiments.
    """
    if not margin > 0:
        raise ValueError(f"Expected a margin above 0. Received: {margin}")
    tables = [
        _judge_family(family, pd.DataFrame(rows), margin)
        for family, rows in (
            (Family.primary, list(_compare_combos(draws, reference, PRIMARY_METRIC))),
            (Family.by_model, list(_compare_by_model(draws, reference))),
            (Family.heterogeneity, list(_compare_effects(draws, reference))),
            (
                Family.operating_point,
                [row for metric in OPERATING_METRICS for row in _compare_combos(draws, reference, metric)],
            ),
            (Family.models, list(_compare_models(draws))),
        )
        if rows
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def _judge_family(family: Family, rows: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Correct the tests of a family and return its rows with the columns of `tabulate_effects`."""
    p_within = np.array([result.find_p_within(margin) for result in rows["result"]])
    table = add_corrected(rows).assign(
        family=family, p_within=p_within, p_within_holm=estimates.correct_holm(p_within)
    )
    judged = table[["difference", "p_holm", "p_within_holm"]].to_numpy(float)
    return table.assign(verdict=[judge(*row) for row in judged])[list(COLUMNS)]


def _list_seeds(draws: Draws) -> dict[str, dict[str, list[int]]]:
    """Return combo -> model -> seeds."""
    seeds: dict[str, dict[str, list[int]]] = {}
    for combo, model, seed in draws.scores:
        seeds.setdefault(combo, {}).setdefault(model, []).append(seed)
    return seeds


def _pair_runs(draws: Draws, reference: str) -> dict[str, dict[str, Weights]]:
    """Return combo -> model -> weights of the combo's mean less the reference's over the seeds of both."""
    seeds = _list_seeds(draws)
    pairs: dict[str, dict[str, Weights]] = {}
    for combo, by_model in seeds.items():
        if combo == reference:
            continue
        for model, of_combo in by_model.items():
            shared = [seed for seed in of_combo if seed in seeds.get(reference, {}).get(model, [])]
            if shared:
                keys = ([(name, model, seed) for seed in shared] for name in (combo, reference))
                pairs.setdefault(combo, {})[model] = subtract(*keys)
    return pairs


def _average(weights: Mapping[str, Weights]) -> Weights:
    """Return the weights of the mean over models."""
    return {key: value / len(weights) for of_model in weights.values() for key, value in of_model.items()}


def _row(
    subject: str, against: str, metric: str, over: str, result: estimates.Estimate, n_runs: int
) -> dict[str, Any]:
    row = {"subject": subject, "against": against, "metric": metric, "over": over, "left_out": ""}
    return row | {"n_runs": n_runs} | describe(result)


def _compare_combos(draws: Draws, reference: str, metric: str) -> Iterator[dict[str, Any]]:
    spreads = draws.pool(metric)
    for combo, by_model in _pair_runs(draws, reference).items():
        known = {model: weights for model, weights in by_model.items() if spreads[model].is_known}
        weights = _average(known or by_model)
        result = draws.estimate(weights, metric, spreads)
        row = _row(combo, reference, metric, " ".join(known or by_model), result, len(weights))
        yield row | {"left_out": " ".join(model for model in by_model if known and model not in known)}


def _compare_by_model(draws: Draws, reference: str) -> Iterator[dict[str, Any]]:
    spreads = draws.pool(PRIMARY_METRIC)
    for combo, by_model in _pair_runs(draws, reference).items():
        for model, weights in by_model.items():
            result = draws.estimate(weights, PRIMARY_METRIC, spreads)
            yield _row(combo, reference, PRIMARY_METRIC, model, result, len(weights))


def _compare_effects(draws: Draws, reference: str) -> Iterator[dict[str, Any]]:
    spreads = draws.pool(PRIMARY_METRIC)
    for combo, by_model in _pair_runs(draws, reference).items():
        known = {model: weights for model, weights in by_model.items() if spreads[model].is_known}
        if len(known) < 2:
            continue
        for model in list(known)[: 1 if len(known) == 2 else None]:
            others = _average({name: weights for name, weights in known.items() if name != model})
            weights = known[model] | {key: -value for key, value in others.items()}
            result = draws.estimate(weights, PRIMARY_METRIC, spreads)
            yield _row(combo, reference, PRIMARY_METRIC, model, result, len(weights))


def _compare_models(draws: Draws) -> Iterator[dict[str, Any]]:
    """Compare models over combos; a seed's mean over combos counts as one, in case its runs are alike."""
    seeds = _list_seeds(draws)
    models = dict.fromkeys(model for _, model, _ in draws.scores)
    for a, b in combinations(models, 2):
        combos = [combo for combo, by_model in seeds.items() if a in by_model and b in by_model]
        shared = [
            sorted(set.intersection(*(set(seeds[combo][model]) for combo in combos))) if combos else []
            for model in (a, b)
        ]
        if not all(shared):
            continue
        means = [
            np.array(
                [
                    np.mean([draws.scores[combo, model, seed][PRIMARY_METRIC] for combo in combos], axis=0)
                    for seed in of_model
                ]
            )
            for model, of_model in zip((a, b), shared, strict=True)
        ]
        result = estimates.estimate(
            means[0].mean(axis=0) - means[1].mean(axis=0),
            draws.patient_freedom,
            [(estimates.pool_seeds([mean]), 1 / len(mean)) for mean in means],
        )
        n_runs = len(combos) * sum(len(of_model) for of_model in shared)
        yield _row(a, b, PRIMARY_METRIC, " ".join(combos), result, n_runs)
