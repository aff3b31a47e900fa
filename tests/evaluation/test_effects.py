"""Effects over models, against sums by hand and experiments whose answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated_experiment import Experiment
from sklearn.metrics import roc_auc_score

from pneumo.evaluation.comparison import Decided, Verdict, draw_scores
from pneumo.evaluation.effects import COLUMNS, Family, tabulate_effects
from pneumo.evaluation.estimates import correct_holm

MODELS = ("cnn", "dense", "mobilenet")
EXPERIMENT = Experiment(
    {"raw": 3, "clahe": 3, "crop": 3},
    MODELS,
    n_patients=300,
    separation=1.5,
    shifts=dict.fromkeys([("crop", model) for model in MODELS], -0.7),
    seed_sd=0.05,
    combo_sd=0.05,
)
MARGIN = 0.05


@pytest.fixture(scope="module")
def runs():
    return EXPERIMENT.draw_runs(np.random.default_rng(0))


@pytest.fixture(scope="module")
def effects(runs):
    return tabulate_effects(draw_scores(runs, 200), "raw", MARGIN)


def tabulate(runs, n_draws=100, reference="raw", margin=MARGIN):
    return tabulate_effects(draw_scores(runs, n_draws), reference, margin)


def select(table, family):
    return table[table["family"] == family]


def find_area(runs, combo, model, seed):
    run = runs[combo, model, seed]
    return roc_auc_score(run.y_true, run.probabilities[:, 1])


def test_each_family_has_its_rows(effects):
    assert tuple(effects.columns) == COLUMNS
    assert effects.groupby("family", sort=False).size().to_dict() == {
        "primary": 2,
        "by_model": 6,
        "heterogeneity": 6,
        "operating_point": 4,
        "models": 3,
    }
    primary = select(effects, Family.primary)
    assert primary[["subject", "against", "metric", "over", "n_runs"]].to_numpy().tolist() == [
        ["clahe", "raw", "roc_auc", "cnn dense mobilenet", 18],
        ["crop", "raw", "roc_auc", "cnn dense mobilenet", 18],
    ]
    models = select(effects, Family.models)
    assert models[["subject", "against", "over", "n_runs"]].to_numpy().tolist() == [
        [a, b, "raw clahe crop", 18] for a, b in (MODELS[:2], MODELS[::2], MODELS[1:])
    ]
    assert (
        select(effects, Family.operating_point)["metric"].tolist()
        == ["sensitivity"] * 2 + ["specificity"] * 2
    )
    assert (effects["interval_over"] == "patients and seeds").all()


def test_differences_are_means_over_models_and_seeds(runs, effects):
    by_model = {
        (combo, model): np.mean(
            [find_area(runs, combo, model, s) - find_area(runs, "raw", model, s) for s in range(3)]
        )
        for combo in ("clahe", "crop")
        for model in MODELS
    }
    for row in select(effects, Family.primary).itertuples():
        assert row.difference == pytest.approx(np.mean([by_model[row.subject, model] for model in MODELS]))
    for row in select(effects, Family.by_model).itertuples():
        assert row.difference == pytest.approx(by_model[row.subject, row.over])
    for row in select(effects, Family.heterogeneity).itertuples():
        others = [by_model[row.subject, model] for model in MODELS if model != row.over]
        assert row.difference == pytest.approx(by_model[row.subject, row.over] - np.mean(others))
    for row in select(effects, Family.models).itertuples():
        areas = [
            np.mean([find_area(runs, combo, model, s) for combo in EXPERIMENT.seeds for s in range(3)])
            for model in (row.subject, row.against)
        ]
        assert row.difference == pytest.approx(areas[0] - areas[1])
    for row in select(effects, Family.operating_point).itertuples():
        number = int(row.metric == "sensitivity")
        rates = [
            np.mean(
                [
                    np.mean(run.y_pred[run.y_true == number] == number)
                    for (combo, _, _), run in runs.items()
                    if combo == name
                ]
            )
            for name in (row.subject, "raw")
        ]
        assert row.difference == pytest.approx(rates[0] - rates[1])


def test_models_have_equal_weight_whatever_their_seeds(runs):
    fewer = {key: run for key, run in runs.items() if key[1] != "dense" or key[0] == "raw" or key[2] == 0}
    primary = select(tabulate(fewer), Family.primary).set_index("subject")
    cnn, mobilenet = (
        np.mean([find_area(runs, "crop", model, s) - find_area(runs, "raw", model, s) for s in range(3)])
        for model in ("cnn", "mobilenet")
    )
    dense = find_area(runs, "crop", "dense", 0) - find_area(runs, "raw", "dense", 0)
    assert primary.loc["crop", "difference"] == pytest.approx((cnn + dense + mobilenet) / 3)
    assert primary.loc["crop", "n_runs"] == 6 + 2 + 6


def test_the_error_is_that_of_a_second_computation(runs):
    draws = draw_scores(runs, 400)
    scores = {key: of_run["roc_auc"] for key, of_run in draws.scores.items()}

    def subtract(combo, model):
        return np.mean([scores[combo, model, s] - scores["raw", model, s] for s in range(3)], axis=0)

    for row in select(tabulate_effects(draws, "raw", MARGIN), Family.primary).itertuples():
        patients = np.var(np.mean([subtract(row.subject, model)[1:] for model in MODELS], axis=0), ddof=1)
        seeds, shared = [], []
        for model in MODELS:
            of_model = np.array([[scores[combo, model, s] for s in range(3)] for combo in EXPERIMENT.seeds])
            spread = of_model.var(axis=1, ddof=1)  # (combos, 1 + draws)
            residuals = of_model - of_model.mean(axis=1, keepdims=True)
            own = residuals[:, :, 1:].var(axis=2, ddof=1).sum() / 6
            seeds.append(spread[:, 0].mean() * 2 / 3 / 9)
            shared.append(min(own, spread[:, 0].mean()) * 2 / 3 / 9)
        n = 120  # patients without pneumonia
        errors = np.sqrt(max(0, patients - sum(shared)) * n / (n - 1)), np.sqrt(sum(seeds))
        freedom = sum(seeds) ** 2 / sum(part**2 / 6 for part in seeds)
        generator = np.random.default_rng(0)
        sums = errors[0] * generator.standard_t(n - 1, 10**6) + errors[1] * generator.standard_t(
            freedom, 10**6
        )
        low, high = row.difference + np.quantile(sums, [0.025, 0.975])
        half = (row.high - row.low) / 2
        assert (row.low, row.high) == pytest.approx((low, high), abs=0.01 * half)
        assert row.p == pytest.approx(np.mean(np.abs(sums) >= abs(row.difference)), abs=0.002)
        within = max(np.mean(sums >= MARGIN - row.difference), np.mean(sums >= MARGIN + row.difference))
        assert row.p_within == pytest.approx(within, abs=0.002)


def test_each_family_is_corrected_by_itself(effects):
    for _, rows in effects.groupby("family"):
        np.testing.assert_allclose(rows["p_holm"], correct_holm(rows["p"].to_numpy()))
        np.testing.assert_allclose(rows["p_within_holm"], correct_holm(rows["p_within"].to_numpy()))
        assert (rows["smallest_detectable"] > 0).all()
    assert (effects["p_holm"] > effects["p"]).any()


def test_p_and_intervals_agree(effects):
    assert ((effects["p"] < 0.05) == ((effects["low"] > 0) | (effects["high"] < 0))).all()
    halves = (effects["high"] - effects["low"]) / 2
    assert ((effects["low"] + halves) - effects["difference"]).abs().max() < 1e-12


def test_a_harmful_combo_is_worse_and_a_harmless_one_equivalent(effects):
    primary = select(effects, Family.primary).set_index("subject")
    assert primary["verdict"].to_dict() == {"clahe": Verdict.equivalent, "crop": Verdict.worse}
    assert (
        select(effects, Family.heterogeneity)["verdict"].isin([Verdict.not_shown, Verdict.equivalent])
    ).all()


def test_a_narrower_margin_shows_less(runs):
    primary = select(tabulate(runs, margin=1e-4), Family.primary).set_index("subject")
    assert primary["verdict"].to_dict() == {"clahe": Verdict.not_shown, "crop": Verdict.worse}
    assert (primary["p_within"] > 0.4).all()


@pytest.mark.parametrize("margin", [0, -0.1, float("nan")])
def test_a_margin_is_above_0(runs, margin):
    with pytest.raises(ValueError, match="Expected a margin above 0"):
        tabulate(runs, margin=margin)


@pytest.mark.parametrize("models", [("cnn", "dense"), MODELS])
def test_a_combo_that_helps_one_model_and_harms_another_is_found_out(models):
    shifts = {("crop", "cnn"): 0.9}
    shifts |= {("crop", model): -0.9 / (len(models) - 1) for model in models[1:]}
    experiment = replace(EXPERIMENT, models=models, shifts=shifts)
    table = tabulate(experiment.draw_runs(np.random.default_rng(1)))
    odd = select(table, Family.heterogeneity).set_index(["subject", "over"])
    assert len(odd) == (2 if len(models) == 2 else 6)
    assert odd.loc[("crop", "cnn"), "verdict"] == Verdict.better
    assert odd.loc["clahe"]["verdict"].isin([Verdict.not_shown, Verdict.equivalent]).all()
    by_model = select(table, Family.by_model).set_index(["subject", "over"])["verdict"]
    assert by_model["crop", "cnn"] == Verdict.better
    assert by_model["crop", "dense"] == Verdict.worse or len(models) == 3


def test_a_better_model_is_found():
    shifts = {(combo, "dense"): -0.8 for combo in EXPERIMENT.seeds}
    runs = replace(EXPERIMENT, shifts=shifts, seeds={"raw": 4, "clahe": 4}).draw_runs(
        np.random.default_rng(0)
    )
    verdicts = select(tabulate(runs), Family.models).set_index(["subject", "against"])["verdict"]
    assert verdicts["cnn", "dense"] == Verdict.better
    assert verdicts["dense", "mobilenet"] == Verdict.worse
    assert verdicts["cnn", "mobilenet"] in (Verdict.not_shown, Verdict.equivalent)


def test_a_seed_that_all_combos_share_is_one_training_where_models_are_compared():
    alike = replace(EXPERIMENT, seed_sd=0.0, shared_seed_sd=0.4, network_sd=0.1)
    runs = alike.draw_runs(np.random.default_rng(2))
    row = select(tabulate(runs), Family.models).iloc[0]
    means = [
        [np.mean([find_area(runs, combo, model, s) for combo in alike.seeds]) for s in range(3)]
        for model in MODELS[:2]
    ]
    over_seeds = np.sqrt(sum(np.var(of_model, ddof=1) / 3 for of_model in means))
    assert row.high - row.difference > stats.t.ppf(0.975, 4) * over_seeds


# What is missing


def test_one_seed_makes_no_verdict(runs):
    table = tabulate({key: run for key, run in runs.items() if key[2] == 0})
    assert len(select(table, Family.primary)) == 2
    assert select(table, Family.heterogeneity).empty
    assert set(table["verdict"]) == {Verdict.unknown_spread}
    assert (table["interval_over"] == "patients").all()
    assert table[["p", "p_holm", "p_within", "p_within_holm", "smallest_detectable"]].isna().all(axis=None)
    assert (table["low"] < table["difference"]).all()
    assert (select(table, Family.primary)["left_out"] == "").all()


def test_a_model_of_one_seed_is_left_out_of_means_and_named(runs):
    fewer = {key: run for key, run in runs.items() if key[1] != "dense" or key[2] == 0}
    table = tabulate(fewer)
    primary = select(table, Family.primary)
    assert primary["over"].tolist() == ["cnn mobilenet"] * 2
    assert primary["left_out"].tolist() == ["dense"] * 2
    without = tabulate({key: run for key, run in runs.items() if key[1] != "dense"})
    columns = ["difference", "low", "high", "p", "p_holm", "verdict"]
    pd.testing.assert_frame_equal(primary[columns], select(without, Family.primary)[columns])
    alone = select(table, Family.by_model).set_index(["subject", "over"])
    assert alone.loc[("crop", "dense"), "verdict"] == Verdict.unknown_spread
    assert alone.loc[("crop", "cnn"), "verdict"] == Verdict.worse
    models = select(table, Family.models).set_index(["subject", "against"])["verdict"]
    assert models["cnn", "dense"] == Verdict.unknown_spread
    assert models["cnn", "mobilenet"] != Verdict.unknown_spread


def test_one_model_has_no_mean_over_models_but_an_effect(runs):
    table = tabulate({key: run for key, run in runs.items() if key[1] == "cnn"})
    assert set(table["family"]) == {Family.primary, Family.by_model, Family.operating_point}
    columns = ["subject", "difference", "low", "high", "p", "p_holm"]
    pd.testing.assert_frame_equal(
        select(table, Family.primary)[columns].reset_index(drop=True),
        select(table, Family.by_model)[columns].reset_index(drop=True),
    )


def test_missing_runs_leave_the_others(runs):
    fewer = dict(runs)
    for key in [("clahe", "cnn", seed) for seed in range(3)] + [
        ("raw", "dense", 0),
        ("crop", "mobilenet", 1),
    ]:
        del fewer[key]
    table = tabulate(fewer)
    primary = select(table, Family.primary).set_index("subject")
    assert primary.loc["clahe", "over"] == "dense mobilenet"
    assert primary.loc["crop", "over"] == "cnn dense mobilenet"
    assert primary["n_runs"].to_dict() == {"clahe": 4 + 6, "crop": 6 + 4 + 4}
    assert primary["p"].notna().all()
    models = select(table, Family.models).set_index(["subject", "against"])
    over = {("cnn", "dense"): "crop", ("cnn", "mobilenet"): "raw", ("dense", "mobilenet"): "clahe"}
    assert models["over"].to_dict() == over
    assert (models["n_runs"] == 6).all()
    assert models["p"].notna().all()


def test_models_without_a_complete_combo_in_common_have_no_verdict(runs):
    missing = {("raw", "cnn", 0), ("clahe", "dense", 1), ("crop", "cnn", 1), ("crop", "dense", 1)}
    kept = {key: run for key, run in runs.items() if key not in missing and key[1] != "mobilenet"}
    row = select(tabulate(kept), Family.models).iloc[0]
    assert (row["over"], row["n_runs"], row["verdict"]) == ("raw clahe crop", 3 * 3, Verdict.unknown_spread)


@pytest.mark.parametrize(
    "kept",
    [
        {("raw", "cnn", seed) for seed in range(3)},
        {("crop", "cnn", seed) for seed in range(3)},
        {("raw", "cnn", 0), ("raw", "cnn", 1), ("crop", "cnn", 2)},
    ],
    ids=["reference alone", "no reference", "no shared seed"],
)
def test_nothing_to_compare_makes_no_rows(runs, kept, tmp_path):
    table = tabulate({key: run for key, run in runs.items() if key in kept})
    assert table.empty
    assert tuple(table.columns) == COLUMNS
    table.to_csv(tmp_path / "effects.csv", index=False)
    assert tuple(pd.read_csv(tmp_path / "effects.csv").columns) == COLUMNS


def test_models_without_a_combo_in_common_are_not_compared(runs):
    kept = {("raw", "cnn"), ("clahe", "dense"), ("raw", "mobilenet")}
    table = tabulate({key: run for key, run in runs.items() if key[:2] in kept})
    assert table[["family", "subject", "against"]].to_numpy().tolist() == [["models", "cnn", "mobilenet"]]


def test_three_classes_are_compared_by_macro_averages():
    generator = np.random.default_rng(0)
    two = Experiment({"raw": 3, "crop": 3}).draw_runs(generator)
    y_true = np.arange(len(next(iter(two.values())).y_true)) % 3
    runs = {}
    for key, run in two.items():
        probabilities = generator.dirichlet([1, 1, 1], len(y_true)) / 2 + np.eye(3)[y_true] / 2
        runs[key] = replace(
            run, y_true=y_true, probabilities=probabilities, y_pred=probabilities.argmax(axis=1)
        )
    table = tabulate(runs)
    assert table["p"].notna().all()
    assert set(table["verdict"]) <= {Verdict.not_shown, Verdict.equivalent}


def test_a_test_set_of_one_class_has_no_effect_on_its_auc(runs):
    sick = {
        key: Decided(*(part[run.y_true == 1] for part in vars(run).values() if part is not None))
        for key, run in runs.items()
    }
    table = tabulate(sick)
    defined = table["metric"] == "sensitivity"
    assert set(table[~defined]["verdict"]) == {Verdict.not_compared}
    assert table[defined]["p"].notna().all()


def test_effects_are_written_as_codes(effects, tmp_path):
    effects.to_csv(tmp_path / "effects.csv", index=False)
    read = pd.read_csv(tmp_path / "effects.csv")
    assert read["family"].tolist() == [str(family) for family in effects["family"]]
    assert read["verdict"].tolist()[:2] == ["equivalent", "worse"]
