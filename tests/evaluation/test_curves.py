import numpy as np
import pytest
from sklearn.metrics import roc_curve

from pneumo.evaluation.comparison import Decided
from pneumo.evaluation.curves import N_DRAWS, band_roc, draw_curves
from pneumo.evaluation.resampling import draw_weights


def make_run(y_true, scores, patients=None):
    scores = np.asarray(scores, float)
    probabilities = scores if scores.ndim == 2 else np.column_stack([1 - scores, scores])
    patients = np.arange(len(y_true)) if patients is None else patients
    return Decided(
        np.asarray(y_true),
        probabilities,
        probabilities.argmax(axis=1),
        np.asarray(patients).astype(str).astype(object),
    )


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    y_true = (np.arange(200) % 3 > 0).astype(int)
    return y_true, np.round(generator.normal(y_true, 1), 1)  # rounded, so that scores tie


def test_a_drawn_curve_is_scikit_learns_curve_of_the_drawn_images(data):
    y_true, y_score = data
    weights = np.random.default_rng(1).integers(0, 4, (5, len(y_true))).astype(float)
    grid = np.linspace(0, 1, 201)
    for row, curve in zip(weights, draw_curves(y_true, y_score, weights), strict=True):
        false_positive_rate, sensitivity, _ = roc_curve(
            y_true, y_score, sample_weight=row, drop_intermediate=False
        )
        np.testing.assert_allclose(
            curve[1:], np.interp(grid, false_positive_rate, sensitivity)[1:], atol=1e-12
        )


def test_a_draw_of_one_class_is_undefined(data):
    y_true, y_score = data
    assert np.isnan(draw_curves(y_true, y_score, (y_true == 1).astype(float)[None])).all()


def test_the_band_is_the_middle_95_per_cent_of_drawn_curves(data):
    y_true, y_score = data
    run = make_run(y_true, y_score)
    weights = draw_weights(run.patients, run.y_true, N_DRAWS, 0)
    drawn = draw_curves(y_true, y_score, weights)
    band = band_roc([run])
    np.testing.assert_allclose(band["low"], np.percentile(drawn, 2.5, axis=0))
    np.testing.assert_allclose(band["high"], np.percentile(drawn, 97.5, axis=0))


def test_the_band_holds_the_curve_and_narrows_with_more_patients(data):
    y_true, y_score = data
    band = band_roc([make_run(y_true, y_score)])
    point = draw_curves(y_true, y_score, np.ones((1, len(y_true))))[0]
    inside = (band["low"] <= point + 1e-9) & (band["high"] >= point - 1e-9)
    assert inside[5:].all()
    many = band_roc([make_run(np.tile(y_true, 4), np.tile(y_score, 4))])
    widths = [(each["high"] - each["low"]).mean() for each in (band, many)]
    assert widths[1] < 0.65 * widths[0]


def test_images_of_one_patient_do_not_narrow_the_band(data):
    y_true, y_score = data
    patients = np.tile(np.arange(len(y_true)), 4)
    single, repeated = (
        band_roc([run])
        for run in (
            make_run(y_true, y_score),
            make_run(np.tile(y_true, 4), np.tile(y_score, 4), patients),
        )
    )
    widths = [(each["high"] - each["low"]).mean() for each in (single, repeated)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_three_classes_are_averaged():
    y_true = np.arange(90) % 3
    probabilities = np.full((90, 3), 0.1) + 0.7 * np.eye(3)[y_true]
    band = band_roc([make_run(y_true, probabilities)])
    assert (band["low"] == 1).all()
    assert (band["high"] == 1).all()


def test_no_band_where_a_class_is_missing():
    assert band_roc([make_run([1, 1, 1], [0.1, 0.2, 0.3])]) is None
