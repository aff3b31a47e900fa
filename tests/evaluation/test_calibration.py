"""Calibration, on numbers worked by hand and on probabilities that are right by construction."""

import numpy as np
import pandas as pd
import pytest

from pneumo.base.decision import scale_temperature
from pneumo.base.errors import PneumoError
from pneumo.evaluation.calibration import (
    bin_scores,
    fit_temperature,
    score_calibration_error,
    shift_prevalence,
    split_brier,
    tabulate_net_benefit,
)
from pneumo.evaluation.metrics import score_binary

Y_TRUE = np.array([0, 0, 1, 0, 1, 1, 0, 1])
Y_SCORE = np.array([0.1, 0.1, 0.1, 0.1, 0.8, 0.8, 0.8, 0.8])


def draw_calibrated(n=20_000, seed=0):
    """Return y_true and probabilities of shape (n, 2) that mean what they say."""
    generator = np.random.default_rng(seed)
    positive = generator.beta(0.6, 0.6, n)
    return (generator.random(n) < positive).astype(int), np.stack([1 - positive, positive], axis=1)


def test_bins_by_hand():
    bins = bin_scores(Y_TRUE, Y_SCORE, n_bins=2)
    assert bins["n"].tolist() == [4, 4]
    assert bins["predicted"].tolist() == pytest.approx([0.1, 0.8])
    assert bins["observed"].tolist() == [0.25, 0.75]
    assert score_calibration_error(bins) == pytest.approx((0.15 + 0.05) / 2)
    parts = split_brier(bins)
    assert parts == pytest.approx(((0.15**2 + 0.05**2) / 2, 0.25**2, 0.25))
    brier = score_binary(Y_TRUE, Y_SCORE)["brier_score"]
    assert parts.reliability - parts.resolution + parts.uncertainty == pytest.approx(brier)


@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_bins_hold_every_image_once_in_equal_numbers(n_bins):
    y_true, probabilities = draw_calibrated(n=600)
    bins = bin_scores(y_true, probabilities[:, 1], n_bins)
    assert len(bins) == n_bins
    assert bins["n"].sum() == 600
    assert bins["n"].max() - bins["n"].min() <= 2
    assert bins["predicted"].is_monotonic_increasing
    assert np.average(bins["observed"], weights=bins["n"]) == pytest.approx(y_true.mean())


def test_equal_scores_stay_in_one_bin():
    bins = bin_scores(Y_TRUE, np.full(8, 0.3))
    assert bins[["n", "predicted", "observed"]].to_numpy().tolist() == [[8, pytest.approx(0.3), 0.5]]


def test_probabilities_that_mean_what_they_say_have_little_error():
    y_true, probabilities = draw_calibrated()
    assert score_calibration_error(bin_scores(y_true, probabilities[:, 1])) < 0.01
    sure = scale_temperature(probabilities, 0.3)
    assert score_calibration_error(bin_scores(y_true, sure[:, 1])) > 0.05


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_is_found_again(temperature):
    y_true, probabilities = draw_calibrated()
    distorted = scale_temperature(probabilities, 1 / temperature)
    assert fit_temperature(y_true, distorted) == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(
        scale_temperature(distorted, temperature), scale_temperature(probabilities, 1), atol=2e-3
    )


def test_scaling_keeps_the_order_and_the_sum():
    _, probabilities = draw_calibrated(n=200)
    scaled = scale_temperature(probabilities, 1.7)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(np.argsort(scaled[:, 1]), np.argsort(probabilities[:, 1]))
    np.testing.assert_allclose(scale_temperature(np.array([[0.2, 0.3, 0.5]]), 1), [[0.2, 0.3, 0.5]])


def test_certain_and_wrong_has_a_finite_temperature():
    assert 1 < fit_temperature(np.array([0, 1, 1]), np.array([[0.0, 1.0], [0.0, 1.0], [0.3, 0.7]])) <= 20


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.7, 20.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_never_reverses_the_order_of_saturated_scores(temperature, dtype):
    positive = np.array([0, 1e-30, 1e-9, 1e-8, 1e-7, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-7, 1 - 1e-9, 1], dtype)
    scaled = scale_temperature(np.stack([1 - positive, positive], axis=1), temperature)
    assert (np.diff(scaled[:, 1]) >= 0).all()
    assert ((scaled >= 0) & (scaled <= 1)).all()


# Prevalence


def test_prevalence_is_shifted_as_bayes_has_it_by_counting():
    # Of 100 sick and 100 healthy, 30 and 10 have a sign: 3/4 of those with it are sick. Where one in ten is
    # sick, of 1,000 people 100 are, 30 with the sign, and of 900 healthy 90 have it.
    assert shift_prevalence(np.array([30 / 40]), 0.5, 0.1) == pytest.approx(30 / (30 + 90))
    assert shift_prevalence(np.array([30 / 120]), 0.1, 0.5) == pytest.approx(30 / 40)


