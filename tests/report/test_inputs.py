import numpy as np
import pandas as pd
import pytest
from small_report import GREY, make_params, make_sheet

from pneumo.base.paths import explanations_dir
from pneumo.report.inputs import choose_galleries, find_reference, read_galleries

RUNS = [
    (combo, model, seed) for combo in ("raw", "equalize") for model in ("cnn", "dense") for seed in (0, 1)
]
GALLERY = pd.DataFrame(
    {
        "group": ["certain and right", "undecided"],
        "id": ["test/1.jpeg", "test/2.jpeg"],
        "actual": ["normal", "normal"],
        "predicted": ["normal", "pneumonia"],
        "probability": [0.99, 0.51],
        "attention_outside": [0.3, 0.4],
        "maps": "Grad-CAM, occlusion",
    }
)


@pytest.fixture
def explained(tmp_path, monkeypatch):
    """Write what `explain` keeps of two runs of one combo."""
    monkeypatch.chdir(tmp_path)
    folder = explanations_dir("small", "raw")
    folder.mkdir(parents=True)
    for seed, brightness in ((0, 1), (1, 2)):
        (folder / f"cnn_{seed}.webp").write_bytes(make_sheet(np.tile(GREY // brightness, (2, 3))))
    tables = [GALLERY.assign(model="cnn", seed=seed, probability=[0.9, seed / 10]) for seed in (0, 1)]
    pd.concat(tables).to_csv(folder / "gallery.csv", index=False)


@pytest.mark.usefixtures("explained")
def test_galleries_are_read_with_the_rows_of_their_run():
    first, second = read_galleries(make_params(), [("raw", "cnn", 0), ("raw", "cnn", 1)])
    assert (first.run, second.run) == ("raw/cnn/0", "raw/cnn/1")
    assert [len(gallery.images) for gallery in (first, second)] == [2, 2]
    assert second.images[1].caption == "normal, called pneumonia (0.10)"
    assert list(first.images[0].maps) == ["Grad-CAM", "occlusion"]
    assert first.images[0].plain.address != second.images[0].plain.address


@pytest.mark.usefixtures("explained")
def test_runs_that_were_not_explained_are_left_out():
    (gallery,) = read_galleries(
        make_params(), [("equalize", "cnn", 0), ("raw", "cnn", 0), ("raw", "dense", 0)]
    )
    assert gallery.run == "raw/cnn/0"


def test_one_gallery_a_model_of_its_best_combo():
    leaderboard = pd.DataFrame(
        [("equalize", "dense"), ("raw", "dense"), ("raw", "cnn"), ("equalize", "cnn")],
        columns=["combo", "model"],
    )
    assert choose_galleries(leaderboard, RUNS) == [("equalize", "dense", 0), ("raw", "cnn", 0)]


def test_there_are_only_so_many_galleries():
    leaderboard = pd.DataFrame({"combo": "raw", "model": [f"m{i}" for i in range(30)]})
    assert len(choose_galleries(leaderboard, [("raw", f"m{i}", 0) for i in range(30)])) == 6


def test_the_reference_is_the_first_combo_without_steps():
    assert find_reference(make_params()) == "raw"
    assert find_reference(make_params(combos={"a": ["equalize"], "plain": [], "b": []})) == "plain"
    assert find_reference(make_params(combos={"a": ["equalize"], "b": ["clahe"]})) == "a"
