"""The page a person reads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pneumo.base.artifacts import write_text
from pneumo.base.config import Params, Split
from pneumo.base.labels import CLASSES, FOLDS, SPLITS, Subtype
from pneumo.base.tables import select_first_fold
from pneumo.report import charts, wording
from pneumo.report.answer import find_answer, select_primary
from pneumo.report.checklist import Facts, fill_checklist
from pneumo.report.inputs import find_reference
from pneumo.report.objections import find_objections, find_point
from pneumo.report.photos import Gallery, PhotoRow, Views
from pneumo.report.subgroups import arrange_subgroups, describe_differences
from pneumo.report.tables import build_tables

SECTIONS = {
    "answer": "Answer",
    "best": "Best model",
    "against": "Against it",
    "looks": "Where models look",
    "decisions": "Decisions",
    "data": "Data and audit",
    "tables": "All tables",
    "provenance": "Provenance",
}
PROBES = {
    "as_is": "as it is",
    "without_thorax": "without the thorax",
    "thorax_only": "the thorax only",
    "without_markers": "without markers",
    "attention_outside": "attention outside",
    "map_correlation": "likeness",
}
N_NAMED = 3  # runs without a result, in a sentence
_WIDEST = 2.5  # width by height of a file, on the chart
_KINDS = {"problem": "harms", "no problem": "same", "not known": "open"}


@dataclass(frozen=True)
class Report:
    """What the page, the model card and the checklist show.

    Attributes:
        params: the experiment.
        params_text: text of params.yaml.
        data_title: names the data set.
        is_synthetic: the images are drawn, and the page says so at the top.
        is_private: the committed page has no pictures and no names.
        margin: differences of less than this do not matter; None where none is set.
        manifest: one row an image.
        tables: the report's CSV files by name: `leaderboard`, `effects`, `runs`, `classes`, `comparisons`,
            `external`, `probes`, `stress`, `selection`, `ensembles`, `history`, `environments`, `subgroups`
            and `seconds`.
        criterion: the column of the leaderboard that orders it.
        best_run: name of the first run of the leaderboard's first row.
        recipe: of that run, as run.json holds it.
        details: tables of that run; `operating_points` is missing for more than two classes.
        scores: class number and score of each test image of that run, `y_true` and `y_score`.
        curve: ROC curve of the best combo and model, mean over seeds.
        band: its interval over patients, with `false_positive_rate`, `low` and `high`; None if not known.
        matrix: confusion matrix of the best combo and model, mean over seeds, rows actual.
        findings: of the audit.
        set_aside: `path` and `reason` of the files that were set aside.
        missing_runs: names of runs that have no result.
        galleries: what models look at; the first is the best run's.
        combo_photos: the same images under every combo.
        samples: training images of each subtype.
        views: what training sees, of each model whose recipe varies images.
        fixed_models: those whose recipes vary no images.
        same_images: groups of combos whose images are the same.
        input_hashes: name of a file -> SHA-256, of what was trained on.
    """

    params: Params
    params_text: str
    data_title: str
    is_synthetic: bool
    is_private: bool
    margin: float | None
    manifest: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    criterion: str
    best_run: str
    recipe: Mapping[str, Any]
    details: Mapping[str, pd.DataFrame]
    scores: pd.DataFrame
    curve: pd.DataFrame
    band: pd.DataFrame | None
    matrix: pd.DataFrame
    findings: pd.DataFrame
    set_aside: pd.DataFrame
    missing_runs: list[str]
    galleries: list[Gallery]
    combo_photos: list[PhotoRow]
    samples: list[PhotoRow]
    views: list[Views]
    fixed_models: list[str]
    same_images: list[list[str]]
    input_hashes: Mapping[str, str]

    @property
    def experiment(self) -> str:
        """Its name."""
        return self.params.experiment

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return CLASSES[self.params.task]

    @property
    def reference(self) -> str:
        """The combo that the others are compared with."""
        return find_reference(self.params)

    @property
    def threshold_method(self) -> str:
        """How the threshold was chosen on validation."""
        return self.params.threshold.method.value

    @property
    def has_threshold(self) -> bool:
        """Whether decisions are made at a threshold, as they are for two classes."""
        return "operating_points" in self.details

    @property
    def has_folds(self) -> bool:
        """Whether runs are cross-validated."""
        return self.params.split.has_folds

    @property
    def best(self) -> dict[str, Any]:
        """The leaderboard's first row."""
        return {str(key): value for key, value in self.tables["leaderboard"].iloc[0].items()}

    @property
    def n_unknown_patients(self) -> int:
        """How many images count as a patient of their own, because their patient is not known."""
        return int((self.manifest["patient"] == self.manifest["id"]).sum())

    @property
    def n_test(self) -> int:
        """How many images the runs were tested on."""
        return round(float(self.matrix.to_numpy().sum()))


