import contextlib
import csv
import io
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hostile import PROCESSED, QUARANTINED, write_hostile_folder, write_hostile_zip
from pneumo.base.config import Run, build, load_group, load_params
from pneumo.base.errors import PneumoError
from pneumo.cli import main
from pneumo.data.decoding import decode_image
from pneumo.preprocessing.combo import apply_steps, parse_combo
from pneumo.stages import audit, compare, download, evaluate, prepare, preprocess
from pneumo.training.recipe import Recipe
from tiny_project import PARAMS, ROOT

TRAIN = ["train", "--combo", "raw", "--model", "dense", "--seed", "0"]
# Chosen on validation, 0.4 is the best threshold; on the test set it errs on one image of each class.
VAL = {0: [0.1, 0.2, 0.3], 1: [0.4, 0.6, 0.8]}
TEST = {0: [0.05, 0.2, 0.3, 0.45], 1: [0.35, 0.42, 0.9]}
# Better than TEST in every way, after a worse validation.
WORSE_VAL = {0: [0.1, 0.2, 0.7], 1: [0.4, 0.6, 0.8]}
PERFECT_TEST = {0: [0.01, 0.02, 0.03, 0.04], 1: [0.96, 0.97, 0.98]}


def make_workspace(root):
    """Fill a folder with conf/ and params.yaml."""
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / "params.yaml").write_text(PARAMS)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Work in a folder with conf/ and params.yaml."""
    make_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def phantom_data(tmp_path_factory):
    """Return data/ as the stages up to preprocess leave it."""
    root = tmp_path_factory.mktemp("phantom")
    make_workspace(root)
    with contextlib.chdir(root):
        params = load_params()
        download.run(params)
        prepare.run(params)
        for combo in params.combos:
            preprocess.run(params, combo)
    return root / "data"


def edit_params(workspace, old, new):
    path = workspace / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def use_local(workspace, path):
    edit_params(
        workspace, "{source: phantom, n_train: 40, n_val: 8, n_test: 16}", f"{{source: local, path: {path}}}"
    )


def find_partials(folder):
    return [path.name for path in folder.rglob("*.partial")]


def tabulate(val, test):
    """Build the content of predictions.csv from class number -> scores of the second class."""
    rows = [
        {
            "id": f"{split}{y_true}-{i}.jpeg",
            "split": split,
            "patient": f"{split}{i}",
            "y_true": y_true,
            "score": score,
        }
        for split, scores in (("val", val), ("test", test))
        for y_true, of_class in scores.items()
        for i, score in enumerate(of_class)
    ]
    table = pd.DataFrame(rows)
    score = table.pop("score")
    return table.assign(p_normal=1 - score, p_pneumonia=score)


def write_run(run, predictions):
    """Write what `train` leaves of a run, but for the model itself."""
    run.model_dir.mkdir(parents=True)
    predictions.to_csv(run.model_dir / "predictions.csv", index=False)
    (run.model_dir / "timing.json").write_text('{"train_s": 7.0, "n_epochs": 1}')
    history = {"phase": ["fit"], "epoch": [1], "loss": [0.7], "accuracy": [0.5], "auc": [0.5]}
    history |= {f"val_{name}": history[name] for name in ("loss", "accuracy", "auc")}
    pd.DataFrame(history).to_csv(run.model_dir / "history.csv", index=False)


def read_metrics(run):
    return json.loads((run.report_dir / "metrics.json").read_text())


def make_printable(name):
    return name.replace("\n", "\\n")


@dataclass(frozen=True)
class Prepared:
    """What download and prepare made of a hostile source; `fates` says what must become of each file."""

    data: Path
    fates: dict[str, str]

    @property
    def manifest(self):
        return pd.read_csv(self.data / "manifest.csv")

    def names(self, fate):
        return {make_printable(name) for name, of_name in self.fates.items() if of_name == fate}


@pytest.fixture(scope="module", params=[write_hostile_folder, write_hostile_zip], ids=["folder", "zip"])
def prepared(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    make_workspace(root)
    source = root / "outside" / "source"
    (source if request.param is write_hostile_folder else source.parent).mkdir(parents=True)
    fates = request.param(source)
    use_local(root, source)
    with contextlib.chdir(root):
        params = load_params()
        download.run(params)
        prepare.run(params)
    return Prepared(root / "data" / "local", fates)


class TestHostileSource:
    def test_every_file_is_processed_or_named(self, prepared):
        with (prepared.data / "exploration/quarantine.csv").open(newline="") as file:
            reasons = {make_printable(row["path"]): row["reason"] for row in csv.DictReader(file)}
        assert set(map(make_printable, prepared.manifest["id"])) == prepared.names(PROCESSED)
        assert set(reasons) == prepared.names(QUARANTINED)
        assert all(reasons.values())
        assert find_partials(prepared.data.parent) == []

    def test_no_patient_and_no_content_is_on_both_sides(self, prepared):
        manifest = prepared.manifest
        assert set(manifest["split"]) == {"train", "val", "test"}
        for key in ("patient", "sha256"):
            assert not manifest[[key, "split"]].drop_duplicates().duplicated(key).any()
        assert ((manifest["split"] == "test") == (manifest["official_split"] == "test")).all()

    def test_odd_files_are_listed(self, prepared):
        exploration = prepared.data / "exploration"
        oddities = pd.read_csv(exploration / "oddities.csv").set_index("id")["reason"]
        assert oddities["train/NORMAL/IM-0905-0001.jpeg"] == "same file as train/NORMAL/IM-0904-0001.jpeg"
        assert "train/NORMAL/black.png" in oddities
        unparsed = pd.read_csv(exploration / "unparsed_names.csv")["id"]
        assert "train/NORMAL/no pattern in this name.jpeg" in set(unparsed)
        assert not unparsed.str.contains("IM-0001").any()


def test_download_says_how_many_files_came(workspace, capsys):
    edit_params(workspace, "n_train: 40, n_val: 8, n_test: 16", "n_train: 6, n_val: 4, n_test: 5")
    download.run(load_params())
    assert capsys.readouterr().out == "Synthetic chest phantoms: 15 files in data/raw/phantom\n"


def test_download_of_a_missing_folder_leaves_what_was_there(workspace):
    old = workspace / "data/raw/local/old.txt"
    old.parent.mkdir(parents=True)
    old.touch()
    use_local(workspace, "nowhere")
    with pytest.raises(PneumoError, match=r"Expected data\.path to exist"):
        download.run(load_params())
    assert old.exists()
    assert find_partials(workspace) == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_prepare_stops_where_a_class_has_no_readable_image(workspace, split):
    source = workspace / "source"
    write_hostile_folder(source)
    for path in (source / split / "PNEUMONIA").iterdir():
        path.write_bytes(b"")
    use_local(workspace, source)
    params = load_params()
    download.run(params)
    with pytest.raises(PneumoError, match=f"readable images in {split}/PNEUMONIA. Received: none"):
        prepare.run(params)
    assert not (workspace / "data/local").exists()


def test_preprocess_writes_row_i_from_image_i(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    params = load_params()
    manifest = pd.read_csv(workspace / "data/phantom/manifest.csv")
    assert len(manifest) == 64
    for combo, steps in params.combos.items():
        images = np.load(workspace / f"data/phantom/{combo}/images.npy")
        assert images.dtype == np.uint8
        assert images.shape == (64, 32, 32, 1)
        parsed = parse_combo(combo, steps, params.image_size_px)
        for i in (0, 31, 63):
            pixels = decode_image((workspace / manifest["path"][i]).read_bytes()).pixels
            np.testing.assert_array_equal(images[i, :, :, 0], apply_steps(pixels, parsed))


def test_preprocess_keeps_the_old_images_where_a_file_is_gone(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    images = workspace / "data/phantom/raw/images.npy"
    old = images.read_bytes()
    manifest = pd.read_csv(workspace / "data/phantom/manifest.csv")
    (workspace / manifest["path"].iloc[-1]).unlink()
    with pytest.raises(FileNotFoundError):
        preprocess.run(load_params(), "raw")
    assert images.read_bytes() == old
    assert find_partials(workspace) == []


def edit_manifest(edit):
    path = Path("data/phantom/manifest.csv")
    edit(pd.read_csv(path)).to_csv(path, index=False)


def test_train_needs_each_class_in_validation(workspace, phantom_data, capsys):
    shutil.copytree(phantom_data, workspace / "data")
    edit_manifest(lambda manifest: manifest[(manifest["split"] != "val") | (manifest["label"] != "normal")])
    assert main(TRAIN) == 1
    assert capsys.readouterr().err.endswith("pneumo: Expected normal images in val. Received: none\n")
    assert not (workspace / "models").exists()


def swap_test_labels(manifest):
    other = manifest["label"].map({"normal": "pneumonia", "pneumonia": "normal"})
    return manifest.assign(label=manifest["label"].where(manifest["split"] != "test", other))


def test_train_does_not_look_at_test_labels(workspace, phantom_data):
    shutil.copytree(phantom_data, workspace / "data")
    folder = workspace / "models/tiny/raw/dense/0"

    def train():
        assert main(TRAIN) == 0
        return pd.read_csv(folder / "history.csv"), pd.read_csv(folder / "predictions.csv")

    history, predictions = train()
    edit_manifest(swap_test_labels)
    swapped_history, swapped_predictions = train()
    pd.testing.assert_frame_equal(swapped_history, history)
    is_test = predictions["split"] == "test"
    predictions.loc[is_test, "y_true"] = 1 - predictions["y_true"]
    pd.testing.assert_frame_equal(swapped_predictions, predictions)
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "model.keras",
        "predictions.csv",
        "timing.json",
    ]


@pytest.mark.usefixtures("workspace")
class TestEvaluate:
    @pytest.fixture
    def run(self):
        run = Run("tiny", "raw", "dense", 0)
        write_run(run, tabulate(VAL, TEST))
        return run

    def test_threshold_comes_from_validation(self, run):
        evaluate.run(load_params(), run)
        result = read_metrics(run)
        assert result["threshold"] == 0.4
        assert (result["n_val"], result["n_test"]) == (6, 7)
        assert result["val"]["accuracy"] == 1
        assert result["test"]["roc_auc"] == pytest.approx(10 / 12)
        at_threshold, at_half = result["test"], result["test_at_0.5"]
        assert at_threshold["sensitivity"] == pytest.approx(2 / 3)
        assert at_threshold["specificity"] == pytest.approx(3 / 4)
        assert at_threshold["accuracy"] == pytest.approx(5 / 7)
        assert at_half["sensitivity"] == pytest.approx(1 / 3)
        assert at_half["specificity"] == 1
        assert at_half["roc_auc"] == at_threshold["roc_auc"]

    def test_test_scores_do_not_move_the_threshold(self, run):
        other = Run("tiny", "clahe", "dense", 0)
        write_run(other, tabulate(VAL, PERFECT_TEST))
        for each in (run, other):
            evaluate.run(load_params(), each)
        assert read_metrics(run)["threshold"] == read_metrics(other)["threshold"]
        assert read_metrics(other)["test"]["accuracy"] == 1
        for key in ("temperature", "val"):
            assert read_metrics(run)[key] == read_metrics(other)[key]
        points = [pd.read_csv(each.report_dir / "operating_points.csv") for each in (run, other)]
        on_val = ["method", "threshold", "sensitivity_val", "specificity_val"]
        pd.testing.assert_frame_equal(points[0][on_val], points[1][on_val])
        assert points[0]["method"].tolist() == ["youden", "sensitivity", "cost", "0.5"]
        assert points[0]["threshold"].tolist() == [0.4, 0.4, 0.4, 0.5]
        assert points[0]["sensitivity"].tolist() == pytest.approx([2 / 3] * 3 + [1 / 3], abs=1e-5)

    def test_threshold_method(self, run, workspace):
        edit_params(workspace, "{method: youden}", "{method: sensitivity, sensitivity: 0.6}")
        evaluate.run(load_params(), run)
        assert read_metrics(run)["threshold"] == 0.6

    def test_files(self, run):
        evaluate.run(load_params(), run)
        confusion = pd.read_csv(run.report_dir / "confusion.csv")
        counts = confusion.value_counts().to_dict()
        assert counts == {
            ("normal", "normal"): 3,
            ("normal", "pneumonia"): 1,
            ("pneumonia", "pneumonia"): 2,
            ("pneumonia", "normal"): 1,
        }
        roc = pd.read_csv(run.report_dir / "roc.csv")
        assert np.trapezoid(roc["sensitivity"], roc["false_positive_rate"]) == pytest.approx(
            10 / 12, abs=1e-4
        )
        assert set(roc["name"]) == {"pneumonia"}
        assert {path.name for path in run.report_dir.iterdir()} == {
            "metrics.json",
            "confusion.csv",
            "roc.csv",
            "precision_recall.csv",
            "confusion.png",
            "roc.png",
            "precision_recall.png",
            "history.png",
            "calibration.csv",
            "calibration.png",
            "operating_points.csv",
            "net_benefit.csv",
            "net_benefit.png",
        }

    def test_twice_gives_the_same_bytes(self, run):
        def run_once():
            evaluate.run(load_params(), run)
            return {path.name: path.read_bytes() for path in run.report_dir.iterdir()}

        assert run_once() == run_once()

    def test_three_classes_have_no_threshold(self, workspace):
        edit_params(workspace, "task: binary", "task: subtype")
        run = Run("tiny", "raw", "dense", 0)
        table = tabulate(VAL, TEST).drop(columns=["p_normal", "p_pneumonia"])
        table["y_true"] = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 2]
        scores = np.eye(3)[table["y_true"]] * 0.6 + 0.4 / 3
        scores[-1] = [0.5, 0.3, 0.2]
        table[["p_normal", "p_bacterial", "p_viral"]] = scores
        write_run(run, table)
        evaluate.run(load_params(), run)
        result = read_metrics(run)
        assert result["threshold"] is None
        assert "test_at_0.5" not in result
        assert result["test"]["accuracy"] == pytest.approx(6 / 7)
        assert result["test"]["per_class"]["viral"]["sensitivity"] == pytest.approx(2 / 3)
        assert result["test"]["per_class"]["bacterial"]["sensitivity"] == 1
        assert set(pd.read_csv(run.report_dir / "roc.csv")["name"]) == {"normal", "bacterial", "viral"}

    @pytest.mark.usefixtures("workspace")
    def test_a_class_without_test_images_leaves_scores_undefined(self, capsys):
        run = Run("tiny", "raw", "dense", 0)
        write_run(run, tabulate(VAL, {0: [], 1: [0.2, 0.8]}))
        evaluate.run(load_params(), run)
        assert capsys.readouterr().out == "raw/dense/0: test ROC AUC undefined, accuracy 0.500\n"
        assert read_metrics(run)["test"]["specificity"] is None


@pytest.fixture(scope="module")
def compared(tmp_path_factory, phantom_data):
    """Compare three of four runs (raw is better on validation, clahe on the test set).

    Returns:
        The project's folder, and what compare printed.
    """
    root = tmp_path_factory.mktemp("compared")
    make_workspace(root)
    shutil.copytree(phantom_data, root / "data")
    edit_params(root, "seeds: [0]", "seeds: [0, 1]")
    with contextlib.chdir(root):
        params = load_params()
        for combo, seed, predictions in (
            ("raw", 0, tabulate(VAL, TEST)),
            ("raw", 1, tabulate(VAL, PERFECT_TEST)),
            ("clahe", 0, tabulate(WORSE_VAL, PERFECT_TEST)),
            ("removed", 0, tabulate(VAL, PERFECT_TEST)),
        ):
            run = Run("tiny", combo, "dense", seed)
            write_run(run, predictions)
            evaluate.run(params, run)
        audit.run(params)
        with contextlib.redirect_stdout(io.StringIO()) as output:
            compare.run(params)
    return root, output.getvalue()


class TestCompare:
    @pytest.fixture
    def report(self, compared, monkeypatch):
        root, _ = compared
        monkeypatch.chdir(root)
        return root / "reports" / "tiny"

    def test_missing_runs_are_named(self, compared, report):
        _, output = compared
        assert output == "3 of 4 runs compared: reports/tiny/index.html\nno result: clahe/dense/1\n"
        page = (report / "index.html").read_text()
        assert "<strong>1 runs have no result</strong>" in page
        assert "clahe/dense/1" in page

    def test_leaderboard_is_ordered_by_validation(self, report):
        leaderboard = pd.read_csv(report / "leaderboard.csv")
        assert leaderboard["combo"].tolist() == ["raw", "clahe"]
        assert leaderboard["n_seeds"].tolist() == [2, 1]
        assert leaderboard["roc_auc"].tolist() == pytest.approx([(10 / 12 + 1) / 2, 1], abs=1e-5)
        assert (leaderboard["roc_auc_low"] < leaderboard["roc_auc"] + 1e-9).all()
        assert leaderboard["verdict"][0] == "reference"
        assert leaderboard["val_roc_auc"].tolist() == pytest.approx([1, 7 / 9], abs=1e-5)

    def test_runs_have_a_row_each(self, report):
        runs = pd.read_csv(report / "runs.csv")
        assert runs[["combo", "model", "seed"]].to_numpy().tolist() == [
            ["raw", "dense", 0],
            ["raw", "dense", 1],
            ["clahe", "dense", 0],
        ]
        assert runs["threshold"][0] == 0.4
        assert runs["specificity"][0] == pytest.approx(3 / 4)
        assert runs["specificity_at_0.5"][0] == 1

    def test_classes_have_a_row_each(self, report):
        table = pd.read_csv(report / "classes.csv").set_index(["combo", "class"])
        leaderboard = pd.read_csv(report / "leaderboard.csv").set_index("combo")
        for combo in ("raw", "clahe"):
            sensitivity = table.loc[(combo, "pneumonia"), "sensitivity"]
            assert sensitivity == pytest.approx(leaderboard.loc[combo, "sensitivity"], abs=1e-5)
            specificity = table.loc[(combo, "normal"), "sensitivity"]
            assert specificity == pytest.approx(leaderboard.loc[combo, "specificity"], abs=1e-5)

    def test_histories_of_all_runs_stand_below_each_other(self, report):
        history = pd.read_csv(report / "history.csv")
        assert history.columns[:5].tolist() == ["combo", "model", "seed", "phase", "epoch"]
        assert history[["combo", "seed"]].drop_duplicates().to_numpy().tolist() == [
            ["raw", 0],
            ["raw", 1],
            ["clahe", 0],
        ]

    def test_summary(self, report):
        summary = json.loads((report / "summary.json").read_text())
        assert list(summary) == ["phantom"]
        assert summary["phantom"]["clahe"]["dense"] == {
            "roc_auc": 1.0,
            "accuracy": 1.0,
            "sensitivity": 1.0,
            "specificity": 1.0,
        }
        assert summary["phantom"]["raw"]["dense"]["roc_auc"] == round((10 / 12 + 1) / 2, 4)

    def test_predictions_of_all_runs_stand_side_by_side(self, report):
        table = pd.read_csv(report / "predictions.csv")
        columns = ["raw/dense/0:pneumonia", "raw/dense/1:pneumonia", "clahe/dense/0:pneumonia"]
        assert list(table) == ["id", "split", "patient", "y_true", *columns]
        assert table[columns[0]].tolist() == [
            score for part in (VAL, TEST) for y in part for score in part[y]
        ]

    def test_page_holds_its_pictures(self, report):
        page = (report / "index.html").read_text()
        assert len(re.findall(r'<img src="data:image/png;base64,iVBOR', page)) == page.count("<img ") == 10
        assert "Synthetic data." in page
        assert "removed" not in page
        assert find_partials(report) == []

    def test_plots_name_model_and_combo(self, report):
        bars = pd.read_csv(report / "plots/bars.csv")
        assert bars["run"].tolist() == ["dense / clahe", "dense / raw"]
        for kind in ("roc", "confusion"):
            names = {path.name for path in (report / "plots" / kind).iterdir()}
            assert names == {"dense_raw.csv", "dense_clahe.csv"}
        assert len(pd.read_csv(report / "plots/confusion/dense_raw.csv")) == 14

    def test_twice_gives_the_same_bytes(self, report):
        def read_all():
            return {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}

        first = read_all()
        compare.run(load_params())
        assert read_all() == first

    def test_no_run_at_all_is_an_error(self, workspace, phantom_data):
        shutil.copytree(phantom_data, workspace / "data")
        with pytest.raises(PneumoError, match=r"results of at least one run\. Received: none"):
            compare.run(load_params())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, phantom_data):
    """Return a project with one small trained network on `raw`, and one on `clahe` that was not trained."""
    root = tmp_path_factory.mktemp("trained")
    make_workspace(root)
    shutil.copytree(phantom_data, root / "data")
    edit_params(
        root,
        "dense: {network: {input_size_px: 32, units: [8]}, phases: {fit: {epochs: 2}}}",
        "cnn: {network: {input_size_px: 32, filters: [4], units: [4]}, phases: {fit: {epochs: 1}}}",
    )
    with contextlib.chdir(root):
        assert main(["train", "--combo", "raw", "--model", "cnn", "--seed", "0"]) == 0
    return root


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestExternal:
    @pytest.fixture
    def elsewhere(self, trained, tmp_path, monkeypatch):
        """Work in a copy of the trained project; return a set of the test images and one training image."""
        root = tmp_path / "project"
        shutil.copytree(trained, root)
        monkeypatch.chdir(root)
        source = root / "data/raw/phantom"
        folder = tmp_path / "elsewhere"
        for class_folder in ("NORMAL", "PNEUMONIA"):
            shutil.copytree(source / "test" / class_folder, folder / "hospital" / class_folder.lower())
        manifest = pd.read_csv("data/phantom/manifest.csv")
        learnt = manifest[(manifest["split"] == "train") & (manifest["label"] == "normal")]["path"].iloc[0]
        shutil.copyfile(learnt, folder / "hospital/normal/another_name.png")
        (folder / "hospital/normal/notes.txt").write_text("no image")
        edit_params(root, "external: {}", f"external: {{elsewhere: {folder}}}")
        return folder

    @pytest.mark.usefixtures("elsewhere")
    def test_predictions_are_those_of_the_model(self):
        assert main(["external", "--combo", "raw"]) == 0
        found = pd.read_csv("reports/tiny/external/raw/elsewhere/cnn_0.csv")
        own = pd.read_csv("models/tiny/raw/cnn/0/predictions.csv")
        own = own[own["split"] == "test"]
        assert sorted(found["p_pneumonia"]) == pytest.approx(sorted(own["p_pneumonia"]), abs=1e-5)
        assert sorted(found["patient"]) == sorted(own["patient"])

    @pytest.mark.usefixtures("elsewhere")
    def test_what_was_learnt_from_is_set_aside(self):
        assert main(["external", "--combo", "raw"]) == 0
        set_aside = pd.read_csv("reports/tiny/external/raw/elsewhere/set_aside.csv")
        assert dict(zip(set_aside["path"], set_aside["reason"], strict=True)) == {
            "test/NORMAL/hospital/another_name.png": "its content is among the training or validation images",
            "test/NORMAL/hospital/notes.txt": "not an image file by its name",
        }

    @pytest.mark.usefixtures("elsewhere")
    def test_the_page_shows_it_beside_the_official_test_set(self):
        params = load_params()
        run = Run("tiny", "raw", "cnn", 0)
        evaluate.run(params, run)
        audit.run(params)
        for name in ("explain", "external"):
            assert main([name, "--combo", "raw"]) == 0
        compare.run(params)
        external = pd.read_csv("reports/tiny/external.csv")
        leaderboard = pd.read_csv("reports/tiny/leaderboard.csv")
        assert external[["name", "combo", "model", "n_images"]].to_numpy().tolist() == [
            ["elsewhere", "raw", "cnn", 16]
        ]
        # The set holds the same images, so the scores are the same too.
        for metric in ("roc_auc", "accuracy", "sensitivity", "specificity"):
            assert external[metric][0] == pytest.approx(leaderboard[metric][0], abs=1e-4)
        page = Path("reports/tiny/index.html").read_text()
        assert "elsewhere: 16 images" in page
        assert "raw/cnn/0: test images and what spoke for each decision" in page

    def test_a_set_without_one_class_is_an_error(self, elsewhere, capsys):
        shutil.rmtree(elsewhere / "hospital/pneumonia")
        assert main(["external", "--combo", "raw"]) == 1
        assert "external.elsewhere: Expected images in a folder PNEUMONIA" in capsys.readouterr().err

    def test_without_sets_there_is_an_empty_folder(self, trained, monkeypatch):
        monkeypatch.chdir(trained)
        assert main(["external", "--combo", "raw"]) == 0
        assert list(Path("reports/tiny/external/raw").iterdir()) == []


class TestTune:
    RANGES = """\
