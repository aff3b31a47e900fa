"""Figures: frames and arrays in, matplotlib Figures out; `save_figure` writes them.

Figures are made without pyplot, so there is no global state and no window system. `title` names the data set
on every one, so that no picture of synthetic data passes for patients when it is taken out of its report.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
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


def plot_class_counts(manifest: pd.DataFrame, title: str) -> Figure:
    """Plot the number of images by split and subtype.

    Args:
        manifest: with the columns `split` and `subtype`.
        title: names the data set.
    """
    counts = count_images(manifest)
    figure, axes = _figure(6.5, 3.6, title)
    width = 0.8 / len(counts.columns)
    for i, subtype in enumerate(counts.columns):
        at = np.arange(len(counts)) + (i - (len(counts.columns) - 1) / 2) * width
        bars = axes.bar(at, counts[subtype], width, label=subtype, color=_COLORS[i])
        axes.bar_label(bars, fontsize=8)
    axes.set_xticks(range(len(counts)), counts.index)
    axes.set_ylabel("images")
    axes.legend(frameon=False)
    return figure


def count_images(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the number of images, one row a split, one column a subtype."""
    counts = pd.crosstab(manifest["split"], manifest["subtype"])
    order = [name for name in ("train", "val", "test") if name in counts.index]
    columns = [name for name in ("normal", "bacterial", "viral", "unknown") if name in counts.columns]
    return counts.loc[order, columns]