def write_report(report: Report, folder: Path) -> None:
    """Write index.html, which holds its charts and pictures, model_card.md and checklist.md into a folder."""
    context = build_context(report)
    environment = open_templates()
    for template, name in (
        ("page.html", "index.html"),
        ("model_card.md", "model_card.md"),
        ("checklist.md", "checklist.md"),
    ):
        write_text(folder / name, _clean(environment.get_template(template).render(**context)))


def open_templates() -> Environment:
    """Return the templates, with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("pneumo.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digits"] = wording.write_digits
    environment.filters["name_correlated"] = wording.name_correlated
    return environment


def build_context(report: Report) -> dict[str, Any]:
    """Return what the templates need besides the report itself."""
    test = report.manifest[report.manifest["split"].isin(["test", FOLDS])]
    external, checklist = report.tables["external"], fill_checklist(find_facts(report))
    if len(external):
        external = external[
            (external["combo"] == report.best["combo"]) & (external["model"] == report.best["model"])
        ]
    return {
        "report": report,
        "words": wording,
        "sections": SECTIONS,
        "best": report.best,
        "criterion": wording.name_criterion(report.criterion),
        "criterion_note": describe_criterion(report.criterion, report.tables["leaderboard"]),
        "answer": find_answer(
            report.tables["effects"], report.params.combos, report.reference, report.margin
        ),
        "stress": average_stress(report.tables["stress"], report.best),
        "selection": report.tables["selection"].dropna().to_dict("records"),
        "objections": find_objections(
            report.best,
            report.criterion,
            report.tables,
            report.details,
            report.best_run.rpartition("/")[2],
            report.threshold_method,
            report.findings,
            report.recipe,
            report.n_unknown_patients,
        ),
        "charts": draw_charts(report),
        "points": list_points(
            report.scores, report.details["operating_points"], report.threshold_method, report.classes[1]
        )
        if report.has_threshold and not report.has_folds  # each fold has a threshold on a scale of its own
        else None,
        "unseen_models": list_unseen_models(report),
        "counts": count_images(report.manifest),
        "patients": report.manifest.groupby("split")["patient"].nunique().to_dict(),
        "n_patients": report.manifest["patient"].nunique(),
        "split_text": describe_split(report.manifest, report.params.split),
        "n_test": report.n_test,
        "test_rate": float((test["label"] == report.classes[-1]).mean()) if len(test) else float("nan"),
        "grid": arrange_grid(report.tables["leaderboard"], list(report.params.combos)),
        "external": external.to_dict("records"),
        "subgroups": arrange_subgroups(report.tables["subgroups"]),
        "subgroup_text": describe_differences(report.tables["subgroups"]),
        "probes": arrange_probes(report.tables["probes"]),
        "findings": [describe_finding(row) for row in report.findings.to_dict("records")],
        "tables": build_tables(report.tables, report.reference, report.criterion),
        "checklist": checklist,
        "filled": sum(bool(item.answer) for items in checklist.values() for item in items),
        "total": sum(map(len, checklist.values())),
        "missing": describe_missing(report.missing_runs),
        "over_seeds": f", mean over {report.best['n_seeds']} seeds" if report.best["n_seeds"] > 1 else "",
        "total_seconds": describe_seconds(report.tables["seconds"]),
    }


def list_unseen_models(report: Report) -> list[str]:
    """Return the models that train on random views of which no picture was kept."""
    known = {each.run.split("/")[1] for each in report.views}.union(report.fixed_models)
    return [model for model in dict.fromkeys(report.tables["leaderboard"]["model"]) if model not in known]


def find_facts(report: Report) -> Facts:
    """Return what the answers of the checklist depend on."""
    verdicts = set(select_primary(report.tables["effects"])["verdict"].astype(str))
    return Facts(
        knows_patients=report.n_unknown_patients == 0,
        is_judged=bool(verdicts - {"unknown_spread", "not_compared", "reference"}),
        has_threshold=report.has_threshold,
        has_external=len(report.tables["external"]) > 0,
        has_stress=len(average_stress(report.tables["stress"], report.best)) > 0,
        has_probes=len(report.tables["probes"]) > 0,
        has_galleries=len(report.galleries) > 0,
        is_synthetic=report.is_synthetic,
        test_seen=wording.describe_test_seen(report.recipe),
    )


def draw_charts(report: Report) -> dict[str, Markup | None]:
    """Draw the charts of the page by name; None where there is nothing to draw."""
    details, best = report.details, report.best
    point = point_roc = None
    if report.has_threshold:
        row = find_point(details["operating_points"], report.threshold_method)
        point = (1 - best["specificity"], best["sensitivity"])
        if not report.has_folds:  # what the sliders move along
            point_roc = charts.plot_roc(
                details["roc"],
                None,
                (1 - row["specificity"], row["sensitivity"]),
                f"ROC curve of {report.best_run}",
                "point-roc",
            )
    bins = {str(name): rows for name, rows in details["calibration"].groupby("name", sort=False)}
    history = report.tables["history"]
    combo, model, seed = report.best_run.split("/")
    own = select_first_fold(
        history[(history["combo"] == combo) & (history["model"] == model) & (history["seed"] == int(seed))]
    )
    ratios = report.manifest["width"] / report.manifest["height"]
    return {
        "roc": charts.plot_roc(
            report.curve, report.band, point, f"ROC curve of {best['model']} on {best['combo']}", "roc"
        ),
        "point_roc": point_roc,
        "reliability": charts.plot_reliability(bins, f"Reliability of {report.best_run}"),
        "benefit": charts.plot_net_benefit(details["net_benefit"], f"Decision curve of {report.best_run}")
        if "net_benefit" in details
        else None,
        "ratios": charts.plot_densities(
            {
                str(label): ratios[rows.index].to_numpy(float)
                for label, rows in report.manifest.groupby("label")
            },
            charts.Axis("width by height", low=0.5, high=_WIDEST),
            "ratios",
            "Shape of the files by class",
        ),
        "loss": charts.plot_history(own, "loss", "loss") if len(own) else None,
        "auc": charts.plot_history(own, "auc", "ROC AUC") if len(own) else None,
    }


def count_images(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the number of images, one row a split, one column a subtype."""
    counts = pd.crosstab(manifest["split"], manifest["subtype"])
    return counts.loc[
        [name for name in (*SPLITS, FOLDS) if name in counts.index],
        [str(name) for name in Subtype if name in counts.columns],
    ]


