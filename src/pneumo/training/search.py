"""Hyper-parameter search with Optuna: what may vary, and many workers on one study.

A study begins with all of its trials waiting in the storage. A worker takes one at a time until none is left,
so that any number of workers on any number of machines run each trial once. A worker that dies leaves a trial
whose heartbeat stops; another worker, or the next start, puts it back into the queue, with the same values.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import pandas as pd
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from pneumo.base.config import expect
from pneumo.base.errors import PneumoError

HEARTBEAT_S = 10
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_PLACE = "place"  # of a trial among the study's n_trials
_LOCK_TIMEOUT_S = 60  # how long a worker waits for SQLite while others write


@dataclass
class Range:
    """What one key of a recipe may be: one of `choices`, or a number from `low` to `high`.

    Attributes:
        choices: values of any kind; in their place `low` and `high`, both whole numbers or both not.
        low: the smallest number.
        high: the largest.
        log: draw on a logarithmic scale.
    """

    choices: list[Any] = field(default_factory=list)
    low: Any = None
    high: Any = None
    log: bool = False

    def __post_init__(self) -> None:
        has_bounds = self.low is not None and self.high is not None
        expect(bool(self.choices) != has_bounds, "range", "either choices, or low and high", vars(self))
        if has_bounds:
            numbers = all(isinstance(bound, int | float) for bound in (self.low, self.high))
            expect(numbers and self.low < self.high, "range", "numbers, low below high", vars(self))
            expect(not self.log or self.low > 0, "range", "low above 0 for a logarithmic scale", vars(self))


@dataclass
class Search:
    """One file of conf/tune/.

    Attributes:
        n_trials: how many recipes to try, pruned ones included.
        ranges: key of the recipe, its parts divided by points, -> what it may be.
        n_startup_trials: no trial is pruned before so many are finished.
        n_warmup_epochs: no trial is pruned before so many epochs.
    """

    n_trials: int
    ranges: dict[str, Range]
    n_startup_trials: int = 5
    n_warmup_epochs: int = 2

    def __post_init__(self) -> None:
        expect(self.n_trials >= 1, "n_trials", "1 or more", self.n_trials)
        expect(len(self.ranges) > 0, "ranges", "at least one", self.ranges)


class SeededSampler(BaseSampler):
    """A TPE sampler whose draws for a trial depend on a seed, the trial's number and the trials before it.

    So a study that was stopped goes on as it would have gone on.

    Args:
        seed: of the study.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sampler = TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:  # noqa: ARG002
        """Begin a trial's own random stream."""
        self._sampler = TPESampler(seed=self._seed * 100_003 + trial.number)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask TPE."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask TPE."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Ask TPE."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def draw_values(trial: Trial, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """Draw a value for every key.

    Returns:
        key -> value, as a recipe takes it.
    """
    values: dict[str, Any] = {}
    for key, allowed in ranges.items():
        if allowed.choices:  # lists among them are kept as text, which every storage takes
            values[key] = json.loads(trial.suggest_categorical(key, [json.dumps(c) for c in allowed.choices]))
        elif isinstance(allowed.low, int) and isinstance(allowed.high, int):
            values[key] = trial.suggest_int(key, allowed.low, allowed.high, log=allowed.log)
        else:
            values[key] = trial.suggest_float(key, allowed.low, allowed.high, log=allowed.log)
    return values


def read_values(trial: FrozenTrial, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """Return what `draw_values` gave a finished trial."""
    return {key: json.loads(value) if ranges[key].choices else value for key, value in trial.params.items()}


def open_study(
    name: str, url: str, mode: str, search: Search, seed: int, heartbeat_s: int = HEARTBEAT_S
) -> optuna.Study:
    """Open a study, made if there is none of this name, with all its trials waiting or done.

    Args:
        name: of the study.
        url: of a database, as SQLAlchemy writes it.
        mode: `max` or `min`, which values are better.
        search: trials that are missing to its `n_trials` are added.
        seed: of the draws.
        heartbeat_s: seconds between two signs of life of a trial; after three times as many without one it is
            taken for dead.

    Raises:
        PneumoError: the database cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            storage = RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": _LOCK_TIMEOUT_S}}
                if url.startswith("sqlite")
                else {},
                heartbeat_interval=heartbeat_s,
                grace_period=3 * heartbeat_s,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
            )
        except Exception as error:  # every database's driver has errors of its own
            raise PneumoError(f"--storage: Expected a database at {url}. Received: {error}") from error
    if storage.engine.dialect.name == "sqlite":
        # SQLite does not lock the row that a worker reads before it takes the trial: without this, two
        # workers that read it at the same moment both run it.
        sqlalchemy.event.listen(storage.engine, "begin", _lock_database)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize" if mode == "max" else "minimize",
        sampler=SeededSampler(seed),
        pruner=optuna.pruners.MedianPruner(search.n_startup_trials, search.n_warmup_epochs),
        load_if_exists=True,
    )
    for place in range(search.n_trials):
        if not any(_has_place(trial, place) for trial in study.get_trials(deepcopy=False)):
            study.enqueue_trial({}, user_attrs={_PLACE: place})
    return study


