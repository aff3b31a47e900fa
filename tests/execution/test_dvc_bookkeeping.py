"""DVC asked and told, on a small pipeline of its own: the same state as `dvc repro` leaves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from engines import InlineEngine
from pneumo.base.errors import PneumoError
from pneumo.execution.engine import Call
from pneumo.execution.graph import run_graph
from pneumo.execution.pipeline import Pipeline

pytestmark = [
    pytest.mark.usefixtures("toy"),
    # Of a library that DVC uses.
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),
]

# A stage `first`, one `part` a letter, and `total`, whose output is not cached.
STAGES = """\
stages:
  first:
    cmd: python toy.py first
    deps: [toy.py]
    params: [first]
    outs: [out/first.txt]
  part:
    matrix: {letter: '${letters}'}
    cmd: python toy.py part ${item.letter}
    deps: [toy.py, out/first.txt]
    params: ['letters.${item.letter}']
    outs: ['out/parts/${item.letter}']
  total:
    cmd: python toy.py total
    deps: [out/parts]
    params: [letters]
    metrics: [{out/metrics.json: {cache: false}}]
    outs: [{out/total.txt: {cache: false}}]
"""
PARAMS = "first: 1\nletters: {a: 1, b: 2, c: 3}\n"
TOY = """
import sys
from pathlib import Path
import yaml

def main(arguments):
    params = yaml.safe_load(Path("params.yaml").read_text())
    with Path("ran.log").open("a") as file:
        file.write(" ".join(arguments) + "\\n")
    if arguments[0] == "first":
        Path("out").mkdir(exist_ok=True)
        Path("out/first.txt").write_text(str(params["first"]))
    elif arguments[0] == "part":
        folder = Path("out/parts", arguments[1])
        folder.mkdir(parents=True, exist_ok=True)
        text = Path("out/first.txt").read_text() + arguments[1] + str(params["letters"][arguments[1]])
        (folder / "one.txt").write_text(text)
        (folder / "two.txt").write_text(text * 2)
    else:
        text = " ".join(Path("out/parts", each, "one.txt").read_text() for each in params["letters"])
        Path("out/total.txt").write_text(text)
        Path("out/metrics.json").write_text('{"length": %d}' % len(text))
    return 0

