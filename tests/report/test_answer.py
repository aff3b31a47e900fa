import numpy as np
from small_report import COMBOS, EFFECTS, ONE_SEED, make_effects

from pneumo.report.answer import find_answer


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
    assert (answer.n_models, answer.n_seeds, answer.n_parts) == (2, "2 seeds", 4)


def test_models_stand_below_their_combo_with_what_is_shown_of_each():
    _, crop = find_answer(EFFECTS, COMBOS, "raw", margin=None).effects
    assert [(part.model, part.number, part.word, part.kind) for part in crop.parts] == [
        ("cnn", "\N{MINUS SIGN}0.030", "worse", "harms"),
        ("dense", "\N{MINUS SIGN}0.032", "", "open"),
    ]


def test_an_equivalence_is_written_with_its_own_p():
    effects = EFFECTS.assign(
        verdict=np.where(EFFECTS["subject"] == "equalize", "equivalent", EFFECTS["verdict"]),
        p_within_holm=0.014,
    )
    equalize, crop = find_answer(effects, COMBOS, "raw", margin=0.01).effects
    assert equalize.p == "within \N{PLUS-MINUS SIGN}0.01: p = 0.014"
    assert crop.p == "p < 0.001"


def test_a_difference_that_is_shown_to_be_small_is_not_only_said_to_be_there():
    effects = EFFECTS.assign(p_within_holm=np.where(EFFECTS["subject"] == "crop_clahe", 0.05, np.nan))
    answer = find_answer(effects, COMBOS, "raw", margin=0.02)
    assert answer.effects[1].sentence == "lowers ROC AUC, by less than 0.02"
    assert "<b>crop_clahe</b> lowers ROC AUC against <b>raw</b>, by less than 0.02." in answer.sentence
    assert "less" not in find_answer(effects.assign(p_within_holm=0.051), COMBOS, "raw", 0.02).sentence
    assert "less" not in find_answer(effects, COMBOS, "raw", margin=None).sentence


def test_other_questions_are_secondary():
    answer = find_answer(EFFECTS, COMBOS, "raw", margin=None)
    (operating,), (models,) = answer.secondary.values()
    assert (operating["subject"], operating["metric"], operating["word"]) == (
        "crop_clahe",
        "sensitivity",
        "worse",
    )
    assert (models["subject"], models["number"], models["word"]) == ("cnn", "+0.200", "better")
    assert "sensitivity" not in answer.sentence


def test_all_rows_share_one_scale():
    wide = make_effects(
        [
            ("primary", "equalize", "cnn", "roc_auc", 0.0, "not_shown"),
            ("by_model", "equalize", "cnn", "roc_auc", 0.5, "not_shown"),
        ]
    )
    (narrow,) = find_answer(wide.iloc[:1], COMBOS, "raw", margin=None).effects
    (shared,) = find_answer(wide, COMBOS, "raw", margin=None).effects
    assert narrow.strip != shared.strip


def test_one_seed_gives_a_number_and_no_verdict():
    answer = find_answer(ONE_SEED, COMBOS, "raw", margin=0.01)
    (effect,) = answer.effects
    assert effect.sentence == "not judged: one seed"
    assert (effect.number, effect.p) == ("+0.030", "")
    assert answer.interval_over == "patients"
    assert answer.n_seeds == "1 seed"
    assert answer.sentence == "<b>equalize</b> is not judged."


def test_whether_models_differ_is_said_where_it_is_known():
    equalize, crop = find_answer(EFFECTS, COMBOS, "raw", margin=None).effects
    assert equalize.note == "Models differ in this: cnn by +0.014 from the others."
    assert crop.note == "Models do not visibly differ in this."
    unknown = EFFECTS.assign(p_holm=np.nan)
    assert find_answer(unknown, COMBOS, "raw", margin=None).effects[0].note == ""
    without = EFFECTS[EFFECTS["family"] != "heterogeneity"]
    assert find_answer(without, COMBOS, "raw", margin=None).effects[0].note == ""


def test_models_without_a_known_spread_are_named_once():
    left_out = EFFECTS.assign(left_out=np.where(EFFECTS["family"] == "primary", "slow", ""))
    assert find_answer(left_out, COMBOS, "raw", margin=None).left_out == "slow"
    assert find_answer(EFFECTS.assign(left_out=np.nan), COMBOS, "raw", margin=None).left_out == ""


def test_nothing_compared_is_no_effect():
    answer = find_answer(EFFECTS.iloc[:0], {"raw": []}, "raw", margin=None)
    assert answer.effects == []
    assert "nothing to compare" in answer.sentence
    assert answer.n_seeds == ""