n_trials: 3
ranges:
  phases.fit.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
  network.units: {choices: [[4], [8]]}
"""

    @pytest.fixture
    def project(self, workspace, phantom_data):
        shutil.copytree(phantom_data, workspace / "data")
        (workspace / "conf/tune/dense.yaml").write_text(self.RANGES)
        return workspace

    @pytest.mark.usefixtures("project")
    def test_the_best_recipe_is_written_and_can_be_trained(self, capsys):
        assert main(["tune", "dense", "--combo", "raw"]) == 0
        assert "trial 3 of 3: " in capsys.readouterr().out
        trials = pd.read_csv("reports/tiny/tuning/dense/trials.csv")
        assert trials["state"].tolist() == ["complete"] * 3
        best = trials[trials["value"] == trials["value"].max()]  # so few images make ties
        text = Path("conf/model/dense_tuned.yaml").read_text()
        assert f"validation score of {trials['value'].max():.4f}" in text
        recipe = build(Recipe, load_group("model", "dense_tuned"), "tuned")
        is_it = (
            best["phases.fit.learning_rate"].map("{:.6g}".format)
            == f"{recipe.phases['fit'].learning_rate:.6g}"
        )
        assert recipe.network.units == json.loads(best.loc[is_it, "network.units"].item())
        for name in ("history.png", "importance.png"):
            assert Path("reports/tiny/tuning/dense", name).read_bytes().startswith(b"\x89PNG")

    @pytest.mark.usefixtures("project")
    def test_the_same_seed_gives_the_same_bytes(self):
        def tune(storage):
            assert main(["tune", "dense", "--combo", "raw", "--storage", f"sqlite:///{storage}.db"]) == 0
            return read_all(Path("reports/tiny/tuning")), Path("conf/model/dense_tuned.yaml").read_bytes()

        assert tune("first") == tune("second")

    @pytest.mark.usefixtures("project")
    def test_a_finished_study_is_not_run_again(self, capsys):
        for _ in range(2):
            assert main(["tune", "dense", "--combo", "raw"]) == 0
        assert capsys.readouterr().out.count("trial 3 of 3") == 1

    def test_the_test_set_is_not_looked_at(self, project):
        assert main(["tune", "dense", "--combo", "raw"]) == 0
        first = read_all(project / "reports/tiny/tuning")
        shutil.rmtree(project / "models/.tuning")
        edit_manifest(swap_test_labels)
        assert main(["tune", "dense", "--combo", "raw"]) == 0
        assert read_all(project / "reports/tiny/tuning") == first

    def test_a_recipe_without_ranges_is_named(self, project, capsys):
        (project / "conf/tune/dense.yaml").unlink()
        assert main(["tune", "dense", "--combo", "raw"]) == 1
        assert "Expected one of the files in conf/tune/" in capsys.readouterr().err


class TestFindRate:
    def test_the_loss_is_plotted_over_rates(self, trained, monkeypatch, capsys):
        monkeypatch.chdir(trained)
        assert main(["find-rate", "cnn", "--combo", "raw"]) == 0
        assert "suggests itself, the recipe has 0.001" in capsys.readouterr().out
        table = pd.read_csv("reports/tiny/learning_rate/cnn_fit/rates.csv")
        assert table["learning_rate"].is_monotonic_increasing
        assert table["learning_rate"][0] == pytest.approx(1e-6)
        assert Path("reports/tiny/learning_rate/cnn_fit/rates.png").is_file()

    def test_an_unknown_phase_is_named(self, trained, monkeypatch, capsys):
        monkeypatch.chdir(trained)
        assert main(["find-rate", "cnn", "--combo", "raw", "--phase", "head"]) == 1
        assert "--phase: Expected one of fit. Received: 'head'" in capsys.readouterr().err
