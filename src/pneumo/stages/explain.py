"""explain: the models of a combo -> reports/<experiment>/explanations/<combo>/, what they look at."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo.audit import attribution, probes, regions
from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params, Run, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.paths import explanations_dir, images_path, manifest_path
from pneumo.base.reproducibility import make_deterministic
from pneumo.base.tables import read_manifest, read_predictions
from pneumo.evaluation.predictions import Scores, decide, select_scores
from pneumo.prediction.bundle import load_bundle
from pneumo.report import figures

N_EACH = 3  # images in each group of a gallery


def run(params: Params, combo: str) -> None:
    """Probe the models of a combo on the test set; nothing is chosen by what comes out."""
    make_deterministic()
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    row_of_id = pd.Index(read_manifest(manifest_path(params.data_name))["id"])
    runs = [each for each in params.runs if each.combo == combo and (run_dir(each) / "model.keras").is_file()]
    if not runs:
        raise PneumoError(f"Expected a trained model of {combo}. Received: none. `dvc repro` makes them.")
    images = np.load(images_path(params.data_name, combo), mmap_mode="r")
    tables: dict[str, list[pd.DataFrame]] = {"probes": [], "gallery": []}
    with write_folder(explanations_dir(params.experiment, combo)) as folder:
        for each in runs:
            table = read_predictions(run_dir(each) / "predictions.csv")
            test = table[table["split"] == "test"]
            pixels = images[row_of_id.get_indexer(test["id"])]
            for name, rows in explain_run(each, test, pixels, title, folder).items():
                tables[name].append(rows.assign(model=each.model, seed=each.seed))
        for name, frames in tables.items():
            pd.concat(frames).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")


def explain_run(
    run: Run, test: pd.DataFrame, images: attribution.Images, title: str, folder: Path
) -> dict[str, pd.DataFrame]:
    """Draw a run's gallery and return the tables `probes` and `gallery`.

    Args:
        run: its model is loaded.
        test: rows of predictions.csv.
        images: uint8 array of shape (n, size_px, size_px, 1), of the same images.
        title: names the data set.
        folder: where <model>_<seed>.png goes.
    """
    model, card = load_bundle(run_dir(run) / "model.keras")
    scorer = attribution.open_classifier(model)
    scores = select_scores(test, "test")
    y_pred = decide(scores.probabilities, card.threshold)
    margins = probes.find_margins(scores.probabilities, card.threshold)
    groups = probes.select_gallery(scores.y_true, y_pred, margins, scores.patients, N_EACH)
    rows = np.concatenate(list(groups.values()))
    maps = attribution.draw_maps(scorer, images[rows], y_pred[rows])
    attention = next(iter(maps.values()))
    found = probes.probe_views(
        scores.y_true, scores.patients, *attribution.score_views(scorer, images, probes.VIEWS)
    )
    attribution.shuffle_weights(scorer, seed=0)
    shuffled = attribution.draw_first_map(scorer, images[rows], y_pred[rows])
    found += [
        probes.probe_attention(attention),
        probes.probe_maps(attribution.correlate_maps(attention, shuffled)),
    ]
    shown = tabulate_gallery(test, scores, y_pred, groups)
    shown["attention_outside"] = [regions.score_outside(each) for each in attention]
    captions = [
        f"{row.group}\nis {row.actual}\ncalled {row.predicted}, p {row.probability:.3f}"
        for row in shown.itertuples()
    ]
    figure = figures.plot_gallery(images[rows, ..., 0], maps, captions, f"{title}\n{run.name}, test")
    figures.save_figure(figure, folder / f"{run.model}_{run.seed}.png")
    print(f"{run.name}: " + ", ".join(f"{probe.check} {probe.value:.3f}" for probe in found))
    return {"probes": pd.DataFrame([asdict(probe) for probe in found]), "gallery": shown}


def tabulate_gallery(
    test: pd.DataFrame, scores: Scores, y_pred: attribution.IntArray, groups: dict[str, attribution.IntArray]
) -> pd.DataFrame:
    """Return the images of a gallery: `group`, `id`, `actual`, `predicted`, `probability` of that class."""
    classes = np.array(scores.classes)
    return pd.DataFrame(
        [
            {
                "group": group,
                "id": test["id"].iloc[row],
                "actual": classes[scores.y_true[row]],
                "predicted": classes[y_pred[row]],
                "probability": scores.probabilities[row, y_pred[row]],
            }
            for group, rows in groups.items()
            for row in rows
        ]
    )
