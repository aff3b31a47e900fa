"""Training on training and validation images: who sees which patient."""

from dataclasses import replace

import numpy as np
import pytest

from pneumo.base.errors import PneumoError
from pneumo.training import refit
from pneumo.training.fit import TrainingData, predict_probabilities
from pneumo.training.recipe import Phase, Refit
from pneumo.training.refit import assign_folds, hold_out, refit_classifier
from small_networks import NO_FEATURES, build_small, make_images, make_recipe

N_TRAIN, N_VAL, N_CLASSES = 12, 18, 2
PATIENTS = np.array([f"p{i}" for i in np.repeat(np.arange(9), 2)])  # two images each


def make_data():
    images = make_images(N_TRAIN + N_VAL)
    val_classes = np.repeat(np.arange(9) % N_CLASSES, 2)
    train_rows = np.arange(N_TRAIN)
    val_rows = np.arange(N_TRAIN, N_TRAIN + N_VAL)[::-1].copy()
    return TrainingData(images, train_rows, train_rows % N_CLASSES, val_rows, val_classes, N_CLASSES)


def make_refit_recipe(**changes):
    settings = {"keep_best": False, "refit": Refit(n_folds=3), "phases": {"fit": Phase(2, 1e-2)}}
    return make_recipe("cnn", **settings | changes)


@pytest.fixture
def seen(monkeypatch):
    """Return a list of the rows that each network was trained on, and of those that it then predicted."""
    seen = []
    fit, predict = refit.fit_classifier, refit.predict_rows

    def fit_and_note(classifier, recipe, data, *args):
        seen.append((set(data.train_rows), data.train_classes, data, []))
        return fit(classifier, recipe, data, *args)

    def predict_and_note(classifier, recipe, images, rows, load_features):
        seen[-1][3].extend(rows)
        return predict(classifier, recipe, images, rows, load_features)

    monkeypatch.setattr(refit, "fit_classifier", fit_and_note)
    monkeypatch.setattr(refit, "predict_rows", predict_and_note)
    return seen


def test_no_network_has_seen_a_patient_that_it_predicts(seen):
    data, recipe = make_data(), make_refit_recipe()
    patients = dict(zip(data.val_rows, PATIENTS, strict=True))
    refit_classifier(lambda: build_small(recipe), recipe, data, PATIENTS, 0, NO_FEATURES)
    *folds, final = seen
    assert len(folds) == 3
    for trained_on, _, _, predicted in folds:
        assert set(data.train_rows) < trained_on
        seen_patients = {patients[row] for row in trained_on if row in patients}
        assert predicted
        assert not seen_patients & {patients[row] for row in predicted}
        assert seen_patients | {patients[row] for row in predicted} == set(PATIENTS)
    assert sorted(row for fold in folds for row in fold[3]) == sorted(data.val_rows)
    assert final[0] == {*data.train_rows, *data.val_rows}
    assert final[3] == []


def test_every_network_learns_the_right_classes_and_validates_on_nothing(seen):
    data, recipe = make_data(), make_refit_recipe()
    classes = dict(
        zip([*data.train_rows, *data.val_rows], [*data.train_classes, *data.val_classes], strict=True)
    )
    refit_classifier(lambda: build_small(recipe), recipe, data, PATIENTS, 0, NO_FEATURES)
    for _, _, part, _ in seen:
        assert [classes[row] for row in part.train_rows] == part.train_classes.tolist()
        assert len(part.val_rows) == len(part.val_classes) == 0


def test_probabilities_are_those_of_networks_trained_by_hand():
    data, recipe = make_data(), make_refit_recipe()
    refitted = refit_classifier(lambda: build_small(recipe), recipe, data, PATIENTS, 0, NO_FEATURES)
    folds = assign_folds(data.val_classes, PATIENTS, 3, 0)
    for fold in range(3):
        classifier = build_small(recipe)
        refit.fit_classifier(classifier, recipe, hold_out(data, folds == fold), 0, NO_FEATURES)
        expected = predict_probabilities(classifier.model, data.images, data.val_rows[folds == fold])
        np.testing.assert_allclose(refitted.val_probabilities[folds == fold], expected, atol=1e-6)
    assert refitted.val_probabilities.shape == (N_VAL, N_CLASSES)
    np.testing.assert_allclose(refitted.val_probabilities.sum(axis=1), 1, atol=1e-6)
    assert len(refitted.history) == 2
    assert refitted.history["val_auc"].isna().all()


def test_features_are_those_of_each_networks_own_backbone():
    data = make_data()
    head = {"head": Phase(1, 1e-2, trainable="head")}
    recipe = replace(make_recipe("mobilenet075"), phases=head, keep_best=False, refit=Refit(2))
    built, asked = [], []

    def build():
        built.append(build_small(recipe))
        return built[-1]

    def load_features(classifier):
        asked.append(classifier)
        return classifier.extractor.predict(data.images, verbose=0)

    refit_classifier(build, recipe, data, PATIENTS, 0, load_features)
    assert len(built) == 3
    assert [id(each) for each in asked] == [
        id(each) for each in (built[0], built[0], built[1], built[1], built[2])
    ]


def test_folds_hold_whole_patients_and_both_classes():
    classes = np.repeat(np.arange(40) % 2, 3)
    patients = np.repeat(np.arange(40), 3)
    folds = assign_folds(classes, patients, 4, seed=0)
    assert set(folds) == {0, 1, 2, 3}
    for patient in range(40):
        assert len(set(folds[patients == patient])) == 1
    for fold in range(4):
        assert classes[folds == fold].mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(folds, assign_folds(classes, patients, 4, seed=0))
    assert (folds != assign_folds(classes, patients, 4, seed=1)).any()


def test_too_few_patients_are_named():
    classes = np.repeat([0, 1], 6)
    patients = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4])
    with pytest.raises(PneumoError, match=r"refit\.n_folds: Expected at most 2.*Received: 3"):
        assign_folds(classes, patients, 3, seed=0)


def test_a_recipe_without_refit_is_refused():
    recipe = make_recipe("cnn")
    with pytest.raises(ValueError, match="refit"):
        refit_classifier(lambda: build_small(recipe), recipe, make_data(), PATIENTS, 0, NO_FEATURES)
