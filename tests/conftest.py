"""Fixtures: a finished tiny project of DVC's, and folders in which single stages and commands run."""

import contextlib
import shutil

import pytest

from pneumo.base.config import load_params
from pneumo.cli import main
from pneumo.stages import download, prepare, preprocess
from tiny_project import TinyProject
from workspace import edit_params, make_workspace

TINY_CNN = "cnn: {network: {input_size_px: 32, filters: [4], units: [4]}, phases: {fit: {epochs: 1}}}"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Work in a folder with conf/ and params.yaml."""
    make_workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory):
    """Return data/ as the stages up to preprocess leave it; for reading only."""
    root = tmp_path_factory.mktemp("phantom")
    make_workspace(root)
    with contextlib.chdir(root):
        params = load_params()
        download.run(params)
        prepare.run(params)
        for combo in params.combos:
            preprocess.run(params, combo)
    return root / "data"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, phantom_data):
    """Return a project with one small trained network on `raw`, and none on `clahe`; for reading only."""
    root = tmp_path_factory.mktemp("trained")
    make_workspace(root)
    shutil.copytree(phantom_data, root / "data")
    edit_params(
        root, "dense: {network: {input_size_px: 32, units: [8]}, phases: {fit: {epochs: 2}}}", TINY_CNN
    )
    with contextlib.chdir(root):
        assert main(["weights", "--model", "cnn"]) == 0
        assert main(["train", "--combo", "raw", "--model", "cnn", "--seed", "0"]) == 0
    return root


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory):
    """Return a tiny project after its first `dvc repro`, committed; for reading only."""
    project = TinyProject.create(tmp_path_factory.mktemp("finished") / "project")
    project.repro()
    project.commit()
    return project


@pytest.fixture
def project(finished_project, tmp_path):
    """Return a copy of the finished project to work on."""
    return finished_project.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def exported(tmp_path_factory, trained):
    """Return a copy of the trained project with its network as bundles; for reading only.

    `model.pneumo` holds it in Keras, `onnx.pneumo` in ONNX, `both.pneumo` in both.
    """
    root = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(trained, root)
    with contextlib.chdir(root):
        for name, *options in (("model",), ("both", "--onnx"), ("onnx", "--onnx", "--no-keras")):
            assert main(["export", f"{name}.pneumo", "--run", "raw/cnn/0", *options]) == 0
    return root
