"""tune: a recipe and its ranges in conf/tune/ -> conf/model/<recipe>_tuned.yaml, chosen on validation."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import optuna
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from pneumo.base.artifacts import hash_file, write_folder, write_text
from pneumo.base.config import CONF_PATH, Params, build, expect, load_group, load_params
from pneumo.base.errors import PneumoError
from pneumo.base.paths import FEATURE_CACHE_DIR, images_path, manifest_path, tuning_dir
from pneumo.base.reproducibility import make_deterministic
from pneumo.execution.engine import Call, Engine, Files, Resources
from pneumo.execution.local import LocalEngine, find_log
from pneumo.execution.ray_engine import LOCAL_ADDRESS, RayEngine
from pneumo.report import figures
from pneumo.training import search
from pneumo.training.dataset import load_dataset
from pneumo.training.fit import fit_classifier
from pneumo.training.recipe import Recipe

TRAINING_SEED = 0  # the same for every trial, so that trials differ by their recipes alone
LOGS_DIR = Path("logs")
MODULE = "pneumo.commands.tune"


@dataclass(frozen=True)
class Question:
    """A study, and what it asks.

    Attributes:
        study: opened, with its trials waiting.
        settings: of the search.
        base: the recipe that it starts from, with what params.yaml overrides.
    """

    study: optuna.Study
    settings: search.Search
    base: DictConfig


def run(
    params: Params,
    recipe: str,
    combo: str,
    storage: str | None,
    seed: int,
    workers: int,
    engine: str = "local",
    address: str | None = None,
) -> None:
    """Try recipes until the study's trials are finished, by this command or by others, and write the best.

    Args:
        params: data, task, combos and overrides of the recipe.
        recipe: its name; conf/tune/ has a file of this name too.
        combo: whose images are trained on; `preprocess` has made them.
        storage: URL of the study's database; None for an SQLite file beside the models.
        seed: of the draws.
        workers: processes that try recipes at the same time. With more than one, what is drawn depends on
            which trial ends first.
        engine: `local`, or `ray`: the workers are on a cluster.
        address: of the cluster; None starts Ray on this machine.
    """
    expect(workers >= 1, "--workers", "1 or more", workers)
    expect(address is None or engine == "ray", "--address", "none without --engine ray", address)
    has_storage = engine == "local" or storage is not None
    expect(has_storage, "--storage", "a database that the cluster can reach, with --engine ray", storage)
    question = open_question(params, recipe, combo, storage, seed)
    arguments = (recipe, combo, storage, seed)
    if engine == "ray":
        with LocalEngine(1, LOGS_DIR) as here, RayEngine(address or LOCAL_ADDRESS, here, LOGS_DIR) as cluster:
            settings = build(Recipe, question.base, f"model {recipe}")
            resources = Resources(settings.threads, 1.0 if cluster.n_gpus else 0.0)
            run_workers(cluster, workers, question, arguments, resources, list_files(params, combo, settings))
    elif workers > 1:
        with LocalEngine(workers, LOGS_DIR, [MODULE]) as processes:
            run_workers(processes, workers, question, arguments)
    else:
        try_recipes(params, question, recipe, combo)
    write_results(question.study, question.settings, question.base, params, recipe, combo)


def run_workers(
    engine: Engine,
    n_workers: int,
    question: Question,
    arguments: tuple[str, str, str | None, int],
    resources: Resources = Resources(),  # noqa: B008, frozen
    files: Files | None = None,
) -> None:
    """Let workers take the trials of a study until it is finished, and say how each trial ended.

    Args:
        engine: that runs the workers.
        n_workers: how many.
        question: the study.
        arguments: of `work`.
        resources: of each worker.
        files: that a worker on another machine needs.

    Raises:
        PneumoError: a worker has failed; the others have finished the study.
    """
    failed: dict[str, str] = {}
    n_left, said = n_workers, search.list_finished(question.study)
    for number in range(n_workers):
        name = f"tune_{arguments[0]}_{number}"
        engine.submit(Call(name, f"{MODULE}:work", arguments, resources, files=files))
    while n_left:
        outcomes = engine.wait(1)
        n_left -= len(outcomes)
        failed |= {outcome.name: outcome.error for outcome in outcomes if outcome.error}
        print_progress(question, said)
    if failed:
        lines = [f"  {name}: {error} ({find_log(LOGS_DIR, name)})" for name, error in failed.items()]
        raise PneumoError("\n".join([f"{len(failed)} of {n_workers} workers failed:", *lines]))


def list_files(params: Params, combo: str, recipe: Recipe) -> Files:
    """List what a worker on another machine needs."""
    inputs = [manifest_path(params.data_name), images_path(params.data_name, combo)]
    if weights := recipe.network.find_weights(Path(params.weights_dir)):
        inputs.append(weights)
    caches = [FEATURE_CACHE_DIR] if recipe.uses_features else []
    return Files(tuple(map(str, inputs)), (), tuple(map(str, caches)))


def work(recipe: str, combo: str, storage: str | None, seed: int) -> None:
    """Work on a study that has been opened before; the arguments are those of `run`."""
    params = load_params()
    try_recipes(params, open_question(params, recipe, combo, storage, seed), recipe, combo)


def open_question(params: Params, recipe: str, combo: str, storage: str | None, seed: int) -> Question:
    """Open the study of what is asked; the arguments are those of `run`."""
    base = load_group("model", recipe, params.models.get(recipe))
    settings = build(search.Search, load_group("tune", recipe), f"tune {recipe}")
    mode = build(Recipe, base, f"model {recipe}").monitor.mode
    key = hash_question(base, settings, seed, params, combo)
    name = f"{params.experiment}/{combo}/{recipe}/{key[:12]}"
    study = search.open_study(name, storage or default_url(params.experiment), mode, settings, seed)
    return Question(study, settings, base)


def try_recipes(params: Params, question: Question, recipe: str, combo: str) -> None:
    """Take trials of a study, train what they draw and score it, until none is left.

    Args:
        params: data and task.
        question: the study.
        recipe: the name of the recipe that it starts from.
        combo: whose images are trained on.
    """
    study, settings, base = question.study, question.settings, question.base
    start = build(Recipe, base, f"model {recipe}")
    make_deterministic(start.threads)
    monitor = start.monitor
    data = load_dataset(params, combo)

    def objective(trial: optuna.Trial) -> float:
        config = set_values(base, search.draw_values(trial, settings.ranges))
        drawn = build(Recipe, config, f"tune {recipe}")
        keras.backend.clear_session()
        classifier = data.build_classifier(drawn, TRAINING_SEED)
        reported: list[float] = []

        def report(_: int, logs: dict[str, float]) -> None:
            trial.report(logs[monitor.value], len(reported))
            reported.append(logs[monitor.value])
            if trial.should_prune():
                raise optuna.TrialPruned

        history = fit_classifier(
            classifier,
            drawn,
            data.training,
            TRAINING_SEED,
            lambda: data.load_features(classifier),
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report)],
        )
        return score_history(history, drawn)

    said = search.list_finished(study)
    search.run_trials(study, objective, lambda: print_progress(question, said))


def hash_question(base: DictConfig, settings: search.Search, seed: int, params: Params, combo: str) -> str:
    """Return a hash of all that the value of a trial depends on; another hash is another study.

    The number of trials is left out: more trials of the same kind continue a study.

    Args:
        base: the recipe, with what params.yaml overrides.
        settings: of the search.
        seed: of the draws.
        params: names data, task and weights.
        combo: whose images are trained on.
    """
    weights = build(Recipe, base, "recipe").network.find_weights(Path(params.weights_dir))
    question = {
        "recipe": OmegaConf.to_container(base),
        "search": {**asdict(settings), "n_trials": None},
        "seeds": [seed, TRAINING_SEED],
        "task": params.task,
        "manifest": hash_file(manifest_path(params.data_name)),
        "images": hash_file(images_path(params.data_name, combo)),
        "weights": hash_file(weights) if weights else None,
    }
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def score_history(history: pd.DataFrame, recipe: Recipe) -> float:
    """Return the monitored metric of the weights that training keeps: of the last phase's best or last epoch.

    Args:
        history: as `training.fit_classifier` returns it.
        recipe: what was trained.
    """
    last_phase = history.loc[history["phase"] == history["phase"].iloc[-1], recipe.monitor.value]
    if not recipe.keep_best:
        return float(last_phase.iloc[-1])
    return float(last_phase.max() if recipe.monitor.mode == "max" else last_phase.min())


def default_url(experiment: str) -> str:
    """Return the URL of an SQLite file beside the models; a name with a point is no experiment's."""
    folder = Path("models", ".tuning")
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / experiment}.db"


