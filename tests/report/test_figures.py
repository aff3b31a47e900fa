import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.text import Text

from pneumo.report import figures

TITLE = "Synthetic chest phantoms"
MANIFEST = pd.DataFrame(
    {
        "split": ["train"] * 5 + ["val"] * 2 + ["test"] * 3,
        "subtype": ["normal", "bacterial", *["viral"] * 3, "normal", *["viral"] * 2, *["normal"] * 2],
        "label": ["normal", *["pneumonia"] * 4, "normal", *["pneumonia"] * 2, *["normal"] * 2],
        "width": np.arange(100, 200, 10),
        "height": np.arange(120, 140, 2),
    }
)
COUNTS = pd.DataFrame([[8, 2], [0, 0]], ["normal", "pneumonia"], ["normal", "pneumonia"])
ROC = pd.DataFrame({"false_positive_rate": [0, 0, 1], "sensitivity": [0, 0.7, 1]})
PRECISION_RECALL = pd.DataFrame({"recall": [1, 0.5, 0], "precision": [0.6, 0.8, 1]})
HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "loss": [0.7, 0.5, 0.4],
        "val_loss": [0.8, 0.6, 0.65],
        "auc": [0.6, 0.8, 0.9],
        "val_auc": [0.55, 0.7, 0.75],
    }
)
LEADERBOARD = pd.DataFrame(
    {
        "combo": ["raw", "clahe", "raw"],
        "model": ["cnn", "cnn", "dense"],
        "roc_auc": [0.9, 0.8, 0.7],
        "roc_auc_low": [0.85, 0.8, 0.6],
        "roc_auc_high": [0.95, 0.8, 0.75],
    }
)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)

BINS = pd.DataFrame({"n": [5, 5], "predicted": [0.2, 0.7], "observed": [0.4, 0.6]})
BENEFIT = pd.DataFrame({"threshold": [0.1, 0.5], "model": [0.4, 0.2], "all": [0.4, -0.2], "none": [0.0, 0.0]})
RATES = pd.DataFrame(
    {"learning_rate": [0.01, 0.1], "loss": [0.7, 0.4], "smoothed": [0.7, 0.5], "settled": True}
)
TRIALS = pd.DataFrame(
    {"number": [0, 2, 1], "state": ["complete", "pruned", "complete"], "value": [0.7, 0.5, 0.6]}
)
DRAW = {
    "plot_class_counts": lambda: figures.plot_class_counts(MANIFEST, TITLE),
    "plot_image_sizes": lambda: figures.plot_image_sizes(MANIFEST, TITLE),
    "plot_image_grid": lambda: figures.plot_image_grid(IMAGES, ["raw", "clahe"], ["a", "b", "c"], TITLE),
    "plot_roc_curves": lambda: figures.plot_roc_curves({"raw": ROC, "clahe": ROC}, TITLE),
    "plot_precision_recall_curves": lambda: figures.plot_precision_recall_curves(
        {"raw": PRECISION_RECALL}, TITLE
    ),
    "plot_confusion_matrices": lambda: figures.plot_confusion_matrices(
        dict.fromkeys(["raw", "clahe", "trim"], COUNTS), TITLE, n_columns=2
    ),
    "plot_metric_bars": lambda: figures.plot_metric_bars(LEADERBOARD, "roc_auc", "ROC AUC", TITLE),
    "plot_gallery": lambda: figures.plot_gallery(
        IMAGES[0],
        {"Grad-CAM": np.ones((3, 16, 16)), "occlusion": np.zeros((3, 16, 16))},
        ["a", "b", "c"],
        TITLE,
    ),
    "plot_rate_test": lambda: figures.plot_rate_test(RATES, 0.01, TITLE),
    "plot_trials": lambda: figures.plot_trials(TRIALS, "val_auc", TITLE),
    "plot_importance": lambda: figures.plot_importance({"dropout": 0.7, "units": 0.3}, TITLE),
    "plot_history": lambda: figures.plot_history(HISTORY, TITLE),
    "plot_reliability": lambda: figures.plot_reliability({"as predicted": BINS, "scaled": BINS}, TITLE),
    "plot_net_benefit": lambda: figures.plot_net_benefit(BENEFIT, TITLE),
}


def texts_on(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def test_every_figure_is_tested():
    assert set(DRAW) == {name for name in vars(figures) if name.startswith("plot_")}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())
