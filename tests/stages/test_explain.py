"""The stage explain, on networks whose answers are known."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from import_graph import PACKAGE, imported_rooms
from pneumo.audit import attribution, regions, scorers, stress
from pneumo.cli import main
from tiny_project import PARAMS, ROOT

SIZE_PX = 32
N = 120
WEIGHTS = (9, -4.5)  # of the mean grey value, and the bias
FOLDER = "reports/tiny/explanations/raw"
TWO_MODELS = PARAMS.replace("seeds: [0]", "seeds: [0, 1]").replace(
    "models:\n", "models:\n  cnn: {}\n"
)  # cnn and dense, two seeds each


def build_network(n_classes, weight, bias):
    """Build a network with convolutions; the logit of two classes grows with the mean grey value."""
    inputs = keras.Input((SIZE_PX, SIZE_PX, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(2, 1)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if n_classes == 2:
        outputs = keras.layers.Dense(1, activation="sigmoid", name="probability")(x)
        kernel, offsets = np.array([[weight], [0.0]]), np.array([bias])
    else:
        outputs = keras.layers.Dense(n_classes, activation="softmax", name="probability")(x)
        kernel, offsets = np.array([[-weight, 0.0, weight], [0.0] * 3]), np.array([-bias, 0.0, bias])
    model = keras.Model(inputs, outputs)
    model.set_weights([np.array([[[[1.0, 0.5]]]]), np.zeros(2), kernel, offsets])
    return model


def make_data():
    """Return a manifest and images; those with pneumonia are brighter, mostly in the thorax."""
    generator = np.random.default_rng(0)
    y_true = np.arange(N) % 2
    manifest = pd.DataFrame(
        {
            "id": [f"i{i:03}" for i in range(N)],
            "split": np.array(["train", "val", "val", "test", "test"])[np.arange(N) // 2 % 5],
            "patient": [f"p{i:03}" for i in range(N)],
        }
    )
    images = generator.normal(110, 12, (N, 1, 1)) + generator.normal(0, 20, (N, SIZE_PX, SIZE_PX))
    images += 25 * y_true[:, None, None] * regions.find_thorax(SIZE_PX)
    return manifest, np.clip(images, 0, 255).astype(np.uint8)[..., None], y_true


def write_run(model, seed, network, manifest, images, y_true):
    """Write what `train` leaves of a run, as far as `explain` reads it."""
    folder = Path("models", "tiny", "raw", model, str(seed))
    folder.mkdir(parents=True)
    network.save(folder / "model.keras")
    probabilities = network.predict(images, verbose=0)
    if probabilities.shape[1] == 1:
        probabilities = np.hstack([1 - probabilities, probabilities])
    names = ("normal", "pneumonia") if probabilities.shape[1] == 2 else ("normal", "bacterial", "viral")
    table = manifest.assign(y_true=y_true)
    for number, name in enumerate(names):
        table[f"p_{name}"] = probabilities[:, number]
    table[table["split"] != "train"].to_csv(folder / "predictions.csv", index=False, float_format="%.9g")


def write_project(root, params, runs, n_classes=2):
    """Write a project with the given runs, (model, seed) -> (weight, bias) of its network."""
    shutil.copytree(ROOT / "conf", root / "conf")
    (root / "params.yaml").write_text(params)
    manifest, images, y_true = make_data()
    if n_classes == 3:
        y_true = np.where(y_true == 0, 0, 1 + np.arange(N) // 10 % 2)
    with contextlib.chdir(root):
        folder = root / "data/phantom/raw"
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", images)
        manifest.to_csv("data/phantom/manifest.csv", index=False)
        for (model, seed), weights in runs.items():
            write_run(model, seed, build_network(n_classes, *weights), manifest, images, y_true)


def read_all(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Explain two seeds of one model and one of another; return the project's folder, stdout and stderr."""
    root = tmp_path_factory.mktemp("explained")
    write_project(root, TWO_MODELS, {("cnn", 0): WEIGHTS, ("cnn", 1): (5, -3), ("dense", 1): (-3, 1)})
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["explain", "--combo", "raw"]) == 0
    return root, out.getvalue(), err.getvalue()


