"""Batches: what they hold, in which order, and how they are mixed."""

import keras
import numpy as np
import pytest

from pneumo.training.batches import ImageBatches, mix, predict_batches
from small_networks import make_images


class TestBatches:
    def test_hold_every_image_once_with_its_target(self):
        images = make_images(10)
        rows = np.array([9, 3, 5, 0, 7])
        targets = rows[:, None].astype(np.float32)
        batches = ImageBatches(images, rows, targets, batch_size=2, shuffle_seed=1)
        assert len(batches) == 3
        seen = [(x, y) for x, y in (batches[i] for i in range(3))]
        assert [len(x) for x, _ in seen] == [2, 2, 1]
        for x, y in seen:
            np.testing.assert_array_equal(x, images[y[:, 0].astype(int)])
        assert sorted(np.concatenate([y[:, 0] for _, y in seen])) == sorted(rows)

    def test_shuffle_anew_in_every_epoch_in_the_same_way_for_a_seed(self):
        def orders(seed):
            batches = ImageBatches(make_images(20), np.arange(20), batch_size=20, shuffle_seed=seed)
            epochs = []
            for _ in range(3):
                epochs.append(batches[0][0][:, 0, 0, 0].tolist())
                batches.on_epoch_end()
            return epochs

        assert orders(0) == orders(0)
        assert orders(0) != orders(1)
        assert orders(0)[0] != orders(0)[1]

    def test_keep_the_order_without_a_seed(self):
        images = make_images(5)
        batches = ImageBatches(images, np.array([4, 2]), batch_size=8)
        np.testing.assert_array_equal(batches[0][0], images[[4, 2]])


class TestMixup:
    def make(self, seed=0, alpha=0.4, images=None, weights=None, n=64):
        images = make_images(n, 4) if images is None else images
        targets = (np.arange(n) % 2)[:, None].astype(np.float32)
        rows = np.arange(n)
        return ImageBatches(
            images, rows, targets, weights, batch_size=16, shuffle_seed=seed, mixup_alpha=alpha
        )

    def test_images_and_targets_are_mixed_in_the_same_shares(self):
        """The target is the class and every pixel is 200 times the class, so both show the share."""
        images = np.broadcast_to((np.arange(64) % 2 * 200)[:, None, None, None], (64, 2, 2, 1))
        batches = self.make(images=images.astype(np.uint8))
        seen = [batches[i] for i in range(len(batches))]
        pixels = np.concatenate([x for x, _ in seen])
        targets = np.concatenate([y for _, y in seen])
        assert pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels[:, 0, 0, 0] / 200, targets[:, 0], atol=0.5 / 200 + 1e-6)
        assert ((targets > 0.05) & (targets < 0.95)).sum() > 5

    def test_shares_have_the_beta_distribution(self):
        targets = np.tile([[0.0], [1.0]], (5000, 1)).astype(np.float32)  # each beside one of the other class
        shares = np.random.default_rng(0).beta(0.4, 0.4, 10_000)
        _, mixed, _ = mix(np.zeros((10_000, 1), np.float32), targets, None, shares)
        own = np.where(targets == 1, mixed, 1 - mixed)[:, 0]
        np.testing.assert_allclose(own, shares, atol=1e-6)
        batches = self.make(n=20_000, images=np.zeros((20_000, 1), np.float32))
        drawn = batches._shares
        assert (drawn.mean(), drawn.var()) == pytest.approx((0.5, 1 / (4 * 1.8)), abs=0.01)

    @pytest.mark.parametrize("n_outputs", [1, 3])
    def test_the_loss_is_the_mixture_of_two_weighted_losses(self, n_outputs):
        generator = np.random.default_rng(0)
        classes = generator.integers(0, max(2, n_outputs), 12)
        targets = classes[:, None] if n_outputs == 1 else np.eye(3)[classes]
        weights = generator.uniform(0.5, 2, 12).astype(np.float32)
        shares = generator.uniform(size=12)
        outputs = generator.dirichlet(np.ones(max(2, n_outputs)), 12)[:, :n_outputs].astype(np.float32)
        kind = "binary" if n_outputs == 1 else "categorical"
        loss = getattr(keras.losses, f"{kind}_crossentropy")
        images = generator.normal(size=(12, 5)).astype(np.float32)
        x, y, w = mix(images, targets.astype(np.float32), weights, shares)
        for i in range(12):
            before = i - 1 if i else 11
            expected = shares[i] * weights[i] * loss(targets[i].astype(np.float32), outputs[i])
            expected += (
                (1 - shares[i]) * weights[before] * loss(targets[before].astype(np.float32), outputs[i])
            )
            assert float(w[i] * loss(y[i], outputs[i])) == pytest.approx(float(expected), rel=1e-4)
            np.testing.assert_allclose(
                x[i], shares[i] * images[i] + (1 - shares[i]) * images[before], rtol=1e-4
            )

    def test_is_drawn_anew_in_every_epoch_in_the_same_way_for_a_seed(self):
        def draw(seed):
            batches = self.make(seed)
            epochs = []
            for _ in range(2):
                epochs.append(np.concatenate([batches[i][1] for i in range(len(batches))])[:, 0].tolist())
                batches.on_epoch_end()
            return epochs

        assert draw(0) == draw(0)
        assert draw(0) != draw(1)
        assert draw(0)[0] != draw(0)[1]

    def test_gives_the_same_batch_however_often_it_is_asked_for(self):
        batches = self.make()
        first = batches[1]
        batches[0]
        for before, after in zip(first, batches[1], strict=True):
            np.testing.assert_array_equal(before, after)

    def test_without_it_orders_are_what_they_were(self):
        mixed, plain = self.make(), self.make(alpha=0.0)
        np.testing.assert_array_equal(mixed._order, plain._order)
        np.testing.assert_array_equal(plain[0][0], make_images(64, 4)[plain._order[:16]])


class TestPredictBatches:
    @pytest.mark.parametrize("shape", [(5,), (8, 8, 1)])
    @pytest.mark.parametrize("targets", [None, np.zeros((11, 1), np.float32)])
    def test_outputs_are_those_of_predict_to_the_bit(self, shape, targets):
        inputs = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
        network = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(3)])
        rows = np.arange(19, 8, -1)
        batches = ImageBatches(inputs, rows, targets, batch_size=4)
        assert batches.holds_features == (len(shape) == 1)
        outputs = predict_batches(network, batches)
        assert outputs.shape == (11, 3)
        np.testing.assert_array_equal(outputs, network.predict(batches, verbose=0))
        np.testing.assert_allclose(outputs, network(inputs[rows]), rtol=1e-5)

    @pytest.mark.parametrize("shape", [(5,), (8, 8, 1)])
    def test_images_that_come_again_for_other_devices_are_left_out(self, shape, monkeypatch):
        inputs = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
        network = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)])
        expected = network(inputs)
        monkeypatch.setattr("pneumo.training.batches.count_devices", lambda: 4)
        batches = ImageBatches(inputs, np.arange(5), batch_size=4)
        np.testing.assert_allclose(predict_batches(network, batches), expected, rtol=1e-5)
