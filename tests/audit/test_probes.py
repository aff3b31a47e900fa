"""Questions to a trained model, each both ways: a problem is found, and none where there is none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.audit import probes, regions

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


def draw_naively(patients, y_true, scores, n_draws):
    """Score draws of patients with replacement, class by class, one image after the other."""
    generator = np.random.default_rng(5)
    rows_of = {}
    for row, patient in enumerate(patients):
        rows_of.setdefault((y_true[row], patient), []).append(row)
    areas = []
    for _ in range(n_draws):
        rows = []
        for label in (0, 1):
            keys = [key for key in rows_of if key[0] == label]
            rows += [row for i in generator.integers(len(keys), size=len(keys)) for row in rows_of[keys[i]]]
        areas.append(roc_auc_score(y_true[rows], scores[rows]))
    return np.quantile(areas, [0.025, 0.975])


def test_values_and_intervals_are_those_of_a_naive_bootstrap():
    y_true = np.arange(N) % 2
    patients = [f"p{i // 4}-{i % 2}" for i in range(N)]
    scores = make_scores(0.4, seed=3)
    found = probe(without_thorax=scores)["without_thorax"]
    assert found.value == pytest.approx(roc_auc_score(y_true, scores[:, 1]))
    expected = draw_naively(patients, y_true, scores[:, 1], 1000)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.015)


def test_a_fall_is_judged_on_the_same_patients():
    """The intervals of both scores overlap, but the fall occurs in nearly every draw of patients."""
    good = make_scores(1.0)
    logits = np.log(good[:, 1] / good[:, 0]) + np.random.default_rng(1).normal(scale=1.0, size=N)
    worse = np.stack([1 - 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-logits))], axis=1)
    y_true, patients = np.arange(N) % 2, np.array([f"p{i}" for i in range(N)], object)
    as_is, view = probes.probe_views(y_true, patients, good, {"thorax_only": worse})
    assert as_is.low < view.high
    assert view.is_problem


class TestAttention:
    def test_in_the_middle_it_is_no_problem_and_around_it_is_one(self):
        attention = np.zeros((8, 64, 64))
        attention[:, 20:44, 20:44] = 1
        assert not probes.probe_attention(attention).is_problem
        attention[:] = ~regions.find_thorax(64)
        assert probes.probe_attention(attention).is_problem

    def test_the_value_is_the_mean_share(self):
        attention = np.zeros((3, 64, 64))
        for row, outside in enumerate((1, 2, 3)):
            attention[row, 32, 32], attention[row, 0, 0] = 4 - outside, outside
        found = probes.probe_attention(attention)
        assert found.value == pytest.approx(0.5)
        assert 0.25 <= found.low < 0.5 < found.high <= 0.75

    def test_a_mean_above_the_limit_is_no_problem_while_images_differ_widely(self):
        attention = np.zeros((4, 64, 64))
        attention[:2, 32, 32] = attention[2:, 0, 0] = 1
        found = probes.probe_attention(attention)
        assert found.value == 0.5 > probes.EVEN_ATTENTION
        assert not found.is_problem

    @pytest.mark.parametrize("n", [0, 1])
    def test_without_a_spread_there_is_no_verdict(self, n):
        attention = np.zeros((3, 64, 64))
        attention[:n, 0, 0] = 1
        found = probes.probe_attention(attention)
        assert np.isnan([found.low, found.high]).all()
        assert np.isnan(found.value) if n == 0 else found.value == 1
        assert not found.is_problem


@pytest.mark.parametrize(("correlation", "is_problem"), [(0.1, False), (0.8, True)])
def test_maps_like_those_of_shuffled_weights_are_a_problem(correlation, is_problem):
    found = probes.probe_maps(correlation + np.linspace(-0.1, 0.1, 20))
    assert found.value == pytest.approx(correlation)
    assert found.is_problem is is_problem


def test_undefined_correlations_are_left_out_and_not_taken_for_unlike_maps():
    assert probes.probe_maps(np.array([0.8, np.nan, 0.8])).value == pytest.approx(0.8)
    assert np.isnan(probes.probe_maps(np.full(3, np.nan)).value)


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    generator = np.random.default_rng(0)
    n_covered = 0
    for _ in range(200):
        found = probes.probe_maps(generator.normal(0.3, 0.1, size=32))
        n_covered += found.low <= 0.3 <= found.high
    assert 0.90 <= n_covered / 200 <= 0.98


def test_seeds_are_averaged_and_problems_counted():
    table = pd.DataFrame(
        {
            "check": ["b", "a", "b", "a", "b", "a"],
            "value": [0.5, 0.1, 0.6, 0.2, 0.9, 0.3],
            "is_problem": [False, False, True, False, True, True],
            "model": ["cnn"] * 4 + ["dense"] * 2,
            "seed": [0, 0, 1, 1, 0, 0],
        }
    )
    found = probes.average_seeds(table)
    assert found.drop(columns="value").to_numpy().tolist() == [
        ["cnn", "b", 2, 0.5, 0.6, 1],
        ["cnn", "a", 2, 0.1, 0.2, 0],
        ["dense", "b", 1, 0.9, 0.9, 1],
        ["dense", "a", 1, 0.3, 0.3, 1],
    ]
    assert found["value"].tolist() == pytest.approx([0.55, 0.15, 0.9, 0.3])


class TestSample:
    patients = np.array([f"p{i // 3}" for i in range(60)], object)

    def test_each_patient_has_one_image_at_most(self):
        rows = probes.select_sample(self.patients, 12, seed=0)
        assert len(rows) == len(set(self.patients[rows])) == 12
        assert rows.tolist() == sorted(rows)

    def test_there_may_be_fewer_patients(self):
        assert len(probes.select_sample(self.patients, 50, seed=0)) == 20

    def test_the_same_seed_gives_the_same_images(self):
        rows = [probes.select_sample(self.patients, 12, seed).tolist() for seed in (0, 0, 1)]
        assert rows[0] == rows[1] != rows[2]

    def test_every_image_can_be_chosen(self):
        counts = np.zeros(60)
        for seed in range(600):
            counts[probes.select_sample(self.patients, 10, seed)] += 1
        assert 60 < counts.min() <= counts.max() < 140  # 100 each; four standard deviations are 36
