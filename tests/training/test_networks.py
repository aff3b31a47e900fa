"""Networks, training, features and bundles, with real Keras on tiny inputs."""

from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.prediction.bundle import Card, load_bundle, save_bundle
from pneumo.prediction.predictor import Predictor
from pneumo.preprocessing.combo import parse_combo
from pneumo.training import features
from pneumo.training.batches import ImageBatches
from pneumo.training.features import feature_key, load_or_extract_features
from pneumo.training.fit import (
    TrainingData,
    balanced_weights,
    build_optimizer,
    encode_targets,
    fit_classifier,
    predict_probabilities,
    repeat_smaller_classes,
)
from pneumo.training.networks import (
    Classifier,
    build_backbone,
    build_classifier,
    build_scaling,
    set_trainable,
)
from pneumo.training.recipe import (
    BACKBONES,
    STEMS,
    Augmentation,
    Monitor,
    Network,
    Optimizer,
    Phase,
    Recipe,
    Schedule,
    Weights,
)

SIZE_PX = 32
SHAPE = (SIZE_PX, SIZE_PX, 1)
QUICK_BACKBONES = ("mobilenet075", "densenet121")


def make_recipe(name="dense", **changes) -> Recipe:
    size_px = max(SIZE_PX, BACKBONES[name].min_size_px) if name in BACKBONES else SIZE_PX
    network = Network(
        name, size_px, filters=[4] if name == "cnn" else [], units=[4], dropout=0.1, weights=Weights.random
    )
    settings = {"batch_size": 8, "balance_classes": True, "monitor": Monitor.val_auc}
    phases = {"fit": Phase(epochs=2, learning_rate=1e-3)}
    return Recipe(network=network, **{**settings, "phases": phases, **changes})


def make_images(n=24, size_px=SIZE_PX) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size_px, size_px, 1), dtype=np.uint8)


def make_data(images: np.ndarray, n_classes=2) -> TrainingData:
    rows = np.arange(len(images))
    classes = rows % n_classes
    return TrainingData(images, rows[:-8], classes[:-8], rows[-8:], classes[-8:], n_classes)


@pytest.mark.parametrize("name", ["dense", "cnn", *QUICK_BACKBONES])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_classifier_gives_probabilities_for_raw_images_of_any_size(name, n_classes):
    classifier = build_classifier(make_recipe(name), (48, 48, 1), n_classes, seed=0, weights_dir=None)
    images = make_images(4, 48)
    outputs = classifier.model.predict(images, verbose=0)
    assert outputs.shape == (4, 1 if n_classes == 2 else 3)
    assert outputs.min() >= 0
    assert outputs.max() <= 1
    probabilities = predict_probabilities(classifier.model, images, np.arange(4))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", QUICK_BACKBONES)
def test_head_on_features_is_the_whole_model(name):
    classifier = build_classifier(make_recipe(name), SHAPE, 2, seed=0, weights_dir=None)
    images = make_images(6)
    features = classifier.extractor.predict(images, verbose=0)
    whole = classifier.model.predict(images, verbose=0)
    np.testing.assert_allclose(classifier.head.predict(features, verbose=0), whole, atol=1e-6)


MODULES = {
    "convnext": "convnext",
    "densenet": "densenet",
    "efficientnetv2": "efficientnet_v2",
    "inceptionv3": "inception_v3",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3": "mobilenet_v3",
    "mobilenet": "mobilenet",
    "resnet50v2": "resnet_v2",
    "resnet152v2": "resnet_v2",
    "resnet": "resnet",
    "vgg16": "vgg16",
    "xception": "xception",
}


@pytest.mark.parametrize("name", BACKBONES)
def test_scaling_is_what_the_backbone_was_trained_with(name):
    module = next(module for prefix, module in MODULES.items() if name.startswith(prefix))
    grey = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1)).astype(np.float32)
    images = np.repeat(grey, 3, axis=3)
    ours = keras.ops.convert_to_numpy(build_scaling(BACKBONES[name].scaling)(images))
    reference = getattr(keras.applications, module).preprocess_input(images.copy())
    np.testing.assert_allclose(ours, reference, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - set(QUICK_BACKBONES)))
