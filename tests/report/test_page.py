"""The page: what it says where something is missing, and that it needs nothing but itself."""

import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from small_report import (
    EFFECTS,
    ONE_SEED,
    RECIPE,
    VIEWS,
    make_manifest,
    make_params,
    make_probes,
    make_report,
    make_stress,
)

from pneumo.base.labels import Task
from pneumo.report.page import SECTIONS, list_points, write_report

VOID = {"col", "meta", "link", "img", "br", "input", "hr"}


class Structure(HTMLParser):
    """Collects what is wrong with a page's tags, and its ids, links and headings."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.ids, self.links, self.headings, self.images = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [value for key, value in attrs if key in ("href", "src")]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.images += [attributes] if tag == "img" else []

    def handle_startendtag(self, tag, attrs):
        """A tag of SVG's that closes itself holds nothing that is collected."""

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))


def write(folder, *args, **changes):
    write_report(make_report(*args, **changes), folder)
    return (folder / "index.html").read_text()


def read(text):
    """Return the words of a page without its tags, script and style."""
    body = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.DOTALL)
    body = re.sub(r"</?(b|code|em|span|small|a)\b[^>]*>", "", body)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page"), external=True)


CASES = {
    "complete": {},
    "one combo": {"params": make_params(combos={"raw": []})},
    "one seed": {
        "params": make_params(seeds=[0]),
        "effects": ONE_SEED,
    },
    "three classes": {"params": make_params(task=Task.subtype), "effects": EFFECTS.iloc[:0]},
    "no pictures": {"galleries": [], "combo_photos": [], "samples": []},
    "no explanations": {"galleries": [], "probes": make_probes().iloc[:0], "stress": make_stress().iloc[:0]},
    "missing runs": {"missing_runs": ["raw/cnn/7"]},
    "no history": {"history": make_report().tables["history"].iloc[:0]},
    "no band": {"band": None},
    "no findings": {"findings": make_report().findings.iloc[:0]},
    "unknown seconds": {"seconds": make_report().tables["seconds"].assign(train_s=np.nan)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_page_is_well_formed(tmp_path, case):
    structure = Structure(write(tmp_path, **case))
    assert structure.wrong == []
    assert structure.open == []
    assert len(structure.ids) == len(set(structure.ids))
    assert {f"#{name}" for name in SECTIONS} <= set(structure.links)
    assert {link[1:] for link in structure.links if link.startswith("#")} <= set(structure.ids)
    assert structure.headings[0] == 1
    assert structure.headings.count(1) == 1
    assert all(
        after - before <= 1 for before, after in zip(structure.headings, structure.headings[1:], strict=False)
    )
    assert all(image["alt"] for image in structure.images)


def test_the_answer_comes_first(page):
    text = read(page)
    order = [
        "Which preprocessing helps to tell pneumonia from normal?",
        "crop_clahe lowers ROC AUC against raw. For equalize no difference is shown.",
        "Best by ROC AUC on validation: ",
        "The question is the same in every experiment",
        "Each model by itself a further question, corrected for its 4 tests",
        "Best model:",
        "What to hold against it",
    ]
    places = [text.index(sentence) for sentence in order]
    assert places == sorted(places)


def test_what_the_best_model_was_chosen_by_is_said(tmp_path):
    leaderboard = make_report().tables["leaderboard"]
    chosen_by = "by mean ROC AUC on changed validation images"
    known = write(tmp_path, criterion="stress_roc_auc", leaderboard=leaderboard.assign(stress_roc_auc=0.9314))
    assert f"Best {chosen_by}: " in read(known)
    assert f"Chosen {chosen_by}, mean over" in read(known)
    card = read((tmp_path / "model_card.md").read_text())
    assert f"The best of experiment `small` {chosen_by}." in card
    assert ", 0.931 when the images are changed." in card
    partly = leaderboard.assign(stress_roc_auc=[0.9, *[np.nan] * (len(leaderboard) - 1)])
    text = read(write(tmp_path, leaderboard=partly))
    assert "Best by ROC AUC on validation: " in text
    assert f"known for 1 of {len(leaderboard)} rows. They order the leaderboard once" in text
    assert "They order the leaderboard once" not in read(write(tmp_path))


def test_what_orders_models_as_the_test_set_does_is_said(page):
    assert (
        "over 8 runs: \N{MINUS SIGN}0.12 for the ROC AUC on validation, 0.75 for the mean ROC AUC on changed "
        "validation images, 0.50 for the worst of these. This describes"
    ) in read(page)


def test_content_is_escaped(page):
    assert "X-rays &lt;b&gt;&amp; more&lt;/b&gt;" in page
    assert "train/&lt;i&gt;.jpeg" in page
    assert "Is it the &lt;files&gt;?" in page


def test_the_page_needs_no_other_file_to_be_read(page):
    links = Structure(page).links
    assert all(link.startswith(("data:", "#")) or re.fullmatch(r"[\w/]+\.(csv|md)", link) for link in links)
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert "url(" not in page
    assert "@import" not in page


def test_files_that_the_page_links_to_are_written(page):
    written = {f"{name}.csv" for name in make_report().tables} | {
        "predictions.csv",
        "model_card.md",
        "checklist.md",
    }
    linked = {link for link in Structure(page).links if link.endswith((".csv", ".md"))}
    assert linked <= written


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("one combo", "How well do these models tell pneumonia from normal?"),
        ("one combo", "Nothing is compared: it takes two combinations"),
        ("one seed", "equalize is not judged."),
        ("one seed", "not judged: one seed"),
        ("one seed", "It was trained once."),
        ("three classes", "tell normal, bacterial and viral apart?"),
        ("three classes", "There is no threshold to choose among 3 classes"),
        ("no pictures", "There are no pictures of what models look at."),
        ("no pictures", "The page holds no pictures of the data."),
        ("no explanations", "No model was asked: explain has not run"),
        ("no explanations", "How it does on changed images is not known"),
        ("missing runs", "1 run has no result and is in no number here: raw/cnn/7."),
        ("unknown seconds", "Seconds of training not known"),
        ("complete", "No further test set was given"),
    ],
)
def test_what_is_missing_is_said(tmp_path, case, sentence):
    assert sentence in read(write(tmp_path, **CASES[case]))
    if case != "complete":
        assert sentence not in read(write(tmp_path, external=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"is_synthetic": True}, "Synthetic data. These images are drawn by a program."),
        ({"margin": 0.01}, "Shaded: differences of less than 0.01, too small to matter"),
        ({"external": True}, "On images from elsewhere"),
        ({"manifest": make_manifest(patients="unknown")}, "Patients of 180 images are not known"),
        (
            {"manifest": make_manifest(patients="unknown")},
            "Patients are not known. Each of 180 images counts as a patient of its own",
        ),
        ({"recipe": RECIPE | {"test_seen": 2}}, "The test set is not unseen."),
        ({"same_images": [["raw", "equalize"]]}, "equalize changes nothing on these images."),
        ({"same_images": [["equalize", "crop_clahe"]]}, "equalize and crop_clahe give the same images."),
        ({"views": [VIEWS]}, "raw/cnn/0: a training image of each class, and random views of it."),
        ({"fixed_models": ["dense"]}, "cnn sees randomly changed images; no picture of them was kept."),
        ({"fixed_models": ["dense"]}, "dense sees the images as they are, without random changes."),
        ({"probes": make_probes(1)}, "It answers without seeing lungs."),
    ],
)
def test_what_holds_is_said_and_else_not(tmp_path, changes, sentence):
    assert sentence in read(write(tmp_path, **changes))
    assert sentence not in read(write(tmp_path))


