"""The range test, fed by hand, and on a network."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pneumo.training.rate_test import RateTest, smooth, suggest_rate


def feed(losses, n_steps=9, n_batches=4):
    """Feed the losses of batches, as Keras does: running means that begin anew with each epoch."""
    test = RateTest(1e-4, 1.0, n_steps)
    model = SimpleNamespace(optimizer=SimpleNamespace(learning_rate=None), stop_training=False)
    test.set_model(model)
    rates = []
    for step, _ in enumerate(losses):
        batch = step % n_batches
        if batch == 0:
            test.on_epoch_begin(step // n_batches)
        test.on_train_batch_begin(batch)
        rates.append(model.optimizer.learning_rate)
        test.on_train_batch_end(batch, {"loss": np.mean(losses[step - batch : step + 1])})
        if model.stop_training:
            break
    return test.tabulate(), rates, model.stop_training


def test_the_rate_rises_by_the_same_factor_each_step():
    table, rates, is_over = feed([1.0] * 20)
    assert rates == pytest.approx(np.geomspace(1e-4, 1, 9))
    assert table["learning_rate"].tolist() == pytest.approx(rates)
    assert is_over


def test_losses_are_those_of_single_batches():
    losses = [0.9, 0.8, 0.7, 0.9, 0.5, 0.4]
    table, _, is_over = feed(losses)
    assert table["loss"].tolist() == pytest.approx(losses)
    assert not is_over


@pytest.mark.parametrize("explosion", [1e4, float("nan")])
def test_an_explosion_ends_it(explosion):
    table, _, is_over = feed([1.0, 0.9, 0.8, explosion, 1.0])
    assert is_over
    assert len(table) == 4


def test_smoothing_of_a_constant_is_the_constant():
    assert smooth([2.0] * 5) == pytest.approx([2.0] * 5)


def test_the_suggestion_is_a_tenth_of_where_the_loss_is_least():
    losses = [1.0, 0.9, 0.7, 0.4, 0.1, 0.05, 3.0, 5.0, 9.0]
    table, _, _ = feed(losses)
    least = table["learning_rate"][table["smoothed"].idxmin()]
    assert suggest_rate(table) == least / 10
    assert 1e-4 / 10 < suggest_rate(table) < 1e-1
    assert json.dumps(suggest_rate(table))


def test_a_lucky_first_batch_suggests_nothing():
    losses = [0.01, *[1.0] * 99, *[0.6] * 60, *[2.0] * 40]
    table, _, _ = feed(losses, n_steps=200)
    assert len(table) == 200
    assert table["smoothed"].idxmin() == 0
    assert suggest_rate(table) == table["learning_rate"].iloc[159] / 10


def test_a_lucky_first_batch_suggests_nothing_where_the_loss_soon_explodes():
    table, _, is_over = feed([0.01, *[1.0] * 24, 0.5, 0.5, 1e4], n_steps=200)
    assert is_over
    assert len(table) == 28
    assert table["settled"].tolist() == [False] * 20 + [True] * 8
    assert suggest_rate(table) == table["learning_rate"].iloc[26] / 10


def test_a_test_that_ends_at_once_still_suggests_something():
    table, _, is_over = feed([1.0, float("nan")], n_steps=200)
    assert is_over
    assert table["settled"].tolist() == [False, True]
