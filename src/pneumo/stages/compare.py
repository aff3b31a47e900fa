"""compare: all runs of an experiment -> reports/<experiment>/."""

import shutil

import pandas as pd
from omegaconf import OmegaConf

from pneumo.base.artifacts import write_file, write_folder, write_json
from pneumo.base.config import PARAMS_PATH, Params, load_group
from pneumo.base.labels import CLASSES
from pneumo.base.paths import audit_dir, exploration_dir, report_dir
from pneumo.evaluation import comparison
from pneumo.evaluation.experiment import compile_results, score_external
from pneumo.report import pictures, provenance
from pneumo.report.inputs import find_reference, gather_inputs, hash_predictions, read_seconds
from pneumo.report.page import Report, write_report
from pneumo.report.plots import write_plots


def run(params: Params) -> None:
    """Score, rank and compare all runs, and write tables, figures and the page."""
    data = load_group("data", params.source, params.data_overrides)
    title, report = str(data["title"]), report_dir(params.experiment)
    inputs = gather_inputs(params)
    reference = find_reference(params)
    results = compile_results(inputs.predictions, params.threshold, reference)
    best = "/".join(map(str, results.best_run))
    seconds_path = report / "seconds.csv"  # no output of the stage, so that it is there before and after
    seconds = provenance.update_seconds(
        pd.read_csv(seconds_path) if seconds_path.is_file() else None,
        read_seconds(inputs.runs),
        hash_predictions(inputs.runs),
    )
    tables = {
        "runs": results.runs,
        "leaderboard": results.leaderboard,
        "classes": results.by_class,
        "history": inputs.history,
        "comparisons": results.comparisons,
        "predictions": comparison.join_predictions(
            {run.name: inputs.predictions[run.key] for run in inputs.runs}
        ),
        "probes": comparison.average_probes(inputs.probes),
        "external": score_external(inputs.external, results.outcomes),
        "environments": provenance.tabulate_environments(inputs.records),
        "seconds": seconds,
    }
    for name, table in tables.items():
        with write_file(report / f"{name}.csv") as partial:
            table.to_csv(partial, index=False, float_format="%.6g")
    write_json(report / "summary.json", {params.data_name: comparison.summarize(results.leaderboard)})
    for name, source in (("data", exploration_dir(params.data_name)), ("audit", audit_dir(params.data_name))):
        with write_folder(report / name) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.npy"))
    with write_folder(report / "plots") as folder:
        write_plots(results.leaderboard, results.curves, results.decisions, folder)
    with write_folder(report / pictures.FOLDER_NAME) as folder:
        drawn = {
            "How the combinations compare": pictures.draw_bars(results.leaderboard, title, folder),
            "Confusion matrices": pictures.draw_matrices(results.matrices, title, folder),
            "ROC curves": pictures.draw_curves(results.curves, title, folder),
            "Are the probabilities right?": pictures.draw_details(results.details, best, title, folder),
            "The same images under every combo": pictures.draw_contact_sheet(
                inputs.images, inputs.manifest, title, folder
            ),
            "What the data look like": pictures.draw_data(inputs.manifest, inputs.samples, title, folder),
        }
        galleries: list[tuple[str, str]] = []
    page = report / "index.html"
    write_report(
        Report(
            experiment=params.experiment,
            data_title=title,
            is_synthetic=bool(data["synthetic"]),
            classes=CLASSES[params.task],
            manifest=inputs.manifest,
            tables=tables,
            reference=reference,
            best_run=best,
            recipe=inputs.records[best]["recipe"],
            details=results.details,
            findings=pd.read_csv(report / "audit" / "findings.csv"),
            set_aside=pd.read_csv(report / "data" / "quarantine.csv"),
            missing_runs=inputs.missing,
            galleries=galleries,
            figures=drawn,
            params=OmegaConf.to_yaml(OmegaConf.load(PARAMS_PATH)),
            input_hashes=provenance.list_inputs(inputs.records),
        ),
        page,
    )
    print(f"{len(inputs.runs)} of {len(params.runs)} runs compared: {page}")
    if inputs.missing:
        print(f"no result: {', '.join(inputs.missing)}")
