"""Questions to a trained model, each both ways: a problem is found, and none where there is none."""

import numpy as np
import pytest

from pneumo.audit import probes

N = 300


def make_scores(strength, seed=0):
    """Return probabilities of shape (N, 2); the greater the strength, the better they tell classes apart."""
    y_true = np.arange(N) % 2
    logits = strength * (2 * y_true - 1) + np.random.default_rng(seed).normal(size=N)
    positive = 1 / (1 + np.exp(-logits))
    return np.stack([1 - positive, positive], axis=1)


def probe(**views):
    y_true = np.arange(N) % 2
    patients = np.array([f"p{i // 4}-{i % 2}" for i in range(N)], object)
    good = make_scores(2.0)
    found = probes.probe_views(y_true, patients, good, dict.fromkeys(probes.VIEWS, good) | views)
    return {each.check: each for each in found}


def test_the_images_as_they_are_come_first_and_are_no_problem():
    found = probe()
    assert list(found) == ["as_is", *probes.VIEWS]
    assert not found["as_is"].is_problem
    assert found["as_is"].low < found["as_is"].value < found["as_is"].high


@pytest.mark.parametrize(("strength", "is_problem"), [(0.0, False), (1.0, True)])
def test_telling_classes_apart_without_the_thorax_is_a_problem(strength, is_problem):
    assert probe(without_thorax=make_scores(strength, seed=1))["without_thorax"].is_problem is is_problem


@pytest.mark.parametrize("view", ["thorax_only", "without_markers"])
@pytest.mark.parametrize(("strength", "is_problem"), [(2.0, False), (0.5, True)])
def test_losing_with_what_is_no_lung_is_a_problem(view, strength, is_problem):
    assert probe(**{view: make_scores(strength, seed=1)})[view].is_problem is is_problem


def test_attention_in_the_middle_is_no_problem_and_all_around_is_one():
    attention = np.zeros((2, 64, 64))
    attention[:, 20:44, 20:44] = 1
    assert not probes.probe_attention(attention).is_problem
    assert probes.probe_attention(np.ones((2, 64, 64))).is_problem
    nothing = probes.probe_attention(np.zeros((2, 64, 64)))
    assert np.isnan(nothing.value)
    assert not nothing.is_problem


@pytest.mark.parametrize(("correlation", "is_problem"), [(0.1, False), (0.8, True)])
def test_maps_like_those_of_shuffled_weights_are_a_problem(correlation, is_problem):
    assert probes.probe_maps(correlation).is_problem is is_problem


class TestGallery:
    y_true = np.array([0, 0, 1, 1, 1, 0])
    y_pred = np.array([0, 1, 1, 0, 1, 0])
    margins = np.array([5.0, 4.0, 3.0, 0.1, 0.5, 6.0])

    def select(self, patients, n_each=2):
        groups = probes.select_gallery(
            self.y_true, self.y_pred, self.margins, np.array(patients, object), n_each
        )
        return {group: rows.tolist() for group, rows in groups.items()}

    def test_the_most_certain_and_the_least(self):
        assert self.select(list("abcdef")) == {
            "certain and right": [5, 0],
            "certain and wrong": [1, 3],
            "undecided": [3, 4],
        }

    def test_one_image_of_a_patient(self):
        assert self.select(list("abcdea"))["certain and right"] == [5, 2]

    def test_there_may_be_fewer(self):
        assert self.select(list("abcdef"), n_each=4)["certain and wrong"] == [1, 3]


def test_margins_of_two_classes_are_from_the_threshold():
    probabilities = np.array([[0.5, 0.5], [0.2, 0.8], [0.8, 0.2]])
    margins = probes.find_margins(probabilities, 0.8)
    np.testing.assert_allclose(margins, [np.log(4), 0, 2 * np.log(4)], atol=1e-12)


def test_margins_of_more_classes_are_from_the_second():
    margins = probes.find_margins(np.array([[0.5, 0.25, 0.25], [0.1, 0.45, 0.45]]), None)
    np.testing.assert_allclose(margins, [np.log(2), 0], atol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_margins_from_a_threshold_at_the_end_are_finite(threshold):
    assert np.isfinite(probes.find_margins(np.array([[0.0, 1.0], [1.0, 0.0]]), threshold)).all()