def test_many_missing_runs_are_counted_above_and_listed_below(tmp_path):
    names = [f"raw/cnn/{seed}" for seed in range(10, 15)]
    text = read(write(tmp_path, missing_runs=names))
    assert "5 runs have no result and are in no number here." in text
    assert "Runs without a result 5 raw/cnn/10, raw/cnn/11" in text


def test_set_aside_files_are_named_with_reasons(page, tmp_path):
    assert "1 file was set aside: train/<i>.jpeg (empty file)" in read(page)
    none = pd.DataFrame({"path": [], "reason": []})
    assert "No file was set aside." in read(write(tmp_path, set_aside=none))


def test_different_environments_are_named(tmp_path):
    one = make_report().tables["environments"]
    two = pd.concat(
        [one.assign(n_runs=1, runs="raw/cnn/0"), one.assign(processor="another", n_runs=1, runs="raw/cnn/1")]
    )
    text = read(write(tmp_path, environments=two))
    assert "The runs were trained under 2 different conditions" in text
    assert "1: raw/cnn/1" in text
    assert "different conditions" not in read(write(tmp_path))


def test_undefined_metrics_are_a_dash(tmp_path):
    leaderboard = make_report().tables["leaderboard"].assign(precision=np.nan, val_roc_auc=np.nan)
    text = read(write(tmp_path, leaderboard=leaderboard))
    assert "precision (PPV) \N{EN DASH}" in text
    assert not re.search(r"\bnan\b", text)


