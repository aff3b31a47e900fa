import pytest

from tiny_project import TinyProject


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
