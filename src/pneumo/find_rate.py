"""find-rate: the learning-rate range test of one phase of a recipe -> reports/<experiment>/learning_rate/."""

from dataclasses import replace
from pathlib import Path

from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params, build, expect, load_group
from pneumo.base.paths import FEATURE_CACHE_DIR, learning_rate_dir
from pneumo.base.reproducibility import make_deterministic
from pneumo.domain import figures
from pneumo.domain.features import load_or_extract_features
from pneumo.domain.learning_rate import RateTest, suggest_rate
from pneumo.domain.networks import build_classifier
from pneumo.domain.recipe import Recipe, Schedule
from pneumo.domain.training import Features, fit_classifier
from pneumo.stages.train import load_data

LOW, HIGH = 1e-6, 1.0
N_STEPS = 200
TRAINING_SEED = 0


def run(params: Params, model: str, combo: str, phase: str | None) -> None:
    """Train the phases before one as the recipe says, then raise the rate of that one step by step.

    Args:
        params: data, task, combos and overrides of the recipe.
        model: a recipe.
        combo: whose images are trained on; `preprocess` has made them.
        phase: of the recipe; None takes its last.
    """
    make_deterministic()
    recipe = build(Recipe, load_group("model", model, params.models.get(model)), f"model {model}")
    names = list(recipe.phases)
    phase = phase or names[-1]
    expect(phase in names, "--phase", f"one of {', '.join(names)}", phase)
    data = load_data(params, combo)
    weights_dir = Path(params.weights_dir) if params.weights_dir else None
    shape, n_classes = data.training.images.shape[1:], data.training.n_classes
    classifier = build_classifier(recipe, shape, n_classes, TRAINING_SEED, weights_dir)

    def load_features() -> Features:
        return load_or_extract_features(classifier.extractor, data.images_path, FEATURE_CACHE_DIR)

    before = {name: recipe.phases[name] for name in names[: names.index(phase)]}
    if before:
        fit_classifier(
            classifier, replace(recipe, phases=before), data.training, TRAINING_SEED, load_features
        )
    tested = replace(recipe.phases[phase], schedule=Schedule.constant, epochs=N_STEPS, patience=None)
    rates = RateTest(LOW, HIGH, N_STEPS)
    fit_classifier(
        classifier,
        replace(recipe, phases={phase: tested}),
        data.training,
        TRAINING_SEED,
        load_features,
        callbacks=[rates],
    )

    table = rates.tabulate()
    suggested = suggest_rate(table)
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    target = learning_rate_dir(params.experiment) / f"{model}_{phase}"
    with write_folder(target) as folder:
        table.to_csv(folder / "rates.csv", index=False, float_format="%.6g")
        figure = figures.plot_rate_test(table, suggested, f"{title}\n{combo}/{model}, phase {phase}")
        figures.save_figure(figure, folder / "rates.png")
    print(f"{len(table)} steps; a rate of about {suggested:.1g} suggests itself, the recipe has ", end="")
    print(f"{recipe.phases[phase].learning_rate:.1g}: {target / 'rates.png'}")
