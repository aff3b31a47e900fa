"""The arrows of the design: what may import what."""

import json
import subprocess
import sys

import pytest
import yaml

from import_graph import PACKAGE, ROOT, imported_names, module_path, project_modules

MODULES = sorted(PACKAGE.rglob("*.py"))
LAYERS = ("base", "domain", "stages", "top")  # each may import those before it
USE_KERAS = {"batches", "bundle", "explanation", "features", "learning_rate", "networks", "training", "tune"}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CPU_LIMIT_S = 15  # it takes about 3


def name_module(path):
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def find_layer(path):
    folder = path.relative_to(PACKAGE).parts[0]
    return folder if folder in LAYERS else "top"


def imports_package(path, package):
    return any(name.split(".")[0] == package for name in imported_names(path))


def find_imported_modules(path):
    return {module_path(name) for name in imported_names(path) if name.startswith("pneumo.")} - {None}


@pytest.mark.parametrize("path", MODULES, ids=name_module)
def test_imports_go_one_way(path):
    layer = LAYERS.index(find_layer(path))
    later = {
        name_module(each) for each in find_imported_modules(path) if LAYERS.index(find_layer(each)) > layer
    }
    assert not later


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=name_module)
def test_stages_never_import_one_another(path):
    others = {each for each in find_imported_modules(path) if each.parent == PACKAGE / "stages"}
    assert others <= {PACKAGE / "stages" / "__init__.py"}


def test_keras_is_imported_only_where_networks_are_built_or_run():
    assert {path.stem for path in MODULES if imports_package(path, "keras")} == USE_KERAS


@pytest.mark.parametrize("package", ["tensorflow", "torch", "jax"])
def test_no_backend_is_imported(package):
    assert not [name_module(path) for path in MODULES if imports_package(path, package)]


def test_every_stage_is_in_the_pipeline():
    names = {path.stem for path in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == names
    for name, stage in STAGES.items():
        assert stage["cmd"].split()[:2] == ["pneumo", name]


@pytest.mark.parametrize("name", STAGES)
def test_stages_depend_on_the_modules_that_they_import(name):
    listed = [dep for dep in STAGES[name]["deps"] if dep.startswith("src/") and dep.endswith(".py")]
    modules = project_modules(PACKAGE / "stages" / f"{name}.py")
    assert listed == sorted(path.relative_to(ROOT).as_posix() for path in modules)


@pytest.mark.parametrize("name", STAGES)
def test_stages_depend_on_files_that_exist(name):
    for dep in STAGES[name]["deps"]:
        if dep.startswith(("src/", "conf/")) and "$" not in dep:
            assert (ROOT / dep).is_file()


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
