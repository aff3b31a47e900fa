"""The command line: which module a command runs with what, and how errors reach a person."""

import ast
import errno
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from import_graph import PACKAGE, ROOT
from pneumo import cli
from pneumo.base.config import Run, load_params
from pneumo.base.errors import PneumoError
from pneumo.base.messages import hold_messages
from pneumo.cli import main

PARAMS = """\
experiment: small
data: {source: phantom, name: phantom, n_train: 40}
split: {val_fraction: 0.2, seed: 0}
image_size_px: 32
task: binary
combos:
  raw: []
  trim_clahe: [trim, {clahe: {tiles: 2}}]
models:
  dense: {}
  mobilenet_frozen: {}
seeds: [0, 1, 2]
ensembles: {}
threshold: {method: youden}
prevalence: 0.2
equivalence_margin: 0.01
weights_dir: weights
external: {}
"""
RUN = ["--combo", "trim_clahe", "--model", "dense", "--seed", "2"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PNEUMO_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Put a module in the place of each command's that only notes how it was called."""
    received = []

    def import_module(name):
        return SimpleNamespace(run=lambda **arguments: received.append((name, arguments)))

    monkeypatch.setattr(cli.importlib, "import_module", import_module)
    return received


def fail_with(monkeypatch, error):
    def run(**_):
        raise error

    monkeypatch.setattr(cli.importlib, "import_module", lambda _: SimpleNamespace(run=run))


def expect_error(capsys, arguments, *parts):
    """Expect status 1, one plain line to stderr and nothing else."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pneumo: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


# Commands


def find_run_arguments(room, name):
    tree = ast.parse((PACKAGE / room / f"{name.replace('-', '_')}.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    return {argument.arg for argument in function.args.args}


@pytest.mark.parametrize(
    ("room", "entry"),
    [(room, entry) for room in ("stages", "commands") for entry in getattr(cli, room.upper())],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_every_command_has_a_function_that_takes_its_arguments(room, entry):
    name, text, arguments = entry
    given = {settings.get("dest", argument.lstrip("-")) for argument, settings in arguments}
    if {"combo", "model", "seed"} <= given:
        given = (given - {"combo", "model", "seed"}) | {"run"}
    if name not in cli.WITHOUT_PARAMS:
        given.add("params")
    assert given == find_run_arguments(room, name)
    assert text.endswith(".")


@pytest.mark.parametrize("name", ["check", "download", "prepare", "audit", "compare"])
def test_stages_of_the_whole_experiment(calls, name):
    assert main([name]) == 0
    assert calls == [(f"pneumo.stages.{name}", {"params": load_params()})]


@pytest.mark.parametrize("name", ["preprocess", "explain", "external"])
def test_stages_of_a_combo(calls, name):
    assert main([name, "--combo", "raw"]) == 0
    assert calls == [(f"pneumo.stages.{name}", {"params": load_params(), "combo": "raw"})]


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_stages_of_a_run(calls, name):
    assert main([name, *RUN]) == 0
    run = Run("small", "trim_clahe", "dense", 2)
    assert calls == [(f"pneumo.stages.{name}", {"params": load_params(), "run": run})]


def test_commands_without_params_need_no_project(calls, folder):
    (folder / "params.yaml").unlink()
    assert main(["predict", "a.jpeg", "folder", "--model", "model.pneumo", "--csv", "out.csv"]) == 0
    expected = {
        "images": ["a.jpeg", "folder"],
        "model": Path("model.pneumo"),
        "csv_path": Path("out.csv"),
        "json_path": None,
        "explain_dir": None,
    }
    assert calls == [("pneumo.commands.predict", expected)]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["preprocess", "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["explain", "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["tune", "cnn", "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["weights", "--model", "cnn"], ["--model", "dense, mobilenet_frozen", "cnn"]),
        (["train", *RUN, "--combo", "clahe"], ["--combo", "raw, trim_clahe", "clahe"]),
        (["train", *RUN, "--model", "cnn"], ["--model", "dense, mobilenet_frozen", "cnn"]),
        (["evaluate", *RUN, "--seed", "3"], ["--seed", "0, 1, 2", "3"]),
    ],
)
def test_what_params_does_not_name_is_refused(capsys, calls, arguments, parts):
    expect_error(capsys, arguments, *parts)
    assert calls == []


@pytest.mark.usefixtures("calls")
def test_the_seed_of_a_search_is_none_of_the_experiment():
    assert main(["tune", "cnn", "--combo", "raw", "--seed", "77"]) == 0


# Errors and exit status


def test_errors_for_people_are_shown_as_they_are(capsys, monkeypatch):
    fail_with(monkeypatch, PneumoError("no such data set. Correct the handle."))
    expect_error(capsys, ["download"])
    main(["download"])
    assert capsys.readouterr().err == "pneumo: no such data set. Correct the handle.\n"


def test_the_traceback_of_another_error_is_kept_in_a_file_that_the_message_names(capsys, monkeypatch):
    fail_with(monkeypatch, OSError("disk\n  is full"))
    expect_error(capsys, ["download"], "unexpected OSError: disk is full (traceback in logs/")
    (path,) = Path("logs").iterdir()
    assert path.name.endswith("_download.txt")
    assert "Traceback (most recent call last)" in path.read_text()
    assert "raise error\nOSError: disk\n  is full" in path.read_text()


def test_an_error_is_named_where_its_traceback_cannot_be_written(capsys, monkeypatch):
    Path("logs").write_text("a file where the folder should be")
    fail_with(monkeypatch, ValueError("the reason"))
    expect_error(capsys, ["download"], "unexpected ValueError: the reason (no traceback, as logs/", "--debug")


def test_a_missing_output_of_an_earlier_stage_is_named(capsys, monkeypatch):
    fail_with(monkeypatch, FileNotFoundError(2, "No such file", "data/phantom/manifest.csv"))
    expect_error(capsys, ["prepare"], "Expected data/phantom/manifest.csv", "Run `dvc repro`")
    fail_with(monkeypatch, FileNotFoundError(2, "No such file", "/somewhere/else"))
    expect_error(capsys, ["prepare"], "unexpected FileNotFoundError")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "data/x.npy"),
            "No space left on device (data/x.npy)",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded."),
        (OSError(errno.EFBIG, "File too large"), "File too large."),
    ],
    ids=["disk", "quota", "limit"],
)
def test_a_full_disk_is_named_and_nothing_more_is_written(capsys, monkeypatch, error, reason):
    fail_with(monkeypatch, error)
    expect_error(capsys, ["download"], "Expected free disk space. Received: ", reason, "run again")
    assert not Path("logs").exists()


@pytest.mark.parametrize("arguments", [["--debug", "download"], ["download", "--debug"]])
@pytest.mark.parametrize("error", [PneumoError("mend it"), OSError("disk is full")], ids=repr)
def test_debug_lets_errors_through(monkeypatch, arguments, error):
    fail_with(monkeypatch, error)
    with pytest.raises(type(error), match=str(error)):
        main(arguments)
    assert not Path("logs").exists()


def test_interruption_has_a_status_of_its_own(capsys, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["download"]) == 130
    assert capsys.readouterr().err == ""


def test_outside_of_a_project(capsys, folder):
    (folder / "params.yaml").unlink()
    expect_error(capsys, ["check"], "Expected params.yaml in the current folder")


@pytest.mark.parametrize(
    "arguments",
    [[], ["repro"], ["preprocess"], ["train", "--combo", "raw"], ["train", *RUN, "--seed", "one"]],
)
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as status:
        main(arguments)
    assert status.value.code == 2
    assert capsys.readouterr().err.startswith("usage: pneumo")


@pytest.mark.parametrize(("options", "has_traceback"), [([], False), (["--debug"], True)])
def test_installed_command(folder, options, has_traceback):
    (folder / "params.yaml").unlink()
    command = [str(Path(sys.executable).with_name("pneumo")), "check", *options]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert ("Traceback" in process.stderr) == has_traceback
    assert "Expected params.yaml in the current folder" in process.stderr.splitlines()[-1]


# TensorFlow's messages

IMPORT_AND_COMPUTE = """
from pneumo.base.messages import hold_messages, quieten_tensorflow
{quieten}
with hold_messages():
    import keras
keras.ops.ones(3) + 1
"""


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="with a GPU, messages are shown")
@pytest.mark.parametrize("debug", [False, True])
def test_a_backend_says_nothing_of_the_machine_unless_asked(debug):
    script = IMPORT_AND_COMPUTE.format(quieten="" if debug else "quieten_tensorflow()")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_CPP")}
    environment |= {"PNEUMO_DEBUG": "1"} if debug else {}
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert process.stdout == ""
    assert ("oneDNN" in process.stderr) == debug
    assert debug or process.stderr == ""


def test_messages_of_a_failed_import_are_shown(capfd):
    def fail():
        with hold_messages():
            os.write(2, b"what went wrong\n")
            importlib.import_module("no_such_module")

    with pytest.raises(ModuleNotFoundError):
        fail()
    assert capfd.readouterr().err == "what went wrong\n"
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
