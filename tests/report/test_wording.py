import re

import numpy as np
import pytest

from pneumo.evaluation.comparison import METRICS
from pneumo.evaluation.selection import CRITERIA
from pneumo.report import wording


@pytest.mark.parametrize(
    ("value", "expected"), [(0.97149, "0.971"), (-0.0004, "\N{MINUS SIGN}0.000"), (np.nan, "\N{EN DASH}")]
)
def test_digits(value, expected):
    assert wording.write_digits(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0123, "+0.012"), (-0.0123, "\N{MINUS SIGN}0.012"), (0.0004, "0.000"), (-0.0004, "0.000")],
)
def test_a_difference_that_rounds_to_zero_has_no_sign(value, expected):
    assert wording.write_signed(value) == expected


def test_intervals():
    assert wording.write_interval(0.91, 1.0) == "0.910 to 1.000"
    assert wording.write_interval(-0.1, 0.02, signed=True) == "\N{MINUS SIGN}0.100 to +0.020"
    assert wording.write_interval(np.nan, np.nan) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("p", "plain", "named"),
    [
        (0.04999, "0.050", "p = 0.050"),
        (0.0009, "< 0.001", "p < 0.001"),
        (0.0, "< 0.001", "p < 0.001"),
        (np.nan, "\N{EN DASH}", ""),
    ],
)
def test_p_values(p, plain, named):
    assert wording.write_p(p) == plain
    assert wording.write_p(p, named=True) == named


def test_every_metric_has_a_name():
    assert set(METRICS) <= set(wording.METRICS)


def test_counts_and_lists():
    assert wording.count(1, "seed") == "1 seed"
    assert wording.count(5856, "image") == "5,856 images"
    assert wording.count(2, "gallery", "galleries") == "2 galleries"
    assert [wording.list_words(list("abc")[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("verdict", "n_seeds", "phrase", "word", "mark"),
    [
        ("better", 3, "raises ROC AUC", "better", "helps"),
        ("worse", 3, "lowers ROC AUC", "worse", "harms"),
        ("equivalent", 3, "makes no difference that matters", "equivalent", "same"),
        ("not_shown", 3, "no difference shown", "no difference shown", "open"),
        ("unknown_spread", 1, "not judged: one seed", "not judged", "open"),
        (
            "unknown_spread",
            2,
            "not judged: the spread over seeds or patients is not known",
            "not judged",
            "open",
        ),
        ("not_compared", 0, "not compared: no seed in common with raw", "not compared", "open"),
    ],
)
def test_verdicts(verdict, n_seeds, phrase, word, mark):
    assert wording.describe_verdict(verdict, "roc_auc", "raw", n_seeds) == phrase
    assert wording.name_verdict(verdict) == word
    assert wording.mark_verdict(verdict) == mark


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], "the image as it is"),
        (None, "the image as it is"),
        (["equalize"], "equalize"),
        ([{"crop": {"margin": 0.08}}, "clahe"], "crop (margin 0.08), then clahe"),
        ([{"clahe": {"clip_limit": 2.0, "tiles": 8}}], "clahe (clip limit 2.0, tiles 8)"),
        ([{"clahe": None}], "clahe"),
    ],
)
def test_steps(steps, expected):
    assert wording.describe_steps(steps) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({}, "One way of preprocessing was run, so there is nothing to compare it with."),
        ({"crop": "worse"}, "crop lowers ROC AUC against raw."),
        (
            {"crop": "worse", "trim": "better", "both": "worse", "clahe": "equivalent", "gamma": "not_shown"},
            "trim raises ROC AUC against raw. crop and both lower ROC AUC against raw. clahe makes no "
            "difference that matters. For gamma no difference is shown.",
        ),
        ({"crop": "unknown_spread", "trim": "not_compared"}, "crop and trim are not judged."),
    ],
)
def test_answers(verdicts, expected):
    assert wording.answer(verdicts, "roc_auc", "raw") == expected


def test_differences_too_small_to_matter_are_said_to_be_so():
    verdicts = {"crop": "worse", "trim": "worse", "blur": "worse", "clahe": "better"}
    below = {"trim": 0.01, "blur": 0.01, "clahe": 0.01}
    assert wording.answer(verdicts, "roc_auc", "raw", below=below) == (
        "clahe raises ROC AUC against raw, by less than 0.01. crop lowers ROC AUC against raw. "
        "trim and blur lower ROC AUC against raw, by less than 0.01."
    )
    assert wording.describe_verdict("worse", "roc_auc", "raw", 3, 0.01) == "lowers ROC AUC, by less than 0.01"


def test_every_verdict_is_in_the_answer():
    for verdict in ("better", "worse", "equivalent", "not_shown", "unknown_spread", "not_compared"):
        assert "[crop]" in wording.answer({"crop": verdict}, "roc_auc", "raw", mark=lambda name: f"[{name}]")


def test_tasks():
    assert wording.name_task(("normal", "pneumonia")) == "pneumonia from normal"
    assert wording.name_task(("normal", "bacterial", "viral")) == "normal, bacterial and viral apart"


@pytest.mark.parametrize(
    ("counts", "expected"), [([1], "1 seed"), ([3, 3], "3 seeds"), ([3, 1], "1 to 3 seeds")]
)
def test_seeds(counts, expected):
    assert wording.describe_seeds(counts) == expected


@pytest.mark.parametrize(
    ("recipe", "pattern"),
    [
        ({}, "does not state"),
        ({"test_seen": None}, "does not state"),
        ({"test_seen": 0}, "no test score"),
        ({"test_seen": 1}, "1 test score was"),
        ({"test_seen": 3}, "3 test scores were .* too good"),
    ],
)
def test_what_a_recipe_says_of_test_scores(recipe, pattern):
    assert re.search(pattern, wording.describe_test_seen(recipe))


def test_every_criterion_that_is_correlated_has_a_name():
    names = [wording.name_correlated(criterion) for criterion in CRITERIA]
    assert len(set(names)) == len(CRITERIA)
    assert names[1].startswith("the mean")  # which "of these" and "them" in the next ones refer to