def test_sliders_have_the_scores_and_thresholds_of_the_best_run(page):
    report = make_report()
    (embedded,) = re.findall(r'data-scores="([^"]*)"', page)
    points = json.loads(html.unescape(embedded))
    scores = report.scores
    assert points["positive"] == pytest.approx(sorted(scores.loc[scores["y_true"] == 1, "y_score"]))
    assert points["negative"] == pytest.approx(sorted(scores.loc[scores["y_true"] == 0, "y_score"]))
    assert points["thresholds"][0][0] == "youden"
    assert len(points["thresholds"]) == len(report.details["operating_points"])
    assert points["name"] == "pneumonia"


def test_rings_are_where_the_best_model_and_its_first_run_decide(page):
    report = make_report()
    left, right, bottom, top = (
        float(re.search(f'data-{end}="([^"]*)"', page)[1]) for end in ("x0", "x1", "y0", "y1")
    )
    row = report.details["operating_points"].set_index("method").loc["youden"]
    rings = [
        tuple(map(float, each)) for each in re.findall(r'<circle class="dot at" cx="(.*?)" cy="(.*?)"', page)
    ]
    for (x, y), decided in zip(rings, (report.best, row), strict=True):
        assert x == pytest.approx(left + (1 - decided["specificity"]) * (right - left), abs=0.06)
        assert y == pytest.approx(bottom + decided["sensitivity"] * (top - bottom), abs=0.06)


def test_embedded_scores_decide_as_the_run_does():
    scores = pd.DataFrame({"y_true": [0, 1], "y_score": np.array([0.1, 1 / 3], np.float32).astype(float)})
    methods = pd.DataFrame({"method": ["youden"], "threshold": [float(np.float32(1 / 3))]})
    points = list_points(scores, methods, "youden", "pneumonia")
    two = pd.DataFrame({"method": ["youden", "cost"], "threshold": [0.3, 0.2]})
    assert list_points(scores, two, "cost", "pneumonia")["thresholds"] == [["cost", 0.2], ["youden", 0.3]]
    assert points["positive"][0] >= float(f"{points['thresholds'][0][1]:.9g}")
    assert np.float32(points["positive"][0]) == np.float32(1 / 3)


def test_the_same_report_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


class TestModelCard:
    def read(self, folder, **changes):
        write(folder, **changes)
        return (folder / "model_card.md").read_text()

    def test_it_is_about_the_best_on_validation(self, tmp_path):
        best = make_report().best
        card = self.read(tmp_path)
        assert card.startswith(f"# Model card: {best['model']} on {best['combo']}\n")
        assert (
            f"| ROC AUC | {best['roc_auc']:.3f} | {best['roc_auc_low']:.3f} to {best['roc_auc_high']:.3f} |"
            in card
        )
        assert (
            "| split | normal | bacterial | viral | patients |\n|---|---|---|---|---|\n| train | 20 |" in card
        )
        assert "X-rays <b>& more</b>" in card

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"is_synthetic": True}, "**Trained on synthetic data.**"),
            ({"manifest": make_manifest(patients="unknown")}, "Patients of 180 images are not known."),
            ({"recipe": {"test_seen": 3}}, "3 test scores were looked at"),
            ({"recipe": {}}, "does not state whether test scores were looked at"),
            ({"params": make_params(seeds=[0])}, "One seed, with 95 % intervals over patients."),
            ({"missing_runs": ["a", "b"]}, "2 runs of the experiment have no result"),
            ({"external": True}, "On images from elsewhere:"),
            (
                {"params": make_params(task=Task.subtype), "effects": EFFECTS.iloc[:0]},
                "normal, bacterial, viral",
            ),
        ],
    )
    def test_it_says_what_holds(self, tmp_path, changes, sentence):
        assert sentence in " ".join(self.read(tmp_path, **changes).split())
        assert sentence not in " ".join(self.read(tmp_path).split())

    def test_a_patient_in_two_splits_is_not_denied(self, tmp_path):
        assert "No patient is in two splits." in self.read(tmp_path)
        manifest = make_manifest()
        manifest.loc[manifest["split"] == "test", "patient"] = manifest.loc[
            manifest["split"] == "train", "patient"
        ].array
        card = self.read(tmp_path, manifest=manifest)
        assert "60 patients are in two splits." in card
        assert "No patient is in two splits." not in card


def test_the_checklist_counts_what_it_answers(tmp_path):
    write(tmp_path)
    text = (tmp_path / "checklist.md").read_text()
    filled, total = map(int, re.search(r"(\d+) of (\d+) items", text).groups())
    rows = re.findall(r"^\| \d+[a-g]? \|.*$", text, re.MULTILINE)
    assert len(rows) == total
    assert sum("For you to fill in" not in row for row in rows) == filled
