"""Calibration, on numbers worked by hand and on probabilities that are right by construction."""

import numpy as np
import pandas as pd
import pytest

from pneumo.evaluation.calibration import (
    bin_scores,
    fit_temperature,
    scale_temperature,
    score_calibration_error,
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


def test_net_benefit_by_hand():
    benefit = tabulate_net_benefit(Y_TRUE, Y_SCORE).set_index("threshold")
    assert benefit["model"][0.5] == pytest.approx(3 / 8 - 1 / 8)
    assert benefit["model"][0.75] == pytest.approx(3 / 8 - 1 / 8 * 3)
    assert benefit["all"][0.2] == pytest.approx(4 / 8 - 4 / 8 / 4)
    assert benefit["model"][0.05] == pytest.approx(benefit["all"][0.05])
    assert (benefit["none"] == 0).all()


def test_a_perfect_model_is_worth_every_case():
    benefit = tabulate_net_benefit(Y_TRUE, Y_TRUE.astype(float))
    pd.testing.assert_series_equal(benefit["model"], pd.Series(0.5, index=benefit.index, name="model"))
