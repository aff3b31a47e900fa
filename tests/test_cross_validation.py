"""Cross-validation from params.yaml to the report, on phantoms: who sees which patient, what is said."""

import contextlib
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.base.config import Run, load_params
from pneumo.base.paths import FEATURE_CACHE_DIR, explanations_dir, images_path, run_dir
from pneumo.cli import main
from pneumo.evaluation import subgroups
from pneumo.training.dataset import load_folds
from workspace import edit_params, make_workspace, read_all

N_FOLDS, SEEDS, COMBOS = 3, (0, 1), ("raw", "clahe")
RUNS = [Run("tiny", combo, "dense", seed) for combo in COMBOS for seed in SEEDS]
OFFICIAL = "split: {val_fraction: 0.25, seed: 0}"
FOLDS = f"split: {{val_fraction: 0.25, seed: 0, protocol: folds, n_folds: {N_FOLDS}}}"
FROZEN = "{network: {input_size_px: 32, weights: random}, phases: {head: {epochs: 1}}}"


def call(*arguments):
    assert main(list(arguments)) == 0


def train(run):
    keras.utils.clear_session()  # as in a process of its own, where layers are numbered from the start
    call("train", "--combo", run.combo, "--model", run.model, "--seed", str(run.seed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a project whose stages have all run; for reading only."""
    root = tmp_path_factory.mktemp("folds")
    make_workspace(root)
    edit_params(root, OFFICIAL, FOLDS)
    edit_params(root, "seeds: [0]", f"seeds: {list(SEEDS)}")
    with contextlib.chdir(root):
        for stage in ("check", "download", "prepare", "audit"):
            call(stage)
        call("weights", "--model", "dense")
        for combo in COMBOS:
            call("preprocess", "--combo", combo)
        for run in RUNS:
            train(run)
            call("evaluate", "--combo", run.combo, "--model", run.model, "--seed", str(run.seed))
        for combo in COMBOS:
            call("explain", "--combo", combo)
            call("external", "--combo", combo)
        call("compare")
    return root


@pytest.fixture
def project(finished, monkeypatch):
    monkeypatch.chdir(finished)
    return finished


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """Work in a copy of the project."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def read_manifest():
    return pd.read_csv("data/phantom/manifest.csv")


def read_predictions(run):
    return pd.read_csv(run_dir(run) / "predictions.csv")


def average_folds(test):
    """Return the mean ROC AUC of folds, each weighted by its pairs of an ill and a healthy image."""
    areas, n_pairs = [], []
    for _, own in test.groupby("fold"):
        areas.append(roc_auc_score(own["y_true"], own["p_pneumonia"]))
        n_pairs.append(own["y_true"].sum() * (1 - own["y_true"]).sum())
    return np.average(areas, weights=n_pairs)


@pytest.mark.usefixtures("project")
def test_the_official_split_is_not_used():
    manifest = read_manifest()
    assert set(manifest["split"]) == {"folds"}
    assert set(manifest["official_split"]) == {"train", "val", "test"}
    tested = read_predictions(RUNS[0])
    first = tested[(tested["split"] == "test") & (tested["fold"] == 0)]
    assert len(set(manifest.set_index("id").loc[first["id"], "official_split"])) > 1


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_each_image_is_tested_once_by_a_network_that_has_not_seen_its_patient(run):
    manifest, table = read_manifest(), read_predictions(run)
    test = table[table["split"] == "test"]
    assert test["id"].tolist() == manifest["id"].tolist()
    patient = manifest["patient"].to_numpy()
    for fold, data in enumerate(load_folds(load_params(), run.combo, run.seed)):
        parts = data.training.train_rows, data.training.val_rows, data.test_rows
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(manifest)))
        patients = [set(patient[rows]) for rows in parts]
        assert sum(map(len, patients)) == len(set(patient))
        for split, rows in zip(("val", "test"), parts[1:], strict=True):
            predicted = table[(table["split"] == split) & (table["fold"] == fold)]
            assert set(predicted["id"]) == set(manifest["id"].iloc[rows])
            y_true = (data.manifest["label"].iloc[rows] == "pneumonia").astype(int)
            assert dict(zip(predicted["id"], predicted["y_true"], strict=True)) == dict(
                zip(manifest["id"].iloc[rows], y_true, strict=True)
            )


@pytest.mark.usefixtures("project")
def test_combos_share_the_folds_of_a_seed_and_seeds_do_not():
    folds = {}
    for run in RUNS:
        table = read_predictions(run)
        folds[run.key] = table.loc[table["split"] == "test", "fold"].tolist()
    assert folds["raw", "dense", 0] == folds["clahe", "dense", 0]
    assert folds["raw", "dense", 0] != folds["raw", "dense", 1]


@pytest.mark.usefixtures("project")
def test_the_first_network_is_kept():
    run, table = RUNS[0], read_predictions(RUNS[0])
    network = keras.models.load_model(run_dir(run) / "model.keras", compile=False)
    images = np.load(images_path("phantom", run.combo))
    predicted = network.predict(images, verbose=0)[:, 0]
    test = table[table["split"] == "test"].reset_index(drop=True)
    same = np.isclose(predicted, test["p_pneumonia"], atol=1e-6)
    assert same[test["fold"] == 0].all()
    assert same[test["fold"] != 0].mean() < 0.2