@pytest.fixture
def finished(explained, monkeypatch):
    """Work in the project that was explained; for reading only."""
    monkeypatch.chdir(explained[0])
    return explained[0]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Work in a project with one network."""
    write_project(tmp_path, PARAMS.replace("dense:", "cnn:"), {("cnn", 0): WEIGHTS})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(name):
    return pd.read_csv(f"{FOLDER}/{name}.csv")


def predict(weight, bias, pixels):
    """Compute the probability of pneumonia by hand."""
    logits = weight * pixels.reshape(len(pixels), -1).mean(axis=1) / 255 + bias
    return 1 / (1 + np.exp(-logits))


def choose_naively(y_true, scores):
    """Return the highest threshold of the greatest sensitivity + specificity."""
    return max(
        sorted(set(scores)),
        key=lambda t: (round((scores[y_true == 1] >= t).mean() + (scores[y_true == 0] < t).mean(), 9), t),
    )


def split_data(split):
    manifest, images, y_true = make_data()
    rows = (manifest["split"] == split).to_numpy()
    return manifest[rows], images[rows, ..., 0], y_true[rows]


@pytest.mark.usefixtures("finished")
class TestTables:
    def test_every_run_has_its_rows(self):
        runs = {("cnn", 0), ("cnn", 1), ("dense", 1)}
        for name, n_rows in (("probes", 6), ("gallery", None), ("stress", 16)):
            counts = read(name).groupby(["model", "seed"]).size()
            assert set(counts.index) == runs
            assert n_rows is None or set(counts) == {n_rows}
        assert list(read("gallery")) == [
            "group", "id", "actual", "predicted", "probability", "attention_outside", "maps", "model", "seed",
        ]  # fmt: skip
        assert list(read("stress")) == ["change", *stress.METRICS, "model", "seed"]

    def test_views_are_scored_on_test_images_without_the_part(self):
        _, pixels, y_true = split_data("test")
        table = read("probes").set_index(["model", "seed", "check"])["value"]
        for view, change in (
            ("as_is", lambda image: image),
            ("without_thorax", regions.blank_thorax),
            ("thorax_only", regions.keep_thorax),
            ("without_markers", regions.erase_markers),
        ):
            scores = predict(*WEIGHTS, np.array([change(image) for image in pixels]))
            assert table["cnn", 0, view] == pytest.approx(roc_auc_score(y_true, scores), abs=1e-5)
        assert table["cnn", 0, "as_is"] > 0.8
        assert table["dense", 1, "as_is"] < 0.2
        assert 0.3 < table["cnn", 0, "without_thorax"] < 0.7

    def test_attention_is_where_images_are_bright(self):
        """Grad-CAM of this network is the image itself, so its share outside is the image's."""
        _, pixels, _ = split_data("test")
        shares = [regions.score_outside(image.astype(float)) for image in pixels]
        table = read("probes").set_index(["model", "seed", "check"]).loc[("cnn", 0)]
        assert table.loc["attention_outside", "value"] == pytest.approx(np.mean(shares), abs=0.03)
        assert table.loc["attention_outside", ["low", "high"]].notna().all()
        assert table.loc["map_correlation", "value"] == pytest.approx(1, abs=1e-3)
        assert table.loc["map_correlation", "is_problem"]

    def test_seeds_are_averaged(self):
        table = read("probes_by_model").set_index(["model", "check"])
        own = read("probes").query("model == 'cnn' and check == 'as_is'")["value"]
        assert table.loc[("cnn", "as_is"), "value"] == pytest.approx(own.mean(), abs=1e-5)
        assert table["n_seeds"].to_dict()["cnn", "as_is"] == 2
        assert table["n_seeds"].to_dict()["dense", "as_is"] == 1

    def test_the_gallery_is_decided_at_the_threshold_of_validation(self):
        _, val_pixels, val_y_true = split_data("val")
        test, pixels, y_true = split_data("test")
        scores = predict(*WEIGHTS, pixels)
        threshold = choose_naively(val_y_true, predict(*WEIGHTS, val_pixels))
        assert abs(threshold - 0.5) > 0.01
        table = read("gallery").query("model == 'cnn' and seed == 0")
        at = [test["id"].tolist().index(each) for each in table["id"]]
        called = np.where(scores[at] >= threshold - 1e-6, "pneumonia", "normal")
        assert table["predicted"].tolist() == called.tolist()
        assert table["actual"].tolist() == np.where(y_true[at] == 1, "pneumonia", "normal").tolist()
        expected = np.where(called == "pneumonia", scores[at], 1 - scores[at])
        np.testing.assert_allclose(table["probability"], expected, atol=1e-5)
        is_right = table["actual"] == table["predicted"]
        assert is_right[table["group"] == "certain and right"].all()
        assert not is_right[table["group"] == "certain and wrong"].any()

    def test_pictures_are_in_the_order_of_the_table(self):
        manifest, images, _ = make_data()
        for model, seed in (("cnn", 0), ("dense", 1)):
            table = read("gallery").query(f"model == '{model}' and seed == {seed}")
            rows = [manifest["id"].tolist().index(each) for each in table["id"]]
            assert set(table["maps"]) == {"Grad-CAM, occlusion"}
            sheet = cv2.imread(f"{FOLDER}/{model}_{seed}.webp", cv2.IMREAD_GRAYSCALE)
            pictures = sheet.reshape(len(rows), SIZE_PX, 3, SIZE_PX).swapaxes(1, 2)
            distances = np.abs(pictures[:, None, 0].astype(float) - images[rows, ..., 0]).mean(axis=(2, 3))
            assert distances.argmin(axis=1).tolist() == list(range(len(rows)))
            outside = [regions.score_outside(each.astype(float)) for each in pictures[:, 1]]
            np.testing.assert_allclose(outside, table["attention_outside"], atol=0.05, equal_nan=True)

    def test_stress_is_scored_at_the_threshold_of_validation(self):
        _, pixels, y_true = split_data("val")
        threshold = choose_naively(y_true, predict(*WEIGHTS, pixels))
        table = read("stress").query("model == 'cnn' and seed == 0").set_index("change")
        for name, change in {
            "none": lambda image: image,
            **stress.load_changes(ROOT / "conf/stress.yaml"),
        }.items():
            scores = predict(*WEIGHTS, np.array([change(image) for image in pixels]))
            called = scores >= threshold - 1e-6
            assert table.loc[name, "roc_auc"] == pytest.approx(roc_auc_score(y_true, scores), abs=1e-5)
            assert table.loc[name, "sensitivity"] == pytest.approx(called[y_true == 1].mean(), abs=1e-5)
            assert table.loc[name, "specificity"] == pytest.approx(1 - called[y_true == 0].mean(), abs=1e-5)
        assert table.loc["darker", "sensitivity"] < table.loc["none", "sensitivity"]


