"""A small report, made from predictions of a few runs, to change and to write."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pandas as pd

from pneumo.base.config import Params, Split, Threshold, ThresholdMethod
from pneumo.base.labels import CLASSES, Task
from pneumo.evaluation.curves import band_roc
from pneumo.evaluation.ensembles import score_ensembles
from pneumo.evaluation.experiment import compile_results, group_seeds, score_external
from pneumo.evaluation.subgroups import COLUMNS as SUBGROUP_COLUMNS
from pneumo.report.answer import EFFECT_COLUMNS
from pneumo.report.inputs import PROBE_COLUMNS, STRESS_COLUMNS
from pneumo.report.page import Report
from pneumo.report.photos import PhotoRow, show_combos, show_gallery, show_views

COMBOS = {"raw": [], "equalize": ["equalize"], "crop_clahe": [{"crop": {"margin": 0.08}}, "clahe"]}
FINDINGS = pd.DataFrame(
    {
        "check": ["metadata", "shift_normal", "copies"],
        "question": ["Is it the <files>?", "Do splits differ?", "Are there copies?"],
        "value": [0.971, 0.8, 0.0],
        "low": [0.96, 0.75, np.nan],
        "high": [0.98, 0.85, np.nan],
        "verdict": ["problem", "problem", "no problem"],
        "text": ["They differ.", "Thresholds move.", "There are none."],
    }
)
SELECTION = [("plain", 8, -0.125), ("stressed, mean", 8, 0.75), ("stressed, worst", 8, 0.5)]
RECIPE = {"test_seen": 0}
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def make_sheet(pixels):
    """Return a lossless WebP file."""
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()


SHEET = make_sheet(GREY)
VIEWS = show_views("raw/cnn/0", SHEET)


def make_params(**changes):
    params = {
        "experiment": "small",
        "data": {"source": "phantom", "name": "phantom"},
        "split": Split(0.2, 0),
        "image_size_px": 16,
        "task": Task.binary,
        "combos": COMBOS,
        "models": {"cnn": {}, "dense": {}},
        "seeds": [0, 1],
        "ensembles": {},
        "threshold": Threshold(ThresholdMethod.youden),
        "prevalence": 0.2,
        "equivalence_margin": 0.01,
        "weights_dir": "weights",
        "external": {},
    }
    return Params(**params | changes)


def make_manifest(patients="known"):
    """Tabulate 60 images of 60 patients in each of three splits."""
    n = 60
    subtypes = np.array(["normal", "bacterial", "viral"])[np.arange(n) % 3]
    parts = []
    for split in ("train", "val", "test"):
        ids = [f"{split}/{i}.jpeg" for i in range(n)]
        parts.append(
            pd.DataFrame(
                {
                    "id": ids,
                    "label": np.where(subtypes == "normal", "normal", "pneumonia"),
                    "subtype": subtypes,
                    "patient": [f"{split}{i}" for i in range(n)] if patients == "known" else ids,
                    "split": split,
                    "width": 120 + np.arange(n),
                    "height": 100,
                    "sha256": [f"{split}{i:02}" for i in range(n)],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def predict(manifest, task, seed, skill):
    """Draw predictions for validation and test images."""
    rows = manifest[manifest["split"] != "train"]
    column = "label" if task is Task.binary else "subtype"
    y_true = rows[column].map({name: i for i, name in enumerate(CLASSES[task])}).to_numpy()
    generator = np.random.default_rng(seed)
    logits = skill * np.eye(len(CLASSES[task]))[y_true] + generator.normal(
        size=(len(rows), len(CLASSES[task]))
    )
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = rows[["id", "split", "patient"]].assign(y_true=y_true)
    return table.assign(**{f"p_{name}": shares[:, i] for i, name in enumerate(CLASSES[task])})


def make_effects(rows):
    """Tabulate effects from (family, subject, over, metric, difference, verdict)."""
    table = pd.DataFrame(rows, columns=["family", "subject", "over", "metric", "difference", "verdict"])
    known = ~table["verdict"].isin(["unknown_spread", "not_compared"])
    n_seeds = np.where(known, 2, 1)
    return table.assign(
        against="raw",
        left_out="",
        n_runs=2 * n_seeds * table["over"].str.split().str.len(),
        low=table["difference"] - 0.01,
        high=table["difference"] + 0.01,
        interval_over=np.where(known, "patients and seeds", "patients"),
        p=np.where(known, 0.0004, np.nan),
        p_holm=np.where(known, 0.0008, np.nan),
        p_within=np.nan,
        p_within_holm=np.nan,
        smallest_detectable=0.02,
    )[list(EFFECT_COLUMNS)]


EFFECTS = make_effects(
    [
        ("primary", "equalize", "cnn dense", "roc_auc", 0.003, "not_shown"),
        ("primary", "crop_clahe", "cnn dense", "roc_auc", -0.0312, "worse"),
        ("by_model", "equalize", "cnn", "roc_auc", 0.01, "not_shown"),
        ("by_model", "equalize", "dense", "roc_auc", -0.004, "not_shown"),
        ("by_model", "crop_clahe", "cnn", "roc_auc", -0.03, "worse"),
        ("by_model", "crop_clahe", "dense", "roc_auc", -0.0324, "not_shown"),
        ("heterogeneity", "equalize", "cnn", "roc_auc", 0.014, "better"),
        ("heterogeneity", "crop_clahe", "cnn", "roc_auc", 0.0024, "not_shown"),
        ("operating_point", "crop_clahe", "cnn dense", "sensitivity", -0.05, "worse"),
        ("models", "cnn", "raw equalize", "roc_auc", 0.2, "better"),
    ]
)
ONE_SEED = make_effects(
    [
        ("primary", "equalize", "cnn", "roc_auc", 0.03, "unknown_spread"),
        ("by_model", "equalize", "cnn", "roc_auc", 0.03, "unknown_spread"),
    ]
)


def make_probes(n_problems=0):
    checks = (
        "as_is",
        "without_thorax",
        "thorax_only",
        "without_markers",
        "attention_outside",
        "map_correlation",
    )
    rows = [
        (combo, model, check, 2, 0.8123, 0.8, 0.82, n_problems if check == "without_thorax" else 0)
        for combo in COMBOS
        for model in ("cnn", "dense")
        for check in checks
    ]
    return pd.DataFrame(rows, columns=list(PROBE_COLUMNS))


def make_stress(worst=0.9):
    changes = {"none": 0.95, "darker": 0.94, "noisy": worst, "mean": 0.92, "worst": worst}
    rows = [
        (combo, model, seed, change, score, score, score, score)
        for combo in COMBOS
        for model in ("cnn", "dense")
        for seed in (0, 1)
        for change, score in changes.items()
    ]
    return pd.DataFrame(rows, columns=list(STRESS_COLUMNS))


def make_gallery(run="raw/cnn/0"):
    table = pd.DataFrame(
        {
            "group": ["certain and right", "certain and wrong", "undecided"],
            "actual": ["pneumonia", "normal", "normal"],
            "predicted": ["pneumonia", "pneumonia", "normal"],
            "probability": [0.99, 0.98, 0.51],
            "maps": "Grad-CAM",
        }
    )
    return show_gallery(run, make_sheet(np.tile(GREY, (3, 2))), table)


@cache
def _score(task, combos, models, seeds):
    manifest = make_manifest()
    predictions = {
        (combo, model, seed): predict(manifest, task, 10 * seed + len(model) + len(combo), 3.0)
        for combo in combos
        for model in models
        for seed in seeds
    }
    results = compile_results(predictions, Threshold(ThresholdMethod.youden), 0.2, "raw", 0.01)
    keys = group_seeds(list(predictions))[results.best_run[:2]]
    band = band_roc([results.outcomes[key].decide(results.outcomes[key].test) for key in keys])
    return predictions, results, band


@cache
def show_images(combos):
    samples = {combo: np.tile(GREY, (3, 2, 1, 1)) for combo in combos}
    return show_combos(samples, make_manifest(), dict.fromkeys(combos, "its steps")), make_gallery()


def make_report(params=None, external=False, **changes):
    """Build a report; `changes` replace what the page would otherwise show."""
    params = params or make_params()
    predictions, results, band = _score(
        params.task, tuple(params.combos), tuple(params.models), tuple(params.seeds)
    )
    first = results.best_run
    combo_photos, gallery = show_images(tuple(params.combos))
    test = results.outcomes[first].test
    history = pd.DataFrame(
        {"phase": "fit", "epoch": [0, 1, 2], "loss": [0.7, 0.5, 0.4], "auc": [0.6, 0.8, 0.9]}
    )
    history = history.assign(val_loss=[0.8, 0.6, 0.7], val_auc=[0.5, 0.7, 0.8])
    history = history.assign(combo=first[0], model=first[1], seed=first[2])
    tables = {
        "leaderboard": results.leaderboard.assign(
            verdict=np.where(results.leaderboard["combo"] == "raw", "reference", "not_shown")
        ),
        "effects": EFFECTS if len(params.combos) > 1 else EFFECTS.iloc[:0],
        "runs": results.runs,
        "classes": results.by_class,
        "comparisons": results.comparisons,
        "external": score_external({"elsewhere": predictions} if external else {}, results.outcomes),
        "probes": make_probes(),
        "subgroups": pd.DataFrame(columns=list(SUBGROUP_COLUMNS)),
        "stress": make_stress(),
        "selection": pd.DataFrame(SELECTION, columns=["criterion", "n_runs", "rank_correlation"]),
        "ensembles": score_ensembles(results.outcomes, results.runs, {}, params.threshold),
        "history": history,
        "environments": pd.DataFrame(
            {
                "backend": ["tensorflow"],
                "device": ["cpu:0"],
                "processor": ["a processor"],
                "versions": ["keras 3.15"],
                "lock": ["abc"],
                "n_runs": [len(predictions)],
                "runs": ["all"],
            }
        ),
        "seconds": pd.DataFrame(list(predictions), columns=["combo", "model", "seed"]).assign(train_s=56.7),
    }
    report = Report(
        params=params,
        params_text="combos: {raw: []}",
        data_title="X-rays <b>& more</b>",
        is_synthetic=False,
        is_private=False,
        margin=None,
        manifest=make_manifest(),
        tables=tables,
        criterion=results.criterion,
        best_run="/".join(map(str, first)),
        recipe=RECIPE,
        details=results.details,
        scores=pd.DataFrame({"y_true": test.y_true, "y_score": test.probabilities[:, 1]}),
        curve=results.curves[first[:2]],
        band=band,
        matrix=results.matrices[first[:2]],
        findings=FINDINGS,
        set_aside=pd.DataFrame({"path": ["train/<i>.jpeg"], "reason": ["empty file"]}),
        missing_runs=[],
        galleries=[gallery],
        combo_photos=combo_photos,
        samples=[PhotoRow("normal", "", [])],
        views=[],
        fixed_models=["cnn", "dense"],
        same_images=[],
        input_hashes={"manifest.csv": "m" * 64},
    )
    edited = {name: value for name, value in changes.items() if name in tables}
    others = {name: value for name, value in changes.items() if name not in tables}
    return replace(report, tables=tables | edited, **others)