def describe_criterion(criterion: str, leaderboard: pd.DataFrame) -> str:
    """Say why changed validation images do not order a leaderboard that has scores on them for some rows."""
    n_known = int(leaderboard["stress_roc_auc"].notna().sum())
    if criterion == "stress_roc_auc" or n_known == 0:
        return ""
    return (
        f"Scores on changed validation images are known for {n_known} of "
        f"{wording.count(len(leaderboard), 'row')}. They order the leaderboard once they are known for all."
    )


def arrange_grid(leaderboard: pd.DataFrame, combos: list[str]) -> dict[str, Any]:
    """Arrange the leaderboard with a row a model and a column a combo.

    Returns:
        `columns`, the combos that have a row, and `rows`, of each model its name and its cells, None where it
        has no run.
    """
    cells = {(row["combo"], row["model"]): row for row in leaderboard.to_dict("records")}
    shown = [combo for combo in combos if combo in set(leaderboard["combo"])]
    models = list(dict.fromkeys(leaderboard["model"]))
    return {
        "columns": shown,
        "rows": [(model, [cells.get((combo, model)) for combo in shown]) for model in models],
    }


def arrange_probes(probes: pd.DataFrame) -> dict[str, Any]:
    """Arrange probes with a row a combo and model and a column a probe, as `arrange_grid` does."""
    rows = []
    if len(probes):
        for (combo, model), of_model in probes.groupby(["combo", "model"], sort=False):
            by_check = {row["check"]: row for row in of_model.to_dict("records")}
            rows.append((combo, model, [by_check.get(check) for check in PROBES]))
    return {"columns": list(PROBES.values()), "rows": rows}


