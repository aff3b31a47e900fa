import numpy as np
import pytest

from pneumo.base.decision import DecisionRule, scale_temperature

PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.0, 1.0], [1.0, 0.0]])


def test_two_classes_are_decided_at_the_threshold():
    assert DecisionRule(0.6, 1.0).decide(PROBABILITIES).tolist() == [0, 1, 1, 1, 0]
    assert DecisionRule(0.61, 1.0).decide(PROBABILITIES).tolist() == [0, 0, 1, 1, 0]


def test_of_more_classes_the_most_probable_is_chosen():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
    assert DecisionRule(None, 2.0).decide(probabilities).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_temperature_divides_the_logit(temperature):
    p = PROBABILITIES[:3, 1]
    expected = 1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature))
    scaled = DecisionRule(0.5, temperature).calibrate(PROBABILITIES)
    np.testing.assert_allclose(scaled[:3, 1], expected, atol=1e-9)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    assert scaled[3, 1] > scaled[2, 1]


def test_a_temperature_of_one_changes_nothing():
    np.testing.assert_allclose(scale_temperature(PROBABILITIES, 1.0), PROBABILITIES, atol=1e-6)


def test_more_classes_keep_their_order_and_sum_to_one():
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    scaled = scale_temperature(probabilities, 2.5)
    np.testing.assert_array_equal(scaled.argsort(axis=1), probabilities.argsort(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    assert (scaled.max(axis=1) <= probabilities.max(axis=1)).all()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.7])
def test_decisions_are_the_same_at_the_calibrated_threshold(temperature):
    generator = np.random.default_rng(1)
    p = generator.uniform(size=500)
    probabilities = np.stack([1 - p, p], axis=1)
    rule = DecisionRule(0.37, temperature)
    calibrated = rule.calibrate(probabilities)[:, 1] >= rule.calibrated_threshold
    np.testing.assert_array_equal(rule.decide(probabilities), calibrated)


def test_thresholds_out_of_reach_stay_out_of_reach():
    assert DecisionRule(None, 1.0).calibrated_threshold is None
    assert DecisionRule(float("inf"), 1.0).calibrated_threshold == pytest.approx(1.0)
    assert DecisionRule(float("inf"), 1.0).decide(PROBABILITIES).sum() == 0


def test_single_precision_is_taken():
    scaled = scale_temperature(PROBABILITIES.astype(np.float32), 2.0)
    assert scaled.dtype == np.float64
