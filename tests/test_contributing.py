"""CONTRIBUTING.md: its examples run, what it names exists, and pre-commit runs what `make lint` runs."""

import importlib.util
import re

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from import_graph import PACKAGE, ROOT
from pneumo.base.config import build
from pneumo.base.errors import PneumoError
from pneumo.preprocessing import combo
from pneumo.training.recipe import Recipe

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def find_example(heading):
    """Return the code of the one example below a heading."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    (code,) = re.findall(r"^```(?:python|yaml)\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return code


@pytest.fixture
def load_example(tmp_path):
    """Import an example, below the code of the module that it is to be added to."""

    def load(heading, name=None):
        before = (PACKAGE / name).read_text(encoding="utf-8") if name else ""
        path = tmp_path / "example.py"
        path.write_text(before + find_example(heading), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("example", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_step(load_example, monkeypatch):
    steps = load_example("Add a preprocessing step", "preprocessing/steps.py")
    monkeypatch.setitem(combo.FUNCTIONS, "posterize", steps.FUNCTIONS["posterize"])
    (used,) = re.findall(r"`combos: (.*?)`\.", TEXT)
    *_, posterize = combo.parse_combo("coarse", yaml.safe_load(used)["coarse"], 64)
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = posterize(image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, image // 32 * 32)
    np.testing.assert_array_equal(steps.posterize(image, bits=8), image)
    with pytest.raises(PneumoError, match="1 to 8"):
        combo.parse_combo("coarse", [{"posterize": {"bits": 0}}], 64)


def test_recipe():
    recipe = build(Recipe, yaml.safe_load(find_example("Add a recipe")), "example")
    assert recipe.network.filters == [32, 64, 128]


def test_source(load_example, tmp_path):
    source = load_example("Add a data source")
    image, target = tmp_path / "one/NORMAL/IM-0001-0001.jpeg", tmp_path / "target"
    for folder in (image.parent, tmp_path / "two", target):
        folder.mkdir(parents=True)
    image.write_bytes(b"pixels")
    source.fetch(source.Settings(str(tmp_path / "one"), str(tmp_path / "two")), target)
    assert (target / "train/NORMAL/IM-0001-0001.jpeg").read_bytes() == b"pixels"
    assert sorted(path.name for path in target.iterdir()) == ["test", "train"]
    with pytest.raises(PneumoError, match=r"data\.train"):
        source.fetch(source.Settings(str(tmp_path / "three"), ""), target)


def test_audit_check(load_example):
    check = load_example("Add an audit check", "audit/data_checks.py").check_sharpness
    n = 120
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16), dtype=np.uint8)
    labels = np.where(np.arange(n) % 3 > 0, "pneumonia", "normal")
    manifest = pd.DataFrame({"label": labels, "patient": [f"p{i}" for i in range(n)]})
    assert check(manifest, images).verdict != "problem"
    blurred = [cv2.blur(image, (3, 3)) if i % 3 else image for i, image in enumerate(images)]
    finding = check(manifest, np.array(blurred))
    assert finding.verdict == "problem"
    assert finding.value > 0.99


def test_chart(load_example):
    charts = load_example("Add a chart", "report/charts.py")
    chart = str(charts.plot_scores({"normal": np.array([0.01, 0.02, 0.97])}, "Phantoms"))
    assert '<title id="scores-title">Phantoms</title>' in chart
    assert "probability of pneumonia" in chart


def test_files_and_names_exist():
    paths = set(re.findall(r"`([\w./]*\w\.(?:py|yaml|lock)|[\w.]+/[\w./]*)`", TEXT))
    assert len(paths) > 20
    assert not [path for path in paths if not any((root / path).exists() for root in (ROOT, PACKAGE))]
    named = re.findall(r"`(\w+)`\s+in\s+`([\w./]+)`", TEXT)
    assert len(named) >= 5
    for name, path in named:
        file = next(root / path for root in (ROOT, PACKAGE) if (root / path).exists())
        assert re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")), (name, path)


def test_pre_commit_runs_what_make_lint_runs():
    (commands,) = re.findall(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = repository["hooks"]
    assert [hook["entry"] for hook in hooks] == [line.strip() for line in commands.splitlines()]
    assert not any(hook["pass_filenames"] for hook in hooks)