def run_trials(
    study: optuna.Study,
    objective: Callable[[Trial], float],
    on_finished: Callable[[], None] = lambda: None,
) -> None:
    """Take waiting trials until all are finished, by this worker or by others.

    Args:
        study: as `open_study` returns it.
        objective: what a trial comes to; raises optuna.TrialPruned to end one early.
        on_finished: called after each trial that this worker has finished.
    """

    def say(_: optuna.Study, trial: FrozenTrial) -> None:
        if trial.state in _FINISHED:
            on_finished()

    def run_once(trial: Trial) -> float:
        # Two workers that open a study at the same moment may both fill a place, and one that finds the queue
        # emptied by others is given a trial without a place.
        place = trial.user_attrs.get(_PLACE)
        trials = study.get_trials(deepcopy=False)
        if place is None or any(_has_place(each, place) for each in trials if each.number < trial.number):
            raise _SurplusError
        return objective(trial)

    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
            states = {trial.state for trial in study.get_trials(deepcopy=False)}
            if TrialState.WAITING in states:
                study.optimize(run_once, n_trials=1, catch=(_SurplusError,), callbacks=[say])
            elif TrialState.RUNNING in states:
                time.sleep(1)
            else:
                return


def list_finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that are complete or pruned, by number."""
    return study.get_trials(deepcopy=False, states=_FINISHED)


def find_best_value(study: optuna.Study, trials: Sequence[FrozenTrial]) -> float | None:
    """Return the best value of those trials that are complete; None where none is."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    values = [trial.value for trial in complete if trial.value is not None]
    if not values:
        return None
    return max(values) if study.direction is StudyDirection.MAXIMIZE else min(values)


def tabulate_trials(study: optuna.Study) -> pd.DataFrame:
    """Return one row a finished trial: `number`, `state`, `value` (of a pruned one its last), parameters."""
    return pd.DataFrame(
        {"number": trial.number, "state": trial.state.name.lower(), "value": trial.value, **trial.params}
        for trial in list_finished(study)
    )


def rank_parameters(study: optuna.Study) -> dict[str, float]:
    """Return how much of the variance of complete trials each parameter explains (functional ANOVA).

    Returns:
        Parameter -> share, the greatest first; empty where fewer than two trials, or equal ones, say nothing.

    Source: Hutter, Hoos and Leyton-Brown 2014.
    """
    values = {trial.value for trial in list_finished(study) if trial.state is TrialState.COMPLETE}
    if len(values) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _lock_database(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _has_place(trial: FrozenTrial, place: int) -> bool:
    return trial.state is not TrialState.FAIL and trial.user_attrs.get(_PLACE) == place


class _SurplusError(Exception):
    """A trial that nobody asked for."""