def plot_image_sizes(manifest: pd.DataFrame, title: str) -> Figure:
    """Plot what a classifier could learn without looking at lungs: sizes and aspect ratios by label.

    Args:
        manifest: with the columns `label`, `width` and `height` (in pixels).
        title: names the data set.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    ratios = manifest["width"] / manifest["height"]
    bins = np.histogram_bin_edges(ratios, 40)
    for color, (label, rows) in zip(_COLORS, manifest.groupby("label"), strict=False):
        left.scatter(rows["width"], rows["height"], 6, alpha=0.4, label=label, color=color, linewidths=0)
        right.hist(ratios[rows.index], bins, alpha=0.55, density=True, label=label, color=color)
    left.set(xlabel="width, px", ylabel="height, px")
    right.set(xlabel="width / height", ylabel="density")
    for axes in (left, right):
        _clean(axes)
        axes.legend(frameon=False)
    return figure


def plot_image_grid(
    images: npt.NDArray[np.uint8], row_names: Sequence[str], column_names: Sequence[str], title: str
) -> Figure:
    """Plot images in rows and columns.

    Args:
        images: uint8 array of shape (n_rows, n_columns, height, width).
        row_names: n_rows names.
        column_names: n_columns names.
        title: names the data set.
    """
    n_rows, n_columns = images.shape[:2]
    figure = Figure(figsize=(1.5 * n_columns + 0.6, 1.55 * n_rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        axes.imshow(images[row, column], cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if row == 0:
            axes.set_title(column_names[column], fontsize=9)
        if column == 0:
            axes.set_ylabel(row_names[row], fontsize=9)
    return figure


def plot_gallery(
    images: npt.NDArray[np.uint8],
    maps: Mapping[str, npt.NDArray[np.float64]],
    captions: Sequence[str],
    title: str,
) -> Figure:
    """Plot images, and below each the maps of what in it spoke for a decision.

    Args:
        images: uint8 array of shape (n, size_px, size_px).
        maps: name -> float array of shape (n, size_px, size_px), 0 or more; each is drawn relative to its
            greatest value.
        captions: one an image.
        title: names the data set.
    """
    n_rows, n_columns = 1 + len(maps), len(images)
    figure = Figure(figsize=(1.45 * n_columns + 0.4, 1.5 * n_rows + 1.0), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        axes.imshow(images[column], cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if row == 0:
            axes.set_title(captions[column], fontsize=7)
            continue
        name, attention = list(maps.items())[row - 1]
        share = attention[column] / max(float(attention[column].max()), 1e-12)
        axes.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * np.sqrt(share))
        if column == 0:
            axes.set_ylabel(name, fontsize=9)
    return figure


def plot_roc_curves(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Plot ROC curves on one pair of axes.

    Args:
        curves: name -> frame with `false_positive_rate` and `sensitivity`.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 5.2, title)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for i, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve["false_positive_rate"],
            curve["sensitivity"],
            color=_COLORS[i % len(_COLORS)],
            linestyle=("-", "--", ":", "-.")[i // len(_COLORS) % 4],
            linewidth=1.4,
            label=name,
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1), ylim=(0, 1.01))
    _legend_outside(figure, axes)
    return figure


def plot_precision_recall_curves(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Plot precision-recall curves on one pair of axes.

    Args:
        curves: name -> frame with `recall` and `precision`.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 5.2, title)
    for i, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve["recall"], curve["precision"], color=_COLORS[i % len(_COLORS)], linewidth=1.4, label=name
        )
    axes.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    _legend_outside(figure, axes)
    return figure


def plot_confusion_matrices(matrices: Mapping[str, pd.DataFrame], title: str, n_columns: int) -> Figure:
    """Plot confusion matrices in a grid.

    Args:
        matrices: name -> frame of counts, rows actual, columns predicted.
        title: names the data set.
        n_columns: of the grid.
    """
    n_columns = min(n_columns, len(matrices))
    n_rows = -(-len(matrices) // n_columns)
    figure = Figure(figsize=(2.3 * n_columns + 0.5, 2.3 * n_rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.set_visible(False)
    for axes, (name, matrix) in zip(grid.flat, matrices.items(), strict=False):
        counts = matrix.to_numpy()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            axes.text(
                column,
                row,
                f"{counts[row, column]:g}\n{share:.0%}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 0.5 else "#222222",
            )
        axes.set_title(name, fontsize=9)
        axes.set_xticks(range(len(matrix.columns)), matrix.columns, fontsize=7)
        axes.set_yticks(range(len(matrix.index)), matrix.index, fontsize=7, rotation=90, va="center")
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("actual", fontsize=9)
    return figure


def plot_metric_bars(leaderboard: pd.DataFrame, metric: str, label: str, title: str) -> Figure:
    """Plot a metric's mean over seeds as bars, grouped by model, with its 95 % interval.

    Args:
        leaderboard: with `combo`, `model`, and `<metric>`, `<metric>_low`, `<metric>_high`.
        metric: a column.
        label: what to write beside the axis.
        title: names the data set.
    """
    combos = list(dict.fromkeys(leaderboard["combo"]))
    models = list(dict.fromkeys(leaderboard["model"]))
    figure, axes = _figure(max(6.5, 0.42 * len(leaderboard) + 2.5, 1.5 * len(models) + 2), 3.8, title)
    width = 0.8 / len(combos)
    for i, combo in enumerate(combos):
        rows = leaderboard[leaderboard["combo"] == combo].set_index("model").reindex(models)
        at = np.arange(len(models)) + (i - (len(combos) - 1) / 2) * width
        mean = rows[metric].to_numpy(float)
        bounds = (rows[f"{metric}_low"].to_numpy(float), rows[f"{metric}_high"].to_numpy(float))
        # A percentile interval of few patients need not hold the score itself, and bars go one way only.
        spread = np.maximum([mean - bounds[0], bounds[1] - mean], 0)
        axes.bar(at, mean, width * 0.92, yerr=spread, capsize=2, label=combo, color=_COLORS[i % len(_COLORS)])
    lowest = leaderboard[f"{metric}_low"].min()
    begin = 0.0 if pd.isna(lowest) else max(0.0, np.floor(lowest * 20 - 1) / 20)
    axes.set_ylim(begin, 1)
    axes.set_xticks(range(len(models)), models)
    axes.set_ylabel(f"{label} (axis begins at {begin:.2f})" if begin else label)
    _legend_outside(figure, axes)
    return figure


def plot_reliability(bins: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Plot what is observed against what is predicted; on the diagonal, a probability means what it says.

    Args:
        bins: name -> frame with `predicted` and `observed`.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 5.2, title)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, linestyle="--")
    for i, (name, table) in enumerate(bins.items()):
        axes.plot(
            table["predicted"], table["observed"], marker="o", markersize=4, color=_COLORS[i], label=name
        )
    axes.set(xlabel="predicted probability", ylabel="observed fraction", xlim=(0, 1.01), ylim=(-0.01, 1.01))
    _legend_outside(figure, axes)
    return figure


def plot_net_benefit(benefit: pd.DataFrame, title: str) -> Figure:
    """Plot net benefit by threshold (a decision curve).

    Args:
        benefit: with `threshold`, `model`, `all` and `none`.
        title: names the data set.
    """
    figure, axes = _figure(6.6, 4.2, title)
    labels = {"model": "act on the model", "all": "act on everybody", "none": "act on nobody"}
    for i, (column, label) in enumerate(labels.items()):
        axes.plot(benefit["threshold"], benefit[column], color=_COLORS[i], linewidth=1.4, label=label)
    top = max(float(benefit["model"].max()), float(benefit["all"].max()), 0.01)
    axes.set(xlabel="threshold", ylabel="net benefit a child", xlim=(0, 1), ylim=(-0.25 * top, 1.05 * top))
    _legend_outside(figure, axes)
    return figure


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


def plot_history(history: pd.DataFrame, title: str) -> Figure:
    """Plot loss and AUC by epoch, for training and validation.

    Args:
        history: with `epoch`, `loss`, `val_loss`, `auc`, `val_auc`.
        title: names the run.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "auc"), strict=True):
        axes.plot(history["epoch"], history[metric], marker=".", label="train", color=_COLORS[0])
        axes.plot(
            history["epoch"], history[f"val_{metric}"], marker=".", label="validation", color=_COLORS[1]
        )
        axes.set(xlabel="epoch", ylabel=metric)
        axes.legend(frameon=False)
        _clean(axes)
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