@pytest.mark.parametrize("prevalence", [0.01, 0.3, 0.9])
def test_shifted_probabilities_are_calibrated_where_cases_are_rarer_or_more_frequent(prevalence):
    y_true, probabilities = draw_calibrated(200_000)
    observed = y_true.mean()
    odds = prevalence / (1 - prevalence) / (observed / (1 - observed))
    kept = np.random.default_rng(1).random(len(y_true)) < np.where(y_true == 1, odds, 1) / max(odds, 1)
    assert y_true[kept].mean() == pytest.approx(prevalence, abs=0.005)
    before = probabilities[kept, 1]
    after = shift_prevalence(before, observed, prevalence)
    assert score_calibration_error(bin_scores(y_true[kept], after)) < 0.01
    assert score_calibration_error(bin_scores(y_true[kept], before)) > 3 * 0.01


def test_a_shift_keeps_certainties_and_order_and_undoes_itself():
    y_score = np.array([0, 1e-9, 0.2, 0.5, 1 - 1e-9, 1])
    shifted = shift_prevalence(y_score, 0.7, 0.05)
    assert (np.diff(shifted) > 0).all()
    assert shifted[[0, -1]].tolist() == [0, 1]
    np.testing.assert_allclose(shift_prevalence(shifted, 0.05, 0.7), y_score, rtol=1e-9)
    np.testing.assert_allclose(shift_prevalence(y_score, 0.3, 0.3), y_score, rtol=1e-15)


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, float("nan")])
def test_no_shift_from_or_to_a_prevalence_of_nobody_or_everybody(prevalence):
    for pair in ((prevalence, 0.5), (0.5, prevalence)):
        with pytest.raises(PneumoError, match=r"Expected a prevalence in \(0, 1\)"):
            shift_prevalence(np.array([0.3]), *pair)


# Net benefit


def count_net_benefit(y_true, y_score, prevalence, threshold):
    """Return the net benefit a person, counted among copies of those tested with as many sick as stated."""
    sick, healthy = y_score[y_true == 1], y_score[y_true == 0]
    n_sick, n_healthy = round(1000 * prevalence), 1000 - round(1000 * prevalence)
    people = [(True, score) for score in np.repeat(sick, n_sick * len(healthy))]
    people += [(False, score) for score in np.repeat(healthy, n_healthy * len(sick))]
    benefit = 0.0
    for is_sick, score in people:
        if score >= threshold:
            benefit += 1 if is_sick else -threshold / (1 - threshold)
    return benefit / len(people)


@pytest.mark.parametrize("prevalence", [0.01, 0.2, 0.5, 0.9])
def test_net_benefit_is_that_of_counted_people(prevalence):
    benefit = tabulate_net_benefit(Y_TRUE, Y_SCORE, 0.5, prevalence)
    assert (benefit["prevalence"] == prevalence).all()
    shifted = shift_prevalence(Y_SCORE, 0.5, prevalence)
    everybody = np.ones(len(Y_TRUE))
    for row in benefit.iloc[[0, 4, 29, 50, 88]].itertuples():
        counted = count_net_benefit(Y_TRUE, shifted, prevalence, row.threshold)
        assert row.model == pytest.approx(counted, abs=1e-9)
        assert row.all == pytest.approx(
            count_net_benefit(Y_TRUE, everybody, prevalence, row.threshold), abs=1e-9
        )
    assert (benefit["none"] == 0).all()


def test_net_benefit_by_hand_at_the_prevalence_of_the_test_set():
    benefit = tabulate_net_benefit(Y_TRUE, Y_SCORE, 0.5, 0.5).set_index("threshold")
    assert benefit["model"][0.5] == pytest.approx(3 / 8 - 1 / 8)
    assert benefit["model"][0.75] == pytest.approx(3 / 8 - 1 / 8 * 3)
    assert benefit["all"][0.2] == pytest.approx(4 / 8 - 4 / 8 / 4)
    assert benefit["model"][0.05] == pytest.approx(benefit["all"][0.05])


def test_net_benefit_does_not_depend_on_how_many_cases_the_test_set_has():
    more = np.repeat(np.arange(8), np.where(Y_TRUE == 1, 5, 1))
    few = tabulate_net_benefit(Y_TRUE, Y_SCORE, 0.6, 0.1)
    pd.testing.assert_frame_equal(tabulate_net_benefit(Y_TRUE[more], Y_SCORE[more], 0.6, 0.1), few)


@pytest.mark.parametrize("prevalence", [0.05, 0.3])
def test_a_calibrated_model_is_never_worse_than_either_policy_at_another_prevalence(prevalence):
    y_true, probabilities = draw_calibrated(100_000)
    observed = float(y_true.mean())
    benefit = tabulate_net_benefit(y_true, probabilities[:, 1], observed, prevalence)
    policies = benefit[["all", "none"]].max(axis=1)
    assert (benefit["model"] > policies - 0.002).all()
    unshifted = tabulate_net_benefit(y_true, probabilities[:, 1], prevalence, prevalence)
    gained = benefit["model"] - unshifted["model"]
    assert gained.max() > 0.01
    assert gained.min() > -0.002


def test_a_perfect_model_is_worth_every_case():
    benefit = tabulate_net_benefit(Y_TRUE, Y_TRUE.astype(float), 0.5, 0.2)
    np.testing.assert_allclose(benefit["model"], 0.2)


@pytest.mark.parametrize("number", [0, 1])
def test_net_benefit_of_one_class_has_no_rows(number):
    benefit = tabulate_net_benefit(np.full(3, number), np.array([0.1, 0.5, 0.9]), 0.5, 0.5)
    assert benefit.empty
    assert list(benefit.columns) == ["threshold", "prevalence", "model", "all", "none"]