def test_every_backbone_takes_a_step(name):
    # Frozen batch normalisation of a network without pretrained weights lets gradients die out.
    phases = {"fit": Phase(epochs=1, learning_rate=1e-3, freeze_batch_norm=False)}
    recipe = make_recipe(name, phases=phases)
    classifier = build_classifier(recipe, SHAPE, 2, seed=0, weights_dir=None)
    before = np.array(classifier.backbone.trainable_weights[0])
    fit_classifier(classifier, recipe, make_data(make_images(16)), 0, lambda: None)
    assert not np.array_equal(before, np.array(classifier.backbone.trainable_weights[0]))
    assert np.isfinite(classifier.model.predict(make_images(2), verbose=0)).all()


@pytest.mark.parametrize("name", ["inceptionv3", "xception", "vgg16"])
def test_a_backbone_names_the_smallest_images_it_takes(name):
    least = BACKBONES[name].min_size_px
    with pytest.raises(PneumoError, match=f"Expected {least} or more"):
        Network(name, least - 1)


def test_the_same_seed_gives_the_same_first_weights_and_another_seed_others():
    def first_weights(seed):
        return build_classifier(make_recipe("cnn"), SHAPE, 2, seed, None).model.get_weights()

    for a, b in zip(first_weights(0), first_weights(0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first_weights(0)[0], first_weights(1)[0])


def test_only_phases_that_augment_see_varied_images():
    images = make_images(24)
    augmentation = Augmentation(brightness_fraction=0.9)

    def train(augment, augmentation):
        phases = {"fit": Phase(epochs=1, learning_rate=1e-2, augment=augment)}
        recipe = make_recipe("cnn", phases=phases, augmentation=augmentation)
        classifier = build_classifier(recipe, SHAPE, 2, 0, None)
        history = fit_classifier(classifier, recipe, make_data(images), 0, lambda: None)
        return history["loss"][0], classifier.model

    plain_loss, _ = train(False, Augmentation())
    unused_loss, _ = train(False, augmentation)
    varied_loss, model = train(True, augmentation)
    assert plain_loss == unused_loss != varied_loss
    assert not any("view" in layer.name for layer in model.layers)


@pytest.mark.parametrize(
    ("trainable", "freeze_batch_norm", "expected"),
    [("head", True, 0), ("all", False, None), ("last_5", False, 5), ("last_5", True, 3)],
)
def test_set_trainable_frees_the_last_layers(trainable, freeze_batch_norm, expected):
    classifier = build_classifier(make_recipe("mobilenet075"), SHAPE, 2, 0, None)
    set_trainable(classifier, trainable, freeze_batch_norm)
    free = [layer for layer in classifier.backbone.layers if layer.trainable]
    assert len(free) == (len(classifier.backbone.layers) if expected is None else expected)
    assert classifier.head.trainable_weights
    if freeze_batch_norm:
        assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in free)


def test_a_missing_weights_file_is_named(tmp_path):
    recipe = make_recipe("mobilenet075")
    recipe.network.weights = Weights.imagenet
    with pytest.raises(PneumoError, match="mobilenet075_imagenet_notop"):
        build_classifier(recipe, SHAPE, 2, 0, tmp_path)