def test_runs_without_a_network_are_named(explained):
    _, out, err = explained
    assert out == (
        "raw/cnn/0: explained\nraw/cnn/1: explained\n"
        "raw/dense/0: skipped, it has no model.keras\nraw/dense/1: explained\n"
    )
    assert "explain raw: " in err


def test_twice_gives_the_same_bytes(finished):
    first = read_all(finished / FOLDER)
    assert main(["explain", "--combo", "raw"]) == 0
    assert read_all(finished / FOLDER) == first
    assert {path.suffix for path in first} == {".csv", ".webp"}


def test_a_combo_without_models_is_an_error(project, capsys):
    shutil.copytree(project / "data/phantom/raw", project / "data/phantom/clahe")
    assert main(["explain", "--combo", "clahe"]) == 1
    assert "Expected a trained model of clahe. Received: none." in capsys.readouterr().err


def test_stressed_images_are_never_test_images(project):
    assert main(["explain", "--combo", "raw"]) == 0
    first = read_all(project / FOLDER)
    path = project / "data/phantom/raw/images.npy"
    images = np.load(path)
    is_test = (pd.read_csv("data/phantom/manifest.csv")["split"] == "test").to_numpy()
    images[is_test] = 255 - images[is_test]
    np.save(path, images)
    predictions = project / "models/tiny/raw/cnn/0/predictions.csv"
    table = pd.read_csv(predictions)
    table.loc[table["split"] == "test", "y_true"] = 1 - table["y_true"]
    table.to_csv(predictions, index=False, float_format="%.9g")
    assert main(["explain", "--combo", "raw"]) == 0
    changed = {str(name) for name, content in read_all(project / FOLDER).items() if content != first[name]}
    assert changed == {"probes.csv", "probes_by_model.csv", "gallery.csv", "cnn_0.webp"}


def test_the_threshold_is_that_of_params(project):
    params = project / "params.yaml"
    assert main(["explain", "--combo", "raw"]) == 0
    youden = read("stress")
    params.write_text(
        params.read_text().replace("{method: youden}", "{method: sensitivity, sensitivity: 1.0}")
    )
    assert main(["explain", "--combo", "raw"]) == 0
    # The threshold is the lowest score of 24 cases; predicted again, that image may score 1e-8 less.
    assert read("stress")["sensitivity"][0] >= 1 - 1 / 24 - 1e-6
    assert read("stress")["sensitivity"][0] > youden["sensitivity"][0]
    assert read("stress")["specificity"][0] < youden["specificity"][0]


