import pandas as pd
import pytest
from matplotlib.text import Text

from pneumo.report import figures

TITLE = "Synthetic chest phantoms"
RATES = pd.DataFrame(
    {"learning_rate": [0.01, 0.1], "loss": [0.7, 0.4], "smoothed": [0.7, 0.5], "settled": True}
)
TRIALS = pd.DataFrame(
    {"number": [0, 2, 1], "state": ["complete", "pruned", "complete"], "value": [0.7, 0.5, 0.6]}
)
DRAW = {
    "plot_rate_test": lambda: figures.plot_rate_test(RATES, 0.01, TITLE),
    "plot_trials": lambda: figures.plot_trials(TRIALS, "val_auc", TITLE),
    "plot_importance": lambda: figures.plot_importance({"dropout": 0.7, "units": 0.3}, TITLE),
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


@pytest.mark.parametrize(("score", "expected"), [("val_auc", [0.7, 0.7]), ("val_loss", [0.7, 0.6])])
def test_the_best_trial_so_far_never_gets_worse(score, expected):
    figure = figures.plot_trials(TRIALS, score, TITLE)
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert line.get_ydata().tolist() == expected
