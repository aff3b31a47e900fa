"""The command `pneumo`: what people and DVC type, one entry a command."""

import argparse
import errno
import importlib
import os
import sys
import time
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pneumo.base.config import Params, Run, load_params
from pneumo.base.errors import PneumoError
from pneumo.base.messages import DEBUG_VARIABLE, hold_messages, quieten_tensorflow
from pneumo.base.reproducibility import limit_blas_threads

LOGS_DIR = Path("logs")
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUTPUTS = (("data",), ("models",), ("reports",))
COMBO = ("--combo", {"required": True, "help": "a key of combos in params.yaml"})
MODEL = ("--model", {"required": True, "help": "a key of models in params.yaml"})
SEED = ("--seed", {"required": True, "type": int, "help": "one of seeds in params.yaml"})
MODEL_FILE = (
    "--model",
    {"type": Path, "help": "a file that pneumo export wrote (default: models/release/model.pneumo)"},
)
RECIPE = ("recipe", {"help": "a recipe, a file of conf/model/"})

ENGINE = (
    "--engine",
    {
        "choices": ["local", "ray"],
        "default": "local",
        "help": "ray: train on a cluster (default: local)",
    },
)
ADDRESS = (
    "--address",
    {"help": "of a Ray cluster: auto or ray://host:port (default: start Ray on this machine)"},
)

