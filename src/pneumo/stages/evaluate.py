"""evaluate: predictions.csv -> metrics.json and the tables behind the curves of one run."""

from pneumo.base.artifacts import write_folder, write_json
from pneumo.base.config import Params, Run
from pneumo.base.paths import run_dir, run_report_dir
from pneumo.base.tables import read_predictions
from pneumo.evaluation.predictions import select_scores
from pneumo.evaluation.scoring import fit_run_rule, score_run, tabulate_run


def run(params: Params, run: Run) -> None:
    """Score one run on the test set, with threshold and temperature chosen on validation."""
    table = read_predictions(run_dir(run) / "predictions.csv")
    val, test = select_scores(table, "val"), select_scores(table, "test")
    rule = fit_run_rule(val, params.threshold)
    scores = score_run(val, test, rule)
    with write_folder(run_report_dir(run)) as folder:
        write_json(folder / "metrics.json", scores)
        for name, rows in tabulate_run(val, test, rule, params.threshold, params.prevalence).items():
            rows.to_csv(folder / f"{name}.csv", index=False)
    shown = (
        f"{label} {'undefined' if scores['test'][metric] is None else format(scores['test'][metric], '.3f')}"
        for metric, label in (("roc_auc", "ROC AUC"), ("accuracy", "accuracy"))
    )
    print(f"{run.name}: test {', '.join(shown)}")