def set_values(base: DictConfig, values: dict[str, Any]) -> DictConfig:
    """Return a copy of a recipe with some keys, their parts divided by points, set to values."""
    config = base.copy()
    for key, value in values.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return config


def print_progress(question: Question, said: list[FrozenTrial]) -> None:
    """Say how trials ended, in the order in which they did.

    Args:
        question: whose study is looked at.
        said: the trials that need not be said again; those that are said now are added.
    """
    known = {trial.number for trial in said}
    ended = [trial for trial in search.list_finished(question.study) if trial.number not in known]
    for trial in sorted(ended, key=lambda trial: trial.datetime_complete or datetime.max):
        said.append(trial)
        value = "pruned" if trial.state is TrialState.PRUNED else f"{trial.value:.4f}"
        best = search.find_best_value(question.study, said)
        text = "" if best is None else f", best {best:.4f}"
        count = f"trial {len(said)} of {question.settings.n_trials}"
        print(f"{count}: {value}{text}  {trial.params}", flush=True)


def write_results(
    study: optuna.Study, settings: search.Search, base: DictConfig, params: Params, model: str, combo: str
) -> None:
    """Write the best recipe, a table of all trials, and figures."""
    table = search.tabulate_trials(study)
    best = study.best_trial
    recipe = set_values(base, search.read_values(best, settings.ranges))
    path = CONF_PATH / "model" / f"{model}_tuned.yaml"
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    write_text(
        path,
        f"# {model}, tuned: the best of {len(table)} recipes tried on {combo} images of {title!r},\n"
        f"# with a validation score of {best.value:.4f} (monitor, below). The test set was not looked at.\n"
        + OmegaConf.to_yaml(recipe),
    )
    with write_folder(tuning_dir(params.experiment) / model) as folder:
        table.to_csv(folder / "trials.csv", index=False, float_format="%.6g")
        heading = f"{title}\n{combo}/{model}, {len(table)} trials"
        score = str(recipe["monitor"])
        figures.save_figure(figures.plot_trials(table, score, heading), folder / "history.png")
        importance = search.rank_parameters(study)
        if len(importance):
            figures.save_figure(figures.plot_importance(importance, heading), folder / "importance.png")
    print(f"best: {best.value:.4f} with {best.params}; recipe in {path}, figures in {folder.parent / model}")