@pytest.mark.parametrize(
    "edit",
    [
        lambda table: table.assign(id="x" + table["id"]),
        lambda table: table.assign(split=table["split"].map({"val": "test", "test": "val"})),
    ],
    ids=["unknown id", "other split"],
)
def test_predictions_of_other_images_are_refused(project, edit, capsys):
    path = project / "models/tiny/raw/cnn/0/predictions.csv"
    edit(pd.read_csv(path)).to_csv(path, index=False)
    assert main(["explain", "--combo", "raw"]) == 1
    assert re.search(r"raw/cnn/0: Expected predictions for the manifest's images", capsys.readouterr().err)
    assert not (project / FOLDER).exists()


@pytest.mark.usefixtures("project")
def test_nothing_is_computed_that_is_not_used(monkeypatch):
    """Occlusion is drawn for the gallery alone, and no image is scored beyond those that are needed."""
    counts = {"occluded": 0, "scored": 0}
    occlude, score = attribution.map_occlusion, attribution.score_images

    def count_occluded(scorer, images, classes):
        counts["occluded"] += len(images)
        return occlude(scorer, images, classes)

    def count_scored(scorer, images):
        counts["scored"] += len(images)
        return score(scorer, images)

    monkeypatch.setattr(attribution, "map_occlusion", count_occluded)
    monkeypatch.setattr(attribution, "score_images", count_scored)
    assert main(["explain", "--combo", "raw"]) == 0
    n_shown = len(read("gallery"))
    n_val, n_test = (len(split_data(split)[0]) for split in ("val", "test"))
    assert counts["occluded"] == n_shown
    n_stressed = 14 * n_val
    assert counts["scored"] == n_stressed + 4 * n_test + n_shown * (1 + 64)


@pytest.mark.usefixtures("project")
def test_only_the_last_maps_are_of_shuffled_weights(monkeypatch):
    calls = []

    def spy(module, name):
        function = getattr(module, name)

        def call(*arguments, **keywords):
            calls.append(name)
            return function(*arguments, **keywords)

        monkeypatch.setattr(module, name, call)

    for module, name in (
        (attribution, "draw_maps"),
        (attribution, "score_views"),
        (attribution, "draw_first_map"),
        (scorers, "shuffle_weights"),
    ):
        spy(module, name)
    assert main(["explain", "--combo", "raw"]) == 0
    assert calls == ["draw_maps", "score_views", "draw_first_map", "shuffle_weights", "draw_first_map"]


def test_one_loader_opens_all_networks(tmp_path, monkeypatch):
    """It builds once what seeds have in common."""
    write_project(
        tmp_path, TWO_MODELS, {(model, seed): WEIGHTS for model in ("cnn", "dense") for seed in (0, 1)}
    )
    monkeypatch.chdir(tmp_path)
    calls = []
    load = scorers.ScorerLoader.load
    monkeypatch.setattr(
        scorers.ScorerLoader, "load", lambda loader, path: calls.append((loader, path)) or load(loader, path)
    )
    assert main(["explain", "--combo", "raw"]) == 0
    loaders, paths = zip(*calls, strict=True)
    assert all(loader is loaders[0] for loader in loaders)
    assert [path.parts[-3:-1] for path in paths] == [
        ("cnn", "0"),
        ("cnn", "1"),
        ("dense", "0"),
        ("dense", "1"),
    ]


def test_three_classes_have_no_threshold(tmp_path, monkeypatch):
    params = PARAMS.replace("dense:", "cnn:").replace("task: binary", "task: subtype")
    write_project(tmp_path, params, {("cnn", 0): WEIGHTS}, n_classes=3)
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "--combo", "raw"]) == 0
    predictions = pd.read_csv("models/tiny/raw/cnn/0/predictions.csv").set_index("id")
    gallery = read("gallery")
    columns = ["p_normal", "p_bacterial", "p_viral"]
    best = predictions.loc[gallery["id"], columns].to_numpy().argmax(axis=1)
    assert gallery["predicted"].tolist() == np.array(["normal", "bacterial", "viral"])[best].tolist()
    assert read("stress")["balanced_accuracy"].between(0, 1).all()


def test_the_stage_depends_on_no_more_than_it_needs():
    rooms = imported_rooms(PACKAGE / "stages" / "explain.py")
    assert rooms <= {"audit", "evaluation", "data", "base"}
