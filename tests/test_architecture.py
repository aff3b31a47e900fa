"""The rooms of src/pneumo: what may import what, and what each stage depends on."""

import ast
import json
import subprocess
import sys

import pytest
import yaml

from import_graph import (
    PACKAGE,
    ROOT,
    find_room,
    imported_names,
    imported_rooms,
    module_path,
    project_modules,
)

MODULES = sorted(PACKAGE.rglob("*.py"))
# Room -> the rooms that it may import from, beside itself.
ARROWS = {
    "__init__": set(),
    "cli": {"base"},  # imports the module of a command when it is called
    "commands": {
        "stages",
        "prediction",
        "audit",
        "preprocessing",
        "report",
        "evaluation",
        "training",
        "data",
        "execution",
        "base",
    },
    "execution": {"base"},
    "stages": {"prediction", "audit", "preprocessing", "report", "evaluation", "training", "data", "base"},
    "prediction": {"preprocessing", "audit", "data", "base"},
    "audit": {"evaluation", "base"},
    "preprocessing": {"data", "base"},
    "report": {"base"},
    "evaluation": {"base"},
    "training": {"base"},
    "data": {"base"},
    "base": set(),
}
USE_KERAS = {
    "audit/attribution",
    "audit/scorers",
    "commands/tune",
    "prediction/keras_network",
    "training/augmentation",
    "training/batches",
    "training/devices",
    "training/features",
    "training/fit",
    "training/folds",
    "training/network_file",
    "training/networks",
    "training/provenance",
    "training/rate_test",
    "training/refit",
    "training/validation",
}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MAX_STAGE_LINES = 120
MAX_PIPELINE_LINES = 150
CPU_LIMIT_S = 15  # it takes about 3


def name_module(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imports_package(path, package):
    return any(name.split(".")[0] == package for name in imported_names(path))


def test_every_room_has_its_arrows():
    assert {find_room(path) for path in MODULES} == set(ARROWS)


@pytest.mark.parametrize("path", MODULES, ids=name_module)
def test_imports_follow_the_arrows(path):
    room = find_room(path)
    assert imported_rooms(path) - {room, "__init__"} <= ARROWS[room]


@pytest.mark.parametrize("room", sorted(set(ARROWS) - {"__init__", "cli"}))
def test_rooms_say_what_they_are_for_and_what_may_not_happen_there(room):
    path = PACKAGE / room / "__init__.py"
    tree = ast.parse(path.read_text())
    assert len(tree.body) == 1
    lines = ast.get_docstring(tree).splitlines()
    assert len(lines) >= 3


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=name_module)
def test_stages_never_import_one_another(path):
    others = {module_path(name) for name in imported_names(path) if name.startswith("pneumo.stages.")}
    assert others - {None} == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=name_module)
def test_stages_are_short(path):
    assert len(path.read_text().splitlines()) <= MAX_STAGE_LINES


def test_the_pipeline_is_short():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= MAX_PIPELINE_LINES


def test_keras_is_imported_only_where_networks_are_built_or_run():
    assert {name_module(path) for path in MODULES if imports_package(path, "keras")} == USE_KERAS


@pytest.mark.parametrize("package", ["tensorflow", "torch", "jax"])
def test_no_backend_is_imported(package):
    assert not [name_module(path) for path in MODULES if imports_package(path, package)]


def test_every_stage_is_in_the_pipeline():
    names = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == names
    for name, stage in STAGES.items():
        assert stage["cmd"].split()[:2] == ["pneumo", name]


@pytest.mark.parametrize("name", STAGES)
def test_stages_depend_on_the_rooms_that_they_import_from(name):
    listed = {dep for dep in STAGES[name]["deps"] if dep.startswith("src/")}
    modules = project_modules(PACKAGE / "stages" / f"{name}.py")
    rooms = {find_room(path) for path in modules} - {"stages", "__init__"}
    assert listed == {f"src/pneumo/{room}" for room in rooms} | {f"src/pneumo/stages/{name}.py"}


def test_training_depends_on_nothing_it_does_not_need():
    train = STAGES["train"]
    rooms = {dep for dep in train["deps"] if dep.startswith("src/")}
    assert rooms == {"src/pneumo/base", "src/pneumo/training", "src/pneumo/stages/train.py"}
    assert train["params"] == ["split", "task", "models.${item.model}"]


def test_no_stage_runs_before_the_parameters_are_checked():
    outputs = {out for stage in STAGES.values() for out in stage["outs"] if isinstance(out, str)}
    for name, stage in STAGES.items():
        pairs = [(f"{out}/", f"{dep}/") for out in outputs for dep in stage["deps"]]
        follows = any(out.startswith(dep) or dep.startswith(out) for out, dep in pairs)
        assert name == "check" or follows
    for name in ("download", "weights"):  # which follow no other stage
        assert "data/.checked" in STAGES[name]["deps"]


@pytest.mark.parametrize("name", STAGES)
def test_stages_depend_on_files_that_exist(name):
    for dep in STAGES[name]["deps"]:
        if dep.startswith(("src/", "conf/")) and "$" not in dep:
            assert (ROOT / dep).exists()


def test_evaluate_and_compare_start_without_a_backend():
    script = """
import json, sys, time
import pneumo.stages.compare, pneumo.stages.evaluate
heavy = {"keras", "tensorflow", "torch", "jax", "matplotlib.pyplot"} & set(sys.modules)
print(json.dumps([sorted(heavy), time.process_time()]))
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy, cpu_s = json.loads(process.stdout)
    assert heavy == []
    assert cpu_s < CPU_LIMIT_S
