"""find-rate: the learning-rate range test of one phase of a recipe -> reports/<experiment>/learning_rate/."""

from dataclasses import replace

from pneumo.base.artifacts import write_folder
from pneumo.base.config import Params, build, expect, load_group
from pneumo.base.paths import learning_rate_dir
from pneumo.base.reproducibility import make_deterministic
from pneumo.report import figures
from pneumo.training.dataset import load_dataset
from pneumo.training.fit import fit_classifier
from pneumo.training.rate_test import RateTest, suggest_rate
from pneumo.training.recipe import Recipe, Schedule

LOW, HIGH = 1e-6, 1.0
N_STEPS = 200
TRAINING_SEED = 0


def run(params: Params, recipe: str, combo: str, phase: str | None) -> None:
    """Train the phases before one as the recipe says, then raise the rate of that one step by step.

    Args:
        params: data, task, combos and overrides of the recipe.
        recipe: its name.
        combo: whose images are trained on; `preprocess` has made them.
        phase: of the recipe; None takes its last.
    """
    config = build(Recipe, load_group("model", recipe, params.models.get(recipe)), f"model {recipe}")
    make_deterministic(config.threads)
    names = list(config.phases)
    phase = phase or names[-1]
    expect(phase in names, "--phase", f"one of {', '.join(names)}", phase)
    data = load_dataset(params, combo)
    classifier = data.build_classifier(config, TRAINING_SEED)

    before = {name: config.phases[name] for name in names[: names.index(phase)]}
    if before:
        fit_classifier(
            classifier,
            replace(config, phases=before),
            data.training,
            TRAINING_SEED,
            lambda: data.load_features(classifier),
        )
    tested = replace(config.phases[phase], schedule=Schedule.constant, epochs=N_STEPS, patience=None)
    rates = RateTest(LOW, HIGH, N_STEPS)
    fit_classifier(
        classifier,
        replace(config, phases={phase: tested}),
        data.training,
        TRAINING_SEED,
        lambda: data.load_features(classifier),
        callbacks=[rates],
    )

    table = rates.tabulate()
    suggested = suggest_rate(table)
    title = str(load_group("data", params.source, params.data_overrides)["title"])
    target = learning_rate_dir(params.experiment) / f"{recipe}_{phase}"
    with write_folder(target) as folder:
        table.to_csv(folder / "rates.csv", index=False, float_format="%.6g")
        figure = figures.plot_rate_test(table, suggested, f"{title}\n{combo}/{recipe}, phase {phase}")
        figures.save_figure(figure, folder / "rates.png")
    print(f"{len(table)} steps; a rate of about {suggested:.1g} suggests itself, the recipe has ", end="")
    print(f"{config.phases[phase].learning_rate:.1g}: {target / 'rates.png'}")
