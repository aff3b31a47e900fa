"""tune: a recipe and its ranges in conf/tune/ -> conf/model/<recipe>_tuned.yaml, chosen on validation."""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import optuna
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from pneumo.base.artifacts import hash_file, write_folder, write_text
from pneumo.base.config import CONF_PATH, Params, build, expect, load_group, load_params
from pneumo.base.errors import PneumoError
from pneumo.base.paths import images_path, manifest_path, tuning_dir
from pneumo.base.reproducibility import make_deterministic
from pneumo.execution.engine import Call
from pneumo.execution.local import LocalEngine
from pneumo.report import figures
from pneumo.training import search
from pneumo.training.dataset import load_dataset
from pneumo.training.fit import fit_classifier
from pneumo.training.recipe import Recipe, find_weights

TRAINING_SEED = 0  # the same for every trial, so that trials differ by their recipes alone
LOGS_DIR = Path("logs")
MODULE = "pneumo.commands.tune"
TRIAL = "trial "  # how a line of progress begins


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


def run(params: Params, recipe: str, combo: str, storage: str | None, seed: int, workers: int) -> None:
    """Try recipes until the study's trials are finished, by this command or by others, and write the best.

    Args:
        params: data, task, combos and overrides of the recipe.
        recipe: its name; conf/tune/ has a file of this name too.
        combo: whose images are trained on; `preprocess` has made them.
        storage: URL of the study's database; None for an SQLite file beside the models.
        seed: of the draws.
        workers: processes that try recipes at the same time. With more than one, what is drawn depends on
            which trial ends first.
    """
    expect(workers >= 1, "--workers", "1 or more", workers)
    question = open_question(params, recipe, combo, storage, seed)
    if workers == 1:
        try_recipes(params, question, recipe, combo)
    else:
        run_workers(workers, (recipe, combo, storage, seed))
    write_results(question.study, question.settings, question.base, params, recipe, combo)


def run_workers(n_workers: int, arguments: tuple[str, str, str | None, int]) -> None:
    """Let processes work on a study until its trials are finished; what they print is shown as it comes.

    Args:
        n_workers: how many.
        arguments: of `work`.

    Raises:
        PneumoError: a worker has failed; the others have finished the study.
    """
    failed: dict[str, str] = {}
    with LocalEngine(n_workers, LOGS_DIR, [MODULE]) as engine, contextlib.ExitStack() as logs:
        names = [f"tune_{arguments[0]}_{number}" for number in range(n_workers)]
        for name in names:
            engine.submit(Call(name, f"{MODULE}:work", arguments))
        files = [logs.enter_context(find_log(name).open(encoding="utf-8")) for name in names]
        n_left = n_workers
        while n_left:
            outcomes = engine.wait(1)
            n_left -= len(outcomes)
            failed |= {outcome.name: outcome.error for outcome in outcomes if outcome.error}
            for line in (line for file in files for line in file if line.startswith(TRIAL)):
                print(line, end="", flush=True)
    if failed:
        lines = [f"  {name}: {error} ({find_log(name)})" for name, error in failed.items()]
        raise PneumoError("\n".join([f"{len(failed)} of {n_workers} workers failed:", *lines]))


def find_log(name: str) -> Path:
    """Return the log file of a worker."""
    return LOGS_DIR / f"{name}.log"


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

    search.run_trials(study, objective, lambda trial: print_progress(study, trial, settings.n_trials))


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
    network = build(Recipe, base, "recipe").network
    weights = None
    if network.pretrained:
        weights = find_weights(network.pretrained, Path(params.weights_dir), network.pretrained_ends_at)
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


def print_progress(study: optuna.Study, trial: optuna.trial.FrozenTrial, n_trials: int) -> None:
    """Say how a trial ended, and how far the study is."""
    finished = search.list_finished(study)
    value = "pruned" if trial.state is optuna.trial.TrialState.PRUNED else f"{trial.value:.4f}"
    done = [each.value for each in finished if each.state is optuna.trial.TrialState.COMPLETE]
    best = f", best {study.best_value:.4f}" if done else ""
    print(f"{TRIAL}{len(finished)} of {n_trials}: {value}{best}  {trial.params}", flush=True)


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
