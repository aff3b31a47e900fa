"""compare: all runs of an experiment -> reports/<experiment>/."""

import pandas as pd
from omegaconf import OmegaConf

from pneumo.base import privacy
from pneumo.base.artifacts import write_folder, write_json
from pneumo.base.config import PARAMS_PATH, Params, load_group
from pneumo.base.paths import audit_dir, exploration_dir, full_report_dir, report_dir
from pneumo.evaluation import comparison, subgroups
from pneumo.evaluation.curves import band_roc
from pneumo.evaluation.ensembles import score_ensembles
from pneumo.evaluation.experiment import Results, compile_results, group_seeds, score_external
from pneumo.evaluation.selection import correlate_with_test
from pneumo.report import photos, provenance, wording
from pneumo.report.files import publish, read_lists
from pneumo.report.inputs import (
    Inputs,
    choose_galleries,
    find_reference,
    gather_inputs,
    hash_predictions,
    read_galleries,
    read_seconds,
    read_views,
)
from pneumo.report.page import Report
from pneumo.report.plots import write_plots
from pneumo.report.summary import summarize


def run(params: Params) -> None:
    """Score, rank and compare all runs, and write tables, plots and the page."""
    folder, inputs = report_dir(params.experiment), gather_inputs(params)
    results = compile_results(
        inputs.predictions,
        params.threshold,
        params.prevalence,
        find_reference(params),
        params.equivalence_margin,
        inputs.stress,
    )
    report = describe(params, inputs, results, tabulate(params, inputs, results))
    publish(folder, full_report_dir(params.experiment), report, read_lists(params))
    write_json(folder / "summary.json", summarize(report.tables["effects"], results.leaderboard))
    with write_folder(folder / "plots") as plots:
        write_plots(report.tables["effects"], results.curves, results.matrices, results.best_run[1], plots)
    print(f"{len(inputs.runs)} of {len(params.runs)} runs compared: {folder / 'index.html'}")
    if inputs.missing:
        print(f"no result: {', '.join(inputs.missing)}")


def tabulate(params: Params, inputs: Inputs, results: Results) -> dict[str, pd.DataFrame]:
    """Return the report's CSV files by name."""
    seconds_path = report_dir(params.experiment) / "seconds.csv"  # no output, so that the stage finds it
    return {
        "runs": results.runs,
        "leaderboard": results.leaderboard,
        "ensembles": score_ensembles(
            results.outcomes, results.runs, params.ensemble_groups, params.threshold
        ),
        "classes": results.by_class,
        "history": inputs.history,
        "effects": results.effects,
        "comparisons": results.comparisons,
        "predictions": comparison.join_predictions(
            {run.name: inputs.predictions[run.key] for run in inputs.runs}
        ),
        "probes": inputs.probes,
        "stress": inputs.stress,
        "selection": correlate_with_test(results.runs, inputs.stress),
        "external": score_external(inputs.external, results.outcomes),
        "subgroups": subgroups.score_subgroups(results, inputs.manifest, inputs.predictions),
        "environments": provenance.tabulate_environments(inputs.records),
        "seconds": provenance.update_seconds(
            pd.read_csv(seconds_path) if seconds_path.is_file() else None,
            read_seconds(inputs.runs),
            hash_predictions(inputs.runs),
        ),
    }


def describe(params: Params, inputs: Inputs, results: Results, tables: dict[str, pd.DataFrame]) -> Report:
    """Gather what the page shows."""
    data = load_group("data", params.source, params.data_overrides)
    group, best, runs = results.best_run[:2], "/".join(map(str, results.best_run)), list(results.outcomes)
    test = results.outcomes[results.best_run].test
    decided = [results.outcomes[key].decide(results.outcomes[key].test) for key in group_seeds(runs)[group]]
    shown = choose_galleries(results.leaderboard, runs)
    steps = {combo: wording.describe_steps(steps) for combo, steps in params.combos.items()}
    return Report(
        params=params,
        params_text=OmegaConf.to_yaml(OmegaConf.load(PARAMS_PATH)),
        data_title=str(data["title"]),
        is_synthetic=bool(data["synthetic"]),
        is_private=privacy.has_private_data(params),
        margin=params.equivalence_margin,
        manifest=inputs.manifest,
        tables=tables,
        criterion=results.criterion,
        best_run=best,
        recipe=inputs.records[best]["recipe"],
        details=results.details,
        scores=pd.DataFrame({"y_true": test.y_true, "y_score": test.probabilities[:, 1]}),
        curve=results.curves[group],
        band=band_roc(decided),
        matrix=results.matrices[group],
        findings=pd.read_csv(audit_dir(params.data_name) / "findings.csv"),
        set_aside=pd.read_csv(exploration_dir(params.data_name) / "quarantine.csv"),
        missing_runs=inputs.missing,
        galleries=read_galleries(params, shown),
        combo_photos=photos.show_combos(inputs.combo_samples, inputs.manifest, steps),
        samples=photos.show_samples(inputs.samples, inputs.manifest),
        views=read_views(params, shown),
        fixed_models=provenance.list_fixed_models(inputs.records),
        same_images=provenance.find_same_images(inputs.records),
        input_hashes=provenance.list_inputs(inputs.records),
    )
