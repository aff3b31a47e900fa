"""explain: the models of a combo -> reports/<experiment>/explanations/<combo>/, what they look at.

Of validation images: stress.csv (`stress.score_stress`). Of test images, which choose nothing: probes.csv
(fields of a Probe), probes_by_model.csv (`probes.average_seeds`), gallery.csv (`gallery.tabulate_gallery`),
<model>_<seed>.webp (`gallery.draw_sheet`), a row for each of the run's rows in gallery.csv.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from pneumo.audit import attribution, gallery, probes, scorers, stress
from pneumo.audit.scorers import Images, Scorer, ScorerLoader
from pneumo.base.artifacts import write_folder
from pneumo.base.config import CONF_PATH, Params, Run
from pneumo.base.decision import DecisionRule
from pneumo.base.errors import PneumoError
from pneumo.base.paths import explanations_dir, gallery_path, images_path, manifest_path, run_dir
from pneumo.base.reproducibility import make_deterministic
from pneumo.base.tables import locate_predictions, read_manifest, read_predictions, select_first_fold
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import fit_rule

N_EACH = 3  # images in each group of a gallery
N_SAMPLE = 32  # test images whose attention is measured
N_STRESSED = 300  # validation images that are changed


def run(params: Params, combo: str) -> None:
    """Probe the models of a combo that are there; name those that are not."""
    make_deterministic()
    manifest = read_manifest(manifest_path(params.data_name))
    images = np.load(images_path(params.data_name, combo), mmap_mode="r")
    runs = [each for each in params.runs if each.combo == combo]
    trained = [each for each in runs if (run_dir(each) / "model.keras").is_file()]
    if not trained:
        raise PneumoError(f"Expected a trained model of {combo}. Received: none. `dvc repro` makes them.")
    parts: dict[str, list[pd.DataFrame]] = {"stress": [], "probes": [], "gallery": []}
    with write_folder(explanations_dir(params.experiment, combo)) as folder:
        loader = ScorerLoader()
        for each in tqdm(trained, f"explain {combo}", unit="model"):
            for name, part in explain_run(each, params, manifest, images, folder, loader).items():
                parts[name].append(part.assign(model=each.model, seed=each.seed))
        tables = {name: pd.concat(found) for name, found in parts.items()}
        tables["probes_by_model"] = probes.average_seeds(tables["probes"])
        for name, joined in tables.items():
            joined.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    for each in runs:
        print(f"{each.name}: {'explained' if each in trained else 'skipped, it has no model.keras'}")


def explain_run(
    run: Run, params: Params, manifest: pd.DataFrame, images: Images, folder: Path, loader: ScorerLoader
) -> dict[str, pd.DataFrame]:
    """Save a run's gallery into a folder and return the tables `stress`, `probes` and `gallery`."""
    changes = stress.load_changes(CONF_PATH / "stress.yaml")
    table = read_rows(run, manifest)
    scorer = loader.load(run_dir(run) / "model.keras")
    rule = fit_rule(select_scores(table, "val"), params.threshold)
    chosen = table.iloc[stress.sample_validation(table, N_STRESSED, seed=0)]
    predict = partial(attribution.predict_probabilities, scorer)
    y_true, pixels = chosen["y_true"].to_numpy(np.int64), images[chosen["row"].to_numpy()]
    stressed = stress.score_stress(predict, pixels, y_true, rule.threshold, changes)
    probed = probe_run(scorer, table, images, rule, folder / gallery_path(run).name)
    return {"stress": stressed} | probed


def read_rows(run: Run, manifest: pd.DataFrame) -> pd.DataFrame:
    """Read the predictions of a run's model.keras and add `row`, where images.npy has each image.

    Raises:
        PneumoError: an image is not in the manifest, or is in another split there.
    """
    table = select_first_fold(read_predictions(run_dir(run) / "predictions.csv"))
    return table.assign(row=locate_predictions(table, manifest, run.name))


def probe_run(
    scorer: Scorer, table: pd.DataFrame, images: Images, rule: DecisionRule, path: Path
) -> dict[str, pd.DataFrame]:
    """Save a network's gallery and return the tables `probes` and `gallery`.

    Args:
        scorer: the network; its weights are shuffled in the end.
        table: as `read_rows` returns it.
        images: uint8 array of shape (n, size_px, size_px, 1), of the whole manifest.
        rule: how the run decides.
        path: of the gallery's pictures.
    """
    scores, test = select_scores(table, "test"), table[table["split"] == "test"]
    rows = test["row"].to_numpy(np.int64)
    y_pred = rule.decide(scores.probabilities)
    margins = gallery.find_margins(scores.probabilities, rule.threshold)
    groups = gallery.select_gallery(scores.y_true, y_pred, margins, scores.patients, N_EACH)
    shown = np.concatenate(list(groups.values()))
    sample = probes.select_sample(scores.patients, N_SAMPLE, seed=0)
    pictures, sampled = images[rows[shown]], images[rows[sample]]
    maps = attribution.draw_maps(scorer, pictures, y_pred[shown])
    views = attribution.score_views(scorer, images, rows, probes.VIEWS)
    attention = attribution.draw_first_map(scorer, sampled, y_pred[sample])
    without_learning = scorers.shuffle_weights(scorer, seed=0)
    shuffled = attribution.draw_first_map(without_learning, sampled, y_pred[sample])
    found = [
        *probes.probe_views(scores.y_true, scores.patients, *views),
        probes.probe_attention(attention),
        probes.probe_maps(attribution.correlate_maps(attention, shuffled)),
    ]
    path.write_bytes(gallery.draw_sheet(pictures[..., 0], maps))
    return {
        "probes": pd.DataFrame([asdict(probe) for probe in found]),
        "gallery": gallery.tabulate_gallery(test["id"].to_numpy(object), scores, y_pred, groups, maps),
    }