if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Work in a folder with the toy pipeline, which has not run."""
    for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "dvc" / name))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    root = tmp_path / "toy"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    for name, text in {"dvc.yaml": STAGES, "params.yaml": PARAMS, "toy.py": TOY}.items():
        Path(name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init(".").close()
    Path(".gitignore").write_text("/out/first.txt\n/out/parts/\n/ran.log\n__pycache__/\n")
    yield root
    sys.modules.pop("toy", None)


def sweep(on_call=lambda _: None):
    """Run what is due in this process; return how it ended."""
    with Pipeline(("out",)) as pipeline:

        def begin(task, priority):
            if pipeline.restore(task.name):
                return None
            on_call(task.name)
            return Call(
                task.name, "toy:main", (pipeline.get_command(task.name).split()[2:],), priority=priority
            )

        return run_graph(pipeline.tasks, InlineEngine(), begin, lambda outcome: pipeline.commit(outcome.name))


def repro():
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "dvc", "repro"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def read_ran():
    """Return what has run since the last time."""
    path = Path("ran.log")
    text = path.read_text() if path.is_file() else ""
    path.unlink(missing_ok=True)
    return sorted(text.splitlines())


def read_outputs():
    paths = [path for path in sorted(Path("out").rglob("*")) if path.is_file()]
    return {str(path): path.read_bytes() for path in [*paths, Path("dvc.lock")]}


ALL = ["first", "part a", "part b", "part c", "total"]


def test_dvc_repro_has_nothing_left_to_run():
    assert list(sweep().done) == ["first", "part@a", "part@b", "part@c", "total"]
    assert read_ran() == ALL
    assert "Running" not in repro()
    assert read_ran() == []
    progress = sweep()
    assert (progress.done, len(progress.unchanged)) == ({}, 5)


def test_outputs_and_lock_are_those_of_dvc_repro():
    repro()
    alone = read_outputs()
    shutil.rmtree("out")
    shutil.rmtree(".dvc/cache")
    Path("dvc.lock").unlink()
    sweep()
    assert read_outputs() == alone


@pytest.mark.parametrize(
    ("old", "new", "ran"),
    [
        ("b: 2", "b: 5", ["part b", "total"]),
        ("first: 1", "first: 2", ALL),
        ("c: 3}", "c: 3, d: 4}", ["part d", "total"]),
        (", c: 3}", "}", ["total"]),
        ("letters: {a: 1", "# A comment.\nletters: {a:  1", []),
    ],
)
def test_what_an_edit_makes_due_runs_and_what_ran_before_comes_back(old, new, ran):
    sweep()
    first = read_outputs()
    read_ran()
    edit_params(old, new)
    sweep()
    assert read_ran() == ran
    assert "Running" not in repro()
    edit_params(new, old)
    sweep()
    # DVC keeps no runs whose outputs it does not cache.
    assert set(read_ran()) <= {"total"}
    after = read_outputs()
    for outputs in (first, after):
        outputs.pop("dvc.lock")
    assert {name: after[name] for name in first} == first


def test_the_same_output_again_runs_nothing_that_depends_on_it():
    sweep()
    read_ran()
    append("toy.py", "\n# The same function.\n")
    sweep()
    assert read_ran() == ALL[:-1]  # total depends on the parts alone


def test_a_failure_leaves_the_rest_recorded():
    Path("toy.py").write_text(
        TOY.replace("folder = Path(", "assert arguments[1] != 'b'\n        folder = Path(")
    )
    progress = sweep()
    assert progress.failed == {"part@b": "AssertionError: "}
    assert progress.skipped == {"total": "part@b"}
    assert read_ran() == ALL[:-1]
    sweep()
    assert read_ran() == ["part b"]


def test_a_missing_output_is_a_failure():
    Path("toy.py").write_text(TOY.replace('Path("out/first.txt").write_text(str(params["first"]))', "pass"))
    progress = sweep()
    assert "first.txt" in progress.failed["first"]
    assert not Path("dvc.lock").exists()


def test_what_was_done_before_a_kill_does_not_run_again():
    class KilledError(BaseException):
        pass

    def kill(name):
        if name == "total":
            raise KilledError

    def write_no_lock(self):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "write_lock", write_no_lock)
        with pytest.raises(KilledError):
            sweep(kill)
    assert not Path("dvc.lock").exists()
    assert read_ran() == ALL[:-1]
    sweep()
    assert read_ran() == ["total"]
    assert "Running" not in repro()


def test_a_source_that_changes_meanwhile_stops_what_has_not_begun():
    def edit(name):
        if name == "first":
            append("toy.py", "\n# Edited while first runs.\n")

    progress = sweep(edit)
    assert progress.failed == {"first": "what it depends on changed while it ran; run the sweep again"}
    assert not Path("dvc.lock").exists()

    def edit_later(name):
        if name == "part@a":
            append("toy.py", "\n# Edited while a part runs.\n")

    progress = sweep(edit_later)
    assert list(progress.done) == ["first"]
    assert progress.failed.keys() == {"part@a", "part@b", "part@c"}
    assert progress.failed["part@b"] == "toy.py changed while the sweep ran; run it again"
    assert sweep().failed == {}
    assert "Running" not in repro()


def test_params_that_change_meanwhile_spoil_what_reads_them():
    def edit(name):
        if name == "part@b":
            edit_params("b: 2", "b: 7")

    assert list(sweep(edit).failed) == ["part@b"]
    assert sweep().failed == {}
    assert Path("out/parts/b/one.txt").read_text() == "1b7"


def test_another_dvc_does_not_touch_the_outputs_of_a_sweep():
    sweep()
    edit_params("a: 1", "a: 9")
    with Pipeline(("out",)):
        result = subprocess.run(
            [sys.executable, "-m", "dvc", "repro"], capture_output=True, text=True, check=False
        )
    assert result.returncode != 0
    assert "busy" in result.stderr
    assert read_outputs()["out/parts/a/one.txt"] == b"1a1"


@pytest.mark.parametrize("content", ["", '{"write": {"', '{"write": 1}'])
def test_a_cut_short_list_of_running_stages_is_removed(content):
    Path(".dvc/tmp").mkdir(exist_ok=True)
    Path(".dvc/tmp/rwlock").write_text(content)
    assert len(sweep().done) == 5


def test_a_broken_pipeline_is_named():
    Path("dvc.yaml").write_text(STAGES.replace("cmd: python toy.py total", "cmnd: x"))
    with pytest.raises(PneumoError, match=r"dvc\.yaml"):
        sweep()


def edit_params(old, new):
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))


def append(path, text):
    with Path(path).open("a") as file:
        file.write(text)
