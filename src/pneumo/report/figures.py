"""Figures of commands that make no page: frames in, matplotlib Figures out; `save_figure` writes them.

Figures are made without pyplot, so there is no global state and no window system. `title` names the data set
on every one, so that no picture of synthetic data passes for patients when it is taken out of its report.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from pneumo.base.artifacts import write_file

_COLORS = ("#3b6fb6", "#d1603d", "#4a9b6e", "#8a63b5", "#b08b2e", "#5b8a9a", "#c0487a", "#6b6b6b")
_DPI = 110


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours, complete or not at all; the same figure gives the same bytes.

    Reports are committed: 256 colours take half the bytes of all.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    with write_file(path) as partial:
        Image.open(drawn).convert("RGB").quantize(256).save(partial, format="png", optimize=True)


def plot_rate_test(table: pd.DataFrame, suggested: float, title: str) -> Figure:
    """Plot the loss of a learning-rate range test.

    Args:
        table: as `learning_rate.RateTest.tabulate` returns it.
        suggested: a learning rate, marked.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 3.8, title)
    axes.plot(table["learning_rate"], table["loss"], color="#bbbbbb", linewidth=0.8, label="batch")
    axes.plot(table["learning_rate"], table["smoothed"], color=_COLORS[0], label="smoothed")
    axes.axvline(
        suggested, color=_COLORS[1], linestyle="--", linewidth=1, label=f"suggested, {suggested:.1g}"
    )
    top = table.loc[table["settled"], "smoothed"].iloc[0] * 2
    axes.set(xlabel="learning rate", ylabel="loss", xscale="log", ylim=(0, top))
    _legend_outside(figure, axes)
    return figure


def plot_trials(trials: pd.DataFrame, score: str, title: str) -> Figure:
    """Plot the trials of a search in the order of their numbers, and the best so far.

    Args:
        trials: with `number`, `state` and `value`.
        score: names the value; one that ends in `loss` is better when it is smaller.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 3.8, title)
    ordered = trials.sort_values("number")
    complete = ordered[ordered["state"] == "complete"]
    for i, (state, rows) in enumerate((("complete", complete), ("pruned", ordered.drop(complete.index)))):
        axes.plot(rows["number"], rows["value"], "o", markersize=4, color=_COLORS[i], label=state)
    best = complete["value"].cummin() if score.endswith("loss") else complete["value"].cummax()
    axes.step(complete["number"], best, where="post", color=_COLORS[0], linewidth=1, label="best so far")
    axes.set(xlabel="trial", ylabel=score)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_outside(figure, axes)
    return figure


def plot_importance(importance: Mapping[str, float], title: str) -> Figure:
    """Plot how much each parameter of a search matters.

    Args:
        importance: parameter -> share of the variance between trials, the greatest first.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 0.4 * len(importance) + 1.4, title)
    bars = axes.barh(list(importance), list(importance.values()), color=_COLORS[0])
    axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.invert_yaxis()
    axes.set(xlabel="share of the variance between trials", xlim=(0, 1.08))
    return figure


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _legend_outside(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
