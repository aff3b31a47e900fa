"""What is asked of the backends before they start."""

import pytest

from pneumo.base import reproducibility
from pneumo.base.reproducibility import make_deterministic


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Let a test set variables of an empty environment, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    variables = {}
    monkeypatch.setattr(reproducibility.os, "environ", variables)
    return variables


@pytest.mark.parametrize(("threads", "flags"), [(1, "--xla_cpu_multi_thread_eigen=false"), (4, None)])
def test_threads_are_those_of_the_recipe(environment, monkeypatch, tmp_path, threads, flags):
    monkeypatch.setattr(reproducibility, "NVIDIA_DRIVER", tmp_path / "none")
    make_deterministic(threads)
    make_deterministic(threads)
    assert environment.get("XLA_FLAGS") == flags
    assert "JAX_COMPILATION_CACHE_DIR" not in environment
    assert {name: value for name, value in environment.items() if name.startswith("TF_")} == {
        "TF_DETERMINISTIC_OPS": "1",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
    }


def test_with_a_gpu_operations_are_deterministic_and_programs_are_kept(environment, monkeypatch, tmp_path):
    monkeypatch.setattr(reproducibility, "NVIDIA_DRIVER", tmp_path)
    make_deterministic(4)
    assert environment["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "data/.compiled")
    environment["JAX_COMPILATION_CACHE_DIR"] = "/elsewhere"
    make_deterministic(4)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"
