import pandas as pd
import pytest
from small_report import FINDINGS, make_probes, make_stress

from pneumo.report.objections import find_objections

BEST = {
    "combo": "raw",
    "model": "cnn",
    "n_seeds": 2,
    "val_roc_auc": 0.95,
    "roc_auc": 0.94,
    "roc_auc_low": 0.92,
    "roc_auc_high": 0.96,
    "calibration_error": 0.1,
    "calibration_error_scaled": 0.02,
}
LEADERBOARD = pd.DataFrame({"val_roc_auc": [0.95, 0.9]})
POINTS = pd.DataFrame(
    {
        "method": ["youden", "cost"],
        "sensitivity_val": [0.96, 0.99],
        "sensitivity": [0.95, 0.5],
        "specificity_val": [0.95, 0.99],
        "specificity": [0.93, 0.5],
    }
)
FINE = FINDINGS.assign(verdict="no problem")


def find(
    best=None,
    probes=None,
    stress=None,
    leaderboard=LEADERBOARD,
    points=POINTS,
    findings=FINE,
    recipe=None,
    n=0,
    criterion="val_roc_auc",
):
    tables = {
        "leaderboard": leaderboard,
        "probes": make_probes() if probes is None else probes,
        "stress": make_stress(0.93) if stress is None else stress,
    }
    details = {} if points is None else {"operating_points": points}
    best = BEST | (best or {})
    found = find_objections(best, criterion, tables, details, "7", "youden", findings, recipe or {}, n)
    return {objection.lead: objection.text for objection in found}


def test_nothing_is_held_against_a_model_without_fault():
    assert find() == {}


def test_each_objection_is_made_where_it_is_due_and_alone():
    cases = {
        "Validation promises more": {"best": {"val_roc_auc": 0.97}, "leaderboard": LEADERBOARD + 0.02},
        "Its specificity does not hold": {"points": POINTS.assign(specificity=0.7)},
        "Its sensitivity does not hold": {"points": POINTS.assign(sensitivity=0.7)},
        "Test images are of another kind": {"findings": FINDINGS[FINDINGS["check"] == "shift_normal"]},
        "The class shows without lungs": {"findings": FINDINGS[FINDINGS["check"] == "metadata"]},
        "Are there copies?": {"findings": FINDINGS[2:].assign(verdict="problem")},
        "It answers without seeing lungs": {"probes": make_probes(n_problems=1)},
        "It depends on how an image was taken": {"stress": make_stress(worst=0.6)},
        "Its probabilities are off": {"best": {"calibration_error_scaled": 0.06}},
        "It won by little": {"leaderboard": pd.DataFrame({"val_roc_auc": [0.95, 0.949, 0.9]})},
        "It was trained once": {"best": {"n_seeds": 1}},
        "The test set is not unseen": {"recipe": {"test_seen": 2}},
        "Patients are not known": {"n": 12},
    }
    for lead, case in cases.items():
        (found,) = find(**case)
        assert found.startswith(lead)


def test_texts_give_the_numbers():
    (text,) = find(points=POINTS.assign(specificity=0.7)).values()
    assert text.startswith("With seed 7, ")
    assert "from 0.950 on validation to 0.700" in text
    (text,) = find(probes=make_probes(n_problems=1)).values()
    assert text.startswith("With the thorax painted over, its ROC AUC is still 0.81")
    assert "1 of 2 seeds" in text
    (text,) = find(stress=make_stress(worst=0.6)).values()
    assert "one (noisy) takes its sensitivity from 0.950 to 0.600" in text
    worst_first = make_stress(worst=0.6).sort_values("change", ascending=False)
    assert "one (noisy)" in next(iter(find(stress=worst_first).values()))
    (text,) = find(n=12).values()
    assert text.startswith("12 images count as a patient each")


def test_problems_of_another_model_are_not_held_against_it():
    probes = make_probes(n_problems=2)
    others = probes[~((probes["combo"] == "raw") & (probes["model"] == "cnn"))]
    assert find(probes=others) == {}
    stress = make_stress(worst=0.1)
    assert find(stress=stress[stress["model"] == "dense"]) == {}


def test_what_is_not_known_is_no_objection():
    assert find(probes=make_probes().iloc[:0], stress=make_stress().iloc[:0], points=None) == {}
    undefined = make_stress().assign(balanced_accuracy=float("nan"))
    assert find(stress=undefined) == {}
    assert find(best={"val_roc_auc": float("nan"), "calibration_error_scaled": float("nan")}) == {}


@pytest.mark.parametrize("recipe", [{}, {"test_seen": None}, {"test_seen": 0}])
def test_an_unseen_or_unstated_test_set_is_no_objection(recipe):
    assert find(recipe=recipe) == {}


def test_near_means_near_by_what_orders_the_leaderboard():
    rows = pd.DataFrame({"val_roc_auc": [0.95, 0.95, 0.95], "stress_roc_auc": [0.93, 0.929, 0.5]})
    assert "2 other rows" in find(leaderboard=rows)["It won by little."]
    by_stress = find({"stress_roc_auc": 0.93}, leaderboard=rows, criterion="stress_roc_auc")
    text = by_stress["It won by little."]
    assert "1 other row " in text
    assert text.endswith("of its mean ROC AUC on changed validation images.")
