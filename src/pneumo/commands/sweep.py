"""sweep: run the stages that are due, many at a time; then `dvc repro` has nothing to run."""

import functools
from pathlib import Path

import pandas as pd

from pneumo.base.config import Params, Run, build, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.paths import DATA_DIR, MODELS_DIR, REPORTS_DIR, manifest_path, run_dir
from pneumo.base.tables import read_manifest
from pneumo.execution.engine import Call, Engine, Outcome, Resources
from pneumo.execution.graph import Progress, Task, run_graph
from pneumo.execution.local import LocalEngine, count_cpus, list_gpus
from pneumo.execution.pipeline import Pipeline
from pneumo.execution.progress import Display, find_kind
from pneumo.training.recipe import Recipe

LOGS_DIR = Path("logs")
TARGET = "pneumo.cli:main"
# What stages import, the slowest first.
MODULES = ("pneumo.stages.train", "pneumo.stages.explain", "pneumo.stages.audit", "pneumo.stages.compare")
USE_GPU = ("train", "explain", "external")


def run(params: Params, workers: int | None, gpus_per_run: float) -> None:
    """Run what is due of all stages.

    Args:
        params: the experiment.
        workers: cores to use; None uses all.
        gpus_per_run: of runs and of what predicts with them, where there are GPUs.

    Raises:
        PneumoError: stages have failed; all that do not need them have run.
    """
    n_cpus = workers or count_cpus()
    with LocalEngine(n_cpus, LOGS_DIR, MODULES, list_gpus()) as engine, open_pipeline() as pipeline:
        progress = run_pipeline(params, pipeline, engine, n_cpus, gpus_per_run)
    print(f"{len(progress.done)} stages run, {len(progress.unchanged)} unchanged or from the cache.")
    if progress.failed:
        lines = [f"  {name}: {error} ({find_log(name)})" for name, error in progress.failed.items()]
        skipped = f"; {len(progress.skipped)} that need them did not run" if progress.skipped else ""
        raise PneumoError("\n".join([f"{len(progress.failed)} stages failed{skipped}:", *lines]))


def open_pipeline() -> Pipeline:
    """Return the pipeline of the current folder."""
    return Pipeline((str(DATA_DIR), str(MODELS_DIR), str(REPORTS_DIR)))


def run_pipeline(
    params: Params, pipeline: Pipeline, engine: Engine, n_workers: int, gpus_per_run: float
) -> Progress:
    """Run a pipeline on an engine and show how it goes.

    Args:
        params: the experiment.
        pipeline: its stages.
        engine: that runs them.
        n_workers: stages that run at a time, for the estimate of the time left.
        gpus_per_run: see `run`.
    """
    runs = {f"train@{each.combo}-{each.model}-{each.seed}": each for each in params.runs}
    recipes = {
        name: build(Recipe, load_group("model", name, overrides), f"model {name}")
        for name, overrides in params.models.items()
    }

    def begin(task: Task, priority: int) -> Call | None:
        if pipeline.restore(task.name):
            return None
        threads = recipes[runs[task.name].model].threads if task.name in runs else 1
        gpus = gpus_per_run if find_kind(task.name) in USE_GPU else 0.0
        command = pipeline.get_command(task.name).split()[1:]
        return Call(task.name, TARGET, ([*command, "--debug"],), Resources(threads, gpus), priority)

    def finish(outcome: Outcome) -> None:
        if outcome.value != 0:
            raise PneumoError(f"exit status {outcome.value}")
        pipeline.commit(outcome.name)

    @functools.cache
    def count_training_images() -> int:
        return int((read_manifest(manifest_path(params.data_name))["split"] == "train").sum())

    def count_images(name: str) -> int:
        if name not in runs:
            return 0
        return count_training_images() * len(pd.read_csv(run_dir(runs[name]) / "history.csv"))

    tasks = share_features(pipeline.tasks, runs, recipes)
    with Display([task.name for task in tasks], n_workers, count_images) as display:
        return run_graph(tasks, engine, begin, finish, display.show)


def share_features(tasks: list[Task], runs: dict[str, Run], recipes: dict[str, Recipe]) -> list[Task]:
    """Let one run compute the features of a frozen backbone before the other runs that use them begin.

    Args:
        tasks: all stages.
        runs: name of a task -> its run.
        recipes: name of a model -> its recipe.

    Returns:
        The tasks, in the same order.
    """
    first: dict[tuple[object, ...], str] = {}
    changed = []
    for task in tasks:
        run = runs.get(task.name)
        network = recipes[run.model].network if run else None
        if run and network and any(phase.uses_features for phase in recipes[run.model].phases.values()):
            key = (run.combo, network.name, network.input_size_px, network.weights, network.ends_at)
            leader = first.setdefault(key, task.name)
            after = frozenset({leader} - {task.name})
            task = Task(task.name, task.needs, after)
        changed.append(task)
    return changed


def find_log(name: str) -> Path:
    """Return the log file of a stage."""
    return LOGS_DIR / f"{name}.log"