def test_every_figure_has_its_title_and_the_same_bytes_each_time(tmp_path, draw):
    figure = draw()
    assert TITLE in texts_on(figure)
    figures.save_figure(figure, tmp_path / "a.png")
    figures.save_figure(draw(), tmp_path / "b.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_images_are_counted():
    counts = figures.count_images(MANIFEST)
    assert counts.index.tolist() == ["train", "val", "test"]
    assert counts.columns.tolist() == ["normal", "bacterial", "viral"]
    assert counts.to_numpy().tolist() == [[1, 1, 3], [1, 0, 1], [2, 0, 1]]


def test_class_counts_are_the_heights_of_bars():
    (axes,) = DRAW["plot_class_counts"]().axes
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers}
    assert heights == {"normal": [1, 1, 2], "bacterial": [1, 0, 0], "viral": [3, 1, 1]}


def test_sizes_are_drawn_by_label():
    left, _ = DRAW["plot_image_sizes"]().axes
    drawn = {each.get_label(): each.get_offsets().tolist() for each in left.collections}
    for label, rows in MANIFEST.groupby("label"):
        assert drawn[label] == rows[["width", "height"]].to_numpy().tolist()


def test_grid_shows_every_image_in_its_place():
    figure = DRAW["plot_image_grid"]()
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown, IMAGES.reshape(6, 16, 16))
    assert [axes.images[0].get_clim() for axes in figure.axes] == [(0, 255)] * 6
    assert {"raw", "clahe", "a", "b", "c"} <= set(texts_on(figure))


@pytest.mark.parametrize(
    ("name", "columns", "curve"),
    [
        ("plot_roc_curves", ["false_positive_rate", "sensitivity"], ROC),
        ("plot_precision_recall_curves", ["recall", "precision"], PRECISION_RECALL),
    ],
)
def test_curves_are_drawn_and_named(name, columns, curve):
    figure = DRAW[name]()
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(lines["raw"], curve[columns])
    assert "raw" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_of_many_runs_can_be_told_apart():
    (axes,) = figures.plot_roc_curves({str(i): ROC for i in range(20)}, TITLE).axes
    styles = {(to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines[1:]}
    assert len(styles) == 20


def test_confusion_matrices_tell_counts_and_shares():
    figure = DRAW["plot_confusion_matrices"]()
    texts = texts_on(figure)
    assert texts.count("8\n80%") == texts.count("2\n20%") == 3
    assert texts.count("0\n0%") == 6
    assert {"raw", "clahe", "trim", "predicted", "actual"} <= set(texts)
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]


def test_confusion_matrix_of_means_keeps_its_digit():
    assert "1.5\n20%" in texts_on(figures.plot_confusion_matrices({"": COUNTS * 0.75}, TITLE, n_columns=1))


def test_bars_reach_the_mean_and_their_lines_the_interval():
    (axes,) = DRAW["plot_metric_bars"]().axes
    bars = {each.get_label(): each for each in axes.containers if isinstance(each, BarContainer)}
    heights = {name: [bar.get_height() for bar in each] for name, each in bars.items()}
    assert heights == {"raw": [0.9, 0.7], "clahe": [0.8, pytest.approx(np.nan, nan_ok=True)]}
    (lines,) = bars["raw"].errorbar.lines[2]
    ends = [segment[:, 1].tolist() for segment in lines.get_segments()]
    np.testing.assert_allclose(ends, [[0.85, 0.95], [0.6, 0.75]])


def test_axis_of_bars_begins_below_the_least_value():
    (axes,) = DRAW["plot_metric_bars"]().axes
    low, high = axes.get_ylim()
    assert 0.5 <= low < 0.6
    assert high == 1


def test_history_shows_training_and_validation():
    figure = DRAW["plot_history"]()
    for axes, metric in zip(figure.axes, ("loss", "auc"), strict=True):
        train, validation = (line.get_ydata().tolist() for line in axes.lines)
        assert train == HISTORY[metric].tolist()
        assert validation == HISTORY[f"val_{metric}"].tolist()


@pytest.mark.parametrize(("score", "expected"), [("val_auc", [0.7, 0.7]), ("val_loss", [0.7, 0.6])])
def test_the_best_trial_so_far_never_gets_worse(score, expected):
    figure = figures.plot_trials(TRIALS, score, TITLE)
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert line.get_ydata().tolist() == expected
