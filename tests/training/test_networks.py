"""Networks and bundles, with real Keras on tiny inputs."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.training.fit import fit_classifier, predict_probabilities
from pneumo.training.networks import (
    Classifier,
    build_backbone,
    build_classifier,
    build_scaling,
    set_trainable,
)
from pneumo.training.recipe import BACKBONES, STEMS, Network, Phase, Weights
from small_networks import (
    NO_FEATURES,
    NO_WEIGHTS,
    SHAPE,
    SIZE_PX,
    build_small,
    make_data,
    make_images,
    make_recipe,
)

QUICK_BACKBONES = ("mobilenet075", "densenet121")
MARKED_BACKBONES = ("mobilenet075", pytest.param("densenet121", marks=pytest.mark.promise))


@pytest.mark.parametrize("name", ["dense", "cnn", *MARKED_BACKBONES])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_classifier_gives_probabilities_for_raw_images_of_any_size(name, n_classes):
    classifier = build_classifier(make_recipe(name), (48, 48, 1), n_classes, 0, NO_WEIGHTS)
    images = make_images(4, 48)
    outputs = classifier.model.predict(images, verbose=0)
    assert outputs.shape == (4, 1 if n_classes == 2 else 3)
    assert outputs.min() >= 0
    assert outputs.max() <= 1
    probabilities = predict_probabilities(classifier.model, images, np.arange(4))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", MARKED_BACKBONES)
def test_head_on_features_is_the_whole_model(name):
    classifier = build_small(make_recipe(name))
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
    classifier = build_small(recipe)
    before = np.array(classifier.backbone.trainable_weights[0])
    fit_classifier(classifier, recipe, make_data(make_images(16)), 0, NO_FEATURES)
    assert not np.array_equal(before, np.array(classifier.backbone.trainable_weights[0]))
    assert np.isfinite(classifier.model.predict(make_images(2), verbose=0)).all()


@pytest.mark.parametrize("name", ["inceptionv3", "xception", "vgg16"])
def test_a_backbone_names_the_smallest_images_it_takes(name):
    least = BACKBONES[name].min_size_px
    with pytest.raises(PneumoError, match=f"Expected {least} or more"):
        Network(name, least - 1)


def test_the_same_seed_gives_the_same_first_weights_and_another_seed_others():
    def first_weights(seed):
        return build_small(make_recipe("cnn"), seed=seed).model.get_weights()

    for a, b in zip(first_weights(0), first_weights(0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first_weights(0)[0], first_weights(1)[0])


@pytest.mark.parametrize(
    ("trainable", "freeze_batch_norm", "expected"),
    [("head", True, 0), ("all", False, None), ("last_5", False, 5), ("last_5", True, 3)],
)
def test_set_trainable_frees_the_last_layers(trainable, freeze_batch_norm, expected):
    classifier = build_small(make_recipe("mobilenet075"))
    set_trainable(classifier, trainable, freeze_batch_norm)
    free = [layer for layer in classifier.backbone.layers if layer.trainable]
    assert len(free) == (len(classifier.backbone.layers) if expected is None else expected)
    assert classifier.head.trainable_weights
    if freeze_batch_norm:
        assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in free)


def imagenet_recipe(**changes):
    network = Network("mobilenet075", SIZE_PX, weights=Weights.imagenet, **changes)
    return replace(make_recipe("mobilenet075"), network=network)


def test_without_network_the_error_says_both_ways_to_get_weights(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNet", fail)
    with pytest.raises(
        PneumoError, match=r"(?s)downloaded.*weights_dir.*mobilenet075_imagenet_notop"
    ) as error:
        build_classifier(imagenet_recipe(), SHAPE, 2, 0, tmp_path)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(PneumoError, match=r"mobilenet075_imagenet_conv_pw_3\.weights"):
        build_classifier(imagenet_recipe(ends_at="conv_pw_3_relu"), SHAPE, 2, 0, tmp_path)


def test_weights_that_are_not_in_the_folder_are_downloaded(monkeypatch, tmp_path):
    asked = []
    builder = keras.applications.MobileNet

    def build(**arguments):
        asked.append(arguments.pop("weights"))
        return builder(weights=None, **arguments)

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    build_classifier(imagenet_recipe(), SHAPE, 2, 0, tmp_path)
    assert asked == ["imagenet"]
    build_small(make_recipe("mobilenet075"))
    assert asked == ["imagenet", None]


def test_weights_come_from_the_folder(tmp_path):
    source = build_small(make_recipe("mobilenet075"), seed=7).backbone
    source.save_weights(tmp_path / "mobilenet075_imagenet_notop.weights.h5")
    loaded = build_classifier(imagenet_recipe(), SHAPE, 2, 0, tmp_path).backbone
    for ours, theirs in zip(loaded.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class TestBackboneThatEnds:
    end = "conv_pw_3_relu"

    @pytest.fixture
    def whole(self):
        return build_small(make_recipe("mobilenet075"), seed=7).backbone

    def test_has_the_layers_up_to_there(self, whole):
        recipe = make_recipe("mobilenet075")
        recipe = replace(recipe, network=replace(recipe.network, ends_at=self.end))
        classifier = build_small(recipe, seed=7)
        names = [layer.name for layer in whole.layers]
        expected = names[: names.index(self.end) + 1]
        assert [layer.name for layer in classifier.backbone.layers[1:]] == expected[1:]
        images = np.random.default_rng(0).uniform(-1, 1, (2, SIZE_PX, SIZE_PX, 3)).astype(np.float32)
        until = keras.Model(whole.input, whole.get_layer(self.end).output)
        np.testing.assert_array_equal(
            classifier.backbone.predict(images, verbose=0), until.predict(images, verbose=0)
        )
        set_trainable(classifier, "last_2", freeze_batch_norm=False)
        trained = [layer.name for layer in classifier.backbone.layers if layer.trainable]
        assert trained == expected[-2:]

    @pytest.mark.parametrize("part", ["whole", "lower part"])
    def test_takes_its_weights_from_a_file_of_the_whole_or_of_the_part(self, whole, tmp_path, part):
        if part == "whole":
            whole.save_weights(tmp_path / "mobilenet075_imagenet_notop.weights.h5")
        else:
            until = keras.Model(whole.input, whole.get_layer(self.end).output)
            until.save_weights(tmp_path / "mobilenet075_imagenet_conv_pw_3.weights.h5")
        built = build_classifier(imagenet_recipe(ends_at=self.end), SHAPE, 2, 0, tmp_path).backbone
        expected = whole.get_weights()[: len(built.get_weights())]
        for ours, theirs in zip(built.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_names_a_layer_that_there_is_not(self):
        recipe = make_recipe("mobilenet075")
        recipe = replace(recipe, network=replace(recipe.network, ends_at="conv4"))
        with pytest.raises(PneumoError, match=r"network\.ends_at: Expected one of .*conv_pw_3_relu.*conv4"):
            build_small(recipe)


def test_a_stem_takes_its_weights_from_a_file_of_the_first_block(tmp_path):
    whole = keras.applications.VGG16(include_top=False, weights=None, input_shape=(SIZE_PX, SIZE_PX, 3))
    block = keras.Model(whole.input, whole.get_layer("block1_pool").output)
    block.save_weights(tmp_path / "vgg16_imagenet_block1.weights.h5")
    network = Network("cnn", SIZE_PX, filters=[4], stem="vgg16", weights=Weights.imagenet)
    recipe = replace(make_recipe(), network=network)
    model = build_classifier(recipe, SHAPE, 2, 0, tmp_path).model
    for name in ("block1_conv1", "block1_conv2"):
        for ours, theirs in zip(
            model.get_layer(name).get_weights(), whole.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


class TestFlips:
    def make_recipe(self, name):
        recipe = make_recipe(name, predict_flips=True)
        if name == "cnn":
            return recipe
        # Of the whole with its first weights, all outputs are the same.
        return replace(recipe, network=replace(recipe.network, ends_at="conv_pw_2_relu"))

    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize("name", ["cnn", "mobilenet075"])
    def test_a_probability_is_the_mean_of_an_image_and_its_mirror(self, name, n_classes):
        classifier = build_small(self.make_recipe(name), n_classes)
        images = make_images(5)
        one, other = (classifier.unflipped.predict(each, verbose=0) for each in (images, images[:, :, ::-1]))
        assert np.abs(one - other).max() > 2e-5
        found = classifier.model.predict(images, verbose=0)
        np.testing.assert_allclose(found, (one + other) / 2, atol=1e-6)
        mirrored = classifier.model.predict(images[:, :, ::-1], verbose=0)
        np.testing.assert_allclose(mirrored, found, atol=1e-6)

    def test_are_part_of_the_saved_network(self, tmp_path):
        model = build_small(self.make_recipe("mobilenet075")).model
        copy = keras.models.clone_model(model)  # as a network is saved
        copy.set_weights(model.get_weights())
        copy.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        images = make_images(4)
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))

    def test_are_trained_in_one_pass(self):
        classifier = build_small(make_recipe("cnn", predict_flips=True))
        before = classifier.model.predict(make_images(4), verbose=0)
        fit_classifier(classifier, make_recipe("cnn"), make_data(make_images()), 0, NO_FEATURES)
        assert not np.array_equal(classifier.model.predict(make_images(4), verbose=0), before)

    def test_without_them_there_is_one_network(self):
        classifier = build_small(make_recipe("cnn"))
        assert classifier.model is classifier.unflipped


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_is_the_first_block_of_its_backbone_and_is_trained(name):
    network = Network("cnn", SIZE_PX, filters=[4], stem=name, weights=Weights.random)
    recipe = replace(make_recipe(phases={"fit": Phase(1, 1e-2)}), network=network)
    model = build_small(recipe).model
    backbone = build_backbone(Network(name, SIZE_PX, weights=Weights.random), NO_WEIGHTS)
    names = [layer.name for layer in backbone.layers[1:]]
    block = names[: names.index(STEMS[name]) + 1]
    for layer_name in block:
        layer, other = model.get_layer(layer_name), backbone.get_layer(layer_name)
        assert [each.shape for each in layer.get_weights()] == [each.shape for each in other.get_weights()]
    assert model.get_layer(block[-1]).output.shape[1:3] == (SIZE_PX // 2, SIZE_PX // 2)
    before = model.get_layer(block[0]).get_weights()[0]
    classifier = Classifier(model, model, model)
    fit_classifier(classifier, recipe, make_data(make_images(24)), 0, NO_FEATURES)
    assert (model.get_layer(block[0]).get_weights()[0] != before).any()