def average_stress(stress: pd.DataFrame, best: Mapping[str, Any]) -> list[dict[Any, Any]]:
    """Average over seeds how the best model does on changed validation images; empty if not known."""
    own = stress[(stress["combo"] == best["combo"]) & (stress["model"] == best["model"])]
    means = own.drop(columns=["combo", "model", "seed"]).groupby("change", sort=False).mean().reset_index()
    return means.to_dict("records")


def describe_finding(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Write one finding of the audit."""
    is_area = not pd.isna(row["low"])
    kind = _KINDS[str(row["verdict"])]
    return {
        "question": row["question"],
        "number": wording.write_digits(row["value"]) if is_area else f"{row['value']:.3g}",
        "interval": wording.write_interval(row["low"], row["high"]) if is_area else "",
        "strip": charts.draw_interval(
            row["value"], row["low"], row["high"], charts.Scale(0.5, 1.0), kind, [0.5, 1.0]
        )
        if is_area
        else "",
        "verdict": row["verdict"],
        "kind": kind,
        "text": row["text"],
    }


def describe_seconds(seconds: pd.DataFrame) -> str:
    """Say how long all runs took to train."""
    known = seconds["train_s"].dropna()
    if known.empty:
        return "not known"
    text = (
        f"{known.sum() / 60:.0f} minutes in all"
        if known.sum() >= 120
        else f"{known.sum():.0f} seconds in all"
    )
    missing = len(seconds) - len(known)
    return f"{text}; {wording.count(missing, 'run')} not known" if missing else text


def describe_split(manifest: pd.DataFrame, split: Split) -> str:
    """Say how images were divided, and whether a patient is in two splits."""
    if split.has_folds:
        return (
            f"Cross-validation: {split.n_folds} folds by patient and by file content, stratified by subtype, "
            "drawn anew for each seed. Each image is tested once a seed, by a network that has not seen its "
            f"patient. Of the images outside a fold, {100 * split.val_fraction:.0f} % validate."
        )
    n_shared = int(manifest.drop_duplicates(["patient", "split"])["patient"].duplicated().sum())
    how = "Validation was carved out of the official training set by patient and by file content."
    if "official_split" in manifest and manifest["official_split"].isna().all():
        how = "Validation and test set were carved out by patient and by file content."
    if n_shared == 0:
        return f"{how} No patient is in two splits."
    return f"{how} {wording.count(n_shared, 'patient')} {'is' if n_shared == 1 else 'are'} in two splits."


def describe_missing(names: list[str]) -> str:
    """Say which runs have no result; a few are named, more stand in a list below."""
    if not names:
        return ""
    which = f": {', '.join(names)}" if len(names) <= N_NAMED else ""
    verbs = ("has", "is") if len(names) == 1 else ("have", "are")
    return f"{wording.count(len(names), 'run')} {verbs[0]} no result and {verbs[1]} in no number here{which}."


def list_points(
    scores: pd.DataFrame, operating_points: pd.DataFrame, method: str, name: str
) -> dict[str, Any]:
    """Return what the sliders need: scores of both classes, in digits enough to give every float32 back.

    Args:
        scores: `y_true` (1 is positive) and `y_score` of each image.
        operating_points: `method` and `threshold`.
        method: the one in use.
        name: of the positive class.
    """
    by_class = {
        key: [float(f"{score:.9g}") for score in sorted(scores.loc[scores["y_true"] == number, "y_score"])]
        for key, number in (("positive", 1), ("negative", 0))
    }
    thresholds = dict(zip(operating_points["method"], operating_points["threshold"], strict=True))
    ordered = [[str(key), float(value)] for key, value in ({method: thresholds[method]} | thresholds).items()]
    return {
        **by_class,
        "thresholds": ordered,
        "name": name,
    }


def _clean(text: str) -> str:
    """Leave one empty line where templates leave several, and none at the start."""
    return re.sub(r"\n{3,}", "\n\n", text.lstrip())