def test_without_network_the_error_says_both_ways_to_get_weights(monkeypatch):
    def fail(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNet", fail)
    recipe = make_recipe("mobilenet075")
    recipe.network.weights = Weights.imagenet
    with pytest.raises(PneumoError, match=r"(?s)downloaded.*weights_dir"):
        build_classifier(recipe, SHAPE, 2, 0, None)


def test_weights_come_from_the_folder(tmp_path):
    source = build_classifier(make_recipe("mobilenet075"), SHAPE, 2, 7, None).backbone
    source.save_weights(tmp_path / "mobilenet075_imagenet_notop.weights.h5")
    recipe = make_recipe("mobilenet075")
    recipe.network.weights = Weights.imagenet
    loaded = build_classifier(recipe, SHAPE, 2, 0, tmp_path).backbone
    for ours, theirs in zip(loaded.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


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


def test_balanced_weights_make_classes_count_the_same():
    classes = np.array([0, 1, 1, 1, 2, 2])
    weights = balanced_weights(classes)
    sums = [weights[classes == k].sum() for k in range(3)]
    np.testing.assert_allclose(sums, sums[0])
    assert weights.mean() == pytest.approx(1)


def test_smaller_classes_are_repeated_and_none_is_left_out():
    classes = np.array([0, 1, 1, 1, 1, 1, 2, 2])
    chosen = repeat_smaller_classes(classes, seed=0)
    assert np.bincount(classes[chosen]).tolist() == [5, 5, 5]
    assert np.bincount(chosen, minlength=8)[:6].tolist() == [5, 1, 1, 1, 1, 1]
    assert sorted(np.bincount(chosen)[6:]) == [2, 3]
    np.testing.assert_array_equal(chosen, repeat_smaller_classes(classes, seed=0))


def test_targets_are_one_column_for_two_classes_and_one_hot_for_more():
    np.testing.assert_array_equal(encode_targets(np.array([0, 1]), 2), [[0], [1]])
    np.testing.assert_array_equal(encode_targets(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])


def test_a_cosine_schedule_falls_from_the_learning_rate_to_zero():
    phase = Phase(epochs=1, learning_rate=0.5, schedule=Schedule.cosine)
    schedule = build_optimizer(phase, n_steps=10)._learning_rate
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0.5, 0.25, 0])


