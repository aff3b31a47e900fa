"""The command `pneumo`."""

import argparse
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from pneumo.base.config import Params, Run, build, load_group, load_params
from pneumo.base.errors import PneumoError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 something to mend (said in one line), 2 usage."""
    options = _build_parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes on the machine help nobody here
    try:
        options.command(options)
    except PneumoError as error:
        if options.debug:
            raise
        print(f"pneumo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if options.debug:
            raise
        print(
            f"pneumo: unexpected {type(error).__name__}: {' '.join(str(error).split())}. "
            "Add --debug for the traceback.",
            file=sys.stderr,
        )
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pneumo",
        description="Stages of the pipeline that dvc.yaml describes. `dvc repro` runs those that are due.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
        )
        command.set_defaults(command=function)
        return command

    add("check", _check, "Check params.yaml, conf/, data and weights without running anything.")
    add("download", _download, "Fetch the images of data.source.")
    add("prepare", _prepare, "Check every file, carve out validation, draw what the data look like.")
    preprocess = add("preprocess", _preprocess, "Apply a combo's steps to every image.")
    preprocess.add_argument("--combo", required=True, help="a key of combos in params.yaml")
    explain = add("explain", _explain, "Ask a combo's models what they look at.")
    explain.add_argument("--combo", required=True, help="a key of combos in params.yaml")
    external = add("external", _external, "Let a combo's models predict the external test sets.")
    external.add_argument("--combo", required=True, help="a key of combos in params.yaml")
    for name, function, text in (
        ("train", _train, "Train one run and predict the validation and test images."),
        ("evaluate", _evaluate, "Score one run's predictions."),
    ):
        command = add(name, function, text)
        command.add_argument("--combo", required=True, help="a key of combos in params.yaml")
        command.add_argument("--model", required=True, help="a key of models in params.yaml")
        command.add_argument("--seed", required=True, type=int, help="one of seeds in params.yaml")
    add("audit", _audit, "Look for what a model could score with without seeing lungs.")
    add("compare", _compare, "Write the report over all runs.")
    tune = add("tune", _tune, "Search for a better recipe, on validation only; goes on where it was stopped.")
    tune.add_argument("model", help="a recipe of conf/model/ with ranges in conf/tune/")
    tune.add_argument("--combo", required=True, help="a key of combos in params.yaml")
    tune.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    tune.add_argument(
        "--storage", help="URL of a database that workers share (default: an SQLite file in models/.tuning/)"
    )
    rate = add("find-rate", _find_rate, "Raise the learning rate of a phase step by step and plot the loss.")
    rate.add_argument("model", help="a recipe of conf/model/")
    rate.add_argument("--combo", required=True, help="a key of combos in params.yaml")
    rate.add_argument("--phase", help="of the recipe (default: its last)")
    predict = add("predict", _predict, "Classify image files with a trained model.")
    predict.add_argument("model", type=Path, help="a model.keras that a run left")
    predict.add_argument("images", type=Path, nargs="+", help="image files")
    return parser


# Stages are imported where they run: the command stays quick, and only those that need a network load Keras.


def _download(options: argparse.Namespace) -> None:  # noqa: ARG001
    from pneumo.stages import download

    download.run(load_params())


def _prepare(options: argparse.Namespace) -> None:  # noqa: ARG001
    from pneumo.stages import prepare

    prepare.run(load_params())


def _preprocess(options: argparse.Namespace) -> None:
    from pneumo.stages import preprocess

    params = _load_for_combo(options)
    preprocess.run(params, options.combo)


def _train(options: argparse.Namespace) -> None:
    params = load_params()
    run = _select_run(params, options)
    from pneumo.stages import train

    train.run(params, run)


def _evaluate(options: argparse.Namespace) -> None:
    params = load_params()
    run = _select_run(params, options)
    from pneumo.stages import evaluate

    evaluate.run(params, run)


def _explain(options: argparse.Namespace) -> None:
    params = _load_for_combo(options)
    from pneumo.stages import explain

    explain.run(params, options.combo)


def _external(options: argparse.Namespace) -> None:
    params = _load_for_combo(options)
    from pneumo.stages import external

    external.run(params, options.combo)


def _audit(options: argparse.Namespace) -> None:  # noqa: ARG001
    from pneumo.stages import audit

    audit.run(load_params())


def _compare(options: argparse.Namespace) -> None:  # noqa: ARG001
    from pneumo.stages import compare

    compare.run(load_params())


def _find_rate(options: argparse.Namespace) -> None:
    params = _load_for_combo(options)
    from pneumo.commands import find_rate

    find_rate.run(params, options.model, options.combo, options.phase)


def _tune(options: argparse.Namespace) -> None:
    params = _load_for_combo(options)
    from pneumo.commands import tune

    tune.run(params, options.model, options.combo, options.storage, options.seed)


def _predict(options: argparse.Namespace) -> None:
    from pneumo.prediction.predictor import Predictor

    predictor = Predictor(options.model)
    for path in options.images:
        prediction = predictor.predict(path)
        probabilities = "  ".join(f"{name} {value:.3f}" for name, value in prediction.probabilities.items())
        print(f"{path}: {prediction.label}  ({probabilities})")


def _check(options: argparse.Namespace) -> None:  # noqa: ARG001
    from pneumo.data.sources import load_source
    from pneumo.preprocessing.combo import parse_combo
    from pneumo.training.recipe import Recipe, find_weights

    params = load_params()
    for name, path in params.external.items():
        if not Path(path).expanduser().is_dir():
            raise PneumoError(f"external.{name}: Expected a folder. Received: {path}")
    print(f"data: {load_source(params.source, params.data_overrides).title}")
    for combo, steps in params.combos.items():
        names = [step.name for step in parse_combo(combo, steps, params.image_size_px)]
        print(f"combo {combo}: {' -> '.join(names)}")
    for model, overrides in params.models.items():
        network = build(Recipe, load_group("model", model, overrides), f"model {model}").network
        weights = "random weights"
        if network.pretrained:
            weights = "ImageNet weights that Keras downloads"
            if params.weights_dir:
                weights = str(find_weights(network.pretrained, Path(params.weights_dir)))
        print(f"model {model}: {network.name}, {weights}")
    for name, path in params.external.items():
        print(f"external test set {name}: {path}")
    print(f"{len(params.runs)} runs, report in reports/{params.experiment}/")


def _load_for_combo(options: argparse.Namespace) -> Params:
    params = load_params()
    _expect_key("combo", options.combo, params.combos)
    return params


def _select_run(params: Params, options: argparse.Namespace) -> Run:
    _expect_key("combo", options.combo, params.combos)
    _expect_key("model", options.model, params.models)
    _expect_key("seed", options.seed, params.seeds)
    return Run(params.experiment, options.combo, options.model, options.seed)


def _expect_key(name: str, value: object, known: Collection[object]) -> None:
    if value not in known:
        keys = ", ".join(map(str, known))
        raise PneumoError(f"--{name}: Expected one of params.yaml's: {keys}. Received: {value}")
