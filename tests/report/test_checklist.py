from dataclasses import replace

import pytest

from pneumo.report.checklist import Facts, fill_checklist

FACTS = Facts(
    knows_patients=True,
    is_judged=True,
    has_threshold=True,
    has_external=False,
    has_stress=True,
    has_probes=True,
    has_galleries=True,
    is_synthetic=False,
    test_seen="The recipe states something.",
)


def find(facts, guideline, number):
    (item,) = (item for item in fill_checklist(facts)[guideline] if item.number == number)
    return item.answer


def test_all_items_of_both_guidelines_are_there():
    checklist = fill_checklist(FACTS)
    assert [item.number for item in checklist["CLAIM 2024"]] == [str(n) for n in range(1, 45)]
    numbers = [item.number for item in checklist["TRIPOD+AI"]]
    assert len(numbers) == len(set(numbers)) == 52
    assert {number.rstrip("abcdefg") for number in numbers} == {str(n) for n in range(1, 28)}
    assert all(item.asks for items in checklist.values() for item in items)


def test_what_only_authors_know_is_left_to_them():
    for number in ("5", "11", "14", "44"):
        assert find(FACTS, "CLAIM 2024", number) == ""


@pytest.mark.parametrize(
    ("change", "number", "text", "otherwise"),
    [
        ({"knows_patients": False}, "20", "file content only", "by patient"),
        ({"is_judged": False}, "29", "no verdict", "Holm"),
        ({"has_stress": False}, "30", "", "changed images"),
        ({"has_probes": False, "has_galleries": False}, "31", "", "shuffled weights"),
        ({"has_external": True}, "33", "images from elsewhere", "None"),
        ({"has_galleries": False}, "39", "", "wrong decisions"),
        ({"is_synthetic": True}, "7", "synthetic", "title"),
    ],
)
def test_answers_follow_from_what_holds(change, number, text, otherwise):
    changed = find(replace(FACTS, **change), "CLAIM 2024", number)
    assert text in changed if text else changed == ""
    assert otherwise in find(FACTS, "CLAIM 2024", number)
    assert find(FACTS, "CLAIM 2024", "26").endswith(FACTS.test_seen)


def test_no_cell_breaks_the_table():
    cells = [
        text
        for items in fill_checklist(FACTS).values()
        for item in items
        for text in (item.asks, item.answer)
    ]
    assert not [text for text in cells if "|" in text or "\n" in text]
