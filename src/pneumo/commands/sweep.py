"""sweep: run the stages that are due, many at a time; then `dvc repro` has nothing to run."""

import contextlib
import functools
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pneumo.base.config import Params, Run, build, expect, load_group
from pneumo.base.errors import PneumoError
from pneumo.base.paths import (
    DATA_DIR,
    FEATURE_CACHE_DIR,
    MODELS_DIR,
    REPORTS_DIR,
    manifest_path,
    run_dir,
    run_seconds_path,
)
from pneumo.base.tables import read_manifest
from pneumo.execution.engine import Call, Engine, Files, Outcome, Resources
from pneumo.execution.graph import Progress, Task, run_graph
from pneumo.execution.local import LocalEngine, count_cpus, find_log, list_gpus
from pneumo.execution.pipeline import Pipeline
from pneumo.execution.progress import Display, find_kind
from pneumo.execution.ray_engine import LOCAL_ADDRESS, RayEngine
from pneumo.training.recipe import Recipe

LOGS_DIR = Path("logs")
TARGET = "pneumo.cli:main"
# What stages import, the slowest first.
MODULES = ("pneumo.stages.train", "pneumo.stages.explain", "pneumo.stages.audit", "pneumo.stages.compare")
USE_NETWORKS = ("train", "explain", "external")
# What may run on another machine; the rest reads the image files or takes seconds.
TRAVEL = ("train", "explain")
SHIPPED = ("conf", "src")  # with each engine's code and configuration


@dataclass(frozen=True)
class Shares:
    """What a stage that computes with networks gets while it runs.

    Attributes:
        gpus: of each, where there are GPUs.
        cpus: of each; None gives what it keeps busy, see `count_threads`.
    """

    gpus: float
    cpus: int | None = None

    def __post_init__(self) -> None:
        is_whole = self.gpus <= 1 or self.gpus == int(self.gpus)
        expect(self.gpus >= 0 and is_whole, "--gpus-per-run", "0 to 1, or a whole number", self.gpus)
        expect(self.cpus is None or self.cpus >= 1, "--cpus-per-run", "1 or more", self.cpus)


def run(
    params: Params,
    workers: int | None,
    gpus_per_run: float | None = None,
    cpus_per_run: int | None = None,
    engine: str = "local",
    address: str | None = None,
) -> None:
    """Run what is due of all stages.

    Args:
        params: the experiment.
        workers: cores of this machine to use; None uses all.
        gpus_per_run: of runs and of what predicts with them; None takes 1 where there are GPUs.
        cpus_per_run: of the same; None takes what they keep busy, see `count_threads`.
        engine: `local`, or `ray`: training and explaining happen on a cluster, the rest here.
        address: of the cluster; None starts Ray on this machine.

    Raises:
        PneumoError: stages have failed; all that do not need them have run.
    """
    shares = Shares(1.0 if gpus_per_run is None else gpus_per_run, cpus_per_run)
    expect(address is None or engine == "ray", "--address", "none without --engine ray", address)
    n_cpus = workers or count_cpus()
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(LocalEngine(n_cpus, LOGS_DIR, MODULES, list_gpus()))
        chosen: Engine = here
        if engine == "ray":
            chosen = stack.enter_context(RayEngine(address or LOCAL_ADDRESS, here, LOGS_DIR, MODULES))
            n_cpus = max(n_cpus, chosen.n_cpus)
            if gpus_per_run is None and not chosen.n_gpus:  # Ray would wait for some
                shares = replace(shares, gpus=0.0)
        pipeline = stack.enter_context(open_pipeline())
        progress = run_pipeline(params, pipeline, chosen, n_cpus, shares)
    print(f"{len(progress.done)} stages run, {len(progress.unchanged)} unchanged or from the cache.")
    if progress.failed:
        lines = [f"  {name}: {error} ({find_log(LOGS_DIR, name)})" for name, error in progress.failed.items()]
        skipped = f"; {len(progress.skipped)} that need them did not run" if progress.skipped else ""
        raise PneumoError("\n".join([f"{len(progress.failed)} stages failed{skipped}:", *lines]))


def open_pipeline() -> Pipeline:
    """Return the pipeline of the current folder."""
    return Pipeline((str(DATA_DIR), str(MODELS_DIR), str(REPORTS_DIR)))


def run_pipeline(
    params: Params, pipeline: Pipeline, engine: Engine, n_workers: int, shares: Shares
) -> Progress:
    """Run a pipeline on an engine and show how it goes.

    Args:
        params: the experiment.
        pipeline: its stages.
        engine: that runs them.
        n_workers: stages that run at a time, for the estimate of the time left.
        shares: of what computes with networks.
    """
    runs = {f"train@{each.combo}-{each.model}-{each.seed}": each for each in params.runs}
    recipes = {
        name: build(Recipe, load_group("model", name, overrides), f"model {name}")
        for name, overrides in params.models.items()
    }

    def begin(task: Task, priority: int) -> Call | None:
        if pipeline.restore(task.name):
            return None
        recipe = recipes[runs[task.name].model] if task.name in runs else None
        resources = Resources()
        if find_kind(task.name) in USE_NETWORKS:
            resources = Resources(shares.cpus or count_threads(task, recipe), shares.gpus)
        files = None
        if find_kind(task.name) in TRAVEL:
            files = list_files(pipeline, task.name, params, runs.get(task.name), recipe)
        command = pipeline.get_command(task.name).split()[1:]
        return Call(task.name, TARGET, ([*command, "--debug"],), resources, priority, files)

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


def count_threads(task: Task, recipe: Recipe | None) -> int:
    """Return how many cores a stage that computes with networks keeps busy.

    Args:
        task: the stage, as `share_features` returns it.
        recipe: of the run that it trains, if it does.
    """
    if recipe is None:
        return 1
    # The features are there, and a head on them is too small for a second thread.
    finds_features = bool(task.after) and recipe.uses_features_only
    return 1 if finds_features else recipe.threads


def list_files(
    pipeline: Pipeline, name: str, params: Params, run: Run | None, recipe: Recipe | None
) -> Files:
    """List what a stage reads and writes, for an engine whose machines have another disk.

    Args:
        pipeline: that the stage is of.
        name: of the stage.
        params: the experiment.
        run: that the stage trains, if it does.
        recipe: of that run.
    """
    inputs = [path for path in pipeline.list_dependencies(name) if Path(path).parts[0] not in SHIPPED]
    outputs = pipeline.list_outputs(name)
    caches = []
    if run and recipe:
        outputs.append(str(run_seconds_path(run)))
        if recipe.uses_features:
            caches.append(str(FEATURE_CACHE_DIR))
        if weights := recipe.network.find_weights(Path(params.weights_dir)):
            inputs.append(str(weights))
    return Files(tuple(inputs), tuple(outputs), tuple(caches))


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
        if run and network and recipes[run.model].uses_features:
            key = (run.combo, network.name, network.input_size_px, network.weights, network.ends_at)
            leader = first.setdefault(key, task.name)
            after = frozenset({leader} - {task.name})
            task = Task(task.name, task.needs, after)
        changed.append(task)
    return changed
