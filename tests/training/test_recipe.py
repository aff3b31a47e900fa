"""What recipes may say, and that each file of conf/model/ can be built and gives what it says."""

import json

import numpy as np
import pytest
import yaml

from pneumo.base.config import build, load_group
from pneumo.base.errors import PneumoError
from pneumo.training.networks import build_classifier
from pneumo.training.recipe import STEMS, Augmentation, Network, Recipe, Refit, find_weights
from small_networks import NO_WEIGHTS
from tiny_project import ROOT

RECIPES = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
SLOW_TO_BUILD = {"densenet121", "densenet169", "inceptionv3", "resnet50", "resnet152v2"}


def list_networks():
    """Return a recipe of each network that recipes build, the slow ones marked."""
    first = {}
    for name in RECIPES:
        recipe = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
        parts = (recipe["network"], recipe.get("predict_flips"), "augmentation" in recipe)
        first.setdefault(json.dumps(parts, sort_keys=True), (name, recipe["network"]["name"]))
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (network in SLOW_TO_BUILD))
        for name, network in first.values()
    ]


def load(name, **changes):
    return build(Recipe, load_group("model", name, changes), name)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_understood(name):
    assert load(name).phases


@pytest.mark.parametrize("name", list_networks())
def test_every_network_of_a_recipe_is_built_and_predicts(name):
    recipe = load(name, network={"weights": "random"})
    if recipe.network.name in SLOW_TO_BUILD:
        recipe.network.input_size_px = 75  # the smallest that all take
    images = np.zeros((1, 80, 80, 1), np.uint8)
    classifier = build_classifier(recipe, images.shape[1:], 2, 0, NO_WEIGHTS)
    assert classifier.model.predict(images, verbose=0).shape == (1, 1)
    assert (classifier.head is not None) == recipe.network.has_backbone


def test_recipes_say_how_often_their_test_score_was_seen():
    seen = {name: load(name).test_seen for name in RECIPES}
    assert (seen["mobilenet_finetuned"], seen["best_fast"], seen["dense"]) == (3, 6, 0)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("cnn", {"augmentation": {"area_fraction": [0.2]}}, "area_fraction"),
        ("cnn", {"augmentation": {"area_fraction": [0.0, 1.0]}}, "area_fraction"),
        ("cnn", {"augmentation": {"area_fraction": [0.2, 1.1]}}, "area_fraction"),
        ("cnn", {"augmentation": {"area_fraction": [0.9, 0.2]}}, "area_fraction"),
        ("cnn", {"augmentation": {"area_fraction": "small"}}, "area_fraction"),
        ("cnn", {"augmentation": {"aspect_ratio": [1.3, 0.7]}}, "aspect_ratio"),
        ("cnn", {"augmentation": {"aspect_ratio": [0.7, 11]}}, "aspect_ratio"),
        ("cnn", {"augmentation": {"aspect_ratio": [float("nan"), 1]}}, "aspect_ratio"),
        ("cnn", {"augmentation": {"gamma": -0.1}}, "gamma"),
        ("cnn", {"augmentation": {"sharpness": 11}}, "sharpness"),
        ("cnn", {"augmentation": {"noise_levels": -1}}, "noise_levels"),
        ("cnn", {"augmentation": {"blur_px": 1}}, "blur_px"),
        ("cnn", {"network": {"ends_at": "conv_pw_3_relu"}}, "ends_at"),
        ("cnn", {"phases": {"fit": {"ema_momentum": 1.0}}}, "ema_momentum"),
        ("cnn", {"phases": {"fit": {"use_ema": "yes please"}}}, "use_ema"),
        ("cnn", {"mixup_alpha": -0.1}, "mixup_alpha"),
        ("cnn", {"test_seen": -1}, "test_seen"),
        (
            "cnn",
            {"keep_best": False, "phases": {"fit": {"patience": None}}, "refit": {"n_folds": 1}},
            "n_folds",
        ),
        ("cnn", {"phases": {"fit": {"patience": None}}, "refit": {"n_folds": 2}}, "keep_best"),
        ("cnn", {"keep_best": False, "refit": {"n_folds": 2}}, "phases.fit.patience"),
        ("mobilenet_frozen", {"predict_flips": True}, "predict_flips"),
    ],
)
def test_a_wrong_value_is_named(name, changes, key):
    with pytest.raises(PneumoError, match=key) as error:
        load(name, **changes)
    assert "\n" not in str(error.value)


def test_what_training_options_are_said_is_what_they_are():
    phases = {"fit": {"patience": None, "use_ema": True, "ema_momentum": 0.9}}
    view = {"area_fraction": [0.2, 1], "aspect_ratio": [0.75, 1.333]}
    recipe = load(
        "cnn",
        phases=phases,
        augmentation=view,
        keep_best=False,
        refit={"n_folds": 4},
        mixup_alpha=0.2,
        predict_flips=True,
    )
    assert recipe.refit == Refit(4)
    assert recipe.phases["fit"].ema_momentum == 0.9
    assert recipe.augmentation.area_fraction == [0.2, 1.0]
    assert load("mobilenet_finetuned", predict_flips=True).predict_flips
    assert load("cnn").refit is None


@pytest.mark.parametrize(
    ("changes", "moves"),
    [
        ({}, False),
        ({"brightness_fraction": 0.1, "gamma": 0.1, "sharpness": 1, "noise_levels": 2}, False),
        ({"flip": True}, True),
        ({"rotation_degrees": 1}, True),
        ({"zoom_fraction": 0.1}, True),
        ({"area_fraction": [0.9, 1.0]}, True),
        ({"aspect_ratio": [0.9, 1.1]}, True),
    ],
)
def test_only_geometry_moves_pixels(changes, moves):
    assert Augmentation(**changes).moves_pixels == moves


class TestWeights:
    def test_of_a_part_are_looked_for_under_the_name_of_its_last_block(self, tmp_path):
        assert find_weights("resnet50", tmp_path, "conv4_block6_out") is None
        whole = tmp_path / "resnet50_imagenet_notop.weights.h5"
        whole.touch()
        assert find_weights("resnet50", tmp_path, "conv4_block6_out") == whole
        part = tmp_path / "resnet50_imagenet_conv4_block6.weights.h5"
        part.touch()
        assert find_weights("resnet50", tmp_path, "conv4_block6_out") == part
        assert find_weights("resnet50", tmp_path) == whole

    def test_of_a_part_are_not_those_of_the_whole(self, tmp_path):
        (tmp_path / "resnet50_imagenet_conv4_block6.weights.h5").touch()
        assert find_weights("resnet50", tmp_path) is None
        assert find_weights("resnet50", tmp_path, "conv3_block4_out") is None

    @pytest.mark.parametrize(
        ("network", "expected"),
        [
            (Network("resnet50", 64), ("resnet50", None)),
            (Network("resnet50", 64, ends_at="conv4_block6_out"), ("resnet50", "conv4_block6_out")),
            (Network("cnn", 64, filters=[8], stem="vgg16"), ("vgg16", STEMS["vgg16"])),
            (Network("cnn", 64, filters=[8]), (None, None)),
        ],
    )
    def test_are_of_a_backbone_or_of_a_stem(self, network, expected):
        assert (network.pretrained, network.pretrained_ends_at) == expected