@pytest.mark.usefixtures("project")
def test_histories_say_their_fold():
    history = pd.read_csv("reports/tiny/history.csv")
    counts = history.groupby(["combo", "model", "seed", "fold"]).size()
    assert len(counts) == len(RUNS) * N_FOLDS
    assert (counts == 2).all()


@pytest.mark.usefixtures("project")
def test_scores_are_means_over_folds():
    runs = pd.read_csv("reports/tiny/runs.csv").set_index(["combo", "model", "seed"])
    for run in RUNS:
        table = read_predictions(run)
        expected = average_folds(table[table["split"] == "test"])
        assert runs.loc[run.key, "roc_auc"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("copy")
def test_subgroups_are_scored_within_folds(monkeypatch):
    monkeypatch.setattr(subgroups, "MIN_PATIENTS", 10)
    manifest = read_manifest()
    views = dict(zip(sorted(set(manifest["patient"])), ["AP", "PA"] * len(manifest), strict=False))
    manifest["view"] = manifest["patient"].map(views)
    manifest.to_csv("data/phantom/manifest.csv", index=False)
    call("compare")
    best = pd.read_csv("reports/tiny/leaderboard.csv").iloc[0]
    found = pd.read_csv("reports/tiny/subgroups.csv").set_index(["group", "metric"])["value"]
    for view in ("AP", "PA"):
        scores = []
        for seed in SEEDS:
            table = read_predictions(Run("tiny", best["combo"], best["model"], seed))
            test = table[
                (table["split"] == "test") & (table["id"].map(manifest.set_index("id")["view"]) == view)
            ]
            scores.append(
                average_folds(test.groupby("fold").filter(lambda own: own["y_true"].nunique() == 2))
            )
        assert found[view, "roc_auc"] == pytest.approx(np.mean(scores), abs=1e-5)


@pytest.mark.usefixtures("project")
def test_the_report_says_that_results_are_cross_validated():
    folder = Path("reports/tiny")
    page, card = ((folder / name).read_text() for name in ("index.html", "model_card.md"))
    assert "<b>Cross-validated.</b> There is no separate test set: each of 64 images is tested once a" in page
    assert "3 folds by patient and by file content" in page
    assert "## Results by cross-validation" in card
    assert 'id="points"' not in page  # sliders of one threshold for all folds
    assert "Thresholds that validation gives" in page
    assert not re.search(r"\bnan\b", page.partition("</style>")[2].partition("<script")[0], re.IGNORECASE)
    joined = pd.read_csv(folder / "predictions.csv")
    assert len(joined) == len(joined.drop_duplicates(["id", "split", "fold"]))
    assert (joined.loc[joined["split"] == "test", "raw/dense/0:pneumonia"].notna()).sum() == 64


@pytest.mark.usefixtures("project")
def test_models_are_explained_on_images_of_their_own_fold():
    for combo in COMBOS:
        gallery = pd.read_csv(explanations_dir("tiny", combo) / "gallery.csv")
        for run in (each for each in RUNS if each.combo == combo):
            table = read_predictions(run)
            own = table[(table["split"] == "test") & (table["fold"] == 0)]
            shown = gallery[gallery["seed"] == run.seed]
            assert len(shown)
            assert set(shown["id"]) <= set(own["id"])


@pytest.mark.usefixtures("copy")
def test_the_same_seed_gives_the_same_bytes():
    run = RUNS[1]
    before = read_all(run_dir(run))
    shutil.rmtree(run_dir(run))
    train(run)
    assert read_all(run_dir(run)) == before


@pytest.mark.usefixtures("copy")
def test_a_packed_report_is_made_again_to_the_byte():
    before = read_all(Path("reports/tiny"))
    call("pack")
    shutil.rmtree("data")
    shutil.rmtree("models")
    call("remake")
    Path("reports/tiny/inputs.tar.xz").unlink()
    assert read_all(Path("reports/tiny")) == before


@pytest.mark.usefixtures("copy")
def test_the_features_of_a_frozen_network_are_computed_once_for_all_folds():
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("models:\n", f"models:\n  mobilenet_frozen: {FROZEN}\n"))
    call("weights", "--model", "mobilenet_frozen")
    train(Run("tiny", "raw", "mobilenet_frozen", 0))
    assert len(list(FEATURE_CACHE_DIR.glob("*.npy"))) == 1


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["export", "model.pneumo", "--run", "raw/dense/0"], "Expected official, to export a model."),
        (["find-rate", "dense", "--combo", "raw"], "Expected official, to choose a recipe by."),
        (["tune", "cnn", "--combo", "raw"], "Expected official, to choose a recipe by."),
    ],
    ids=["export", "find-rate", "tune"],
)
def test_what_folds_cannot_do_says_what_to_do(capsys, command, message):
    assert main(command) == 1
    assert f"split.protocol: {message} Received: folds." in capsys.readouterr().err


@pytest.mark.parametrize(
    "key", ["external: {clinic: elsewhere}", "ensembles: {both: [raw/dense, clahe/dense]}"]
)
def test_further_test_sets_and_ensembles_are_refused(workspace, capsys, key):
    edit_params(workspace, OFFICIAL, FOLDS)
    edit_params(workspace, f"{key.partition(':')[0]}: {{}}", key)
    assert main(["check"]) == 1
    assert "none with split.protocol: folds, or split.protocol: official" in capsys.readouterr().err
