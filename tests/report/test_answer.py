import numpy as np
from small_report import COMBOS, EFFECTS, make_effects

from pneumo.report.answer import EFFECT_COLUMNS, find_answer


def test_one_effect_a_combo_in_the_order_of_params():
    answer = find_answer(EFFECTS.iloc[::-1], COMBOS, "raw", margin=0.01)
    assert [effect.combo for effect in answer.effects] == ["equalize", "crop_clahe"]
    equalize, crop = answer.effects
    assert (equalize.sentence, equalize.kind) == ("no difference shown", "open")
    assert (crop.sentence, crop.kind, crop.number) == ("lowers ROC AUC", "harms", "\N{MINUS SIGN}0.031")
    assert crop.interval == "\N{MINUS SIGN}0.041 to \N{MINUS SIGN}0.021"
    assert crop.p == "p < 0.001"
    assert crop.steps == "crop (margin 0.08), then clahe"
    assert answer.sentence == (
        "<b>crop_clahe</b> lowers ROC AUC against <b>raw</b>. For <b>equalize</b> no difference is shown."
    )


def test_models_stand_below_their_combo():
    _, crop = find_answer(EFFECTS, COMBOS, "raw", margin=None).effects
    assert [(part.model, part.number) for part in crop.parts] == [
        ("cnn", "\N{MINUS SIGN}0.030"),
        ("dense", "\N{MINUS SIGN}0.032"),
    ]


def test_other_metrics_are_secondary():
    answer = find_answer(EFFECTS, COMBOS, "raw", margin=None)
    (row,) = answer.secondary
    assert (row["combo"], row["metric"], row["word"]) == ("crop_clahe", "sensitivity", "worse")
    assert "sensitivity" not in answer.sentence


def test_all_rows_share_one_scale():
    wide = make_effects(
        [("equalize", "all", "roc_auc", 0.0, "not_shown"), ("equalize", "cnn", "roc_auc", 0.5, "not_shown")]
    )
    (narrow,) = find_answer(wide.iloc[:1], COMBOS, "raw", margin=None).effects
    (shared,) = find_answer(wide, COMBOS, "raw", margin=None).effects
    assert narrow.strip != shared.strip


def test_one_seed_gives_a_number_and_no_verdict():
    effects = make_effects([("equalize", "all", "roc_auc", 0.03, "unknown_spread")])
    answer = find_answer(effects.assign(interval_over="patients"), COMBOS, "raw", margin=0.01)
    (effect,) = answer.effects
    assert effect.sentence == "not judged: one seed"
    assert (effect.number, effect.p) == ("+0.030", "")
    assert answer.interval_over == "patients"
    assert answer.sentence == "<b>equalize</b> is not judged."


def test_whether_models_differ_is_said_where_it_is_known():
    effects = EFFECTS.assign(heterogeneity_p=np.where(EFFECTS["combo"] == "equalize", 0.01, 0.6))
    equalize, crop = find_answer(effects, COMBOS, "raw", margin=None).effects
    assert equalize.note == "Models differ in this."
    assert crop.note == "Models do not visibly differ in this."
    assert find_answer(EFFECTS, COMBOS, "raw", margin=None).effects[0].note == ""


def test_nothing_compared_is_no_effect():
    answer = find_answer(EFFECTS.iloc[:0], {"raw": []}, "raw", margin=None)
    assert answer.effects == []
    assert "nothing to compare" in answer.sentence
    assert list(EFFECTS.columns) == list(EFFECT_COLUMNS)
