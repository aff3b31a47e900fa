"""All pictures of a report, drawn into one folder."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pneumo.base.labels import Subtype
from pneumo.report import figures

GroupKey = tuple[str, str]  # combo, model
Pictures = list[tuple[str, str]]  # path from the page, caption
FOLDER_NAME = "figures"  # beside the page
N_CONTACT_IMAGES = 2  # of each subtype


def draw_bars(leaderboard: pd.DataFrame, title: str, folder: Path) -> Pictures:
    """Draw ROC AUC and accuracy of every combo and model."""
    pictures = []
    ordered = leaderboard.sort_values(["combo", "model"], kind="stable", ignore_index=True)
    for metric, label in (("roc_auc", "ROC AUC"), ("accuracy", "accuracy")):
        figure = figures.plot_metric_bars(ordered, metric, label, f"{title}: test {label}")
        pictures.append(_save(figure, folder, metric, f"{label}: mean over seeds and 95 % interval"))
    return pictures


def draw_curves(curves: Mapping[GroupKey, pd.DataFrame], title: str, folder: Path) -> Pictures:
    """Draw the ROC curves of each model, one a combo."""
    return [
        _save(
            figures.plot_roc_curves(of_model, f"{title}\n{model}, test"),
            folder,
            f"roc_{model}",
            f"{model}: mean over seeds of the sensitivity",
        )
        for model, of_model in _group_by_model(curves).items()
    ]


def draw_matrices(matrices: Mapping[GroupKey, pd.DataFrame], title: str, folder: Path) -> Pictures:
    """Draw the confusion matrices of each model, one a combo."""
    return [
        _save(
            figures.plot_confusion_matrices(of_model, f"{title}\n{model}, test", n_columns=5),
            folder,
            f"confusion_{model}",
            f"{model}: mean counts over seeds",
        )
        for model, of_model in _group_by_model(matrices).items()
    ]


def draw_details(details: Mapping[str, pd.DataFrame], run: str, title: str, folder: Path) -> Pictures:
    """Draw the reliability and, for two classes, the net benefit of one run.

    Args:
        details: as `scoring.tabulate_run` of the room `evaluation` returns them.
        run: its name.
        title: names the data set.
        folder: where pictures go.
    """
    heading = f"{title}\n{run}, test"
    bins = {str(name): rows for name, rows in details["calibration"].groupby("name", sort=False)}
    pictures = [
        _save(
            figures.plot_reliability(bins, heading),
            folder,
            "calibration",
            f"{run}: observed fraction by predicted probability, in bins of equal size",
        )
    ]
    if "net_benefit" in details:
        figure = figures.plot_net_benefit(details["net_benefit"], heading)
        caption = f"{run}: net benefit (true alarms less false ones, weighed by the threshold)"
        pictures.append(_save(figure, folder, "net_benefit", caption))
    return pictures


def draw_data(manifest: pd.DataFrame, samples: npt.NDArray[np.uint8], title: str, folder: Path) -> Pictures:
    """Draw what the data look like.

    Args:
        manifest: one row an image.
        samples: uint8 array of shape (n_subtypes, n, size_px, size_px), training images of each subtype.
        title: names the data set.
        folder: where pictures go.
    """
    train = set(manifest.loc[manifest["split"] == "train", "subtype"])
    names = [str(subtype) for subtype in Subtype if subtype in train]
    grid = figures.plot_image_grid(samples, names, [""] * samples.shape[1], f"{title}: training images")
    return [
        _save(grid, folder, "samples", "Training images before preprocessing"),
        _save(
            figures.plot_class_counts(manifest, title), folder, "class_counts", "Images by split and subtype"
        ),
        _save(
            figures.plot_image_sizes(manifest, title),
            folder,
            "image_sizes",
            "Sizes and aspect ratios by class; where they differ, a model can tell the classes apart by them",
        ),
    ]


def draw_contact_sheet(
    images: Mapping[str, npt.NDArray[np.uint8]], manifest: pd.DataFrame, title: str, folder: Path
) -> Pictures:
    """Draw the same training images under every combo.

    Args:
        images: combo -> uint8 array of shape (n, size_px, size_px, 1), row i for row i of the manifest.
        manifest: one row an image.
        title: names the data set.
        folder: where pictures go.
    """
    train = manifest[manifest["split"] == "train"].sort_values("sha256")
    chosen = pd.concat(train[train["subtype"] == subtype].head(N_CONTACT_IMAGES) for subtype in Subtype)
    grid = np.stack([of_combo[chosen.index, ..., 0] for of_combo in images.values()])
    figure = figures.plot_image_grid(grid, list(images), chosen["subtype"].tolist(), title)
    return [_save(figure, folder, "contact_sheet", "Training images after preprocessing, one row a combo")]


def _group_by_model(tables: Mapping[GroupKey, pd.DataFrame]) -> dict[str, dict[str, pd.DataFrame]]:
    grouped: dict[str, dict[str, pd.DataFrame]] = {}
    for (combo, model), table in tables.items():
        grouped.setdefault(model, {})[combo] = table
    return grouped


def _save(figure: figures.Figure, folder: Path, name: str, caption: str) -> tuple[str, str]:
    figures.save_figure(figure, folder / f"{name}.png")
    return f"{FOLDER_NAME}/{name}.png", caption