def test_one_cycle_rises_for_a_quarter_and_falls_to_zero():
    phase = Phase(epochs=1, learning_rate=0.5, schedule=Schedule.one_cycle)
    schedule = build_optimizer(phase, n_steps=100)._learning_rate
    assert [float(schedule(step)) for step in (0, 25, 100)] == pytest.approx([0.5 / 25, 0.5, 0], abs=1e-6)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_every_optimizer_starts_at_the_learning_rate(optimizer):
    phase = Phase(epochs=1, learning_rate=0.5, optimizer=optimizer, weight_decay=0.1)
    built = build_optimizer(phase, n_steps=10)
    assert type(built).__name__.lower() == optimizer.value
    assert float(built.learning_rate) == pytest.approx(0.5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_training_learns_and_keeps_the_best_epoch(n_classes):
    images = make_images(60) // 4
    data = make_data(images, n_classes)
    images += ((np.arange(60) % n_classes) * 80).astype(np.uint8)[:, None, None, None]
    recipe = make_recipe(phases={"fit": Phase(epochs=12, learning_rate=3e-3)}, monitor=Monitor.val_loss)
    classifier = build_classifier(recipe, SHAPE, n_classes, 0, None)
    history = fit_classifier(classifier, recipe, data, 0, load_features=lambda: pytest.fail("not needed"))
    assert list(history["epoch"]) == list(range(1, 13))
    assert history["val_auc"].max() > 0.9
    probabilities = predict_probabilities(classifier.model, images, data.val_rows)
    loss = -np.log(probabilities[np.arange(8), data.val_classes]).mean()
    assert loss == pytest.approx(history["val_loss"].min(), abs=1e-3)


def test_the_last_epoch_is_kept_where_the_recipe_says_so():
    images = make_images(24)
    data = make_data(images)
    recipe = make_recipe(
        phases={"fit": Phase(epochs=6, learning_rate=0.05)}, monitor=Monitor.val_loss, keep_best=False
    )
    classifier = build_classifier(recipe, SHAPE, 2, 0, None)
    history = fit_classifier(classifier, recipe, data, 0, load_features=lambda: None)
    probabilities = predict_probabilities(classifier.model, images, data.val_rows)
    loss = -np.log(probabilities[np.arange(8), data.val_classes]).mean()
    assert loss == pytest.approx(history["val_loss"].iloc[-1], rel=1e-3)
    assert history["val_loss"].iloc[-1] > history["val_loss"].min()


def test_oversampling_trains_on_as_many_of_each_class():
    images = make_images(24)
    data = replace(make_data(images), train_classes=np.repeat([0, 1], [4, 12]))
    recipe = make_recipe(phases={"fit": Phase(1, 1e-3)}, oversample=True)
    classifier = build_classifier(recipe, SHAPE, 2, 0, None)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append((batch, logs)))
    fit_classifier(classifier, recipe, data, 0, lambda: None, callbacks=[watch])
    assert len(seen) == 24 / recipe.batch_size


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_is_the_first_block_of_its_backbone_and_is_trained(name):
    network = Network("cnn", SIZE_PX, filters=[4], stem=name, weights=Weights.random)
    recipe = replace(make_recipe(phases={"fit": Phase(1, 1e-2)}), network=network)
    model = build_classifier(recipe, SHAPE, 2, 0, None).model
    backbone = build_backbone(Network(name, SIZE_PX, weights=Weights.random), None)
    names = [layer.name for layer in backbone.layers[1:]]
    block = names[: names.index(STEMS[name]) + 1]
    for layer_name in block:
        layer, other = model.get_layer(layer_name), backbone.get_layer(layer_name)
        assert [each.shape for each in layer.get_weights()] == [each.shape for each in other.get_weights()]
    assert model.get_layer(block[-1]).output.shape[1:3] == (SIZE_PX // 2, SIZE_PX // 2)
    before = model.get_layer(block[0]).get_weights()[0]
    classifier = Classifier(model, model)
    fit_classifier(classifier, recipe, make_data(make_images(24)), 0, load_features=lambda: None)
    assert (model.get_layer(block[0]).get_weights()[0] != before).any()


def test_early_stopping_ends_after_patience():
    images = make_images(24)
    recipe = make_recipe(
        phases={"fit": Phase(epochs=50, learning_rate=1e-9, patience=2)}, monitor=Monitor.val_accuracy
    )
    classifier = build_classifier(recipe, SHAPE, 2, 0, None)
    history = fit_classifier(classifier, recipe, make_data(images), 0, load_features=lambda: None)
    assert len(history) == 3


def test_a_head_phase_trains_the_head_alone_on_features(tmp_path):
    images = make_images(24)
    path = tmp_path / "images.npy"
    np.save(path, images)
    recipe = make_recipe(
        "mobilenet075",
        phases={
            "head": Phase(epochs=2, learning_rate=1e-2, trainable="head"),
            "finetune": Phase(1, 1e-3, trainable="last_10", augment=True, freeze_batch_norm=False),
        },
        augmentation=Augmentation(flip=True),
    )
    classifier = build_classifier(recipe, SHAPE, 2, 0, None)
    before = [weights.copy() for weights in classifier.backbone.get_weights()]
    head_only = make_recipe("mobilenet075", phases={"head": recipe.phases["head"]})
    calls = []

    def load_features():
        calls.append(1)
        return load_or_extract_features(classifier.extractor, path, tmp_path / "cache")

    fit_classifier(classifier, head_only, make_data(images), 0, load_features)
    assert calls == [1]
    for old, new in zip(before, classifier.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    history = fit_classifier(classifier, recipe, make_data(images), 0, load_features)
    assert list(history["phase"]) == ["head", "head", "finetune"]
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(before, classifier.backbone.get_weights(), strict=True)
    ]
    assert any(changed)
    assert not all(changed)


class TestFeatureCache:
    @pytest.fixture
    def extractor(self):
        return build_classifier(make_recipe("mobilenet075"), SHAPE, 2, 0, None).extractor

    @pytest.fixture
    def path(self, tmp_path):
        np.save(tmp_path / "images.npy", make_images(40))
        return tmp_path / "images.npy"

    def test_gives_the_same_from_the_cache_without_the_backbone(self, extractor, path, tmp_path, monkeypatch):
        first = np.array(load_or_extract_features(extractor, path, tmp_path / "cache"))
        assert first.shape == (40, extractor.output_shape[1])
        monkeypatch.setattr(keras.Model, "predict", lambda *_, **__: pytest.fail("computed again"))
        np.testing.assert_array_equal(load_or_extract_features(extractor, path, tmp_path / "cache"), first)

    def test_key_follows_images_and_weights(self, extractor, path):
        key = feature_key(extractor, path)
        assert key == feature_key(extractor, path)
        other_weights = build_classifier(make_recipe("mobilenet075"), SHAPE, 2, 1, None).extractor
        assert feature_key(other_weights, path) != key
        np.save(path, make_images(40)[::-1])
        assert feature_key(extractor, path) != key

    def test_key_is_the_same_for_the_same_network_built_again_in_one_process(self, path):
        keys = {
            feature_key(build_classifier(make_recipe("mobilenet075"), SHAPE, 2, 0, None).extractor, path)
            for _ in range(2)
        }
        assert len(keys) == 1

    @pytest.mark.parametrize(
        ("place", "name", "value"),
        [
            (features, "version", lambda _: "0.0"),
            (keras, "__version__", "0.0"),
            (keras.distribution, "list_devices", lambda: ["gpu:0"]),
            (keras.backend, "backend", lambda: "jax"),
        ],
        ids=["version of the backend", "version of Keras", "device", "backend"],
    )
    def test_key_follows_what_computes(self, extractor, path, monkeypatch, place, name, value):
        key = feature_key(extractor, path)
        monkeypatch.setattr(place, name, value)
        assert feature_key(extractor, path) != key

    def test_key_does_not_follow_the_number_of_devices(self, extractor, path, monkeypatch):
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
        key = feature_key(extractor, path)
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
        assert feature_key(extractor, path) == key

    def test_key_follows_the_size_that_the_network_works_at(self, path):
        # Weights, and the shapes of what goes in and comes out, are the same for both.
        keys = set()
        for size_px in (40, 48):
            keras.utils.clear_session()  # as in processes of their own, where layers have the same names
            recipe = make_recipe("mobilenet075")
            recipe = replace(recipe, network=replace(recipe.network, input_size_px=size_px))
            keys.add(feature_key(build_classifier(recipe, SHAPE, 2, 0, None).extractor, path))
        assert len(keys) == 2


class TestBundle:
    card = Card(["normal", "pneumonia"], parse_combo("c", ["equalize"], SIZE_PX), 0.4, "phantoms")

    def save(self, path: Path, seed=0) -> keras.Model:
        keras.utils.clear_session()  # layers are numbered through a process
        augmentation = Augmentation(flip=True, rotation_degrees=5)
        recipe = make_recipe("mobilenet075", augmentation=augmentation)
        model = build_classifier(recipe, SHAPE, 2, seed, None).model
        model.compile("adam", "binary_crossentropy")
        save_bundle(model, self.card, path)
        return model

    def test_comes_back_with_its_card(self, tmp_path):
        model = self.save(tmp_path / "model.keras")
        loaded, card = load_bundle(tmp_path / "model.keras")
        assert card == self.card
        images = make_images(4)
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
        assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]

    def test_same_weights_same_bytes(self, tmp_path):
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            self.save(tmp_path / f"{name}.keras", seed)
        a, b, c = ((tmp_path / f"{name}.keras").read_bytes() for name in "abc")
        assert a == b
        assert a != c

    def test_something_else_is_refused(self, tmp_path):
        (tmp_path / "model.keras").write_bytes(b"no archive")
        with pytest.raises(PneumoError, match=r"model\.keras"):
            load_bundle(tmp_path / "model.keras")
        with pytest.raises(PneumoError, match=r"missing\.keras"):
            load_bundle(tmp_path / "missing.keras")

    def test_predictor_needs_the_bundle_alone(self, tmp_path):
        model = self.save(tmp_path / "model.keras")
        image = make_images(1, 50)[0, :, :, 0]
        cv2.imwrite(str(tmp_path / "image.png"), image)
        prediction = Predictor(tmp_path / "model.keras").predict(tmp_path / "image.png")
        prepared = cv2.equalizeHist(cv2.resize(image, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA))
        expected = float(model.predict(prepared[None, :, :, None], verbose=0)[0, 0])
        assert prediction.probabilities["pneumonia"] == pytest.approx(expected, abs=1e-6)
        assert prediction.label == ("pneumonia" if expected >= 0.4 else "normal")

    def test_predictor_names_a_file_that_is_no_image(self, tmp_path):
        self.save(tmp_path / "model.keras")
        (tmp_path / "note.jpeg").write_text("not an image")
        with pytest.raises(PneumoError, match=r"note\.jpeg"):
            Predictor(tmp_path / "model.keras").predict(tmp_path / "note.jpeg")