# Name, module of src/pneumo with a function `run`, what it does, arguments. `run` is given params.yaml first,
# then the arguments by name; combo, model and seed together become a Run.
STAGES: list[tuple[str, str, list[Any]]] = [
    ("check", "Check params.yaml, conf/, data and weights without running anything.", []),
    ("download", "Fetch the images of data.source.", []),
    ("prepare", "Check every file and divide the images into training, validation and test sets.", []),
    ("audit", "Look for what a model could score with without seeing lungs.", []),
    ("preprocess", "Apply a combo's steps to every image.", [COMBO]),
    ("weights", "Name the ImageNet weights that a recipe starts from.", [MODEL]),
    ("train", "Train one run and predict the validation and test images.", [COMBO, MODEL, SEED]),
    ("evaluate", "Score one run's predictions.", [COMBO, MODEL, SEED]),
    ("explain", "Ask a combo's models what they look at.", [COMBO]),
    ("external", "Let a combo's models predict the external test sets.", [COMBO]),
    ("compare", "Write the report over all runs.", []),
]
COMMANDS: list[tuple[str, str, list[Any]]] = [
    (
        "sweep",
        "Run the stages that are due, as `dvc repro` does, many at a time.",
        [
            ("--workers", {"type": int, "help": "cores to use (default: all)"}),
            (
                "--gpus-per-run",
                {
                    "dest": "gpus_per_run",
                    "type": float,
                    "help": "0.5 shares one (default: 1 where there are GPUs)",
                },
            ),
            (
                "--cpus-per-run",
                {
                    "dest": "cpus_per_run",
                    "type": int,
                    "help": "cores that a run keeps from others (default: threads of its recipe; 1 for a "
                    "head on features that are there)",
                },
            ),
            ENGINE,
            ADDRESS,
        ],
    ),
    (
        "use",
        "Make a ready experiment of conf/experiment/ the one in params.yaml; yours is kept beside it.",
        [("experiment", {"help": "a file of conf/experiment/, without .yaml"})],
    ),
    (
        "report",
        "Say where the experiment's page is, or print it as a PDF.",
        [("--pdf", {"action": "store_true", "help": "write report.pdf beside it; needs Chromium or Chrome"})],
    ),
    ("pack", "Keep what the experiment's report is made from in one file beside it.", []),
    (
        "remake",
        "Make packed reports again, with the code as it is now; trains nothing.",
        [("experiments", {"nargs": "*", "help": "names (default: all that are packed)"})],
    ),
    (
        "export",
        "Put a trained model and what it needs to predict into one file.",
        [
            ("target", {"type": Path, "help": "the file to write, e.g. model.pneumo"}),
            ("--run", {"dest": "run_name", "help": "combo/model/seed (default: the leaderboard's first)"}),
            ("--ensemble", {"action": "store_true", "help": "all seeds of that combo and model together"}),
            ("--onnx", {"action": "store_true", "help": "in ONNX too, which runs faster and without Keras"}),
            (
                "--no-keras",
                {"dest": "no_keras", "action": "store_true", "help": "in ONNX only"},
            ),
        ],
    ),
    (
        "predict",
        "Classify image files with an exported model.",
        [
            ("images", {"nargs": "+", "help": "image files, folders of them, or patterns"}),
            MODEL_FILE,
            ("--csv", {"dest": "csv_path", "type": Path, "help": "a table to write in place of lines"}),
            ("--json", {"dest": "json_path", "type": Path, "help": "a list to write in place of lines"}),
            (
                "--explain",
                {
                    "dest": "explain_dir",
                    "type": Path,
                    "help": "a folder for pictures of where the model looks",
                },
            ),
        ],
    ),
    (
        "serve",
        "Serve an exported model as a page in the browser and over HTTP.",
        [
            MODEL_FILE,
            (
                "--host",
                {"default": "127.0.0.1", "help": "address to listen on (default: 127.0.0.1)"},
            ),
            ("--port", {"type": int, "default": 8000, "help": "0 takes any that is free (default: 8000)"}),
        ],
    ),
    (
        "tune",
        "Search for a better recipe, on validation only; continues where it was stopped.",
        [
            RECIPE,
            COMBO,
            ("--seed", {"type": int, "default": 0, "help": "of the draws (default: 0)"}),
            (
                "--storage",
                {"help": "URL of a database that workers share (default: SQLite in models/.tuning/)"},
            ),
            ("--workers", {"type": int, "default": 1, "help": "processes at the same time (default: 1)"}),
            ENGINE,
            ADDRESS,
        ],
    ),
    (
        "find-rate",
        "Raise the learning rate of a phase step by step and plot the loss.",
        [RECIPE, COMBO, ("--phase", {"help": "of the recipe (default: its last)"})],
    ),
]
WITHOUT_PARAMS = ("use", "remake", "predict", "serve")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 an error, said in one line, 2 wrong usage."""
    options = vars(_build_parser().parse_args(arguments))
    module, debug = options.pop("module"), options.pop("debug")
    limit_blas_threads()
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    else:
        quieten_tensorflow()
    try:
        _run(module, options)
    except PneumoError as error:
        if debug:
            raise
        print(f"pneumo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        try:
            where = f"traceback in {_write_traceback(module)}"
        except OSError as refusal:
            where = f"no traceback, as {LOGS_DIR}/ cannot be written: {refusal.strerror}; --debug shows it"
        text = " ".join(str(error).split())
        print(f"pneumo: unexpected {type(error).__name__}: {text} ({where})", file=sys.stderr)
        return 1
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pneumo",
        description="Experiments on chest X-rays. `dvc repro` runs the stages that are due; see README.md.",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks and TensorFlow's messages")
    commands = parser.add_subparsers(required=True, metavar="command")
    for room, entries in (("stages", STAGES), ("commands", COMMANDS)):
        for name, text, arguments in entries:
            command = commands.add_parser(name, help=text, description=text)
            command.set_defaults(module=f"pneumo.{room}.{name.replace('-', '_')}")
            command.add_argument(
                "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
            for argument, settings in arguments:
                command.add_argument(argument, **settings)
    return parser


def _run(module: str, options: dict[str, Any]) -> None:
    if module.rpartition(".")[2] not in WITHOUT_PARAMS:
        options = {"params": load_params()} | options
        _check_keys(**options)
        if {"combo", "model", "seed"} <= set(options):
            keys = (options.pop(key) for key in ("combo", "model", "seed"))
            options["run"] = Run(options["params"].experiment, *keys)
    # Imported here, so that a command loads no more than it needs: Keras takes seconds.
    with hold_messages():
        command = importlib.import_module(module)
    try:
        command.run(**options)
    except FileNotFoundError as error:
        if Path(str(error.filename)).parts[:1] in OUTPUTS:
            raise PneumoError(
                f"Expected {error.filename}, which an earlier stage writes. Received: no such file. "
                "Run `dvc repro`."
            ) from error
        raise
    except OSError as error:
        if error.errno in FULL_DISK:
            where = f" ({error.filename})" if error.filename else ""
            raise PneumoError(
                f"Expected free disk space. Received: {error.strerror}{where}. Free some and run again; "
                "what was complete is kept."
            ) from error
        raise


def _check_keys(
    params: Params, combo: str | None = None, model: str | None = None, seed: int | None = None, **_: Any
) -> None:
    known: list[tuple[str, object, Collection[object]]] = [("combo", combo, params.combos)]
    if model is not None:
        known += [("model", model, params.models), ("seed", seed, params.seeds)]
    for name, value, keys in known:
        if value is not None and value not in keys:
            expected = ", ".join(map(str, keys))
            raise PneumoError(f"--{name}: Expected one of params.yaml's: {expected}. Received: {value}")


def _write_traceback(module: str) -> Path:
    LOGS_DIR.mkdir(exist_ok=True)
    path = LOGS_DIR / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{module.rpartition('.')[2]}.txt"
    path.write_text(traceback.format_exc(), encoding="utf-8")
    return path
